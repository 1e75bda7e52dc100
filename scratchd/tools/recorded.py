r"""Recorded requests: a line of an access log becomes a request that can be sent again. Pure.

Three formats are told apart line by line, so that one replay may read any mixture:

- HAProxy's `option httplog`, behind any syslog prefix. The host is that of an absolute target (HTTP/2 and absolute-form
  are logged as `https://host/path`) or else the captured request header that `haproxy_host` counts to. HAProxy writes
  bytes that it does not print, quotes and `#` as `#XX`.
- nginx's (and Apache's) `combined`, which has no host, or with one: before the address (`$host $remote_addr - …`, as
  Apache's `vhost_combined`) or as a last quoted field (`… "$http_user_agent" "$host"`). nginx writes bytes as `\xXX`.
- Plain: `GET /track?a=1 www.example.gr`, with or without `HTTP/1.1` before the host. It has no time.

What would not be one request on the wire is malformed, so that no log can smuggle a second one: a target is of the
bytes that have a place in one (0x21-0x7E, and bytes from 0x80, which old clients send raw), a host is a name or an
address, perhaps with a port. A request line that HAProxy or nginx logged as broken (`<BADREQ>`, `\x16\x03\x01`) is
malformed too.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was recorded.

    Attributes:
        method: as it came.
        target: origin-form, raw bytes.
        host: None where the log has none.
        client: the address that the log has, empty where none.
        time_s: when, in seconds of any clock that ran beside the others of the same log; None where the log has none.
    """

    method: bytes
    target: bytes
    host: bytes | None
    client: bytes
    time_s: float | None


class MalformedError(ValueError):
    """A line that is no request: why."""


_HAPROXY = re.compile(
    rb"(?:^|[\s])(?P<client>[^\s]+):[0-9]+ \[(?P<time>[0-9]{2}/[A-Z][a-z]{2}/[0-9]{4}:[0-9:]{8}\.[0-9]{3})\] "
    rb'.*? [-+0-9]+/[-+0-9/]+ (?P<captures>(?:\{[^"]*\} ){0,2})"(?P<request>[^"]*)(?P<quote>"?)'
)
_NGINX = re.compile(
    rb"(?:(?P<before>[^\s\"]+) )?(?P<client>[^\s\"]+) [^\s]+ [^\"\[]+ ?\[(?P<time>[^\]]+)\] "
    rb'"(?P<request>(?:[^"\\]|\\.)*)" [0-9-]+ [0-9-]+(?P<rest>.*)'
)
_QUOTED = re.compile(rb'"([^"]*)"')
_PLAIN = re.compile(rb"(?P<request>[A-Za-z]+ [^\s]+(?: HTTP/[0-9.]+)?)\s+(?P<host>[^\s]+)\s*")

_REQUEST = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e\x80-\xff]+)(?: HTTP/[0-9](?:\.[0-9])?)?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)
_HOST = re.compile(rb"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_HEX_OF_HAPROXY = re.compile(rb"#([0-9A-Fa-f]{2})")
_HEX_OF_NGINX = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|([\"\\]))")
_SHOWN_BYTES = 200


def parse(line: bytes, haproxy_host: int = 1) -> Request:
    """Reads a line, without its end.

    Args:
        line: of any of the formats.
        haproxy_host: which of HAProxy's captured request headers is Host, from 1; 0: none.

    Raises:
        MalformedError: it is no request.
    """
    line = line.rstrip(b"\r")
    if match := _HAPROXY.search(line):
        return _haproxy(match, haproxy_host)
    if match := _NGINX.fullmatch(line):
        return _nginx(match)
    if match := _PLAIN.fullmatch(line):
        return _request(match["request"], match["host"], b"", None)
    raise MalformedError("neither HAProxy's HTTP format nor nginx's combined nor METHOD TARGET HOST")


def shown(line: bytes) -> str:
    """A line for an operator's terminal: printable ASCII, cut short."""
    text = line[:_SHOWN_BYTES].decode("latin-1").encode("unicode_escape").decode("ascii")
    return text + ("…" if len(line) > _SHOWN_BYTES else "")


def _haproxy(match: re.Match[bytes], haproxy_host: int) -> Request:
    if not match["quote"]:
        raise MalformedError("HAProxy has cut the request off (see its option `len` of `log`)")
    # With two blocks the first one is of the request; each is {first|second|…}.
    captured = match["captures"].partition(b"} ")[0].lstrip(b"{").split(b"|")
    host = captured[haproxy_host - 1] if 0 < haproxy_host <= len(captured) else b""
    line, host = (_HEX_OF_HAPROXY.sub(_byte, text) for text in (match["request"], host))
    # It has no zone; only what lies between two of them matters.
    time_s = _time_s(match["time"] + b" +0000", "%d/%b/%Y:%H:%M:%S.%f %z")
    return _request(line, host or None, match["client"], time_s)


def _nginx(match: re.Match[bytes]) -> Request:
    # Quoted fields behind the size: referrer, user agent, and in the format that carries it the host.
    quoted = _QUOTED.findall(match["rest"].replace(b'\\"', b"\\x22"))
    host = match["before"] or (quoted[2] if len(quoted) > 2 else None)
    request = _HEX_OF_NGINX.sub(_byte, match["request"])
    time_s = _time_s(match["time"], "%d/%b/%Y:%H:%M:%S %z")
    return _request(request, None if host == b"-" else host, match["client"], time_s)


def _time_s(text: bytes, form: str) -> float:
    try:
        return datetime.datetime.strptime(text.decode("latin-1"), form).timestamp()  # noqa: DTZ007 - both forms have it
    except ValueError as error:
        raise MalformedError(f"the time is not like 10/Oct/2026:13:55:36 +0000: {shown(text)}") from error


def _byte(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16)]) if match[1] else match[2]


def _request(line: bytes, host: bytes | None, client: bytes, time_s: float | None) -> Request:
    parts = _REQUEST.fullmatch(line)
    if parts is None:
        raise MalformedError(f'"{shown(line)}" is not a request line')
    method, target = parts.groups()
    if absolute := _ABSOLUTE.fullmatch(target):
        host, target = absolute.groups()
        target = target if target.startswith(b"/") else b"/" + target
    if not target.startswith(b"/"):
        raise MalformedError(f'the target "{shown(target)}" is neither a path nor an http or https URL')
    if host is not None and _HOST.fullmatch(host) is None:
        raise MalformedError(f'"{shown(host)}" is not a host')
    return Request(method, target, host, client, time_s)
