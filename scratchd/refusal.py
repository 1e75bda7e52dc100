"""Refusals: why a request is answered with something other than the image.

Owns the reasons' words, their status codes and which of them close the connection; knows no HTTP framing. The head
parser and `scratchd.track` both answer in these terms, so a reason reads the same in an answer, in `/stats` and in
the log.
"""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass

SHOWN_BYTES = 100
"""At most this much of an answer, or of a line of the log, is what a client sent, escapes included."""

_CUT = "..."


class Reason(enum.Enum):
    """A reason's word, its status code, and whether the connection is closed behind the answer."""

    BAD_REQUEST = ("bad_request", 400, True)
    HEAD_TOO_LARGE = ("head_too_large", 431, True)
    HEAD_TIMEOUT = ("head_timeout", 408, True)
    BAD_HOST = ("bad_host", 400, True)
    NOT_FOUND = ("not_found", 404, False)
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, False)
    UNKNOWN_HOST = ("unknown_host", 421, False)
    QUERY_TOO_LONG = ("query_too_long", 414, False)
    TOO_MANY_PARAMETERS = ("too_many_parameters", 400, False)
    EMPTY_QUERY = ("empty_query", 400, False)
    RATE_LIMITED = ("rate_limited", 429, False)
    JOURNAL_FULL = ("journal_full", 503, False)

    def __init__(self, word: str, status: int, closes: bool) -> None:
        self.word = word
        self.status = status
        self.closes = closes


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is not persisted, and what its client is told.

    Attributes:
        reason: which rule the request broke.
        sentence: one line of printable ASCII with limit and size, no line end.
        retry_after_s: whole seconds for `Retry-After`, None for no such field.
        flavor: the one whose host was asked for, None where it is no flavor's or not known.
    """

    reason: Reason
    sentence: str
    retry_after_s: int | None = None
    flavor: str | None = None

    @property
    def body(self) -> bytes:
        """The answer's body: the reason's word, a colon, the sentence, a newline."""
        return f"{self.reason.word}: {self.sentence}\n".encode("ascii")


def shown(data: bytes) -> str:
    r"""What a client sent as printable ASCII: `"`, `\` and all outside 0x20-0x7E escaped, 100 bytes at most."""
    pieces = [_escaped(byte) for byte in data[: SHOWN_BYTES + 1]]
    if sum(map(len, pieces)) <= SHOWN_BYTES:
        return "".join(pieces)
    ends = itertools.accumulate(map(len, pieces))
    return "".join(piece for piece, end in zip(pieces, ends, strict=True) if end <= SHOWN_BYTES - len(_CUT)) + _CUT


def _escaped(byte: int) -> str:
    return chr(byte) if 0x20 <= byte <= 0x7E and byte not in b'"\\' else f"\\x{byte:02x}"
