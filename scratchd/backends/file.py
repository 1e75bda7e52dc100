"""The file backend: one log file per flavor and day, each line in it exactly once.

A dispatcher (`_FileOutlet`) hands each frame to the file of its date: a frame's payload goes in as it stands. The
cursor keeps every open file's path and length, its mark, saved durably before the first byte goes to a file that the
cursor does not know; so a replay knows where its lines may stand already (`scratchd.backends.logfile`). Files are
synced before the cursor that counts on them is saved. A day's file is closed once its day is over, and gets its
manifest (`scratchd.backends.manifest`) then: its mark stays in the cursor until the manifest stands, over restarts too.

All file system calls run in a thread, one at a time per flavor. A hanging one is waited for: there are never two
writers; only the end of the process leaves it behind.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import trio

from scratchd.backends import manifest
from scratchd.backends.contract import BackendError, Frame, Hole, Opening, Outlet, Progress
from scratchd.backends.finished import Finished, mark_of, runs_of
from scratchd.backends.logfile import LogFile, failure
from scratchd.backends.manifest import Run
from scratchd.journal.places import Place, Places, path_of
from scratchd.log import Log

READ_BYTES = 1 << 18
"""Each write is a thread's work, whose way there and back costs as much as writing this."""

_IDLE_S = 5.0
"""A day that is over keeps its file for this long behind its last line, for lines that the journal still holds."""

_LOOK_S = 1.0
"""How often path and open file are compared."""

_HANG_S = 5.0
"""A call that takes longer hangs, as on a network file system whose server is away."""

T = TypeVar("T")


class FileBackend:
    """Log files for every flavor.

    Args:
        templates: path template by flavor, with only `{date}` to fill in. A flavor that is not among them (it was
            removed from the configuration) keeps the one that its cursor has saved; its days end when it is drained.
        today: the local date of a flavor now.
        flush_interval_s: how long a line may wait for its file.
        zones: time zone by flavor, IANA.
    """

    def __init__(
        self,
        templates: Mapping[str, str],
        today: Callable[[str], datetime.date],
        flush_interval_s: float,
        log: Log,
        zones: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name = "file"
        self.linger_s = flush_interval_s
        self.read_bytes = READ_BYTES
        self._templates = templates
        self._today = today
        self._log = log
        self._zones = zones

    def adopt(self, templates: Mapping[str, str], zones: Mapping[str, str]) -> None:
        """Opens flavors by these from now on; what is open stays as it is until it is opened anew."""
        self._templates = templates
        self._zones = zones

    @contextlib.asynccontextmanager
    async def open(self, opening: Opening) -> AsyncIterator[Outlet]:
        """Opens every file that the cursor knows; others are opened when their first line comes.

        Raises:
            BackendError: one of them cannot be opened, or holds something else than lines.
        """
        template = self._templates.get(opening.flavor) or opening.replay.get("template")
        if template is None:
            raise BackendError("removed", f"flavor {opening.flavor} is not configured and its cursor has no path")
        outlet = _FileOutlet(
            opening,
            template,
            self._zones.get(opening.flavor) or opening.replay.get("time_zone"),
            # Nothing more comes for a removed flavor, whatever day it is.
            (lambda: self._today(opening.flavor)) if opening.flavor in self._templates else None,
            self._log,
        )
        try:
            await outlet.begin()
            yield outlet
        finally:
            outlet.close()


class _FileOutlet:
    def __init__(
        self,
        opening: Opening,
        template: str,
        time_zone: str | None,
        today: Callable[[], datetime.date] | None,
        log: Log,
    ) -> None:
        self._opening = opening
        self._template = template
        self._time_zone = time_zone
        self._today = today
        self._log = log
        self._limiter = trio.CapacityLimiter(1)
        self._busy = False
        self._left = False
        self._days: dict[datetime.date, _Day] = {}
        self._finished = Finished(
            opening.flavor,
            opening.directory,
            time_zone,
            log,
            gaps=opening.gaps,
            marks=opening.replay.get("finished", ()),
        )
        self._places = Places(path_of(opening.directory, "file"))
        if (unsaved_from := opening.replay.get("places_unsaved_from")) is not None:
            self._places.missed(unsaved_from)
        self._next_sequence = opening.sequence
        self._persisted_lines = 0
        self._missing_lines = 0
        self._replaying = True
        self._look_at = 0.0
        self._settled: dict[str, Any] = opening.replay
        self._settled_sequence = opening.sequence

    async def _in_thread(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()  # so that the thread begins for certain
        self._busy = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            # Cancelled only at the end of the process: whatever hangs then ends with it.
            result = await trio.to_thread.run_sync(self._guarded(work), abandon_on_cancel=True, limiter=self._limiter)
            nursery.cancel_scope.cancel()
        if isinstance(result, BackendError):
            raise result
        return result

    async def _watch(self) -> None:
        """Says when a call hangs, and when it has come back."""
        await trio.sleep(_HANG_S)
        began = trio.current_time() - _HANG_S
        self._opening.set_state("backing_off")
        message = f"{self._template}: the file system has not answered for {_HANG_S:g} s; it is waited for"
        self._opening.report(BackendError("hanging", message))
        try:
            await trio.sleep_forever()
        finally:
            if not self._busy:
                self._opening.set_state("running")
                after_s = round(trio.current_time() - began, 1)
                self._log.info("the file system has answered", flavor=self._opening.flavor, after_s=after_s)

    def _guarded(self, work: Callable[[], T]) -> Callable[[], T | BackendError]:
        def run() -> T | BackendError:
            try:
                return work()
            except BackendError as error:
                return error  # a nursery would make a group of it
            finally:
                self._busy = False
                if self._left:
                    self._close_files()

        return run

    def close(self) -> None:
        """Closes the files; a call that still hangs in its thread does it when it returns."""
        self._left = True
        if not self._busy:
            self._close_files()

    def _close_files(self) -> None:
        while self._days:
            with contextlib.suppress(KeyError):  # thread and loop may both be here: each file is closed once
                self._days.popitem()[1].file.close()

    async def begin(self) -> None:
        await self._in_thread(self._begin)

    async def take(self, pieces: Sequence[Frame | Hole]) -> None:
        await self._in_thread(lambda: self._take(pieces))

    async def settle(self, *, final: bool) -> Progress | None:
        idle = self._replay() == self._settled and self._settled_sequence == self._next_sequence
        drained = final and self._today is None
        if idle and not self._over() and not self._finished.is_due() and not (drained and self._days):
            return None
        return await self._in_thread(lambda: self._settle(drained=drained))

    # In the thread from here on.

    def _begin(self) -> None:
        known = self._opening.replay.get("template")
        if known is None:
            self._opening.save(self._progress())  # where a flavor goes is known from now on, removed or not
        for text, mark in self._opening.replay.get("files", {}).items():
            path = Path(mark["path"])
            try:
                path.lstat()
            except FileNotFoundError:
                self._log.warning("gone, its path is begun anew", path=path)
                continue
            except OSError as error:  # not to be seen now: its mark still counts
                raise failure(path, error) from error
            file = LogFile(path, mark["length"], self._log)
            self._days[datetime.date.fromisoformat(text)] = _Day(file, mark["length"], runs_of(mark))
        self._end_of_replay()
        if not self._replaying:
            # Another flavor may want a path that is not this one's any more, and this one may be silent for long.
            for date in [date for date, day in self._days.items() if day.file.path != self._path(date)]:
                self._finish(date)
        if known not in {None, self._template}:
            self._try_to_save()  # a flavor that is removed meanwhile is drained to it

    def _end_of_replay(self) -> None:
        if self._replaying and self._next_sequence >= self._opening.replayed_until:
            self._replaying = False
            unmatched = [day for day in self._days.values() if day.file.matching]
            for day in unmatched:
                day.file.finish_matching()
                day.whole = day.file.length
            if unmatched:
                # The mark moves behind them before anything follows: a later start could not tell them from foreign.
                self._opening.save(self._progress())

    def _take(self, pieces: Sequence[Frame | Hole]) -> None:
        try:
            self._look()
            run: list[Frame] = []
            for piece in pieces:
                if run and (isinstance(piece, Hole) or _differ(piece, run[0]) or self._ends_replay(piece)):
                    self._write(run)
                    run = []
                if self._ends_replay(piece):
                    self._end_of_replay()
                if isinstance(piece, Hole):
                    self._places.missed(piece.first_sequence)
                    self._next_sequence = piece.end_sequence
                    self._missing_lines += piece.count
                elif self._is_replayed(piece):
                    self._match(piece)
                else:
                    run.append(piece)
            if run:
                self._write(run)
            self._end_of_replay()
        except BackendError:
            self._try_to_save()  # so that less of it has to be matched again
            raise

    def _ends_replay(self, piece: Frame | Hole) -> bool:
        return self._replaying and piece.first_sequence >= self._opening.replayed_until

    def _is_replayed(self, frame: Frame) -> bool:
        day = self._days.get(frame.date)
        return self._replaying and day is not None and day.file.matching

    def _match(self, frame: Frame) -> None:
        rest = self._days[frame.date].file.match(frame.payload, self._missing_lines)
        self._wrote(frame, frame.end_sequence - rest.count(b"\n"), len(frame.payload) - len(rest))
        if rest:
            self._write([frame.after(self._next_sequence)])

    def _write(self, run: Sequence[Frame]) -> None:
        day = self._day(run[0].date)
        day.file.find_end()
        if day.file.length < day.whole:
            # Cut short: like a new file's, its mark is saved before the first byte.
            day.whole = day.file.length
            day.runs.clear()  # which lines are left nobody knows
            self._opening.save(self._progress())
        begin = day.file.length
        try:
            day.file.write([frame.payload for frame in run])
        finally:
            # Also of a failed write: should the file be moved away to make room, what it has does not come again.
            self._wrote(run[0], run[0].first_sequence + day.file.written_lines, day.file.length - begin)

    def _wrote(self, first: Frame, end_sequence: int, size: int) -> None:
        """Everything below `end_sequence` is in its file: from frame `first` on in that of its date, `size` bytes."""
        day = self._days[first.date]
        day.whole = day.file.length
        day.last = time.monotonic()
        count = end_sequence - first.first_sequence
        if count:
            manifest.add_run(day.runs, first.epoch, first.first_sequence, end_sequence - 1)
            place = Place(first.first_sequence, str(day.file.path), day.whole - size, first.epoch, first.time_ms)
            self._places.wrote(place, count, size)
        self._persisted_lines += end_sequence - self._next_sequence
        self._next_sequence = end_sequence

    def _day(self, date: datetime.date) -> _Day:
        """The day with its file open at the path of the present configuration, known to the cursor."""
        path = self._path(date)
        day = self._days.get(date)
        if day is not None and day.file.path == path:
            return day
        if day is not None:
            self._finish(date)  # no more lines come to that path
        file = LogFile(path, None, self._log)
        day = self._days[date] = _Day(file, file.length, self._finished.take_back(path, file.length))
        self._opening.save(self._progress())
        try:
            manifest.remove(path)
        except OSError as error:
            raise failure(manifest.path_of(path), error) from error
        return day

    def _path(self, date: datetime.date) -> Path:
        return Path(self._template.replace("{date}", date.isoformat()))

    def _look(self) -> None:
        """Begins the path of a file anew that was moved or deleted."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        # What is matched is matched to its end first, wherever it has gone.
        for date in [date for date, day in self._days.items() if not day.file.matching and not day.file.is_in_place()]:
            self._log.warning("moved or deleted, its path is begun anew", path=self._days[date].file.path)
            self._leave(date)

    def _leave(self, date: datetime.date) -> None:
        """Closes a day's file once the cursor has passed everything in it."""
        self._opening.save(self._progress())
        self._days.pop(date).file.close()

    def _finish(self, date: datetime.date) -> None:
        """Closes a day's file for good: its manifest is due."""
        day = self._days[date]
        day.file.sync()
        del self._days[date]
        day.file.close()
        self._finished.add(date, day.file.path, day.whole, day.runs)

    def _over(self) -> list[datetime.date]:
        """Days that are over and have had their last line."""
        if not self._days or self._replaying or self._today is None:
            return []
        today, idle = self._today(), time.monotonic() - _IDLE_S
        return [date for date, day in self._days.items() if date < today and day.last < idle]

    def _settle(self, *, drained: bool) -> Progress:
        for date in list(self._days) if drained and not self._replaying else self._over():
            self._finish(date)
        self._finished.describe(to_the_end=drained)
        return self._progress()

    def _sync(self) -> None:
        for day in self._days.values():
            day.file.sync()

    def _progress(self) -> Progress:
        """How far everything is durable, and the marks that belong to it."""
        self._sync()
        try:
            self._places.save()
        except OSError as error:
            # Not for that: the cursor must move on for segments to leave a full disk.
            self._log.debug("places are not saved", flavor=self._opening.flavor, error=error.strerror)
        self._settled, self._settled_sequence = self._replay(), self._next_sequence
        unfinished = bool(self._days) or len(self._finished) > 0
        progress = Progress(self._next_sequence, self._persisted_lines, 0, self._settled, unfinished)
        self._persisted_lines = 0
        return progress

    def _try_to_save(self) -> None:
        try:
            self._opening.save(self._progress())
        except BackendError as error:
            self._log.debug("nothing saved", flavor=self._opening.flavor, error=error.message)

    def _replay(self) -> dict[str, Any]:
        return {
            "template": self._template,
            "time_zone": self._time_zone,
            "files": {str(date): mark_of(day.file.path, day.whole, day.runs) for date, day in self._days.items()},
            "finished": self._finished.marks(),
            "places_unsaved_from": self._places.unsaved_from,
        }


class _Day:
    """An open day.

    Attributes:
        file: its log file.
        whole: length of the file behind the last frame that is wholly in it.
        last: when its last line came, monotonic seconds.
        runs: the sequences in it up to `whole`.
    """

    def __init__(self, file: LogFile, whole: int, runs: list[Run]) -> None:
        self.file = file
        self.whole = whole
        self.last = time.monotonic()
        self.runs = runs


def _differ(piece: Frame, other: Frame) -> bool:
    return piece.date != other.date or piece.epoch != other.epoch
