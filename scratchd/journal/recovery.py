"""Recovery: what a start finds in a flavor's directory. Reads the last segment only, and cuts its torn end.

Whatever no valid frame follows is cut. A damaged frame with valid ones behind it stays and costs itself alone: readers
make a gap of it. A last segment without any frame says nothing but its first sequence, so the one before is read too.

A journal that a later version of scratchd wrote is not damaged: nothing of it is touched, and the start ends.

A process that was killed had not synced all of it: that is done first, so that whatever the next one reads, answers for
or passes on is on disk.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from scratchd.journal.format import (
    FRAME_HEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    VERSION,
    Damage,
    SegmentName,
    is_segment_head,
    newer_version,
    scan,
)
from scratchd.journal.storage import sync_directory


class NewerJournalError(Exception):
    """A later version wrote the journal: end the start with the message, nothing has been changed."""


@dataclass(slots=True)
class Segment:
    """A segment on disk.

    Attributes:
        size: bytes up to the end of the last whole frame.
    """

    name: SegmentName
    size: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """A flavor's journal as a start found it.

    Attributes:
        segments: in order.
        end_sequence: one past the last line that survived.
        cut_bytes: torn or unreadable bytes that were cut from the end.
    """

    segments: list[Segment]
    end_sequence: int
    cut_bytes: int

    @property
    def oldest_sequence(self) -> int:
        """The first one that the segments may hold; 0 where there is none."""
        return self.segments[0].name.first_sequence if self.segments else 0


def recover(directory: Path) -> Recovered:
    """Lists the segments of a flavor's directory, which must exist, syncs them and cuts the end of the last.

    Raises:
        OSError: the directory or a segment cannot be read.
        NewerJournalError: a segment is of a later version; then none has been cut.
    """
    names = sorted(name for entry in directory.iterdir() if (name := SegmentName.parse(entry.name)))
    for name in names:
        _refuse_newer(directory / str(name))
    for name in names:
        _sync(directory / str(name))
    sync_directory(directory)
    segments = [Segment(name, (directory / str(name)).stat().st_size) for name in names]
    cut_bytes = 0
    end_sequence = 0
    for segment in reversed(segments):
        end_sequence = max(end_sequence, segment.name.first_sequence)
        valid_end, last_sequence = _cut(directory / str(segment.name), segment.name)
        cut_bytes += max(0, segment.size - valid_end)
        segment.size = valid_end
        if last_sequence is not None:
            end_sequence = max(end_sequence, last_sequence)
            break
    return Recovered(segments, end_sequence, cut_bytes)


def _refuse_newer(path: Path) -> None:
    with path.open("rb") as segment:
        version = newer_version(segment.read(SEGMENT_HEAD_BYTES))
    if version is not None:
        raise NewerJournalError(
            f"{path}: written by a later scratchd, format {version}, expected at most {VERSION}: "
            "install that version again, or let it persist everything and move the directory away"
        )


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _cut(path: Path, name: SegmentName) -> tuple[int, int | None]:
    """Cuts a segment behind its last valid frame; returns its size and the end of its last frame, if any."""
    data = path.read_bytes()
    valid_end = SEGMENT_HEAD_BYTES if is_segment_head(data) else 0
    last_sequence = None
    offset = SEGMENT_HEAD_BYTES
    for piece in scan(data, offset, name.epoch):
        if isinstance(piece, Damage):
            offset = piece.end
        else:
            last_sequence = piece.end_sequence
            offset += FRAME_HEAD_BYTES + len(piece.payload)
            valid_end = offset
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        # Even where nothing is torn: it gives back the blocks that were reserved behind the end.
        os.ftruncate(fd, valid_end)
        os.fsync(fd)
    finally:
        os.close(fd)
    return valid_end, last_sequence
