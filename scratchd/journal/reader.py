"""Reading a journal from a sequence on, in pieces, holes included. Blocking, for a thread, unless told to be quick.

Knows no writer: what may be read is passed in as extents, so that it never meets a frame that is being written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scratchd.journal.format import (
    FRAME_HEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    Frame,
    SegmentName,
    next_frame,
    parse_frame,
    wanted_bytes,
)


@dataclass(frozen=True, slots=True)
class Extent:
    """What may be read of a segment.

    Attributes:
        size: bytes of the file that hold whole frames; a segment that is being written has more than that, or less
            than a moment later.
        end_sequence: the next segment's first sequence, or the next one that the writer will give: frames at or
            beyond it do not count.
    """

    name: SegmentName
    size: int
    end_sequence: int


@dataclass(frozen=True, slots=True)
class Hole:
    """Sequences that the journal does not have, from `first_sequence` (inclusive) to `end_sequence` (exclusive).

    Attributes:
        kind: `gone` (its segment was deleted), `corrupt` (damaged bytes stood there), `lost` (nothing did).
    """

    first_sequence: int
    end_sequence: int
    kind: Literal["gone", "corrupt", "lost"]

    @property
    def count(self) -> int:
        """How many lines are missing."""
        return self.end_sequence - self.first_sequence


class Reader:
    """Reads one journal onward from `sequence`.

    Attributes:
        sequence: the next one that `read` will give.
    """

    def __init__(self, directory: Path, sequence: int) -> None:
        self._directory = directory
        self.sequence = sequence
        self._name: SegmentName | None = None
        self._fd = -1
        self._offset = 0
        self._damaged = False
        self._flags = 0

    def close(self) -> None:
        """Closes the segment that is open, if any."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._name = -1, None

    def read(self, extents: Sequence[Extent], max_bytes: int, *, cached: bool = False) -> list[Frame | Hole]:
        """The next frames, without a break in their sequences: a hole stands where lines are missing.

        Args:
            extents: what may be read, in order.
            max_bytes: about how much to read; a frame larger than that comes whole.
            cached: whether to read only what takes no waiting for the disk: of the segment that is open, from the page
                cache.

        Returns:
            Empty where everything in `extents` has been read.

        Raises:
            BlockingIOError: it is `cached`, and not all of it can be had so; nothing was passed over.
            OSError: a segment cannot be read.
        """
        self._flags = os.RWF_NOWAIT if cached else 0
        pieces: list[Frame | Hole] = []
        for extent in extents:
            if extent.end_sequence <= self.sequence:
                continue
            if cached and not pieces and extent.name != self._name:
                raise BlockingIOError(errno.EAGAIN, "another segment is to be opened")
            if not pieces and not self._open(extent):
                return self._skip_to(extent.end_sequence, "gone")
            if pieces and extent.name != self._name:
                break  # the next segment is the next call's
            if extent.name.first_sequence > self.sequence:
                pieces += self._skip_to(extent.name.first_sequence, "gone")
            self._read_segment(extent, max_bytes, pieces)
        return pieces

    def _open(self, extent: Extent) -> bool:
        if self._name == extent.name:
            return True
        self.close()
        try:
            self._fd = os.open(self._directory / str(extent.name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self._name, self._offset, self._damaged = extent.name, SEGMENT_HEAD_BYTES, False
        return True

    def _skip_to(self, sequence: int, kind: Literal["gone", "corrupt", "lost"]) -> list[Frame | Hole]:
        hole = Hole(self.sequence, sequence, kind)
        self.sequence = sequence
        return [hole]

    def _read_segment(self, extent: Extent, max_bytes: int, pieces: list[Frame | Hole]) -> None:
        """Appends what the next `max_bytes` of the open segment hold; passes over frames before `sequence`."""
        while self.sequence < extent.end_sequence and not pieces:
            left_bytes = max(0, extent.size - self._offset)  # a torn head leaves a size below a head's
            data = self._pread(min(max(max_bytes, FRAME_HEAD_BYTES), left_bytes))
            wanted = wanted_bytes(data, 0)
            if len(data) < wanted <= left_bytes:
                data = self._pread(wanted)
            if not self._take(data, extent, pieces):
                # Nothing valid follows: what the segment should still have is not there.
                pieces += self._skip_to(extent.end_sequence, "corrupt" if self._damaged else "lost")

    def _pread(self, length: int) -> bytes:
        """What stands at the offset."""
        if not self._flags:
            return os.pread(self._fd, length, self._offset)
        buffer = bytearray(length)
        try:
            count = os.preadv(self._fd, [buffer], self._offset, self._flags)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a file system that cannot tell
                raise
            raise BlockingIOError(error.errno, error.strerror) from error
        if count < length:
            raise BlockingIOError(errno.EAGAIN, "the rest is not in the page cache")
        return bytes(buffer)

    def _take(self, data: bytes, extent: Extent, pieces: list[Frame | Hole]) -> bool:
        """Appends the frames of `data`, which stands at the offset; returns whether the offset moved."""
        position = 0
        while (parsed := parse_frame(data, position, extent.name.epoch)) is not None:
            frame, position = parsed
            if frame.first_sequence >= extent.end_sequence:
                continue  # superseded by the next segment
            if frame.first_sequence > self.sequence:
                pieces += self._skip_to(frame.first_sequence, "corrupt" if self._damaged else "lost")
            if frame.end_sequence > self.sequence:
                pieces.append(frame.after(self.sequence))
                self.sequence = frame.end_sequence
            self._damaged = False  # what is missing behind this frame has a reason of its own
        if position == 0 and self._offset < extent.size:
            # Not cut short by our reading (the caller reads a frame whole), so damaged: look behind it.
            if self._flags:
                raise BlockingIOError(errno.EAGAIN, "looking behind damage takes long")
            self._damaged = True
            rest = self._pread(extent.size - self._offset)
            position = next_frame(rest, 1, extent.name.epoch)
        self._offset += position
        return position > 0

    def oldest_time_ms(self, extents: Sequence[Extent]) -> int | None:
        """Arrival of the oldest line that `read` would give, None where there is none; reads nothing onward."""
        ahead = Reader(self._directory, self.sequence)
        try:
            while pieces := ahead.read(extents, FRAME_HEAD_BYTES):
                for piece in pieces:
                    if isinstance(piece, Frame):
                        return piece.time_ms
        finally:
            ahead.close()
        return None
