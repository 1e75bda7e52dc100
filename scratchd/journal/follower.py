"""Following a flavor's journal that another process writes: read-only, without a lock, for as long as one likes.

Knows no writer, unlike `scratchd.journal.reader`, whose extents come from one: what may be read is found out from the
files alone. Only whole frames count, so a frame that is half written is waited for. The segment that is being read
stays open when it is deleted, so that its end is still read; a later segment's name says that nothing more comes to
this one. Each sequence is given once, also where frames were written again into a later segment.

Blocking, all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from scratchd.journal.format import (
    FRAME_HEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    Frame,
    SegmentName,
    next_frame,
    parse_frame,
    wanted_bytes,
)
from scratchd.journal.reader import Hole

READ_BYTES = 1 << 20
"""Read in one piece; a frame that is larger is read whole."""


def segments(directory: Path) -> list[SegmentName]:
    """The segments in a flavor's directory, in order; none where the directory is missing.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return sorted(name for entry in os.listdir(directory) if (name := SegmentName.parse(entry)))  # noqa: PTH208
    except FileNotFoundError:
        return []


class Follower:
    """Follows one flavor's journal from the beginning of its last segment on.

    Args:
        directory: the flavor's, which may not be there yet.

    Attributes:
        began: the segment that it began with, None where there was none.

    Raises:
        OSError: the directory or a segment cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = -1
        self._name: SegmentName | None = None
        self._offset = 0
        self._sequence = 0
        names = segments(directory)
        self.began = names[-1] if names and self._open(names[-1]) else None

    def close(self) -> None:
        """Closes what is open."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def read(self) -> list[Frame | Hole]:
        """What has come since, about `READ_BYTES` of it at most; empty where nothing has.

        Raises:
            OSError: the directory or a segment cannot be read.
        """
        while True:
            # Listed before the reading: when a later segment is there, what is read now is this one's end.
            later = [name for name in segments(self._directory) if self._name is None or name > self._name]
            if self._name is not None:
                end_sequence = later[0].first_sequence if later else None
                pieces = self._read_segment(end_sequence)
                if pieces or not later:
                    return pieces
            if not any(self._open(name) for name in later):
                return []

    def _open(self, name: SegmentName) -> bool:
        """Goes over to a segment; returns False where it has been deleted meanwhile."""
        try:
            fd = os.open(self._directory / str(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self.close()
        if self._name is None:
            self._sequence = name.first_sequence
        self._fd, self._name, self._offset = fd, name, SEGMENT_HEAD_BYTES
        return True

    def _read_segment(self, end_sequence: int | None) -> list[Frame | Hole]:
        """The next frames of the open segment; those at or beyond `end_sequence` are the next segment's."""
        pieces: list[Frame | Hole] = []
        while not pieces:
            data = self._pread(READ_BYTES)
            wanted = wanted_bytes(data, 0)
            if wanted > len(data):
                data = self._pread(wanted)
            position = self._take(data, end_sequence, pieces)
            if not position:
                position = self._behind_damage()
            if not position:
                break  # nothing whole is there yet
            self._offset += position
        return pieces

    def _pread(self, length: int) -> bytes:
        return os.pread(self._fd, length, self._offset)

    def _take(self, data: bytes, end_sequence: int | None, pieces: list[Frame | Hole]) -> int:
        """Appends the frames that `data` begins with, and what is missing before them; returns where they end."""
        epoch = self._name.epoch if self._name else ""
        position = 0
        while (parsed := parse_frame(data, position, epoch)) is not None:
            frame, position = parsed
            if end_sequence is not None and frame.first_sequence >= end_sequence:
                continue
            if frame.first_sequence > self._sequence:
                pieces.append(Hole(self._sequence, frame.first_sequence, "gone"))
            if frame.end_sequence > self._sequence:
                pieces.append(frame.after(self._sequence))
                self._sequence = frame.end_sequence
        return position

    def _behind_damage(self) -> int:
        """How far from the offset the next whole frame begins, where something else stands before it; 0 for none."""
        size = os.fstat(self._fd).st_size
        if size - self._offset <= FRAME_HEAD_BYTES:
            return 0
        data = self._pread(size - self._offset)
        if parse_frame(data, 0, "") is not None:
            return 0  # it has become whole since
        found = next_frame(data, 1, "")
        return found if found < len(data) else 0


def backwards(directory: Path, before: SegmentName | None) -> Iterator[list[Frame]]:
    """The frames of each earlier segment that is still there, the latest segment first.

    Args:
        directory: the flavor's.
        before: where to begin; None for nothing at all.

    Raises:
        OSError: the directory or a segment cannot be read.
    """
    if before is None:
        return
    end_sequence = before.first_sequence
    for name in reversed([name for name in segments(directory) if name < before]):
        try:
            data = (directory / str(name)).read_bytes()
        except FileNotFoundError:
            return
        frames, position = [], SEGMENT_HEAD_BYTES
        while position < len(data):
            parsed = parse_frame(data, position, name.epoch)
            if parsed is None:
                position = next_frame(data, position + 1, name.epoch)
                continue
            frame, position = parsed
            if frame.end_sequence <= end_sequence:
                frames.append(frame)
        yield frames
        end_sequence = name.first_sequence
