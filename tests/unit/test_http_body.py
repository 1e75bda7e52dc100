"""Bodies: where they end, whatever way they were cut."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd.http.body import MAX_DRAINED_BYTES, Body

CHUNKED = {
    "one": b"3\r\nabc\r\n0\r\n\r\n",
    "none": b"0\r\n\r\n",
    "several": b"1\r\na\r\n000A;x=y\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
    "line-ends-within": b"4\r\n\r\n\r\n\r\n0\r\n\r\n",
    "trailer": b"1\r\na\r\n0\r\nX: y\r\nZ: \r\n\r\n",
}
BROKEN = {
    "no-size": b"\r\n",
    "no-hex": b"x\r\n",
    "negative": b"-1\r\n",
    "bare-lf": b"1\na\n0\n\n",
    "endless-size": b"1" * 2000,
    "endless-extension": b"1;" + b"x" * 2000,
    "17-digits": b"1" * 17 + b"\r\n",
}


def over_after(body: Body, data: bytes) -> int | None:
    """With how many bytes, coming one by one, the body was over."""
    return next((count + 1 for count in range(len(data)) if body.is_over(data[count : count + 1])), None)


@pytest.mark.parametrize("data", CHUNKED.values(), ids=CHUNKED.keys())
def test_a_chunked_body_is_over_with_its_last_byte(data: bytes) -> None:
    assert over_after(Body(0, chunked=True), data + b"more") == len(data)
    assert Body(0, chunked=True).is_over(data + b"more")
    assert not Body(0, chunked=True).is_over(data[:-1])


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_chunks_are_not_waited_for(data: bytes) -> None:
    assert Body(0, chunked=True).is_over(data)
    assert over_after(Body(0, chunked=True), data) is not None


def test_a_body_with_a_length_is_over_with_its_last_byte() -> None:
    assert over_after(Body(5, chunked=False), b"abcdefg") == 5
    assert not Body(5, chunked=False).is_over(b"")


@pytest.mark.parametrize("body", [Body(10**20 - 1, chunked=False), Body(0, chunked=True)], ids=["length", "chunked"])
def test_a_large_body_is_over_at_the_bound(body: Body) -> None:
    data = b"FFFFFFFFFFFF\r\n" + bytes(MAX_DRAINED_BYTES)
    assert over_after(body, data) == MAX_DRAINED_BYTES


@given(
    st.lists(st.binary(min_size=1, max_size=40)),
    st.sampled_from([b"", b";a=b", b"; a"]),
    st.lists(st.integers(min_value=0, max_value=200)),
)
def test_a_chunked_body_ends_where_h11_says(chunks: list[bytes], extension: bytes, cuts: list[int]) -> None:
    data = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks) + b"0\r\n\r\n"
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + data + b"rest")
    while not isinstance(connection.next_event(), h11.EndOfMessage):
        pass
    assert connection.trailing_data[0] == b"rest"
    body, at = Body(0, chunked=True), 0
    for cut in [*sorted(cuts), len(data) - 1]:
        if at < cut < len(data):
            assert not body.is_over(data[at:cut])
            at = cut
    assert body.is_over(data[at:])
