"""Which request a line of a log is."""

from __future__ import annotations

import pytest

from scratchd.tools.recorded import MalformedError, Request, parse, shown

HAPROXY = (
    b"Feb  6 12:14:14 edge haproxy[14389]: 10.0.1.2:33317 [06/Feb/2026:12:14:14.655] http-in~ track/one 10/0/30/69/109"
    b' 200 2750 - - ---- 1/1/1/1/0 0/0 %s"%s"'
)
NGINX = b'%s10.0.1.2 - - [06/Feb/2026:12:14:14 +0000] "%s" 200 43 "-" "Mozilla/5.0 (\\"odd\\")"%s'
TIME = 1770380054.0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(b"GET /track?a=1 gr.test", Request(b"GET", b"/track?a=1", b"gr.test", b"", None), id="plain"),
        pytest.param(
            b"HEAD /track?a=1 HTTP/1.1 gr.test:80 \r",
            Request(b"HEAD", b"/track?a=1", b"gr.test:80", b"", None),
            id="plain-with-version",
        ),
        pytest.param(
            HAPROXY % (b"{gr.test|Mozilla} {} ", b"GET /track?a=1 HTTP/1.1"),
            Request(b"GET", b"/track?a=1", b"gr.test", b"10.0.1.2", TIME + 0.655),
            id="haproxy",
        ),
        pytest.param(
            HAPROXY % (b"", b"GET https://de.test/track?a=1 HTTP/2.0"),
            Request(b"GET", b"/track?a=1", b"de.test", b"10.0.1.2", TIME + 0.655),
            id="haproxy-http2",
        ),
        pytest.param(
            HAPROXY % (b"{gr.test} ", b"GET /track?a=#22#23#C3 HTTP/1.1"),
            Request(b"GET", b'/track?a="#\xc3', b"gr.test", b"10.0.1.2", TIME + 0.655),
            id="haproxy-escapes",
        ),
        pytest.param(
            (HAPROXY % (b"", b"GET /t HTTP/1.0")).replace(b"10.0.1.2", b"2001:db8::1"),
            Request(b"GET", b"/t", None, b"2001:db8::1", TIME + 0.655),
            id="haproxy-without-host",
        ),
        pytest.param(
            NGINX % (b"", b"GET /track?a=1 HTTP/1.1", b""),
            Request(b"GET", b"/track?a=1", None, b"10.0.1.2", TIME),
            id="nginx-combined",
        ),
        pytest.param(
            NGINX % (b"gr.test:443 ", b"GET /track?a=\\x22\\xC3 HTTP/1.1", b""),
            Request(b"GET", b'/track?a="\xc3', b"gr.test:443", b"10.0.1.2", TIME),
            id="host-first",
        ),
        pytest.param(
            NGINX % (b"gr.test ", b'GET /track?a=\\"b HTTP/1.1', b""),
            Request(b"GET", b'/track?a="b', b"gr.test", b"10.0.1.2", TIME),
            id="apache-escapes",
        ),
        pytest.param(
            (HAPROXY % (b"{gr.test} {} ", b"GET /track?a=1 HTTP/1.1")) + b" tenant=gr side=old took_ms=3",
            Request(b"GET", b"/track?a=1", b"gr.test", b"10.0.1.2", TIME + 0.655),
            id="haproxy-as-on-our-edge",
        ),
        pytest.param(
            NGINX % (b"", b"GET /track?a=1 HTTP/2.0", b' "gr.test"'),
            Request(b"GET", b"/track?a=1", b"gr.test", b"10.0.1.2", TIME),
            id="host-last",
        ),
    ],
)
def test_a_line_is_a_request(line: bytes, expected: Request) -> None:
    assert parse(line) == expected


def test_haproxy_host_counts_captured_headers() -> None:
    line = HAPROXY % (b"{Mozilla|gr.test} ", b"GET /t HTTP/1.1")
    assert parse(line, haproxy_host=2).host == b"gr.test"
    assert parse(line, haproxy_host=0).host is None
    assert parse(line, haproxy_host=3).host is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param(b"", "neither", id="nothing"),
        pytest.param(b"\x16\x03\x01", "neither", id="bytes"),
        pytest.param(HAPROXY % (b"{gr.test} ", b"<BADREQ>"), "not a request line", id="bad-request"),
        pytest.param((HAPROXY % (b"{gr.test} ", b"GET /track?a=1"))[:-1], "cut the request off", id="cut-off"),
        pytest.param(NGINX % (b"", b"\\x16\\x03\\x01", b""), "not a request line", id="tls"),
        pytest.param(NGINX % (b"", b"GET /a\\x0D\\x0AHost: b HTTP/1.1", b""), "not a request line", id="smuggled"),
        pytest.param(NGINX % (b"", b"GET /a b HTTP/1.1", b""), "not a request line", id="space"),
        pytest.param(b"GET track gr.test", "neither a path nor", id="no-path"),
        pytest.param(b"GET /track gr.test\x00", "is not a host", id="no-host"),
        pytest.param(b"GET /track user@gr.test", "is not a host", id="userinfo"),
        pytest.param(
            (NGINX % (b"", b"GET / HTTP/1.1", b"")).replace(b"+0000", b"later"), "the time is not like", id="time"
        ),
        pytest.param(
            (HAPROXY % (b"", b"GET / HTTP/1.1")).replace(b"[06", b"[66"), "the time is not like", id="haproxy-time"
        ),
    ],
)
def test_what_is_no_request_says_why(line: bytes, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        parse(line)


def test_a_shown_line_is_short_and_harmless() -> None:
    assert shown(b"a\x1b[2J\xff\n") == r"a\x1b[2J\xff\n"
    assert len(shown(b"x" * 10_000)) == 201
