"""The hot request: a second way to read what the parser reads, and no second opinion.

The heads come from a grammar of what is right, what is nearly right, and what smugglers send.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import claims
from scratchd.http.head import Head, parse
from scratchd.http.hot import Recogniser
from scratchd.track import Request

LIMIT = 16384
LEAST = b"GET /track?a=b HTTP/1.1\r\nHost: x.gr\r\n\r\n"

anyhow = settings(deadline=None, max_examples=300)

HOSTS = [
    *(b"x.gr", b"X.GR", b"x.gr.", b"x.gr:80", b"x.gr.:80", b"x.gr:", b"x.gr:65536", b"x..", b".x", b"me@x.gr", b""),
    *(b"[::1]", b"[::1]:80", b"[::1", b"::1", b"[::g]", b"127.0.0.1", b"x.gr, y.gr", b"x.gr y.gr", b"x\tgr", b"x_y"),
    *(b"x.gr/", b"x.gr?", b"x%2egr", b"\xce\xba.gr", b"x.gr\x00", b"x" * 253, b"x" * 254, b"http://x.gr", b"*"),
]
NAMES = [
    *(b"Host", b"host", b"HOST", b"hOsT", b"Hostile", b"Hos", b"Host-", b"X-Host", b"Hosts", b"host\x00"),
    *(b"Connection", b"connection", b"CONNECTION", b"Connection-X", b"Proxy-Connection", b"Connectio", b"C"),
    *(b"Content-Length", b"content-length", b"content-lengthy", b"Content-Lengt", b"Content_Length", b"Content-Type"),
    *(b"Transfer-Encoding", b"transfer-encoding", b"Transfer-Encodin", b"Transfer-Encoding-X", b"TE", b"T", b"H"),
    *(b"Upgrade", b"Cookie", b"User-Agent", b"X-Forwarded-For", b"Expect", b"X", b"!#$%&'*+-.^_`|~9", b""),
    *(b" Host", b"\tX", b"X Y", b"X\xe9", b"X()", b'"X"', b"X\x7f", b"Host ", b"Content-Length\t", b"Host\x0b"),
]
VALUES = [
    *(b"", b"0", b"1", b"00", b"+1", b"0x1", b"1, 1", b"5 5", b"chunked", b"Chunked", b"gzip, chunked", b"identity"),
    *(b"close", b"Close", b"keep-alive", b"Keep-Alive", b"keep-alive, close", b"close, keep-alive", b"keep-alive,"),
    *(b"keep-alive, Upgrade", b"upgrade", b"Host", b"closed", b"keep-alivex", b",", b"h2c", b"100-continue"),
    *(b"a", b"a b", b"caf\xe9", b"caf\xc3\xa9", b"\xff", b"a\x00b", b"a\x01b", b"a\x0bb", b"a\x7fb", b"\x80", b"a:b"),
    *(b"1.2.3.4", b"1.2.3.4, 5.6.7.8", b"y" * 300),
]
TARGETS = [
    *(b"/", b"/track?a=b", b"/track", b"/track?", b"/track??", b"/track?a=b#c", b"//x/track?a", b"/a?%00", b"/%"),
    *(b"http://y.gr/track?a", b"HTTP://y.gr", b"https://[::1]:8/t?", b"http://me@y/", b"ftp://y/", b"http:///t"),
    *(b"*", b"y.gr:80", b"track", b"", b"?a=b", b"/a b", b"/\xe9", b"/\x7f", b"/a\tb", b"/\x00", b"/" + b"q" * 380),
    *(
        b"/?\xe9",
        b"/?\x7f",
        b"/?a\tb",
        b"/?\x00",
        b"/?a\r\nHost:x",
        b"/?a\r\nHost:x\r\n\r\n",
        b"/?\n",
        b"/?\r",
        b"/? a",
    ),
]
METHODS = [*[b"GET"] * 8, b"HEAD", b"POST", b"get", b"GE", b"GETS", b"OPTIONS", b"CONNECT", b"PRI", b"G\xe9T", b" GET"]
VERSIONS = [*[b"HTTP/1.1"] * 8, b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/1.10", b"http/1.1", b"HTTP/01.1", b""]
OWS = [b"", b"  ", b"\t", b" \t ", b"\x0b", b"\x0c", b"\xa0"]
ENDS = [b"\n", b"\r", b"\r\n", b"\r\n ", b"\r\n\t", b"\r\r\n", b"\n\r\n", b"\r\n\n"]
COLONS = [b":", b": ", b": ", b":\t", b" :", b"\t:", b"", b"::", b" "]
DEFECTS = [
    *ENDS,
    *COLONS,
    *OWS,
    b"\x00",
    b"\x7f",
    b"\xe9",
    b"\x1f",
    b"\x80",
    b"Host: y\r\n",
    b"close",
    b",",
    b" ",
    b"\r\n\r\n",
]

ows = st.sampled_from([b" "] * 12 + OWS)
good = st.sampled_from(
    [
        *(b"User-Agent: caf\xe9 x", b"Cookie: a=b; c", b"Accept:", b"TE: trailers", b"Connection: keep-alive"),
        *(b"Hostile: y", b"Connection-X: close", b"content-lengthy: 1", b"X-Host:\ty", b"!#$%&'*+-.^_`|~9: z"),
    ]
)
# Well-formed lines that may mean something, and anything else that the tables make.
odd = st.builds(b"%s%s%s".__mod__, st.tuples(st.sampled_from(NAMES), st.sampled_from(COLONS), st.sampled_from(VALUES)))
telling = st.builds(
    b"%s:%s%s%s".__mod__,
    st.tuples(
        st.sampled_from([b"Host", b"hOST", b"Connection", b"CONNECTION", b"Content-Length", b"Transfer-Encoding"]),
        ows,
        st.sampled_from(VALUES) | st.sampled_from(HOSTS),
        ows,
    ),
)
host = st.builds(b"%s:%s%s%s".__mod__, st.tuples(st.sampled_from([b"Host", b"host"]), ows, st.sampled_from(HOSTS), ows))
line = st.just(b"GET /track?a=b HTTP/1.1") | st.builds(
    b"%s %s %s".__mod__,
    st.tuples(st.sampled_from(METHODS), st.sampled_from(TARGETS), st.sampled_from(VERSIONS)),
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A good head with a few changes: every part of it may be one of the tables', and a defect may go in anywhere."""
    lines = [draw(line), *draw(st.lists(good, max_size=3))]
    changes = draw(st.lists(telling | telling | odd, max_size=2))
    for one in [draw(st.just(b"Host: x.gr") | host), *changes]:
        lines.insert(draw(st.integers(1, len(lines))), one)
    data = draw(st.sampled_from([b""] * 6 + [b"\r\n", b"\n", b"\r\n\r\n"])) + b"\r\n".join(lines) + b"\r\n\r\n"
    for _ in range(draw(st.sampled_from([0] * 6 + [1, 1, 2]))):
        at, until = draw(st.integers(0, len(data))), draw(st.integers(0, 2))
        data = data[:at] + draw(st.sampled_from(DEFECTS) | st.binary(max_size=1)) + data[at + until :]
    return data


talks = st.lists(st.just(LEAST) | heads(), min_size=1, max_size=3).map(b"".join)


HOT = {
    "least": LEAST,
    "http10": LEAST.replace(b"1.1", b"1.0"),
    "no-query": LEAST.replace(b"?a=b", b""),
    "empty-query": LEAST.replace(b"a=b", b""),
    "host-first-and-others": LEAST.replace(b"\r\n\r\n", b"\r\nUser-Agent: x\r\nCookie: a=b\r\nTE: trailers\r\n\r\n"),
    "keep-alive": LEAST.replace(b"Host", b"cOnNeCtIoN: \t Keep-Alive \r\nhOsT"),
    "look-alikes": LEAST.replace(b"Host", b"Hostile: y\r\nConnection-X: close\r\ncontent-lengthy: 1\r\nHost"),
    "white-space-around": LEAST.replace(b" x.gr", b" \t x.gr\t "),
    "white-space-nowhere": LEAST.replace(b": ", b":"),
    "port": LEAST.replace(b"x.gr", b"X.gr.:8080"),
    "brackets": LEAST.replace(b"x.gr", b"[::1]:80"),
    "8-bit-value": LEAST.replace(b"\r\n\r\n", b"\r\nX: caf\xe9\r\n\r\n"),
    "longest-host": LEAST.replace(b"x.gr", b"x" * 253 + b".:65535"),
}

NOT_HOT = {
    "incomplete": LEAST[:-1],
    "head": LEAST.replace(b"GET", b"HEAD"),
    "absolute-form": LEAST.replace(b"/track", b"http://x.gr/track"),
    "close": LEAST.replace(b"Host", b"Connection: close\r\nHost"),
    "close-in-a-list": LEAST.replace(b"Host", b"Connection: keep-alive, close\r\nHost"),
    "two-hosts": LEAST.replace(b"Host", b"Host: x.gr\r\nhost"),
    "no-host": LEAST.replace(b"Host: x.gr\r\n", b""),
    "content-length": LEAST.replace(b"Host", b"Content-Length: 1\r\nHost"),
    "transfer-encoding": LEAST.replace(b"Host", b"TRANSFER-ENCODING: chunked\r\nHost"),
    "bare-lf": LEAST.replace(b"Host", b"X: a\nHost"),
    "bare-cr": LEAST.replace(b"Host", b"X: a\rb\r\nHost"),
    "obs-fold": LEAST.replace(b"Host", b"X: a\r\n b\r\nHost"),
    "space-before-colon": LEAST.replace(b"Host:", b"Host :"),
    "nul": LEAST.replace(b"Host", b"X: \x00\r\nHost"),
    "del": LEAST.replace(b"Host", b"X: a\x7f\r\nHost"),
    "8-bit-target": LEAST.replace(b"a=b", b"\xe9"),
    "tab-in-target": LEAST.replace(b"a=b", b"a\tb"),
    "nul-in-target": LEAST.replace(b"a=b", b"a\x00b"),
    "line-end-in-target": LEAST.replace(b" HTTP", b"\r\nX: HTTP"),
    "lines-in-target": LEAST.replace(b" HTTP", b"\r\nHost:y.gr\r\n\r\n HTTP"),
    "bare-lf-in-target": LEAST.replace(b"a=b", b"a\n"),
    "userinfo": LEAST.replace(b"x.gr", b"me@x.gr"),
    "host-too-long": LEAST.replace(b"x.gr", b"x" * 261),
    "http12": LEAST.replace(b"1.1", b"1.2"),
    "too-large": LEAST.replace(b"Host", b"X: " + b"y" * LIMIT + b"\r\nHost"),
}


def recognised(data: bytes, start: int = 0) -> tuple[Request, bool, int] | None:
    return Recogniser(LIMIT).recognise(data, start)


@pytest.mark.parametrize("data", HOT.values(), ids=HOT.keys())
def test_hot_as_the_parser_says(data: bytes) -> None:
    parsed = parse(data, 0, LIMIT, http2=False)
    assert isinstance(parsed, Head)
    request = Request(b"GET", parsed.path, parsed.query, parsed.host, "")
    assert recognised(data) == (request, parsed.persistent, len(data))
    assert recognised(b"?" + data + b"GET", 1) == (request, parsed.persistent, len(data) + 1)
    assert all(recognised(data[:count]) is None for count in range(len(data)))


@pytest.mark.parametrize("data", NOT_HOT.values(), ids=NOT_HOT.keys())
def test_left_to_the_parser(data: bytes) -> None:
    assert recognised(data) is None


def test_a_head_may_be_as_large_as_the_limit() -> None:
    recogniser = Recogniser(len(LEAST))
    assert recogniser.recognise(b"\n" + LEAST, 1) is not None
    assert recogniser.recognise(LEAST.replace(b": ", b":  "), 0) is None


@anyhow
@given(heads())
def test_the_pattern_takes_only_what_the_parser_takes_and_that_only_what_h11_takes(data: bytes) -> None:
    claims.head(data)


@anyhow
@given(talks)
def test_conversations_are_the_same_with_and_without_it(data: bytes) -> None:
    claims.conversation(data)


@settings(deadline=None, max_examples=40)
@given(talks)
def test_conversations_are_the_same_however_they_are_cut(data: bytes) -> None:
    claims.bytewise(data)
