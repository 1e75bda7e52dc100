"""The supervisor: one task per (backend, flavor) that reads the journal, feeds the backend and keeps the cursor.

Knows the contract and no backend. Failure is the normal case: back off with jitter, open again at the cursor. The
next opening begins only after the last one was left, and that waits for its last system call, so a hanging file system
never has two writers.

Where a flavor's lines go may change while it is fed (`reopen`): what was taken is settled, the opening left, and the
next one goes where the configuration says by then. Not before: a call that hangs is waited for then too.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from scratchd.backends.contract import Backend, BackendError, Frame, Hole, Opening, Outlet, Progress, Row
from scratchd.journal.flavor import FlavorJournal, Times
from scratchd.journal.reader import Reader
from scratchd.log import Log
from scratchd.stats import BackendStats, FeedStats, State, iso_time

SETTLE_S = 1.0
"""How often the cursor is saved while lines flow: what a crash makes the backend take again."""

LASTING_S = 10.0
"""An opening that ended sooner, without progress, is part of the same failure: it waits longer and is not news.
Beyond the five seconds that Kafka takes to say that a topic is not there."""

BACK_OFF_FIRST_S = 0.25
BACK_OFF_MOST_S = 5.0
"""Waits between openings double from the first to the most, each with a jitter of half."""


@dataclass(slots=True)
class _Unsaved:
    """Progress and holes that the cursor's file does not know yet."""

    progress: Progress | None
    holes: list[Hole]

    def add(self, progress: Progress) -> None:
        if self.progress is not None:
            progress = Progress(
                progress.next_sequence,
                self.progress.persisted_lines + progress.persisted_lines,
                self.progress.set_aside_lines + progress.set_aside_lines,
                progress.replay,
                progress.unfinished,
            )
        self.progress = progress


class _Clockwork:
    """When the lines around holes came, for the gaps' records: what was read since the opening and is not saved."""

    def __init__(self, last_ms: int | None) -> None:
        self._read_ms = last_ms
        self._after_ms: dict[int, int] = {}
        self._behind_ms: dict[int, int] = {}
        self._opens = True

    def read(self, piece: Frame | Hole) -> None:
        """Notes what comes next in the journal."""
        if isinstance(piece, Hole):
            if self._read_ms is not None:
                self._after_ms[piece.first_sequence] = self._read_ms
        else:
            if self._opens:
                self._behind_ms[piece.first_sequence] = piece.time_ms
            self._read_ms = piece.time_ms
        self._opens = isinstance(piece, Hole)

    def times(self, now_ms: int, last_ms: int | None) -> Times:
        """For a saving of the cursor; `last_ms`: arrival of the last line that it passes."""
        return Times(now_ms, last_ms, dict(self._after_ms), dict(self._behind_ms))

    def saved(self, next_sequence: int) -> None:
        """Forgets what no later saving needs."""
        self._after_ms = {first: ms for first, ms in self._after_ms.items() if first >= next_sequence}
        self._behind_ms = {first: ms for first, ms in self._behind_ms.items() if first > next_sequence}


class Feed:
    """One backend's way through one flavor's journal.

    Args:
        clock_ms: the wall clock, for the time of an error.
        jitter: a number from 0 to 1, at random.
    """

    def __init__(
        self,
        backend: Backend,
        journal: FlavorJournal,
        feed_stats: FeedStats,
        backend_stats: BackendStats,
        log: Log,
        *,
        clock_ms: Callable[[], int],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._backend = backend
        self._journal = journal
        self._stats = feed_stats
        self._backend_stats = backend_stats
        self._log = log
        self._clock_ms = clock_ms
        self._jitter = jitter
        self._limiter = trio.CapacityLimiter(1)
        self._stopping = trio.Event()
        self._reopening = trio.Event()
        self._opened_as: State = "running"
        # Kinds of errors that were logged since lines last came through.
        self._failing: set[str] = set()
        self._unsaved = _Unsaved(None, [])
        self._clockwork = _Clockwork(None)
        self._handed_over = journal.start_sequence
        # Ends and times of the frames that were taken and are not settled, oldest first.
        self._taken: deque[tuple[int, int]] = deque()

    def stop(self) -> None:
        """Lets `run` return once everything that is in the journal has been brought to safety."""
        self._stopping.set()

    def go_on(self) -> None:
        """Takes `stop` back, as far as `run` has not returned."""
        if self._stopping.is_set():
            self._stopping = trio.Event()

    def reopen(self) -> None:
        """Has the backend opened anew as soon as that can be; the present opening is settled first."""
        self._reopening.set()

    async def run(self) -> None:
        """Feeds until `stop` and the journal's end, or until cancelled; failures are its daily work."""
        name = self._backend.name
        if name in self._journal.broken:
            self._fail(BackendError("cursor", self._journal.broken[name]))
            return
        failures = 0
        while True:
            began, beginning = trio.current_time(), self._stats.next_sequence
            self._reopening = trio.Event()
            try:
                await self._feed()
            except BackendError as error:
                lasted = trio.current_time() - began > LASTING_S or self._stats.next_sequence > beginning
                failures = 1 if lasted else failures + 1
                self._stats.state = "backing_off"
                self._fail(error)
            else:
                if self._reopening.is_set():
                    continue
                self._stats.state = "stopped"
                return
            wait_s = min(BACK_OFF_MOST_S, BACK_OFF_FIRST_S * 2 ** min(failures - 1, 10))
            with trio.move_on_after(wait_s * (0.5 + self._jitter() / 2)):
                await self._reopening.wait()

    def _fail(self, error: BackendError) -> None:
        self._backend_stats.failed(iso_time(self._clock_ms()), self._journal.flavor, error.kind, error.message)
        write = self._log.debug if error.kind in self._failing else self._log.error
        self._failing.add(error.kind)
        write(
            "backend failed, its lines wait in the journal",
            flavor=self._journal.flavor,
            kind=error.kind,
            error=error.message,
        )

    async def _feed(self) -> None:
        """One opening: from the cursor to the journal's end, and on."""
        cursor = self._journal.cursor(self._backend.name)
        self._unsaved = _Unsaved(None, [])
        self._taken.clear()
        self._clockwork = _Clockwork(cursor.time_ms)
        reader = Reader(self._journal.directory, cursor.next_sequence)
        try:
            await self._note_oldest(reader)
            self._opened_as = "running"
            opening = Opening(
                flavor=self._journal.flavor,
                directory=self._journal.directory,
                sequence=cursor.next_sequence,
                replayed_until=self._handed_over,
                replay=cursor.replay,
                save=self._save_blocking,
                set_aside=self._set_aside_blocking,
                set_state=self._set_state,
                gaps=lambda: self._journal.cursor(self._backend.name).gaps,
                report=self._fail,
            )
            async with self._backend.open(opening) as outlet:
                self._stats.state = self._opened_as
                await self._pump(outlet, reader)
        finally:
            reader.close()

    async def _note_oldest(self, reader: Reader) -> None:
        writer = self._journal.writer
        if self._stats.oldest_pending_ms is None and reader.sequence < writer.next_sequence:
            extents = writer.extents()
            try:
                self._stats.oldest_pending_ms = await trio.to_thread.run_sync(
                    reader.oldest_time_ms, extents, limiter=self._limiter
                )
            except OSError as error:
                raise self._journal_error(error) from error

    async def _pump(self, outlet: Outlet, reader: Reader) -> None:
        writer = self._journal.writer
        settle_at = trio.current_time() + SETTLE_S
        while True:
            if self._reopening.is_set():
                await self._settle(outlet, final=False)
                return
            if reader.sequence < writer.next_sequence:
                if await self._hand_over(outlet, reader):
                    with trio.move_on_at(settle_at):
                        await self._linger()
            elif self._stopping.is_set():
                await self._settle(outlet, final=True)
                if self._stopping.is_set():
                    return
            else:
                with trio.move_on_at(settle_at):
                    await self._wait_for_lines(reader.sequence)
                    await self._linger()
            if trio.current_time() >= settle_at:
                await self._settle(outlet, final=False)
                settle_at = trio.current_time() + SETTLE_S

    async def _linger(self) -> None:
        """Lets more lines come, to go together."""
        if not (self._stopping.is_set() or self._reopening.is_set()):
            await trio.sleep(self._backend.linger_s)

    async def _hand_over(self, outlet: Outlet, reader: Reader) -> bool:
        """Gives the outlet what is next; returns whether that was all there was."""
        pieces = await self._read(reader)
        was_all = reader.sequence == self._journal.writer.next_sequence
        for piece in pieces:
            self._clockwork.read(piece)
            if isinstance(piece, Frame):
                self._taken.append((piece.end_sequence, piece.time_ms))
            else:
                self._unsaved.holes.append(piece)
        if self._stats.oldest_pending_ms is None and self._taken:
            self._stats.oldest_pending_ms = self._taken[0][1]
        self._handed_over = max(self._handed_over, reader.sequence)
        await outlet.take(pieces)
        return was_all

    async def _read(self, reader: Reader) -> list[Frame | Hole]:
        extents = self._journal.writer.extents()
        try:
            # Steady state: what was just written is in the page cache, and a thread would cost ten times the reading.
            with contextlib.suppress(BlockingIOError):
                return reader.read(extents, self._backend.read_bytes, cached=True)
            return await trio.to_thread.run_sync(reader.read, extents, self._backend.read_bytes, limiter=self._limiter)
        except OSError as error:
            raise self._journal_error(error) from error

    async def _wait_for_lines(self, sequence: int) -> None:
        async with trio.open_nursery() as nursery:

            async def until(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until, self._stopping)
            nursery.start_soon(until, self._reopening)
            await self._journal.writer.wait_beyond(sequence)
            nursery.cancel_scope.cancel()

    async def _settle(self, outlet: Outlet, *, final: bool) -> None:
        progress = await outlet.settle(final=final)
        if progress is not None:
            self._unsaved.add(progress)
        if self._unsaved.progress is not None:
            try:
                await trio.to_thread.run_sync(self._save_unsaved, limiter=self._limiter)
            except BackendError as error:
                # The lines are safe; only the cursor is not. It is tried again with the next progress.
                self._fail(error)
                return
            if self._failing:
                self._log.info("backend works again", flavor=self._journal.flavor)
                self._failing.clear()
        await self._journal.release()

    def _set_state(self, state: State) -> None:
        self._stats.state = self._opened_as = state

    def _save_blocking(self, progress: Progress) -> None:
        self._unsaved.add(progress)
        self._save_unsaved()

    def _set_aside_blocking(self, rows: Sequence[Row]) -> None:
        try:
            self._journal.set_aside(self._backend.name, rows)
        except OSError as error:
            raise self._journal_error(error) from error

    def _save_unsaved(self) -> None:
        progress = self._unsaved.progress
        if progress is None:
            return
        passed = [hole for hole in self._unsaved.holes if hole.end_sequence <= progress.next_sequence]
        last_ms = None
        for end_sequence, time_ms in self._taken:
            if end_sequence > progress.next_sequence:
                break
            last_ms = time_ms
        times = self._clockwork.times(self._clock_ms(), last_ms)
        try:
            self._journal.advance(self._backend.name, progress, passed, times)
        except OSError as error:
            raise self._journal_error(error) from error
        self._clockwork.saved(progress.next_sequence)
        self._unsaved = _Unsaved(None, self._unsaved.holes[len(passed) :])
        while self._taken and self._taken[0][0] <= progress.next_sequence:
            self._taken.popleft()
        self._stats.oldest_pending_ms = self._taken[0][1] if self._taken else None

    def _journal_error(self, error: OSError) -> BackendError:
        return BackendError("journal", f"{error.filename or self._journal.directory}: {error.strerror}")
