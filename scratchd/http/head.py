r"""Heads: request line and header fields of HTTP/1.0 and HTTP/1.1, parsed strictly.

Pure: bytes in, a `Head`, a refusal or "more" out; it fails in no other way, whatever the bytes. Knows no socket, no
clock and no flavor, and what it finds does not depend on how the bytes were cut on their way.

Strict, because this is where a proxy's idea of a request and ours must not differ (RFC 9112, sections 2.2, 5 and 11.2):
lines end with CRLF and nothing else, no folding, no space before a colon, no control characters in values, targets of
the bytes 0x21-0x7E, a body's length said once. It refuses whatever h11 refuses. One empty line before a request is
skipped, as section 2.2 asks.

What stands first is judged first: a malformed line within the limit is `bad_request` although the head as a whole turns
out too large, and only a head that is well-formed as a whole is looked at for its host. So `parse` may be called after
each byte or once at the end and says the same. A call costs what has come so far; `worth_parsing` saves most calls.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from scratchd.http.host import normalised
from scratchd.refusal import Reason, Refusal, shown

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What opens HTTP/2 with prior knowledge (RFC 9113, section 3.4)."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
# Possessive, so that no head makes it go back.
_FIELD_LINES = re.compile(rb"(?:" + _TOKEN + rb"+:[\t\x20-\x7e\x80-\xff]*+\r\n)*+")
_FIELD_NAME = re.compile(_TOKEN)

# The few fields that mean something here, each found behind the end of the line before it.
_KNOWN_FIELD = re.compile(
    rb"\r\n(host|content-length|transfer-encoding|connection|x-forwarded-for):[ \t]*([^\r]*)", re.IGNORECASE
)

# What a line that has not ended yet may look like; a CR may be the half of its end.
_BEGUN_REQUEST_LINE = re.compile(rb"[\x20-\x7e]*\r?")
_BEGUN_FIELD_LINE = re.compile(rb"(?![ \t])[\t\x20-\x7e\x80-\xff]*\r?")

_ABSOLUTE_FORM = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE)
_AUTHORITY_FORM = re.compile(rb"[^/?#@]+:[0-9]+")

# 20 digits are h11's bound too; nobody sends more.
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,20}")

_TELLING = re.compile(rb"[^\x20-\x7e]")
_UPGRADE = re.compile(rb"\r\nupgrade:[^\r]*", re.IGNORECASE)


class Opening(enum.Enum):
    """A connection's first bytes that are no HTTP/1 head, and rightly so."""

    HTTP2 = "http2"


@dataclass(frozen=True, slots=True)
class Head:
    """A well-formed head.

    Attributes:
        method: as it came.
        path: raw, the target before its first `?`; for other forms of target than a path, what comes closest.
        query: raw, behind the first `?`; None where there is none.
        host: normalised; None only for HTTP/1.0 without Host.
        persistent: whether the client lets the connection stay open.
        content_length: of the body, 0 for none.
        chunked: whether the body says its length in chunks; `content_length` is 0 then.
        forwarded_for: values of all X-Forwarded-For fields, joined by commas in their order.
        end: offset of the first byte behind the head.
    """

    method: bytes
    path: bytes
    query: bytes | None
    host: str | None
    persistent: bool
    content_length: int
    chunked: bool
    forwarded_for: bytes
    end: int

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body are to follow."""
        return self.chunked or self.content_length > 0


def parse(data: bytes, start: int, max_head_bytes: int, *, http2: bool) -> Head | Opening | Refusal | None:
    """Parses the head that begins at `start`.

    Args:
        data: what has come so far.
        start: offset of the head's first byte.
        max_head_bytes: limit, inclusive, of request line, fields and the line end behind them; a skipped line apart.
        http2: whether HTTP/2's preface is welcome here.

    Returns:
        None where more bytes are needed. A refusal is `bad_request`, `head_too_large` or `bad_host`.
    """
    if http2:
        begun = data[start : start + len(HTTP2_PREFACE)]
        if begun == HTTP2_PREFACE:
            return Opening.HTTP2
        if HTTP2_PREFACE.startswith(begun):
            return None
    if data.startswith(b"\r\n", start):
        start += 2
    limit = start + max_head_bytes
    end = data.find(b"\r\n\r\n", start, limit)
    if end >= 0:
        return _parse_whole(data, start, end + 2)
    return _judge_begun(data, start, limit)


def worth_parsing(data: bytes, start: int, fresh: int, max_head_bytes: int) -> bool:
    """Whether bytes that came for a head that was incomplete can change what `parse` says.

    Args:
        data: as for `parse`.
        start: as for `parse`.
        fresh: offset of the first byte that `parse` has not seen yet.
        max_head_bytes: as for `parse`.
    """
    count = len(data) - start
    # Only what ends a line or has no place in one can, and what follows a CR.
    return (
        count <= len(HTTP2_PREFACE)
        or count > max_head_bytes
        or _TELLING.search(data, max(start, fresh - 1)) is not None
    )


def without_upgrade(head: bytes) -> bytes:
    """A well-formed head without its Upgrade fields: whoever gets it next shall not be tempted."""
    return _UPGRADE.sub(b"", head)


def _parse_whole(data: bytes, start: int, end: int) -> Head | Refusal:
    """Parses the head whose last line ends before `end`."""
    line = _REQUEST_LINE.match(data, start, end)
    if line is None:
        return _bad_request_line(data, start, end)
    if (stop := _match_end(data, line.end(), end)) < end:
        return _bad_field_line(data, stop, end)
    fields: dict[bytes, list[bytes]] = {}
    for field in _KNOWN_FIELD.finditer(data, line.end() - 2, end):
        fields.setdefault(field[1].lower(), []).append(field[2].rstrip(b" \t"))
    method, target, minor = line.groups()
    place = _place(method, target)
    if isinstance(place, Refusal):
        return place
    body = _body(fields, minor)
    if isinstance(body, Refusal):
        return body
    path, query, authority = place
    host = _host(fields.get(b"host", []), minor, authority)
    if isinstance(host, Refusal):
        return host
    options = b",".join(fields.get(b"connection", [])).lower().split(b",")
    return Head(
        method=method,
        path=path,
        query=query,
        host=host,
        persistent=minor == b"1" and b"close" not in (option.strip(b" \t") for option in options),
        content_length=body[0],
        chunked=body[1],
        forwarded_for=b",".join(fields.get(b"x-forwarded-for", [])),
        end=end + 2,
    )


def _judge_begun(data: bytes, start: int, limit: int) -> Refusal | None:
    """Judges a head whose end is not within the limit: by its whole lines, and what the last one begins with."""
    lines_end = data.rfind(b"\r\n", start, limit) + 2
    if lines_end < start + 2:
        if _BEGUN_REQUEST_LINE.fullmatch(data, start, limit) is None:
            return _bad_request_line(data, start, limit)
    else:
        line = _REQUEST_LINE.match(data, start, lines_end)
        if line is None:
            return _bad_request_line(data, start, limit)
        if (stop := _match_end(data, line.end(), lines_end)) < lines_end:
            return _bad_field_line(data, stop, limit)
        if _BEGUN_FIELD_LINE.fullmatch(data, lines_end, limit) is None:
            return _bad_field_line(data, lines_end, limit)
    if len(data) > limit:
        sentence = f"the head is longer than the {limit - start} bytes that are allowed"
        return Refusal(Reason.HEAD_TOO_LARGE, sentence)
    return None


def _match_end(data: bytes, start: int, end: int) -> int:
    match = _FIELD_LINES.match(data, start, end)
    return start if match is None else match.end()


def _place(method: bytes, target: bytes) -> tuple[bytes, bytes | None, bytes | None] | Refusal:
    """Path, query and authority of a target in one of the four forms of RFC 9112, section 3.2."""
    if method == b"CONNECT":
        if _AUTHORITY_FORM.fullmatch(target):
            return target, None, target
        return _bad_request(f'CONNECT wants a host and a port, got "{shown(target)}"')
    authority = None
    if not target.startswith(b"/"):
        if method == b"OPTIONS" and target == b"*":
            return target, None, None
        absolute = _ABSOLUTE_FORM.fullmatch(target)
        if absolute is None:
            return _bad_request(f'the target "{shown(target)}" is neither a path nor an http or https URL')
        authority, target = absolute.groups()
    path, mark, query = target.partition(b"?")
    return path or b"/", query if mark else None, authority


def _body(fields: dict[bytes, list[bytes]], minor: bytes) -> tuple[int, bool] | Refusal:
    """Length of the body, and whether it is chunked (RFC 9112, section 6)."""
    lengths = fields.get(b"content-length", [])
    codings = fields.get(b"transfer-encoding", [])
    complaint = None
    if codings and lengths:
        complaint = "Content-Length and Transfer-Encoding exclude each other"
    elif codings and minor == b"0":
        complaint = "HTTP/1.0 has no Transfer-Encoding"
    elif codings and [coding.lower() for coding in codings] != [b"chunked"]:
        complaint = f'Transfer-Encoding is "{shown(b", ".join(codings))}", only "chunked" is known'
    elif len(lengths) > 1:
        complaint = "Content-Length is there more than once"
    elif lengths and _CONTENT_LENGTH.fullmatch(lengths[0]) is None:
        complaint = f'Content-Length is "{shown(lengths[0])}", expected up to 20 digits'
    if complaint:
        return _bad_request(complaint)
    return int(lengths[0]) if lengths else 0, bool(codings)


def _host(values: list[bytes], minor: bytes, authority: bytes | None) -> str | Refusal | None:
    """The host that the request is for; an authority in the target goes before the field (section 3.2.2)."""
    if len(values) > 1:
        return _bad_host("Host is there more than once")
    if not values and minor == b"1":
        return _bad_host("HTTP/1.1 wants a Host field, there is none")
    host = None
    for value in [*values, *([] if authority is None else [authority])]:
        host = normalised(value)
        if host is None:
            return _bad_host(f'"{shown(value)}" is not a host')
    return host


def _bad_request(sentence: str) -> Refusal:
    return Refusal(Reason.BAD_REQUEST, sentence)


def _bad_host(sentence: str) -> Refusal:
    return Refusal(Reason.BAD_HOST, sentence)


def _bad_request_line(data: bytes, start: int, end: int) -> Refusal:
    line, lf, _ = data[start:end].partition(b"\n")
    if lf and not line.endswith(b"\r"):
        return _bad_request(f'the request line "{shown(line)}" ends with LF alone, expected CRLF')
    line = line.removesuffix(b"\r")
    return _bad_request(f'the request line is "{shown(line)}", expected a method, a target and HTTP/1.0 or HTTP/1.1')


def _bad_field_line(data: bytes, start: int, end: int) -> Refusal:
    line, lf, _ = data[start:end].partition(b"\n")
    if line.startswith((b" ", b"\t")):
        return _bad_request("a header field goes on in a second line, which is obsolete")
    if lf and not line.endswith(b"\r"):
        return _bad_request(f'the header line "{shown(line)}" ends with LF alone, expected CRLF')
    line = line.removesuffix(b"\r")
    name, colon, _ = line.partition(b":")
    if colon and _FIELD_NAME.fullmatch(name):
        return _bad_request(f'a control character in the header line "{shown(line)}"')
    if colon and _FIELD_NAME.fullmatch(name.rstrip(b" \t")):
        return _bad_request(f'white space between name and colon in the header line "{shown(line)}"')
    return _bad_request(f'the header line "{shown(line)}" is not a name, a colon and a value')
