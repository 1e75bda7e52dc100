"""Journal, cursors and backends against a plain list: whatever crashes, what was answered is there exactly once.

A life is one run of the process: the real `FlavorJournal`, `Feed` and `FileBackend` under trio's autojump clock, and a
topic that is at least once as Kafka is. It appends lines, waits, meets failing backends, and ends by a stop, by a kill
at any system call, or by a power failure (`simulated_disk`). Between lives the configuration changes. The model is a
list of what was appended. Calls that run in threads are made inline, so that a seed tells everything.

`SCRATCHD_MODEL_EXAMPLES` runs more examples than CI does, at random ones.
"""

from __future__ import annotations

import datetime
import logging
import os
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeVar

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from scratchd.backends import file as file_module
from scratchd.backends.contract import Backend, BackendError, Frame, Hole, Opening, Outlet, Progress
from scratchd.backends.file import FileBackend
from scratchd.backends.supervisor import Feed
from scratchd.journal import cursor as journal_cursor
from scratchd.journal.cursor import Cursor
from scratchd.journal.flavor import FlavorJournal, Limits
from scratchd.journal.gaps import Gap
from scratchd.journal.writer import Sync
from scratchd.log import Log
from scratchd.stats import BackendStats, FlavorStats, JournalStats
from simulated_disk import Killed, SimulatedDisk

T = TypeVar("T")

EXAMPLES = int(os.environ.get("SCRATCHD_MODEL_EXAMPLES", "0"))
DAYS = [datetime.date(2026, 11, 23) + datetime.timedelta(days=number) for number in range(3)]
BACKENDS = ("file", "topic")
DRAIN_S = 60


@dataclass(slots=True, eq=False)
class Entry:
    """A line that was handed to the journal.

    Attributes:
        answered: its client has its answer, so no kill may lose it.
        synced: nor may a power failure.
    """

    number: int
    identity: str
    sequence: int
    date: datetime.date
    line: bytes
    answered: bool = False
    synced: bool = False


@dataclass(slots=True)
class Topic:
    """Downstream of the topic backend, outside of this machine: nothing that arrived is lost."""

    arrived: list[tuple[str, bytes]] = field(default_factory=list)
    fails: bool = False


class TopicBackend:
    """At least once: what arrived and was not settled arrives again."""

    def __init__(self, topic: Topic) -> None:
        self.name = "topic"
        self.linger_s = 0.01
        self.read_bytes = 1 << 16
        self._topic = topic

    @asynccontextmanager
    async def open(self, opening: Opening) -> AsyncIterator[Outlet]:
        """Opens; what fails is `take`."""
        yield _TopicOutlet(self._topic, opening.sequence)


class _TopicOutlet:
    def __init__(self, topic: Topic, sequence: int) -> None:
        self._topic = topic
        self._next_sequence = self._settled = sequence
        self._lines = 0

    async def take(self, pieces: Sequence[Frame | Hole]) -> None:
        await trio.lowlevel.checkpoint()
        for piece in pieces:
            assert piece.first_sequence == self._next_sequence
            if isinstance(piece, Frame):
                for sequence, line in enumerate(piece.lines(), piece.first_sequence):
                    if self._topic.fails:
                        raise BackendError("told_to", "the topic was told to fail")
                    self._topic.arrived.append((f"{piece.epoch}/{sequence}", line))
                    self._lines += 1
            self._next_sequence = piece.end_sequence

    async def settle(self, *, final: bool) -> Progress | None:  # noqa: ARG002 - what arrived is safe
        await trio.lowlevel.checkpoint()
        if self._next_sequence == self._settled:
            return None
        progress = Progress(self._next_sequence, self._lines, 0, {})
        self._settled, self._lines = self._next_sequence, 0
        return progress


Step = tuple[Any, ...]

STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 4), st.sampled_from([2, 30, 400]), st.integers(-1, 1)),
    st.tuples(st.just("append"), st.integers(1, 4), st.sampled_from([2, 30, 400]), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([0.05, 0.3, 0.3, 1.1, 2.5, 12.0])),
    st.tuples(st.just("fail"), st.sampled_from(["log", "topic", "nothing"])),
)
ENDS = st.sampled_from(["stop", "kill", "power"])


class JournalMachine(RuleBasedStateMachine):
    """Lives, and what must hold between them."""

    def __init__(self) -> None:
        super().__init__()
        self._place = tempfile.TemporaryDirectory(prefix="scratchd-model-")
        self.root = Path(self._place.name) / "disk"
        self.root.mkdir()
        for directory in ("journal", "log"):
            (self.root / directory).mkdir()
        self.disk = SimulatedDisk(self.root)
        self.topic = Topic()
        self.entries: list[Entry] = []
        self.by_sequence: dict[int, Entry] = {}
        self.by_identity: dict[str, Entry] = {}
        self.day = 0
        self.template = "a"
        self.enabled: tuple[str, ...] = BACKENDS
        self.limits = Limits(segment_bytes=300, quota_bytes=1 << 20, sync="interval", sync_interval_s=1.0)
        self.unlike = True
        self.possible_kinds: set[str] = set()
        self.opened: set[str] = set()
        self.backend_stats: dict[str, BackendStats] = {}
        self._logger = logging.getLogger("scratchd")
        self._logged_from = self._logger.level
        self._logger.setLevel(logging.CRITICAL)

    @initialize(unlike=st.booleans())
    def begin(self, *, unlike: bool) -> None:
        """Lines that are all alike show what matching makes of them; after a power failure none could be told apart."""
        self.unlike = unlike

    # What an operator changes between two lives.

    @rule(
        template=st.sampled_from("ab"),
        enabled=st.sampled_from([BACKENDS, BACKENDS, ("file",), ("topic",)]),
        segment_bytes=st.sampled_from([100, 300, 2000]),
        segments=st.sampled_from([2, 4, 1000]),
        sync=st.sampled_from(["none", "interval", "always"]),
    )
    def reconfigure(
        self, template: str, enabled: tuple[str, ...], segment_bytes: int, segments: int, sync: Sync
    ) -> None:
        """Changes everything at once; the shortest journal holds two segments of one frame each."""
        self.template, self.enabled = template, enabled
        if len(enabled) < len(BACKENDS):
            self.possible_kinds.add("disabled")
        if segments < 1000:
            self.possible_kinds.add("quota")
        self.limits = Limits(segment_bytes, segment_bytes * segments, sync, 1.0)

    # Lives.

    @rule(
        steps=st.lists(STEPS, max_size=8),
        end=ENDS,
        kill_at=st.none() | st.integers(1, 150),
        source=st.randoms(use_true_random=False),
    )
    def live(
        self, steps: list[Step], end: Literal["stop", "kill", "power"], kill_at: int | None, source: random.Random
    ) -> None:
        """A life of any kind."""
        if end == "power" and not self.unlike:
            end = "kill"
        killed = self._run(steps, end, kill_at)
        if end == "power" and killed:
            self._lose_power(source)
        self._look()

    @rule()
    def live_removed(self) -> None:
        """The flavor is not in the configuration: it is drained to where it was going."""
        saved = [name for name in self.enabled if name in self.opened]
        if not saved:
            return
        assert not self._run([("drain",)], "stop", None, removed=True)
        self._look()
        self._expect_complete(saved)

    @precondition(lambda self: self.entries)
    @rule()
    def live_until_drained(self) -> None:
        """Nothing fails any more."""
        assert not self._run([("drain",)], "stop", None)
        self._look()
        self._expect_complete(self.enabled)

    def teardown(self) -> None:
        """Whatever happened, a last life brings everything to where it belongs."""
        self.enabled = BACKENDS
        self.possible_kinds.add("disabled")
        self.live_until_drained()
        self.disk.close()
        self._place.cleanup()
        self._logger.setLevel(self._logged_from)

    def _run(self, steps: Sequence[Step], end: str, kill_at: int | None, *, removed: bool = False) -> bool:
        """One life; returns whether it was killed."""
        self.topic.fails = False

        async def life() -> None:
            await self._life(steps, end, removed=removed)

        killed = False
        with self.disk.running(kill_at), _deterministic():
            try:
                trio.run(life, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)
            except* Killed:
                killed = True
        return killed

    async def _life(self, steps: Sequence[Step], end: str, *, removed: bool) -> None:
        stats = FlavorStats()
        journal = FlavorJournal(
            self.root / "journal" / "gr",
            "gr",
            [name for name in self.enabled if not removed or name in self.opened],
            self.limits,
            stats=stats,
            totals=JournalStats(),
            log=Log("journal"),
        )
        self._resume(journal)
        if not removed:
            journal.writer.try_to_take()
        templates = {} if removed else {"gr": str(self.root / "log" / self.template / "{date}.log")}
        backends: dict[str, Backend] = {
            "file": FileBackend(templates, lambda _: DAYS[self.day], 0.1, Log("file")),
            "topic": TopicBackend(self.topic),
        }
        self.backend_stats = {name: BackendStats() for name in stats.feeds}
        feeds = [
            Feed(
                backends[name],
                journal,
                stats.feeds[name],
                self.backend_stats[name],
                Log(name),
                clock_ms=lambda: 0,
                jitter=lambda: 0.5,
            )
            for name in stats.feeds
        ]
        async with trio.open_nursery() as background:
            background.start_soon(journal.writer.run)
            async with trio.open_nursery() as feeding:
                for feed in feeds:
                    feeding.start_soon(feed.run)
                for step in steps:
                    await self._step(step, journal, stats)
                    assert sum(abs(stats.residual_lines(name)) for name in stats.feeds) == 0
                if end != "stop":
                    self.disk.kill()
                for feed in feeds:
                    feed.stop()
                feeding.cancel_scope.deadline = trio.current_time() + 10
            background.cancel_scope.cancel()
        await journal.writer.close()

    async def _step(self, step: Step, journal: FlavorJournal, stats: FlavorStats) -> None:
        match step:
            case ("append", count, size, days):
                self.day = min(max(self.day + days, 0), len(DAYS) - 1)
                await self._append(journal, count, size)
            case ("wait", seconds):
                appended = journal.writer.next_sequence
                await trio.sleep(seconds)
                self.opened |= stats.feeds.keys()
                if self.limits.sync == "interval" and seconds > 2 * self.limits.sync_interval_s:
                    self._synced(appended)
            case ("fail", what):
                self.disk.faulty = self.root / "log" if what == "log" else None
                self.topic.fails = what == "topic"
            case ("drain",):
                with trio.move_on_after(DRAIN_S):
                    while any(stats.pending_lines(name) for name in stats.feeds):  # noqa: ASYNC110 - figures, no event
                        await trio.sleep(0.1)

    async def _append(self, journal: FlavorJournal, count: int, size: int) -> None:
        writer = journal.writer
        entries: list[Entry] = []
        for sequence in range(writer.next_sequence, writer.next_sequence + count):
            number = len(self.entries) + len(entries)
            line = b'{"%d":"%s"}' % (number if self.unlike else 0, b"x" * size)
            entries.append(Entry(number, f"{writer.epoch}/{sequence}", sequence, DAYS[self.day], line))
        # Known before the call: killed in it, they may have come through or not.
        self.entries += entries
        for entry in entries:
            assert entry.identity not in self.by_identity
            self.by_identity[entry.identity] = self.by_sequence[entry.sequence] = entry
        writer.append([entry.line for entry in entries], 0, DAYS[self.day])
        await writer.settled()
        for entry in entries:
            entry.answered = True
        if self.limits.sync == "always":
            self._synced(entries[-1].sequence + 1)

    def _synced(self, end_sequence: int) -> None:
        for sequence, entry in self.by_sequence.items():
            if sequence < end_sequence:
                entry.synced = entry.answered  # a power failure may have taken one of the others

    def _resume(self, journal: FlavorJournal) -> None:
        """What a start has found: nothing that was promised is missing, and no sequence comes twice."""
        end = journal.writer.next_sequence
        assert not journal.broken
        assert all(cursor.next_sequence <= end for cursor in self._cursors().values())
        for sequence in [sequence for sequence in self.by_sequence if sequence >= end]:
            lost = self.by_sequence.pop(sequence)
            assert not lost.synced, f"a synced line was lost: {lost}"
            assert not lost.answered, f"an answered line was lost: {lost}"

    def _lose_power(self, source: random.Random) -> None:
        self.disk.lose_power(source)
        self.possible_kinds |= {"lost", "corrupt", "quota"}  # where the first segments are gone, nothing says why
        for entry in self.by_sequence.values():
            entry.answered = entry.synced  # more was not promised
        self._expect_persisted("file", self._files(torn=True))

    # What must hold.

    def _cursors(self) -> dict[str, Cursor]:
        directory = self.root / "journal" / "gr"
        saved = {name: journal_cursor.load(directory, name) for name in BACKENDS} if directory.is_dir() else {}
        return {name: cursor for name, cursor in saved.items() if cursor is not None}

    def _files(self, *, torn: bool) -> dict[Path, list[bytes]]:
        """Lines of each log file; `torn`: the last one may be."""
        found = {}
        for path in sorted((self.root / "log").glob("*/*.log")):
            *lines, rest = path.read_bytes().split(b"\n")
            assert torn or not rest, f"{path}: torn: {rest!r}"
            found[path] = lines
        return found

    def _look(self) -> None:
        """Holds at rest, whatever has happened."""
        for name, cursor in self._cursors().items():
            assert cursor.next_sequence == cursor.persisted_lines + cursor.gap_lines + cursor.set_aside_lines
            assert {gap.kind for gap in cursor.gaps} <= self.possible_kinds, (name, cursor)
            self._expect_no_promise_broken(cursor.gaps)
        self._expect_in_order(self._files(torn=True))
        for identity, line in self.topic.arrived:
            assert self.by_identity[identity].line == line, f"{identity} names two lines"
        first = list(dict.fromkeys(identity for identity, _ in self.topic.arrived))
        numbers = [self.by_identity[identity].number for identity in first]
        assert numbers == sorted(numbers), "the topic is out of order"

    def _expect_no_promise_broken(self, gaps: Sequence[Gap]) -> None:
        for gap in gaps:
            if gap.kind in {"lost", "corrupt"}:
                lost = [self.by_sequence.get(sequence) for sequence in range(gap.first, gap.last + 1)]
                assert not [entry for entry in lost if entry and entry.synced], gap

    def _expect_in_order(self, files: dict[Path, list[bytes]]) -> None:
        if self.unlike:
            numbers = {entry.line: entry.number for entry in self.entries}
            all_lines = Counter(line for lines in files.values() for line in lines)
            assert all(count == 1 for count in all_lines.values()), "a line is there twice"
            for path, lines in files.items():
                found = [numbers[line] for line in lines if b"\0" not in line]
                assert found == sorted(found), f"{path} is out of order"
                assert {str(self.entries[number].date) for number in found} <= {path.stem}

    def _expect_persisted(self, name: str, files: dict[Path, list[bytes]]) -> None:
        """What a cursor has passed is where it should be."""
        cursor = self._cursors().get(name)
        if cursor is None:
            return
        missing = {sequence for gap in cursor.gaps for sequence in range(gap.first, gap.last + 1)}
        passed = [
            entry
            for sequence, entry in self.by_sequence.items()
            if sequence < cursor.next_sequence and sequence not in missing
        ]
        if name == "topic":
            arrived = {identity for identity, _ in self.topic.arrived}
            assert not [entry for entry in passed if entry.identity not in arrived]
        elif self.unlike:
            there = {line for lines in files.values() for line in lines}
            assert not [(entry, cursor) for entry in passed if entry.line not in there]
        elif not missing:
            expected = Counter((str(entry.date), entry.line) for entry in passed)
            assert Counter((path.stem, line) for path, lines in files.items() for line in lines) == expected

    def _expect_complete(self, names: Sequence[str]) -> None:
        end = max(self.by_sequence, default=-1) + 1
        cursors = self._cursors()
        for name in names:
            assert cursors[name].next_sequence >= end, (name, cursors[name], self.backend_stats[name].last_error)
            self._expect_persisted(name, self._files(torn=False))


@contextmanager
def _deterministic() -> Iterator[None]:
    """Threads' work is done inline, and trio's clock is the only one."""

    async def run_inline(work: Callable[..., T], *arguments: object, **_options: object) -> T:
        await trio.lowlevel.checkpoint()
        return work(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", run_inline)
        patch.setattr(file_module, "time", SimpleNamespace(monotonic=trio.current_time))
        yield


JournalMachine.TestCase.settings = settings(
    max_examples=EXAMPLES or 150,
    stateful_step_count=8,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestJournal = JournalMachine.TestCase
