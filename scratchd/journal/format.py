"""Bytes of segments and frames, both ways. Pure: knows no file. The tables are in the package's docstring."""

from __future__ import annotations

import datetime
import re
import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SEGMENT = struct.Struct("<7sBQ16sII")
_FRAME = struct.Struct("<3sBIIIQqII")
_FRAME_START = struct.Struct("<3sBI")
_FRAME_REST = struct.Struct("<IQqII")

SEGMENT_MAGIC = b"SCRATCH"
FRAME_MAGIC = b"FR\xff"
VERSION = 1

SEGMENT_HEAD_BYTES = _SEGMENT.size
FRAME_HEAD_BYTES = _FRAME.size

MAX_PAYLOAD_BYTES = 1 << 28
"""A frame that claims more is damaged: a pass of the gate is bounded far below it."""

_NAME = re.compile(r"(\d{20})-(\d{3})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.segment")


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """A segment's file name; names sort as segments do."""

    first_sequence: int
    attempt: int
    epoch: str

    def __str__(self) -> str:
        return f"{self.first_sequence:020d}-{self.attempt:03d}-{self.epoch}.segment"

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """The parts of a file name, None where it is no segment's."""
        match = _NAME.fullmatch(name)
        return cls(int(match[1]), int(match[2]), match[3]) if match else None


@dataclass(frozen=True, slots=True)
class Frame:
    """Lines of one flavor and date that arrived in one pass.

    Attributes:
        epoch: of the segment.
        first_sequence: of the first line.
        count: how many lines.
        time_ms: arrival, ms since the Unix epoch.
        date: local date in the flavor's zone at arrival.
        payload: the lines, each ended by a newline.
    """

    epoch: str
    first_sequence: int
    count: int
    time_ms: int
    date: datetime.date
    payload: bytes

    @property
    def end_sequence(self) -> int:
        """One past the last line's sequence."""
        return self.first_sequence + self.count

    def lines(self) -> list[bytes]:
        """The lines, without their newlines."""
        return self.payload[:-1].split(b"\n")

    def after(self, sequence: int) -> Frame:
        """What of the frame is at or beyond `sequence`: itself, or a frame with the earlier lines cut off."""
        if sequence <= self.first_sequence:
            return self
        rest = self.payload.split(b"\n", sequence - self.first_sequence)[-1]
        return Frame(self.epoch, sequence, self.end_sequence - sequence, self.time_ms, self.date, rest)


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a segment that are no valid frame, from `start` (inclusive) to `end` (exclusive)."""

    start: int
    end: int


def segment_head(first_sequence: int, epoch: str) -> bytes:
    """The first bytes of a segment."""
    head = _SEGMENT.pack(SEGMENT_MAGIC, VERSION, first_sequence, uuid.UUID(epoch).bytes, 0, 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head))


def is_segment_head(data: bytes) -> bool:
    """Whether `data` begins with a valid segment head of a known version."""
    head = data[:SEGMENT_HEAD_BYTES]
    return (
        len(head) == SEGMENT_HEAD_BYTES
        and head[:8] == SEGMENT_MAGIC + bytes([VERSION])
        and head[36:] == struct.pack("<I", zlib.crc32(head[:36]))
    )


def newer_version(data: bytes) -> int | None:
    """The version of a valid segment head that a later scratchd wrote, None where `data` begins with none.

    Whatever else changes, a segment's head keeps its shape, so that earlier ones recognise it.
    """
    head = data[:SEGMENT_HEAD_BYTES]
    if (
        len(head) < SEGMENT_HEAD_BYTES
        or not head.startswith(SEGMENT_MAGIC)
        or head[len(SEGMENT_MAGIC)] <= VERSION
        or head[36:] != struct.pack("<I", zlib.crc32(head[:36]))
    ):
        return None
    return head[len(SEGMENT_MAGIC)]


def frame(lines: Sequence[bytes], first_sequence: int, time_ms: int, date: datetime.date) -> bytes:
    """A frame of at least one line; `lines` are without newlines."""
    payload = b"\n".join(lines) + b"\n"
    start = _FRAME_START.pack(FRAME_MAGIC, VERSION, len(payload))
    day = date.year * 10000 + date.month * 100 + date.day
    rest = _FRAME_REST.pack(len(lines), first_sequence, time_ms, day, 0)
    checksum = zlib.crc32(payload, zlib.crc32(rest, zlib.crc32(start)))
    return b"".join((start, checksum.to_bytes(4, "little"), rest, payload))


def parse_frame(data: bytes, offset: int, epoch: str) -> tuple[Frame, int] | None:
    """The frame that begins at `offset` and the offset behind it, None where no valid one does."""
    if len(data) - offset < FRAME_HEAD_BYTES:
        return None
    magic, version, length, checksum, count, first, time_ms, day, _ = _FRAME.unpack_from(data, offset)
    end = offset + FRAME_HEAD_BYTES + length
    if magic != FRAME_MAGIC or version != VERSION or length > MAX_PAYLOAD_BYTES or end > len(data):
        return None
    payload = data[offset + FRAME_HEAD_BYTES : end]
    found = zlib.crc32(data[offset + 12 : offset + FRAME_HEAD_BYTES], zlib.crc32(data[offset : offset + 8]))
    if zlib.crc32(payload, found) != checksum:
        return None
    date = datetime.date(day // 10000, day // 100 % 100, day % 100)
    return Frame(epoch, first, count, time_ms, date, payload), end


def wanted_bytes(data: bytes, offset: int) -> int:
    """How many bytes the frame at `offset` claims to have, head included; 0 where no head stands there."""
    if len(data) - offset < FRAME_HEAD_BYTES or data[offset : offset + 4] != FRAME_MAGIC + bytes([VERSION]):
        return 0
    length: int = _FRAME.unpack_from(data, offset)[2]
    return FRAME_HEAD_BYTES + length if length <= MAX_PAYLOAD_BYTES else 0


def scan(data: bytes, offset: int, epoch: str) -> Iterator[Frame | Damage]:
    """Every valid frame from `offset` on, in order, and what lies between them; `data` is a whole segment.

    A damaged frame costs itself alone: the next valid one is looked for at every magic behind it.
    """
    while offset < len(data):
        parsed = parse_frame(data, offset, epoch)
        if parsed is not None:
            yield parsed[0]
            offset = parsed[1]
        else:
            start, offset = offset, next_frame(data, offset + 1, epoch)
            yield Damage(start, offset)


def next_frame(data: bytes, offset: int, epoch: str) -> int:
    """Where the first valid frame at or behind `offset` begins; the length of `data` where there is none."""
    offset = data.find(FRAME_MAGIC, offset)
    while offset >= 0 and parse_frame(data, offset, epoch) is None:
        offset = data.find(FRAME_MAGIC, offset + 1)
    return offset if offset >= 0 else len(data)
