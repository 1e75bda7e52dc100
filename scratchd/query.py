r"""Queries: from a request's query to the JSON object that is persisted, and the limits that a query has to keep.

Knows nothing of HTTP, hosts or clients: bytes in, bytes or a refusal out.

A query is read as the WHATWG URL standard reads `application/x-www-form-urlencoded`: split at `&`, empty pieces
dropped, each split at its first `=`, then `+` becomes a space and `%` followed by two hexadecimal digits a byte (any
other `%` stays as it is), and only then is the result decoded as UTF-8. The order matters: `%26` is no separator, `%2B`
no space, and one character may come partly raw and partly escaped (`\xce%BA`). A malformed sequence becomes U+FFFD, as
many of them as the WHATWG encoding standard asks for, which is what Python's decoder does too; a byte order mark stays.

Nothing here fails: every sequence of bytes is some list of names and values, and since decoding never yields a lone
surrogate, every such list is a JSON object in valid UTF-8. The serialisation is that of msgspec: no white space,
characters as themselves, escapes for `"`, `\` and U+0000-U+001F alone (so a newline never appears as itself).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_to_bytes

import msgspec

from scratchd.refusal import Reason, Refusal, shown

Repeated = Literal["last", "first", "list"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a query may be, at most; a value equal to a limit passes.

    Attributes:
        max_bytes: length of the raw query (`http.max_query_bytes`).
        max_parameters: its parameters before names are merged (`http.max_parameters`).
    """

    max_bytes: int
    max_parameters: int

    def refusal(self, query: bytes) -> Refusal | None:
        """Why `query` is refused, None where it is not; tested in INTERFACE.md's order, without converting anything."""
        if len(query) > self.max_bytes:
            sentence = f"the query has {len(query)} bytes, at most {self.max_bytes} are allowed"
            return Refusal(Reason.QUERY_TOO_LONG, sentence)
        parameters = count_parameters(query)
        if parameters > self.max_parameters:
            sentence = f"the query has {parameters} parameters, at most {self.max_parameters} are allowed"
            return Refusal(Reason.TOO_MANY_PARAMETERS, sentence)
        if parameters == 0:
            sentence = f'the query "{shown(query)}" has 0 parameters, at least 1 is required'
            return Refusal(Reason.EMPTY_QUERY, sentence)
        return None


def count_parameters(query: bytes) -> int:
    """The number of non-empty pieces between `&`, repeated names counted each time."""
    pieces = query.split(b"&")
    return len(pieces) - pieces.count(b"")


def to_json(query: bytes, repeated: Repeated) -> bytes:
    """Converts a query.

    Args:
        query: the raw bytes after the first `?`; any bytes at all.
        repeated: which value a parameter gets that comes more than once: the `last`, the `first`, or the `list` of all,
            which only makes arrays of those parameters that do repeat.

    Returns:
        One JSON object in UTF-8 without a newline. Its names stand in the order in which each first came.
    """
    if repeated == "last":
        # A dict keeps a name's first place and its last value, which is the rule.
        return msgspec.json.encode(dict(_parameters(query)))
    if repeated == "first":
        firsts: dict[str, str] = {}
        for name, value in _parameters(query):
            firsts.setdefault(name, value)
        return msgspec.json.encode(firsts)
    lists: dict[str, list[str]] = {}
    for name, value in _parameters(query):
        lists.setdefault(name, []).append(value)
    return msgspec.json.encode({name: values if len(values) > 1 else values[0] for name, values in lists.items()})


def _parameters(query: bytes) -> Iterator[tuple[str, str]]:
    for piece in query.replace(b"+", b" ").split(b"&"):
        if piece:
            name, _, value = piece.partition(b"=")
            # Most have nothing to unescape, and looking costs a tenth of trying; written twice, as calls cost more.
            if b"%" in name:
                name = unquote_to_bytes(name)
            if b"%" in value:
                value = unquote_to_bytes(value)
            yield name.decode("utf-8", "replace"), value.decode("utf-8", "replace")
