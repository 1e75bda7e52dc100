"""Heads: what is refused, what is found, and that neither depends on how the bytes were cut."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scratchd.http.head import HTTP2_PREFACE, Head, Opening, parse, without_upgrade, worth_parsing
from scratchd.refusal import Reason, Refusal

LIMIT = 400

WELL_FORMED = {
    "least": b"GET /track?a=b HTTP/1.1\r\nHost: x\r\n\r\n",
    "http10-without-host": b"GET /track?a=b HTTP/1.0\r\n\r\n",
    "empty-line-first": b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "values-with-obs-text": b"GET / HTTP/1.1\r\nHost: x\r\nX: caf\xc3\xa9\tau lait \r\n\r\n",
    "empty-value": b"GET / HTTP/1.1\r\nHost: x\r\nX:\r\n\r\n",
    "every-target-byte": b"GET /?" + bytes(range(0x21, 0x7F)) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute-form": b"GET http://Y:80/track?a HTTP/1.1\r\nHost: x\r\n\r\n",
    "asterisk-form": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "authority-form": b"CONNECT y:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "content-length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n",
    "chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n",
    "unknown-method": b"bre-w /pot HTTP/1.1\r\nHost: x\r\n\r\n",
    "exactly-the-limit": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (LIMIT - 32) + b"\r\n\r\n",
}

BAD_REQUEST = {
    "no-http": b"hello\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "two-empty-lines-first": b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "http09": b"GET /\r\n\r\n",
    "http12": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    "http20": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "http11-in-lower-case": b"GET / http/1.1\r\nHost: x\r\n\r\n",
    "http011": b"GET / HTTP/01.1\r\nHost: x\r\n\r\n",
    "two-spaces": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tab-for-space": b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "space-first": b" GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "space-last": b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
    "space-in-target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "8-bit-target": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "del-in-target": b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n",
    "nul-in-target": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "method-no-token": b"G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
    "bare-lf-behind-request-line": b"GET / HTTP/1.1\nHost: x\r\n\r\n",
    "bare-lf-behind-field": b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "bare-lf-only": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare-cr-in-value": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
    "obs-fold": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "obs-fold-of-nothing": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "space-before-colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "tab-before-colon": b"GET / HTTP/1.1\r\nHost\t: x\r\n\r\n",
    "no-colon": b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    "no-name": b"GET / HTTP/1.1\r\n: x\r\n\r\n",
    "8-bit-name": b"GET / HTTP/1.1\r\nH\xc3\xb6st: x\r\n\r\n",
    "name-no-token": b"GET / HTTP/1.1\r\nHost: x\r\nA[]: b\r\n\r\n",
    "nul-in-value": b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
    "vt-in-value": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x0bc\r\n\r\n",
    "del-in-value": b"GET / HTTP/1.1\r\nHost: x\r\nA: \x7f\r\n\r\n",
    "length-and-coding": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "lengths-differ": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "length-repeated": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "length-list": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n",
    "length-signed": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
    "length-negative": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "length-empty": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
    "length-hex": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\n",
    "length-of-21-digits": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"1" * 21 + b"\r\n\r\n",
    "coding-gzip": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    "coding-gzip-chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "coding-chunked-identity": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
    "coding-repeated": b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding-with-vt": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    "coding-in-http10": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "target-no-path": b"GET track HTTP/1.1\r\nHost: x\r\n\r\n",
    "target-ftp": b"GET ftp://x/track HTTP/1.1\r\nHost: x\r\n\r\n",
    "asterisk-without-options": b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "authority-without-connect": b"GET y:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect-with-path": b"CONNECT /track?a=b HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect-without-port": b"CONNECT y HTTP/1.1\r\nHost: x\r\n\r\n",
    "preface": HTTP2_PREFACE,
    # What is malformed within the limit goes before the limit, and before the host.
    "malformed-and-too-large": b"GET / HTTP/1.1\r\nA b\r\nB: " + b"c" * LIMIT,
    "malformed-and-no-host": b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
    "malformed-behind-a-bad-host": b"GET / HTTP/1.1\r\nHost: x..\r\nContent-Length: a\r\n\r\n",
}

TOO_LARGE = {
    "a-byte-above": WELL_FORMED["exactly-the-limit"].replace(b"X: y", b"X: yy"),
    "line-without-end": b"GET /" + b"x" * LIMIT,
    "malformed-behind-the-limit": b"GET / HTTP/1.1\r\nX: " + b"y" * LIMIT + b"\nZ z\r\n\r\n",
    "bad-host-and-too-large": b"GET / HTTP/1.1\r\nHost: x..\r\nX: " + b"y" * LIMIT + b"\r\n\r\n",
}

BAD_HOST = {
    "missing": b"GET / HTTP/1.1\r\n\r\n",
    "missing-beside-a-look-alike": b"GET / HTTP/1.1\r\nX-Host: x\r\n\r\n",
    "missing-with-absolute-form": b"GET http://x/ HTTP/1.1\r\n\r\n",
    "repeated": b"GET / HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n",
    "repeated-in-http10": b"GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n",
    "empty": b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
    "two-dots": b"GET / HTTP/1.1\r\nHost: x..\r\n\r\n",
    "userinfo": b"GET / HTTP/1.1\r\nHost: me@x\r\n\r\n",
    "8-bit": b"GET / HTTP/1.1\r\nHost: \xce\xba.gr\r\n\r\n",
    "list": b"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n",
    "userinfo-in-target": b"GET http://me@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "nothing-in-target": b"GET http:///track HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad-beside-a-good-target": b"GET http://x/ HTTP/1.1\r\nHost: x..\r\n\r\n",
}

REFUSED = {
    Reason.BAD_REQUEST: BAD_REQUEST,
    Reason.HEAD_TOO_LARGE: TOO_LARGE,
    Reason.BAD_HOST: BAD_HOST,
}
REFUSALS = [pytest.param(reason, data, id=name) for reason, table in REFUSED.items() for name, data in table.items()]


def head(data: bytes, *, http2: bool = False, limit: int = LIMIT) -> Head | Opening | Refusal | None:
    return parse(data, 0, limit, http2=http2)


def found(data: bytes) -> Head:
    result = head(data)
    assert isinstance(result, Head), result
    return result


def fed(data: bytes, *, http2: bool = False) -> Head | Opening | Refusal | None:
    """What a connection finds whose bytes come one by one."""
    for count in range(1, len(data) + 1):
        if worth_parsing(data[:count], 0, count - 1, LIMIT):
            result = head(data[:count], http2=http2)
            if result is not None:
                return result
    return None


def reason(result: Head | Opening | Refusal | None) -> Reason | None:
    return result.reason if isinstance(result, Refusal) else None


@pytest.mark.parametrize(("expected", "data"), REFUSALS)
def test_refused_whole_by_byte_and_with_more_behind(expected: Reason, data: bytes) -> None:
    assert reason(head(data)) is expected
    assert reason(fed(data)) is expected
    assert reason(head(data + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")) is expected
    assert reason(head(data + b"\x00\xff\n")) is expected


@pytest.mark.parametrize("data", WELL_FORMED.values(), ids=WELL_FORMED.keys())
def test_found_whole_by_byte_and_with_more_behind(data: bytes) -> None:
    expected = found(data)
    assert expected.end == len(data)
    assert fed(data) == expected
    assert head(data + b"\x00\xff\n") == expected
    assert all(head(data[:count]) is None for count in range(len(data)))


@pytest.mark.parametrize("data", [*WELL_FORMED.values(), *BAD_HOST.values()])
def test_an_offset_changes_nothing(data: bytes) -> None:
    plain, moved = head(data), parse(b"\n\x00 " + data, 3, LIMIT, http2=False)
    if isinstance(plain, Head):
        assert isinstance(moved, Head)
        assert moved.end == plain.end + 3
    else:
        assert moved == plain


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        (b"/track?a=b", b"/track", b"a=b", "x"),
        (b"/track", b"/track", None, "x"),
        (b"/track?", b"/track", b"", "x"),
        (b"/track?a?b", b"/track", b"a?b", "x"),
        (b"/track#a?b", b"/track#a", b"b", "x"),
        (b"//y/track?a", b"//y/track", b"a", "x"),
        (b"/%74rack?a", b"/%74rack", b"a", "x"),
        (b"http://Y.gr.:80/track?a", b"/track", b"a", "y.gr"),
        (b"HTTPS://y/track?a", b"/track", b"a", "y"),
        (b"http://y", b"/", None, "y"),
        (b"http://y?a", b"/", b"a", "y"),
        (b"http://[::1]:80/t?http://z/", b"/t", b"http://z/", "[::1]"),
    ],
)
def test_targets_are_taken_apart(target: bytes, path: bytes, query: bytes | None, host: str) -> None:
    result = found(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target)
    assert (result.path, result.query, result.host) == (path, query, host)


@pytest.mark.parametrize(
    ("fields", "version", "persistent"),
    [
        (b"", b"1.1", True),
        (b"Connection: close\r\n", b"1.1", False),
        (b"CONNECTION: keep-alive, Close\r\n", b"1.1", False),
        (b"Connection: a\r\nConnection: close\r\n", b"1.1", False),
        (b"Connection: closed\r\n", b"1.1", True),
        (b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"1.1", True),
        (b"", b"1.0", False),
        (b"Connection: keep-alive\r\n", b"1.0", False),
    ],
)
def test_persistence(fields: bytes, version: bytes, *, persistent: bool) -> None:
    result = found(b"GET / HTTP/%s\r\nHost: x\r\n%s\r\n" % (version, fields))
    assert result.persistent is persistent


def test_a_body_is_announced() -> None:
    length, chunked = found(WELL_FORMED["content-length"]), found(WELL_FORMED["chunked"])
    none = found(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert [(h.content_length, h.chunked, h.has_body) for h in (length, chunked, none)] == [
        (12, False, True),
        (0, True, True),
        (0, False, False),
    ]


def test_forwarded_for_lines_are_joined_in_order() -> None:
    result = found(
        b"GET / HTTP/1.1\r\nX-Forwarded-For: 1.1.1.1\r\nHost: x\r\nx-forwarded-for:  2.2.2.2, 3.3.3.3 \r\n\r\n"
    )
    assert result.forwarded_for == b"1.1.1.1,2.2.2.2, 3.3.3.3"


def test_http10_without_host_names_none() -> None:
    assert found(WELL_FORMED["http10-without-host"]).host is None


@pytest.mark.parametrize("count", range(len(HTTP2_PREFACE) + 1))
def test_the_preface_may_come_split(count: int) -> None:
    expected = Opening.HTTP2 if count == len(HTTP2_PREFACE) else None
    assert head(HTTP2_PREFACE[:count], http2=True) is expected


@pytest.mark.parametrize("count", range(18, len(HTTP2_PREFACE)))
def test_what_only_begins_like_the_preface_is_refused(count: int) -> None:
    data = HTTP2_PREFACE[:count] + b"?"
    assert reason(head(data, http2=True)) is Reason.BAD_REQUEST
    assert reason(fed(data, http2=True)) is Reason.BAD_REQUEST


def test_the_preface_is_found_with_frames_behind() -> None:
    assert head(HTTP2_PREFACE + b"\x00\x00", http2=True) is Opening.HTTP2
    assert fed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", http2=True) == found(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def test_what_a_client_sent_is_shown_escaped_and_short() -> None:
    result = head(b'GET "\x1b[2J' + b"\xff" * 200 + b" HTTP/1.1\r\n")
    assert isinstance(result, Refusal)
    assert result.sentence.isascii()
    assert result.sentence.isprintable()
    assert len(result.sentence) < 600


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x16\x03\x01", 'the request line is "\\x16\\x03\\x01", expected a method'),
        (b"GET / HTTP/1.2\r\n", 'the request line is "GET / HTTP/1.2", expected a method'),
        (b"GET / HTTP/1.1\n", 'the request line "GET / HTTP/1.1" ends with LF alone'),
        (b"GET / HTTP/1.1\r\nA: b\n", 'the header line "A: b" ends with LF alone'),
        (b"GET / HTTP/1.1\r\nA: b\r\n c", "a header field goes on in a second line"),
        (b"GET / HTTP/1.1\r\nA : b\r\n", 'white space between name and colon in the header line "A : b"'),
        (b"GET / HTTP/1.1\r\nA: b\x00", 'a control character in the header line "A: b\\x00"'),
        (b"GET / HTTP/1.1\r\nA b\r\n", 'the header line "A b" is not a name, a colon and a value'),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * LIMIT, f"the head is longer than the {LIMIT} bytes"),
    ],
)
def test_a_refusal_says_why(data: bytes, told: str) -> None:
    result = head(data)
    assert isinstance(result, Refusal)
    assert result.sentence.startswith(told)


def test_upgrade_is_not_handed_on() -> None:
    data = b"GET / HTTP/1.1\r\nUPGRADE: h2c\r\nHost: x\r\nupgrade:websocket\r\nX-Upgrade: y\r\n\r\n"
    assert without_upgrade(data) == b"GET / HTTP/1.1\r\nHost: x\r\nX-Upgrade: y\r\n\r\n"


# Heads that are nearly right, put together from pieces that are right, wrong, and wrong together.
_PIECES = st.sampled_from(
    [
        *(b"GET", b"POST", b"HEAD", b" ", b"  ", b"/", b"/track?a=b", b"http://x/", b"*", b"HTTP/1.1", b"HTTP/1.0"),
        *(b"HTTP/2.0", b"\r\n", b"\r\n", b"\n", b"\r", b"Host", b"Content-Length", b"Transfer-Encoding", b"X", b":"),
        *(b": ", b" : ", b"x", b"1", b"1, 1", b"chunked", b"gzip, chunked", b"\t", b"\x00", b"\x0b", b"\x7f", b"\xe9"),
    ]
)
_FIELD = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    st.sampled_from([b"Host", b"host", b"Content-Length", b"Transfer-Encoding", b"X", b"", b"X\xe9", b" X", b"X Y"]),
    st.sampled_from([b":", b": ", b":\t ", b" :", b""]),
    st.sampled_from([b"x", b"", b"1", b"2", b"1, 1", b"chunked", b"CHUNKED", b"gzip", b"a\x01b", b"\xe9", b"a\x0b"])
    | st.binary(max_size=5),
    st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r", b"\r\n ", b"\r\r\n"]),
)
_HEAD = st.builds(
    lambda line, fields, end: line + b"".join(fields) + end,
    st.builds(
        lambda method, target, version: b" ".join([method, target, version]) + b"\r\n",
        st.sampled_from([b"GET", b"HEAD", b"OPTIONS", b"CONNECT", b"", b"G T", b"G\xe9T"]),
        st.sampled_from([b"/", b"/track?a=b", b"*", b"x:80", b"http://x/", b"", b"/\xe9", b"/ /"])
        | st.binary(max_size=5),
        st.sampled_from([b"HTTP/1.1"] * 4 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.10", b"http/1.1", b""]),
    ),
    st.lists(_FIELD, max_size=4),
    st.just(b"\r\n"),
)
_ANY = _HEAD | st.lists(_PIECES, max_size=20).map(b"".join) | st.binary(max_size=60)


@settings(max_examples=500)
@given(_ANY)
@example(b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked \r\n\r\n")
def test_whatever_h11_refuses_is_refused(data: bytes) -> None:
    result = head(data)
    if isinstance(result, Head):
        connection = h11.Connection(h11.SERVER)
        # The one thing that h11 does not do: skip an empty line.
        connection.receive_data(data.removeprefix(b"\r\n"))
        request = connection.next_event()
        assert isinstance(request, h11.Request)
        assert request.method == result.method
        assert result.content_length == int(dict(request.headers).get(b"content-length", b"0"))
        assert result.chunked is (b"transfer-encoding" in dict(request.headers))


@settings(max_examples=500)
@given(_ANY, st.booleans())
def test_how_the_bytes_were_cut_changes_nothing(data: bytes, http2: bool) -> None:
    whole, parts = head(data, http2=http2), fed(data, http2=http2)
    assert reason(parts) is reason(whole)
    if not isinstance(whole, Refusal):
        assert parts == whole
