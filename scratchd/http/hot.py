r"""The hot request: what nearly every client sends, recognised in one match of one pattern.

Pure. A second way to read what `head.parse` reads, and no second opinion: the pattern takes only what the parser takes,
with the same outcome, and says nothing about the rest, which then goes to the parser. Hot is GET over HTTP/1.1 or 1.0
for a path, with one Host, without a body, and with nothing to say on the connection but `keep-alive`.

Every repetition is possessive and every alternative is told by its first bytes, so a match costs what it reads and no
head makes it go back.
"""

from __future__ import annotations

import functools
import re

import msgspec

from scratchd.http.host import normalised
from scratchd.track import Request

KNOWN_HOSTS = 4096
"""Values of Host fields of which the normalised form is remembered; beyond it the least used is found anew."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+\r\n"


def _pattern(*told: bytes) -> re.Pattern[bytes]:
    """The pattern where the fields in `told` mean something, beside those that always do."""
    known = b"|".join((b"host", b"content-length", b"transfer-encoding", *told))
    # Few fields begin with one of these letters, so mostly one look is enough.
    letters = bytes({*known[:1], *(name[0] for name in known.split(b"|")), ord("c")})
    letters += letters.upper()
    careful = rb"(?!(?i:" + known + rb"):)(?!(?i:connection):(?![ \t]*+(?i:keep-alive)[ \t]*+\r))" + _TOKEN + rb":" + _VALUE
    other = rb"(?:(?![" + letters + rb"])" + _TOKEN + rb":" + _VALUE + rb"|" + careful + rb")*+"
    return re.compile(
        rb"GET (/[\x21-\x3e\x40-\x7e]*+)(?:\?([\x21-\x7e]*+))? HTTP/1\.([01])\r\n"
        + other
        + rb"(?i:host):[ \t]*+([0-9A-Za-z_.\-:\[\]]++)[ \t]*+\r\n"
        + other
        + rb"\r\n"
    )


class Hot(msgspec.Struct, frozen=True):
    """A hot request.

    Attributes:
        request: the request; its client is unknown.
        persistent: whether the connection stays open.
        end: offset of the first byte behind the head.
    """

    request: Request
    persistent: bool
    end: int


class Recogniser:
    """Recognises hot requests.

    Args:
        max_head_bytes: limit of a head; a longer one is not hot.
        wants_client: whether the client must be known: what says who it is then goes to the parser.
    """

    def __init__(self, max_head_bytes: int, *, wants_client: bool) -> None:
        pattern = _pattern(b"x-forwarded-for") if wants_client else _pattern()
        self._match = pattern.match
        self._max_head_bytes = max_head_bytes
        self._host = functools.lru_cache(KNOWN_HOSTS)(normalised)

    def recognise(self, data: bytes, start: int = 0, client: str = "") -> Hot | None:
        """The hot request whose head begins at `start`, None where none does."""
        match = self._match(data, start)
        if match is None:
            return None
        end = match.end()
        path, query, minor, value = match.groups()
        host = self._host(value)
        if host is None or end - start > self._max_head_bytes:
            return None
        return Hot(Request(b"GET", path, query, host, client), minor == b"1", end)
