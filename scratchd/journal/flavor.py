"""One flavor's journal as a whole: its writer, the backends' cursors, and which segments nobody needs any more.

Knows backends by name only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from scratchd.journal import cursor as journal_cursor
from scratchd.journal import epochs as journal_epochs
from scratchd.journal import places
from scratchd.journal.cursor import Cursor, CursorError
from scratchd.journal.epochs import Epoch
from scratchd.journal.gaps import Gap, Kind, add, closed, rendered
from scratchd.journal.reader import Hole
from scratchd.journal.recovery import recover
from scratchd.journal.segments import Segments
from scratchd.journal.set_aside import Row, SetAside
from scratchd.journal.storage import replace_durably, sync_directory
from scratchd.journal.writer import Sync, Writer
from scratchd.log import Log
from scratchd.stats import FeedStats, FlavorStats, JournalStats


class JournalLockedError(Exception):
    """Another process owns the journal: do not start."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The `journal` section of the configuration for one flavor, in bytes and seconds."""

    segment_bytes: int
    quota_bytes: int
    sync: Sync
    sync_interval_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """What a backend has brought to safety since it last said so.

    Attributes:
        next_sequence: everything below is durable downstream, set aside, or a hole.
        persisted_lines: how many lines became durable downstream.
        set_aside_lines: how many were refused for good and kept.
        replay: what reopening at `next_sequence` needs, a JSON object of the backend's own.
        unfinished: whether something is left to do even when nothing is pending: a flavor that was removed from the
            configuration is opened for it.
    """

    next_sequence: int
    persisted_lines: int
    set_aside_lines: int
    replay: Mapping[str, object]
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Times:
    """When the lines around gaps came, milliseconds since the Unix epoch; None and empty where nothing is known.

    Attributes:
        now_ms: the present.
        last_ms: arrival of the last line below `Progress.next_sequence`, None where there was none since the opening.
        after_ms: of the last line before a hole, by the hole's first sequence.
        behind_ms: of lines that may stand right behind a gap, by their sequence.
    """

    now_ms: int | None = None
    last_ms: int | None = None
    after_ms: Mapping[int, int] = field(default_factory=dict)
    behind_ms: Mapping[int, int] = field(default_factory=dict)


_NO_TIMES = Times()


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Owns an instance's directory, made where it is missing, until the block ends or the process does.

    Raises:
        JournalLockedError: another process owns it.
        OSError: it cannot be made or written to.
    """
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    sync_directory(directory.parent)
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalLockedError(
                f"{directory}: another scratchd owns this journal; stop it, or give each instance a name (--instance)"
            ) from None
        yield
    finally:
        os.close(fd)


class FlavorJournal:
    """A flavor's directory, opened.

    Args:
        directory: the flavor's own, made where it is missing.
        flavor: its name.
        backends: names of the enabled ones.

    Attributes:
        writer: its writing end.
        start_sequence: lines below it are from before this start.
        broken: backends whose cursor cannot be read, and why; they stay stopped.
        epochs: of every sequence so far, in order.

    Raises:
        OSError: the directory cannot be read.
    """

    def __init__(
        self,
        directory: Path,
        flavor: str,
        backends: Sequence[str],
        limits: Limits,
        *,
        stats: FlavorStats,
        totals: JournalStats,
        log: Log,
    ) -> None:
        directory.mkdir(mode=0o750, exist_ok=True)
        sync_directory(directory.parent)  # even where it was there: a kill may have come between the two
        self.directory = directory
        self.flavor = flavor
        self.broken: dict[str, str] = {}
        self._log = log
        self._stats = stats
        self._totals = totals
        self._cursors: dict[str, Cursor] = {}
        self._off: dict[str, Cursor] = {}
        self._corrupt: set[int] = set()
        self._listing = threading.Lock()
        recovered = recover(directory)
        self._load_cursors(backends, recovered.oldest_sequence)
        totals.cut_bytes += recovered.cut_bytes
        if recovered.cut_bytes:
            log.warning("torn end cut", flavor=flavor, directory=directory, bytes=recovered.cut_bytes)
        self._segments = Segments(
            directory,
            recovered.segments,
            segment_bytes=limits.segment_bytes,
            quota_bytes=limits.quota_bytes,
            log=log,
        )
        cursors = [*self._cursors.values(), *self._off.values()]
        self.writer = Writer(
            flavor,
            self._segments,
            max([recovered.end_sequence, *(cursor.next_sequence for cursor in cursors)]),
            sync=limits.sync,
            sync_interval_s=limits.sync_interval_s,
            stats=stats,
            totals=totals,
            log=log,
        )
        self.start_sequence = self.writer.next_sequence
        self._set_aside = {
            name: SetAside(directory, name, limits.quota_bytes, log) for name in sorted({*self._cursors, *self._off})
        }
        self._count_set_aside()
        self.epochs = self._begin_epoch()
        self._tidy(recovered.oldest_sequence)
        for backend in backends:
            self._publish(backend)

    def _begin_epoch(self) -> tuple[Epoch, ...]:
        try:
            return journal_epochs.begin(self.directory, self.writer.epoch, self.writer.next_sequence)
        except OSError as error:  # the segments' names say it too, for as long as they are there
            self._log.warning("epochs.jsonl was not written", directory=self.directory, error=error.strerror)
            return ()

    def _tidy(self, oldest_sequence: int) -> None:
        """Lets `gaps.jsonl` say what the cursors do, and drops the places of lines that no gap can need any more."""
        everyone = [*self._cursors.values(), *self._off.values()]
        onward = min([oldest_sequence, *(cursor.next_sequence for cursor in everyone)])
        ranges = [(gap.first, gap.last) for cursor in everyone for gap in cursor.gaps]
        self._list_gaps()
        try:
            if not self.broken:
                for path in self.directory.glob("*.places.jsonl"):
                    places.prune(path, ranges, onward)
        except OSError as error:
            self._log.warning("the list of places was not pruned", directory=self.directory, error=error.strerror)

    def _load_cursors(self, enabled: Sequence[str], oldest_sequence: int) -> None:
        for backend in sorted({*enabled, *journal_cursor.backends(self.directory)}):
            try:
                saved = journal_cursor.load(self.directory, backend)
            except CursorError as error:
                self.broken[backend] = str(error)
                continue
            if backend not in enabled:
                if saved is not None:
                    self._off[backend] = self._saved(backend, saved, enabled=False) if saved.enabled else saved
            elif saved is None:
                # Both of its files are made now, for a full disk later.
                first = self._saved(backend, Cursor(serial=-1), disabled_until=oldest_sequence)
                self._cursors[backend] = self._saved(backend, first)
            elif not saved.enabled:
                self._cursors[backend] = self._saved(backend, saved, enabled=True, disabled_until=oldest_sequence)
            else:
                self._cursors[backend] = saved

    def _saved(self, backend: str, cursor: Cursor, **changes: int) -> Cursor:
        """The changed cursor, saved; on a disk that is full or fails the next progress saves the changes."""
        changed = msgspec.structs.replace(cursor, **changes)
        saved = msgspec.structs.replace(changed, serial=cursor.serial + 1)
        try:
            saved.save(self.directory, backend)
        except OSError as error:
            self._log.warning("a cursor was not saved", directory=self.directory, error=error.strerror)
            return changed
        return saved

    def adopt(self, quota_bytes: int) -> None:
        """Keeps within this quota: the segments from the next one on, lines set aside from the next one on."""
        self._segments.quota_bytes = quota_bytes
        for files in self._set_aside.values():
            files.adopt(quota_bytes)

    def cursor(self, backend: str) -> Cursor:
        """Where an enabled backend stands, as saved."""
        return self._cursors[backend]

    def advance(self, backend: str, progress: Progress, holes: Sequence[Hole], times: Times = _NO_TIMES) -> None:
        """Saves how far a backend has come; blocking.

        Args:
            backend: an enabled one.
            progress: since the last call.
            holes: those below `progress.next_sequence` that no earlier call had.
            times: when the lines around the holes came, and those behind earlier gaps.

        Raises:
            OSError: the journal's disk is full or fails; nothing has changed.
        """
        cursor = self._cursors[backend]
        gaps = cursor.gaps
        for hole in holes:
            for gap in _gaps_of(hole, cursor.disabled_until, times):
                self._note_gap(backend, gap)
                gaps = add(gaps, gap)
        gaps = closed(gaps, times.behind_ms)
        moved = msgspec.structs.replace(
            cursor,
            serial=cursor.serial + 1,
            next_sequence=progress.next_sequence,
            persisted_lines=cursor.persisted_lines + progress.persisted_lines,
            set_aside_lines=cursor.set_aside_lines + progress.set_aside_lines,
            gaps=gaps,
            replay=dict(progress.replay),
            unfinished=progress.unfinished,
            time_ms=cursor.time_ms if times.last_ms is None else times.last_ms,
        )
        moved.save(self.directory, backend)
        self._cursors[backend] = moved
        if gaps != cursor.gaps:
            self._list_gaps()
        self._publish(backend)  # last: who sees a gap counted finds it listed

    def _list_gaps(self) -> None:
        with self._listing:  # every backend comes here from a thread of its own
            everyone = {**self._off, **self._cursors}
            content = rendered({name: everyone[name].gaps for name in sorted(everyone)}, self.epochs)
            path = self.directory / "gaps.jsonl"
            try:
                if content != (path.read_bytes() if path.exists() else b""):
                    replace_durably(path, content)
            except OSError as error:  # the cursors hold the same, and the next gap or start writes it again
                self._log.warning("gaps.jsonl was not written", directory=self.directory, error=error.strerror)

    def _note_gap(self, backend: str, gap: Gap) -> None:
        if gap.kind == "corrupt" and gap.first not in self._corrupt:
            self._corrupt.add(gap.first)  # the other backend finds it too
            self._totals.corrupt_lines += gap.lines
        self._log.error(
            "gap: the backend will not get these lines from the journal",
            flavor=self.flavor,
            backend=backend,
            kind=gap.kind,
            first=gap.first,
            last=gap.last,
            lines=gap.lines,
        )

    def set_aside(self, backend: str, rows: Sequence[Row]) -> None:
        """Keeps lines that a backend refused for good, inside the quota; blocking.

        Args:
            backend: an enabled one.
            rows: in order, all at or beyond its cursor, which is to pass them later.

        Raises:
            OSError: they are not kept.
        """
        self._set_aside[backend].keep(rows)
        self._count_set_aside()

    def _count_set_aside(self) -> None:
        self._segments.other_bytes = sum(files.total_bytes for files in self._set_aside.values())

    def _publish(self, backend: str) -> None:
        feed = self._stats.feeds.setdefault(backend, FeedStats())
        if backend in self._cursors:
            cursor = self._cursors[backend]
            feed.next_sequence = cursor.next_sequence
            feed.persisted_lines = cursor.persisted_lines
            feed.set_aside_lines = cursor.set_aside_lines
            feed.gap_lines = cursor.gap_lines

    async def release(self) -> None:
        """Deletes the segments that every enabled backend has passed."""
        if not self.broken:
            await self.writer.release(min(cursor.next_sequence for cursor in self._cursors.values()))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps the journal synced until cancelled."""
        task_status.started()
        await self.writer.run()


def _gaps_of(hole: Hole, disabled_until: int, times: Times) -> list[Gap]:
    """A hole in the terms of a cursor: why its segment is gone depends on when it left."""
    middle = min(max(hole.first_sequence, disabled_until), hole.end_sequence)
    parts: list[tuple[Kind, int, int]] = [
        ("disabled", hole.first_sequence, middle),
        ("quota", middle, hole.end_sequence),
    ]
    if hole.kind != "gone":
        parts = [(hole.kind, hole.first_sequence, hole.end_sequence)]
    after_ms = times.after_ms.get(hole.first_sequence)
    return [
        Gap(kind, first, end - 1, after_ms=after_ms, noticed_ms=times.now_ms)
        for kind, first, end in parts
        if first < end
    ]
