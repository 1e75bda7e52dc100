"""The segment files of one flavor: the open one, its space ahead, the quota, and what may be read. Knows no sync.

Calls that write raise OSError and leave every segment ending in a whole frame.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from scratchd.journal.format import SEGMENT_HEAD_BYTES, Frame, SegmentName, frame, scan, segment_head
from scratchd.journal.reader import Extent
from scratchd.journal.recovery import Segment
from scratchd.journal.storage import preallocate, sync_directory, write_whole
from scratchd.log import Log

MAX_STEP_BYTES = 4 << 20
"""Space is reserved this much ahead of the writer at most: a quarter of a second at 60,000 lines a second."""

_MIN_STEP_BYTES = 4096

_MIN_EARLY_BYTES = 65536
"""A segment that ends early for want of space has at least so much, or the directory would fill with tiny ones."""

_PROBE = bytes(4096)
"""What `probe` writes: a page of zeros, which is no frame."""


class Segments:
    """Every segment of a flavor, in order, the last one perhaps open for appending.

    Attributes:
        total_bytes: of all segments.
        other_bytes: of what else is inside the quota: lines set aside.
        quota_bytes: kept whenever a segment begins.
        unsynced: descriptors of ended segments that were not synced since, for whoever syncs to close.
        names_unsynced: whether a segment was begun since the directory was last synced.
    """

    def __init__(
        self,
        directory: Path,
        segments: Iterable[Segment],
        *,
        segment_bytes: int,
        quota_bytes: int,
        log: Log,
    ) -> None:
        self.directory = directory
        self.unsynced: list[tuple[int, Segment]] = []
        self.names_unsynced = False
        self.other_bytes = 0
        self._segments = list(segments)
        self.total_bytes = sum(segment.size for segment in self._segments)
        self._segment_bytes = segment_bytes
        self.quota_bytes = quota_bytes
        self._log = log
        self._fd = -1
        self._reserved = 0
        self._reserves = True
        self._scarce = False
        self._full_step = max(_MIN_STEP_BYTES, min(MAX_STEP_BYTES, segment_bytes // 4))
        self._step = self._full_step

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def reserved_bytes(self) -> int:
        """What is reserved behind the open segment's end."""
        return max(0, self._reserved - self._segments[-1].size) if self._fd >= 0 else 0

    @property
    def fd(self) -> int:
        """The open segment's descriptor, -1 where none is open."""
        return self._fd

    def extents(self, next_sequence: int) -> list[Extent]:
        """What may be read now, in order; `next_sequence` is the one that the next line will get."""
        if not self._segments:
            # One that is not there stands for all that left: who had not read them finds it gone.
            return [Extent(SegmentName(next_sequence, 0, ""), 0, next_sequence)]
        ends = [segment.name.first_sequence for segment in self._segments[1:]] + [next_sequence]
        return [Extent(segment.name, segment.size, end) for segment, end in zip(self._segments, ends, strict=True)]

    def append(self, data: bytes, first_sequence: int, epoch: str) -> None:
        """Writes a frame behind the last one, in a new segment where it does not fit; part of it is truncated back."""
        if self._fd < 0 or SEGMENT_HEAD_BYTES < self._segments[-1].size > self._segment_bytes - len(data):
            self.begin(first_sequence, epoch)
        elif self._scarce and self._segments[-1].size > max(_MIN_EARLY_BYTES, self._full_step // 8):
            self._begin_early(first_sequence, epoch)
        segment = self._segments[-1]
        try:
            write_whole(self._fd, data)
        except OSError:
            self._truncate_back()
            raise
        segment.size += len(data)
        self.total_bytes += len(data)
        self._reserve_ahead()

    def begin(self, first_sequence: int, epoch: str) -> None:
        """Ends the open segment and begins one, within the quota."""
        segment, fd = self._create(first_sequence, epoch, [], durably=False)
        self.leave()
        self._segments.append(segment)
        self.total_bytes += segment.size
        self._fd, self._reserved, self.names_unsynced = fd, 0, True
        self._keep_quota()
        self._reserve_ahead()

    def _begin_early(self, first_sequence: int, epoch: str) -> None:
        """Ends a segment that has room left, if possible: on a disk that fills up, what has ended can leave."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self._segments[-1].size)  # the new segment needs a block of those reserved
            self._reserved = 0
            self.begin(first_sequence, epoch)

    def probe(self) -> None:
        """Finds out whether the open segment can be written to."""
        try:
            write_whole(self._fd, _PROBE)
        finally:
            self._truncate_back()
        self._step = self._full_step

    def rewrite(self, beyond_sequence: int, epoch: str) -> Callable[[], None]:
        """Writes the unsynced segments' frames that end beyond a sequence again, each into a new segment, durably.

        Blocking, for a thread; nothing may be appended meanwhile.

        Returns:
            What makes the new segments take the old ones' place, to be called by whoever appends.
        """
        old = [*self.unsynced, *([(self._fd, self._segments[-1])] if self._fd >= 0 else [])]
        new: list[Segment] = []
        try:
            for fd, segment in old:
                pieces = scan(os.pread(fd, segment.size, 0), SEGMENT_HEAD_BYTES, segment.name.epoch)
                frames = [
                    piece for piece in pieces if isinstance(piece, Frame) and piece.end_sequence > beyond_sequence
                ]
                if frames:
                    again, new_fd = self._create(frames[0].first_sequence, epoch, frames, durably=True)
                    new.append(again)
                    os.close(new_fd)
        except OSError:
            for segment in new:
                self.delete(segment)
            raise

        def adopt() -> None:
            # All of it is on disk, so none is open: the next frame begins a segment, which sorts behind every other.
            for fd, _ in old:
                os.close(fd)
            self.unsynced.clear()
            self._fd = -1
            self._segments = sorted([*self._segments, *new], key=lambda segment: segment.name)
            self.total_bytes += sum(segment.size for segment in new)

        return adopt

    def below(self, sequence: int) -> list[Segment]:
        """Takes the segments that lie wholly below `sequence` from the list, except the last, for `delete`."""
        passed = sum(extent.end_sequence <= sequence for extent in self.extents(sequence + 1)[:-1])
        return self._take_off(passed)

    def all(self) -> list[Segment]:
        """Takes every segment from the list, for `delete`; their space is given back at once.

        A last one without frames stays: it takes no space, and the next one would have its name.
        """
        if not self._segments or self._segments[-1].size <= SEGMENT_HEAD_BYTES:
            return self._take_off(len(self._segments) - 1)
        self.leave()
        for fd, _ in self.unsynced:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)  # deleting alone gives nothing back while the descriptor waits for a sync
        return self._take_off(len(self._segments))

    def _take_off(self, passed: int) -> list[Segment]:
        leaving, self._segments = self._segments[:passed], self._segments[passed:]
        self.total_bytes -= sum(segment.size for segment in leaving)
        return leaving

    def delete(self, segment: Segment) -> None:
        """Removes a segment's file; a failure is logged, and the file found again at the next start."""
        try:
            (self.directory / str(segment.name)).unlink()
        except OSError as error:
            self._log.warning("a segment cannot be deleted", segment=segment.name, error=error.strerror)

    def leave(self) -> None:
        """Ends the open segment; its descriptor lives on in `unsynced`."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._segments[-1].size)  # gives back the blocks behind its end
            self.unsynced.append((self._fd, self._segments[-1]))
            self._fd = -1

    def close_unsynced(self) -> None:
        """Closes what `unsynced` holds."""
        for fd, _ in self.unsynced:
            os.close(fd)
        self.unsynced.clear()

    def _create(
        self, first_sequence: int, epoch: str, frames: Iterable[Frame], *, durably: bool
    ) -> tuple[Segment, int]:
        """A new segment file with a head and `frames`, and its descriptor; none is left behind by a failure."""
        again = (frame(f.lines(), f.first_sequence, f.time_ms, f.date) for f in frames)
        data = b"".join([segment_head(first_sequence, epoch), *again])
        name, fd = self._open_new(first_sequence, epoch)
        path = self.directory / str(name)
        try:
            write_whole(fd, data)
            if durably:
                os.fdatasync(fd)
                sync_directory(self.directory)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return Segment(name, len(data)), fd

    def _open_new(self, first_sequence: int, epoch: str) -> tuple[SegmentName, int]:
        """A file of a name that nobody has had: a disk that fails may keep what was to be unlinked."""
        attempts = [s.name.attempt for s in self._segments if s.name.first_sequence == first_sequence]
        attempt = max(attempts, default=-1) + 1
        while True:
            name = SegmentName(first_sequence, attempt, epoch)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with contextlib.suppress(FileExistsError):
                return name, os.open(self.directory / str(name), flags, 0o640)
            attempt += 1

    def _truncate_back(self) -> None:
        """Cuts what stands behind the last whole frame."""
        try:
            os.ftruncate(self._fd, self._segments[-1].size)
        except OSError:
            # The next segment's first sequence says that nothing behind the last whole frame counts.
            self.leave()
        self._reserved = 0  # the reserved blocks left with it

    def _reserve_ahead(self) -> None:
        """Keeps at least half a step of blocks reserved behind the end, so that a full disk shows early."""
        size = self._segments[-1].size
        if not self._reserves or self._reserved - size > self._step // 2:
            return
        offset = max(size, self._reserved)
        try:
            self._reserves = preallocate(self._fd, offset, self._step)
        except OSError as error:
            if not self._scarce:
                self._log.warning(
                    "no space to reserve ahead, lines will be refused soon",
                    directory=self.directory,
                    left_bytes=self.reserved_bytes,
                    error=error.strerror,
                )
            self._scarce = True
            self._step = max(_MIN_STEP_BYTES, self._step // 2)
            return
        self._reserved = offset + self._step
        if self._step < self._full_step:
            self._step *= 2
        elif self._scarce:
            self._log.info("space is reserved ahead again", directory=self.directory)
            self._scarce = False

    def _keep_quota(self) -> None:
        """Deletes the oldest segments until a full one more fits; who had not read them finds them gone."""
        most_bytes = self.quota_bytes - self.other_bytes - self._segment_bytes
        while self.total_bytes > most_bytes and len(self._segments) > 1:
            oldest = self._segments.pop(0)
            self.total_bytes -= oldest.size
            self._log.warning(
                "quota reached, the oldest segment leaves before every backend has read it",
                directory=self.directory,
                quota_bytes=self.quota_bytes,
                first=oldest.name.first_sequence,
                last=self._segments[0].name.first_sequence - 1,
            )
            self.delete(oldest)
