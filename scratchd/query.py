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

Two ways lead there. The exact one takes a parameter at a time; the short one hands the whole query to C, which costs
about a third. Quoted-printable is the same escaping with another sign, so `binascii.a2b_qp` unescapes a query in which
`=` stands for `%`. The separators, which `%26` and `%3D` are not, step aside as control characters: U+001E for `&`,
U+001F for `=`. As neither is ever part of a longer sequence, decoding the whole gives the text that decoding each name
and value would. That holds for a query which

- has only valid escapes: to quoted-printable `==` is one `=`, and a line end behind `=` is to be dropped; but where
  there is no raw line end, only a valid escape makes the query two bytes shorter, so the length tells;
- has neither control character of its own: escaped they make more of them than there are separators, raw ones become
  0xFF, as a line end does, which UTF-8 never has, so decoding fails;
- is well-formed UTF-8, else decoding fails too.

Where moreover the separators alternate, `=&=&=`, names and values do too, so one character stands for both separators,
and the text is split at it in one go.

Other queries, those of broken agents and attackers, go the exact way. The cost is linear in the length either way;
bench/query.py shows it beside that of `parse_qsl` and `json.dumps`.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from scratchd.refusal import Reason, Refusal, shown

Repeated = Literal["last", "first", "list"]

_AMPERSAND = "\x1e"
_EQUALS_SIGN = "\x1f"
_SEPARATORS_APART = bytes.maketrans(b"&=+%\x1e\x1f\r\n", b"\x1e\x1f =\xff\xff\xff\xff")
_SEPARATORS_ALIKE = bytes.maketrans(b"&=+%\x1e\x1f\r\n", b"\x1f\x1f =\xff\xff\xff\xff")
_NO_SEPARATORS = bytes(byte for byte in range(256) if byte not in b"&=")
_ALTERNATING = b"=&" * 4096
"""The separators of any query whose parameters have one `=` each, up to a length that few have."""

_STRAY_PERCENT_SIGN = re.compile(rb"%(?![0-9A-Fa-f]{2})")


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
        # Counting separators costs a third of counting what is between them, and mostly tells enough.
        if query.count(b"&") >= self.max_parameters:
            parameters = count_parameters(query)
            if parameters > self.max_parameters:
                sentence = f"the query has {parameters} parameters, at most {self.max_parameters} are allowed"
                return Refusal(Reason.TOO_MANY_PARAMETERS, sentence)
        if not query.strip(b"&"):
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
    separators = query.translate(None, _NO_SEPARATORS)
    try:
        # An even number of separators leaves a name without a value at the end.
        if len(separators) % 2 and _ALTERNATING.startswith(separators):
            texts = _unescaped(query, _SEPARATORS_ALIKE).split(_EQUALS_SIGN)
            if len(texts) == len(separators) + 1:
                each = iter(texts)
                values = dict(zip(each, each))  # noqa: B905 - they are as many; to be strict costs a fifth
                # A dict keeps a name's first place and its last value, which is the rule.
                if repeated == "last" or len(values) * 2 == len(texts):
                    return msgspec.json.encode(values)
        text = _unescaped(query, _SEPARATORS_APART)
    except ValueError:
        return _encoded(_parameters(query), repeated)
    if text.count(_AMPERSAND) + text.count(_EQUALS_SIGN) == len(separators):
        return _encoded(_parameters_of_text(text), repeated)
    return _encoded(_parameters(query), repeated)


def _unescaped(query: bytes, table: bytes) -> str:
    """The whole query, the short way.

    Args:
        query: as it came.
        table: what stands for what in quoted-printable.

    Raises:
        ValueError: it would not be exact; `UnicodeDecodeError` is one.
    """
    unescaped = query.translate(table)
    if escapes := query.count(b"%"):
        unescaped = binascii.a2b_qp(unescaped)
        if len(unescaped) != len(query) - 2 * escapes:
            raise ValueError("a stray %")
    return unescaped.decode()


def _parameters_of_text(text: str) -> Iterator[tuple[str, str]]:
    for piece in text.split(_AMPERSAND):
        if piece:
            name, _, value = piece.partition(_EQUALS_SIGN)
            yield name, value.replace(_EQUALS_SIGN, "=")


def _parameters(query: bytes) -> Iterator[tuple[str, str]]:
    """The names and values of any query, the exact way."""
    for piece in _STRAY_PERCENT_SIGN.sub(b"%25", query).replace(b"+", b" ").split(b"&"):
        if piece:
            name, _, value = piece.partition(b"=")
            yield _decoded(name), _decoded(value)


def _decoded(escaped: bytes) -> str:
    """A name or value of which every `%` begins a valid escape."""
    # Most have none, and looking costs a tenth of trying.
    if b"%" in escaped:
        escaped = binascii.a2b_qp(escaped.replace(b"=", b"%3D").replace(b"%", b"="))
    return escaped.decode("utf-8", "replace")


def _encoded(parameters: Iterable[tuple[str, str]], repeated: Repeated) -> bytes:
    if repeated == "last":
        return msgspec.json.encode(dict(parameters))
    if repeated == "first":
        firsts: dict[str, str] = {}
        for name, value in parameters:
            firsts.setdefault(name, value)
        return msgspec.json.encode(firsts)
    lists: dict[str, list[str]] = {}
    for name, value in parameters:
        lists.setdefault(name, []).append(value)
    return msgspec.json.encode({name: values if len(values) > 1 else values[0] for name, values in lists.items()})
