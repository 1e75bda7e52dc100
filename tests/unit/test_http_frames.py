"""Since when HTTP/2's peer owes the rest of something it has begun."""

from __future__ import annotations

import pytest

from scratchd.http.frames import Frames


def frame(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + b"\0\0\0\1" + payload


DATA, HEADERS, SETTINGS, CONTINUATION = 0, 1, 4, 9
END_HEADERS = 4


@pytest.mark.parametrize(
    ("data", "owes"),
    [
        pytest.param(frame(SETTINGS, b""), False, id="empty"),
        pytest.param(frame(SETTINGS, b"x" * 6), False, id="whole"),
        pytest.param(frame(SETTINGS, b"")[:1], True, id="a frame's first byte"),
        pytest.param(frame(HEADERS, b"xx", END_HEADERS), False, id="whole fields"),
        pytest.param(frame(HEADERS, b"xx", END_HEADERS)[:-1], True, id="a part of the fields"),
        pytest.param(frame(HEADERS, b"xx"), True, id="fields that go on"),
        pytest.param(frame(HEADERS, b"xx") + frame(CONTINUATION, b""), True, id="and on"),
        pytest.param(frame(HEADERS, b"xx") + frame(CONTINUATION, b"y", END_HEADERS), False, id="to their end"),
        pytest.param(frame(DATA, b"xx")[:-1], False, id="a part of a body"),
        pytest.param(frame(DATA, b"xx")[:8], True, id="a part of a body's head"),
    ],
)
@pytest.mark.parametrize("step", [1, 4, 1000])
def test_what_is_owed(data: bytes, owes: bool, step: int) -> None:
    frames = Frames()
    for at in range(0, len(data), step):
        frames.take(data[at : at + step], 7.0)
    assert frames.since_s == (7.0 if owes else None)


def test_it_is_owed_since_its_own_beginning() -> None:
    frames = Frames()
    whole = frame(HEADERS, b"xx", END_HEADERS)
    frames.take(whole + whole[:3], 1.0)
    frames.take(whole[3:5], 2.0)
    assert frames.since_s == 1.0
    frames.take(whole[5:] + whole[:3], 3.0)
    assert frames.since_s == 3.0
