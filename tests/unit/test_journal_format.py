"""Segment names, heads and frames: both ways, and what damage costs."""

from __future__ import annotations

import datetime
import itertools
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd.journal.format import (
    FRAME_HEAD_BYTES,
    FRAME_MAGIC,
    SEGMENT_HEAD_BYTES,
    Damage,
    Frame,
    SegmentName,
    frame,
    is_segment_head,
    parse_frame,
    scan,
    segment_head,
    wanted_bytes,
)

EPOCH = "0b3f2f6e-7c3a-4f6e-9d1b-2f6e7c3a4f6e"
DATE = datetime.date(2026, 11, 23)

lines_lists = st.lists(
    st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])).map(str.encode), min_size=1, max_size=8
)
dates = st.dates(datetime.date(1970, 1, 1), datetime.date(9999, 12, 31))
sequences = st.integers(0, 2**63)
times_ms = st.integers(-(2**63), 2**63 - 1)


@given(lines_lists, sequences, times_ms, dates)
def test_what_is_framed_is_found_again(lines: list[bytes], sequence: int, time_ms: int, date: datetime.date) -> None:
    (found,) = scan(frame(lines, sequence, time_ms, date), 0, EPOCH)
    payload = b"".join(line + b"\n" for line in lines)
    assert found == Frame(EPOCH, sequence, len(lines), time_ms, date, payload)
    assert found.lines() == lines


@given(st.lists(st.tuples(lines_lists, dates), max_size=5))
def test_frames_one_behind_another_are_found_in_order(batches: list[tuple[list[bytes], datetime.date]]) -> None:
    data, sequence = b"", 7
    for lines, date in batches:
        data += frame(lines, sequence, 0, date)
        sequence += len(lines)
    found = [piece for piece in scan(data, 0, EPOCH) if isinstance(piece, Frame)]
    assert [(piece.lines(), piece.date) for piece in found] == batches
    assert all(one.end_sequence == other.first_sequence for one, other in itertools.pairwise(found))


@given(lines_lists, st.data())
def test_after_is_what_is_left(lines: list[bytes], data: st.DataObject) -> None:
    whole = Frame(EPOCH, 100, len(lines), 5, DATE, b"".join(line + b"\n" for line in lines))
    cut = data.draw(st.integers(0, len(lines) - 1))
    rest = whole.after(100 + cut)
    assert rest.lines() == lines[cut:]
    assert (rest.first_sequence, rest.end_sequence, rest.count) == (100 + cut, whole.end_sequence, len(lines) - cut)
    assert (rest.epoch, rest.time_ms, rest.date) == (whole.epoch, whole.time_ms, whole.date)


def test_after_an_earlier_sequence_is_the_frame_itself() -> None:
    whole = Frame(EPOCH, 100, 1, 5, DATE, b"{}\n")
    assert whole.after(3) is whole


def test_a_frames_bytes_are_those_of_the_table() -> None:
    data = frame([b'{"a":"1"}', b"{}"], 258, 1_700_000_000_123, datetime.date(2026, 1, 9))
    assert len(data) == FRAME_HEAD_BYTES + 13
    assert data[:4] == b"FR\xff\x01"
    assert int.from_bytes(data[4:8], "little") == 13
    assert int.from_bytes(data[12:16], "little") == 2
    assert int.from_bytes(data[16:24], "little") == 258
    assert int.from_bytes(data[24:32], "little", signed=True) == 1_700_000_000_123
    assert int.from_bytes(data[32:36], "little") == 20260109
    assert data[36:40] == bytes(4)
    assert data[40:] == b'{"a":"1"}\n{}\n'


def test_a_segment_heads_bytes_are_those_of_the_table() -> None:
    data = segment_head(513, EPOCH)
    assert len(data) == SEGMENT_HEAD_BYTES
    assert data[:8] == b"SCRATCH\x01"
    assert int.from_bytes(data[8:16], "little") == 513
    assert data[16:32] == uuid.UUID(EPOCH).bytes
    assert is_segment_head(data + b"more")


@pytest.mark.parametrize("index", range(SEGMENT_HEAD_BYTES))
def test_a_flipped_bit_in_a_segment_head_is_seen(index: int) -> None:
    data = bytearray(segment_head(513, EPOCH))
    data[index] ^= 1
    assert not is_segment_head(bytes(data))
    assert not is_segment_head(segment_head(513, EPOCH)[:index])


def test_every_flipped_bit_in_a_frame_is_seen() -> None:
    data = frame([b'{"a":"1"}'], 3, 5, DATE)
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert parse_frame(bytes(damaged), 0, EPOCH) is None


def test_a_damaged_frame_costs_itself_alone() -> None:
    frames = [frame([b'{"n":"%d"}' % n], n, n, DATE) for n in range(3)]
    for bit in range(len(frames[1]) * 8):
        damaged = bytearray(frames[1])
        damaged[bit // 8] ^= 1 << bit % 8
        pieces = list(scan(frames[0] + damaged + frames[2], 0, EPOCH))
        assert [piece.first_sequence for piece in pieces if isinstance(piece, Frame)] == [0, 2]
        assert pieces[1] == Damage(len(frames[0]), len(frames[0]) + len(frames[1]))


def test_a_torn_end_is_one_piece_of_damage() -> None:
    data = frame([b"{}"], 0, 0, DATE)
    for length in range(1, len(data)):
        assert list(scan(data[:length], 0, EPOCH)) == [Damage(0, length)]


def test_nothing_is_found_in_nothing() -> None:
    assert list(scan(b"", 0, EPOCH)) == []


@given(st.binary(max_size=200))
def test_scan_accounts_for_every_byte(data: bytes) -> None:
    pieces = list(scan(FRAME_MAGIC + data, 0, EPOCH))
    assert pieces == [Damage(0, len(data) + len(FRAME_MAGIC))]


def test_a_head_says_how_many_bytes_its_frame_wants() -> None:
    data = frame([b'{"a":"1"}'], 3, 5, DATE)
    assert wanted_bytes(data[:FRAME_HEAD_BYTES], 0) == len(data)
    assert wanted_bytes(b"x" + data, 1) == len(data)
    assert wanted_bytes(data[: FRAME_HEAD_BYTES - 1], 0) == 0
    assert wanted_bytes(b"x" + data, 0) == 0


def test_a_head_that_claims_absurdly_much_wants_nothing() -> None:
    data = frame([b"{}"], 0, 0, DATE)
    assert wanted_bytes(data[:4] + b"\xff\xff\xff\xff" + data[8:], 0) == 0


def test_names_come_back_and_sort_as_segments_do() -> None:
    other = "00000000-0000-4000-8000-000000000000"
    names = [SegmentName(0, 0, EPOCH), SegmentName(9, 0, EPOCH), SegmentName(9, 1, other), SegmentName(10, 0, other)]
    assert [SegmentName.parse(str(name)) for name in names] == names
    assert sorted(map(str, reversed(names))) == [str(name) for name in names]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("lock", id="another file"),
        pytest.param(f"5-000-{EPOCH}.segment", id="sequence too short"),
        pytest.param(f"{5:020d}-000-{EPOCH}.segment.new", id="another ending"),
        pytest.param(f"{5:020d}-000-{EPOCH.upper()}.segment", id="upper case"),
    ],
)
def test_what_is_no_segment_has_no_name(name: str) -> None:
    assert SegmentName.parse(name) is None
