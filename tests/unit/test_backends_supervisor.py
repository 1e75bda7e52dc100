"""The supervisor over a backend that misbehaves: what a failure costs, and whom."""

from __future__ import annotations

import datetime
import errno
import itertools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
import trio.testing

from scratchd.backends import supervisor as supervisor_module
from scratchd.backends.contract import BackendError, Opening, Outlet
from scratchd.backends.fake import FakeBackend
from scratchd.backends.supervisor import Feed
from scratchd.journal.flavor import FlavorJournal, Limits, Progress, Times
from scratchd.journal.gaps import Gap
from scratchd.journal.reader import Hole
from scratchd.log import Log
from scratchd.stats import BackendStats, FlavorStats

DATE = datetime.date(2026, 11, 23)
SMALL = Limits(segment_bytes=1 << 16, quota_bytes=1 << 18, sync="none", sync_interval_s=1.0)

OpenJournal = Callable[..., FlavorJournal]


class Bench:
    """One flavor's journal and its feeds, each with a backend of its own."""

    def __init__(self, open_journal: OpenJournal, *names: str, directory: str = "gr") -> None:
        self.stats = FlavorStats()
        self.backends = {name: FakeBackend(name, linger_s=0.0) for name in names}
        self.errors = {name: BackendStats() for name in names}
        self.journal = open_journal(*names, stats=self.stats, limits=SMALL, directory=directory)
        self.feeds = {
            name: Feed(
                backend,
                self.journal,
                self.stats.feeds[name],
                self.errors[name],
                Log("service"),
                clock_ms=lambda: 1000,
                jitter=lambda: 0.0,
            )
            for name, backend in self.backends.items()
        }

    @property
    def backend(self) -> FakeBackend:
        """The first one."""
        return next(iter(self.backends.values()))

    def append(self, *numbers: int) -> None:
        """A frame each; times are a hundred times the number."""
        for number in numbers:
            self.journal.writer.append([b'{"n":"%d"}' % number], number * 100, DATE)

    def received(self, name: str = "fake") -> list[int]:
        """Sequences that came downstream, repeats included."""
        lines = self.backends[name].received["gr"].lines if self.backends[name].received else []
        assert all(line == b'{"n":"%d"}' % sequence for sequence, line in lines)
        return [sequence for sequence, _ in lines]

    async def run_to_the_end(self) -> None:
        """Runs every feed until it has drained."""
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for feed in self.feeds.values():
                    feed.stop()
                    nursery.start_soon(feed.run)

    def residuals(self) -> list[int]:
        """The ledger's, which are to be 0."""
        return [self.stats.residual_lines(name) for name in self.backends]


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - a thread sets no trio event
            await trio.sleep(0.001)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between openings and savings are short."""
    monkeypatch.setattr(supervisor_module, "BACK_OFF_FIRST_S", 0.002)
    monkeypatch.setattr(supervisor_module, "BACK_OFF_MOST_S", 0.01)
    monkeypatch.setattr(supervisor_module, "SETTLE_S", 0.005)


@pytest.fixture
def bench(open_journal: OpenJournal) -> Bench:
    return Bench(open_journal, "fake")


async def test_everything_is_drained_and_settled_at_the_end(bench: Bench) -> None:
    bench.append(*range(20))
    await bench.run_to_the_end()
    assert bench.received() == list(range(20))
    assert bench.journal.cursor("fake").next_sequence == 20
    feed = bench.stats.feeds["fake"]
    assert (feed.state, feed.persisted_lines, feed.oldest_pending_ms) == ("stopped", 20, None)
    assert bench.residuals() == [0]
    assert bench.backend.received["gr"].open_now == 0


async def test_an_empty_journal_is_drained_at_once(bench: Bench) -> None:
    await bench.run_to_the_end()
    assert bench.received() == []
    assert bench.stats.feeds["fake"].state == "stopped"


async def test_lines_are_handed_over_as_they_come(bench: Bench) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.feeds["fake"].run)
        for number in range(5):
            bench.append(number)
            await until(lambda number=number: bench.received() == list(range(number + 1)))  # type: ignore[misc]
        assert bench.stats.feeds["fake"].state == "running"
        await until(lambda: bench.journal.cursor("fake").next_sequence == 5)
        bench.feeds["fake"].stop()


async def test_the_cursor_is_where_the_next_life_begins(open_journal: OpenJournal) -> None:
    for life in range(3):
        bench = Bench(open_journal, "fake")
        bench.append(life)
        await bench.run_to_the_end()
        assert bench.received() == [life]
    assert bench.stats.feeds["fake"].persisted_lines == 3
    assert bench.residuals() == [0]


@pytest.mark.parametrize("failures", [1, 2, 5])
@pytest.mark.parametrize("what", ["open_failures", "take_failures", "settle_failures"])
async def test_after_failures_every_line_has_come_in_order(bench: Bench, what: str, failures: int) -> None:
    setattr(bench.backend.mischief, what, failures)
    bench.append(*range(10))
    await bench.run_to_the_end()
    assert list(dict.fromkeys(bench.received())) == list(range(10))
    received = bench.backend.received["gr"]
    assert received.openings == failures + 1
    assert (received.most_open, received.open_now) == (1, 0)
    assert bench.errors["fake"].errors == {"told_to": failures}
    assert bench.stats.feeds["fake"].persisted_lines == 10
    assert bench.residuals() == [0]
    assert bench.stats.feeds["fake"].state == "stopped"


async def test_settled_lines_do_not_come_again(bench: Bench) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.feeds["fake"].run)
        bench.append(0, 1)
        await until(lambda: bench.journal.cursor("fake").next_sequence == 2)
        bench.backend.mischief.take_failures = 1
        bench.append(2, 3)
        await until(lambda: bench.journal.cursor("fake").next_sequence == 4)
        bench.feeds["fake"].stop()
    received = bench.received()
    assert received.count(0) == received.count(1) == 1
    assert list(dict.fromkeys(received)) == [0, 1, 2, 3]


async def test_a_failure_is_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.backend.mischief.open_failures = 3
    bench.append(0)
    await bench.run_to_the_end()
    assert bench.errors["fake"].last_error == {
        "at": "1970-01-01T00:00:01.000Z",
        "flavor": "gr",
        "kind": "told_to",
        "message": "open was told to fail",
    }
    told = [record for record in caplog.records if "backend failed" in record.getMessage()]
    assert [record.levelname for record in told] == ["ERROR"]


async def test_each_kind_of_failure_is_told_once_and_its_end_too(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for turn in range(2):
        bench.backend.mischief.open_failures = bench.backend.mischief.take_failures = 3
        bench.append(turn)
        await bench.run_to_the_end()
    told = [record.getMessage().partition(" error=")[0] for record in caplog.records]
    open_failed = "backend failed, its lines wait in the journal flavor=gr kind=told_to"
    assert told == [open_failed, "backend works again flavor=gr"] * 2


async def test_a_failing_backend_is_said_to_back_off(bench: Bench) -> None:
    bench.backend.mischief.open_failures = 10**6
    bench.append(7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.feeds["fake"].run)
        await until(lambda: bench.errors["fake"].errors["told_to"] > 3)
        feed = bench.stats.feeds["fake"]
        assert feed.state == "backing_off"
        assert feed.oldest_pending_ms == 700
        assert bench.stats.pending_lines("fake") == 1
        bench.backend.mischief.open_failures = 0
        await until(lambda: feed.state == "running" and feed.oldest_pending_ms is None)
        bench.feeds["fake"].stop()
    assert bench.backend.received["gr"].lines == [(0, b'{"n":"7"}')]


class Refusing:
    """A backend that never opens, and remembers when it was asked to."""

    def __init__(self, error: Exception) -> None:
        self.name = "fake"
        self.linger_s = 0.0
        self.read_bytes = 1 << 18
        self.opened_at: list[float] = []
        self._error = error

    def open(self, opening: Opening) -> AbstractAsyncContextManager[Outlet]:
        """Fails at once."""
        assert opening.flavor == "gr"
        self.opened_at.append(trio.current_time())
        raise self._error


async def test_waits_between_openings_grow_with_jitter_up_to_the_most(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(supervisor_module, "BACK_OFF_FIRST_S", 0.25)
    monkeypatch.setattr(supervisor_module, "BACK_OFF_MOST_S", 5.0)
    jitters = itertools.cycle([0.0, 1.0, 0.5])
    refusing = Refusing(BackendError("told_to", "never"))
    feed = Feed(
        refusing,
        bench.journal,
        bench.stats.feeds["fake"],
        bench.errors["fake"],
        Log("service"),
        clock_ms=lambda: 0,
        jitter=lambda: next(jitters),
    )
    with trio.move_on_after(60):
        await feed.run()
    waits = [round(later - earlier, 3) for earlier, later in itertools.pairwise(refusing.opened_at)]
    assert waits[:9] == [0.125, 0.5, 0.75, 1.0, 4.0, 3.75, 2.5, 5.0, 3.75]


async def test_a_run_of_more_than_the_longest_wait_starts_the_waits_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(supervisor_module, "BACK_OFF_FIRST_S", 0.25)
    monkeypatch.setattr(supervisor_module, "BACK_OFF_MOST_S", 5.0)
    monkeypatch.setattr(supervisor_module, "SETTLE_S", 20.0)
    bench.backend.mischief.settle_failures = 3
    with trio.move_on_after(61):
        await bench.feeds["fake"].run()
    assert bench.backend.received["gr"].openings == 4
    assert bench.stats.feeds["fake"].state == "running"


class Slow(FakeBackend):
    """A backend that takes five seconds to find out that it cannot be opened, as Kafka does for a missing topic."""

    @asynccontextmanager
    async def open(self, opening: Opening) -> AsyncIterator[Outlet]:
        """Fails, late."""
        async with super().open(opening) as outlet:
            await trio.sleep(5)
            raise BackendError("told_to", "never")
            yield outlet


async def test_a_failure_that_takes_seconds_to_come_again_is_no_news(
    open_journal: OpenJournal,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench(open_journal, "fake")
    feed = Feed(
        Slow("fake"), bench.journal, bench.stats.feeds["fake"], bench.errors["fake"], Log("service"), clock_ms=lambda: 0
    )
    with trio.move_on_after(60):
        await feed.run()
    assert bench.errors["fake"].errors["told_to"] > 5
    told = [record for record in caplog.records if "backend failed" in record.getMessage()]
    assert [record.levelname for record in told].count("ERROR") == 1


async def test_stopping_while_it_backs_off_waits_for_the_lines(bench: Bench) -> None:
    bench.backend.mischief.open_failures = 10**6
    bench.append(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.feeds["fake"].run)
        await until(lambda: bench.stats.feeds["fake"].state == "backing_off")
        bench.feeds["fake"].stop()
        await until(lambda: bench.errors["fake"].errors["told_to"] > 5)
        bench.backend.mischief.open_failures = 0
    assert bench.received() == [0]
    assert bench.stats.feeds["fake"].state == "stopped"


async def test_what_is_appended_while_stopping_is_drained_too(bench: Bench) -> None:
    hangs = bench.backend.mischief.hangs = trio.Event()
    bench.append(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.feeds["fake"].run)
        bench.feeds["fake"].stop()
        await until(lambda: bool(bench.backend.received))
        bench.append(1)
        hangs.set()
    assert bench.received() == [0, 1]
    assert bench.journal.cursor("fake").next_sequence == 2


# Others are left alone.


async def test_one_backend_that_hangs_or_fails_leaves_the_other_alone(open_journal: OpenJournal) -> None:
    bench = Bench(open_journal, "fails", "hangs", "works")
    bench.backends["fails"].mischief.take_failures = 10**6
    bench.backends["hangs"].mischief.hangs = trio.Event()
    async with trio.open_nursery() as nursery:
        for feed in bench.feeds.values():
            nursery.start_soon(feed.run)
        for number in range(5):
            bench.append(number)
            await until(lambda number=number: bench.received("works") == list(range(number + 1)))  # type: ignore[misc]
        await until(lambda: bench.journal.cursor("works").next_sequence == 5)
        assert not bench.errors["works"].errors
        states = {name: bench.stats.feeds[name].state for name in ("hangs", "works")}
        assert states == {"hangs": "running", "works": "running"}
        assert bench.stats.pending_lines("fails") == bench.stats.pending_lines("hangs") == 5
        assert [bench.stats.feeds[name].oldest_pending_ms for name in ("fails", "hangs")] == [0, 0]
        bench.backends["fails"].mischief.take_failures = 0
        bench.backends["hangs"].mischief.hangs.set()
        for name in ("fails", "hangs"):
            await until(lambda name=name: bench.received(name)[-5:] == list(range(5)))  # type: ignore[misc]
            bench.feeds[name].stop()
        bench.feeds["works"].stop()
    assert bench.residuals() == [0, 0, 0]


async def test_one_flavor_that_fails_leaves_the_other_alone(open_journal: OpenJournal) -> None:
    failing, working = Bench(open_journal, "fake"), Bench(open_journal, "fake", directory="other")
    failing.backend.mischief.open_failures = 10**6
    failing.append(0)
    working.append(0, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(failing.feeds["fake"].run)
        await working.run_to_the_end()
        nursery.cancel_scope.cancel()
    assert working.received() == [0, 1]
    assert not working.errors["fake"].errors


async def test_cancelling_leaves_nothing_open(bench: Bench) -> None:
    bench.append(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.feeds["fake"].run)
        await until(lambda: bench.backend.received["gr"].open_now == 1 if bench.backend.received else False)
        nursery.cancel_scope.cancel()
    assert bench.backend.received["gr"].open_now == 0


# Figures, gaps, and a journal whose own disk fails.


async def test_the_oldest_pending_line_is_that_which_is_not_settled(bench: Bench) -> None:
    bench.backend.mischief.durable_every = 10**6
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.feeds["fake"].run)
        bench.append(3)
        await until(lambda: len(bench.backend.received["gr"].lines) == 1 if bench.backend.received else False)
        bench.append(4)
        await until(lambda: len(bench.backend.received["gr"].lines) == 2)
        feed = bench.stats.feeds["fake"]
        assert feed.oldest_pending_ms == 300
        assert bench.stats.pending_lines("fake") == 2
        bench.backend.mischief.durable_every = 1
        await until(lambda: feed.oldest_pending_ms is None)
        assert bench.stats.pending_lines("fake") == 0
        bench.feeds["fake"].stop()


async def test_who_lags_behind_the_quota_gets_a_gap(open_journal: OpenJournal) -> None:
    bench = Bench(open_journal, "fake")
    for _ in range(10):
        bench.journal.writer.append([b"x" * 60000], 0, DATE)
    await bench.run_to_the_end()
    received = bench.backend.received["gr"]
    assert [sequence for sequence, _ in received.lines] == [6, 7, 8, 9]
    assert [(hole.first_sequence, hole.end_sequence) for hole in received.holes] == [(0, 6)]
    assert bench.journal.cursor("fake").gaps == (Gap("quota", 0, 5, before_ms=0, noticed_ms=1000),)
    assert bench.stats.feeds["fake"].gap_lines == 6
    assert bench.residuals() == [0]


async def test_a_gap_that_was_taken_twice_is_counted_once(open_journal: OpenJournal) -> None:
    bench = Bench(open_journal, "fake")
    for _ in range(10):
        bench.journal.writer.append([b"x" * 60000], 0, DATE)
    bench.backend.mischief.settle_failures = 2
    await bench.run_to_the_end()
    assert len(bench.backend.received["gr"].holes) == 3
    assert bench.journal.cursor("fake").gaps == (Gap("quota", 0, 5, before_ms=0, noticed_ms=1000),)
    assert bench.residuals() == [0]


async def test_what_everyone_has_passed_leaves_the_journal(open_journal: OpenJournal) -> None:
    bench = Bench(open_journal, "fake", "other")
    hangs = bench.backends["other"].mischief.hangs = trio.Event()
    async with trio.open_nursery() as nursery:
        for feed in bench.feeds.values():
            nursery.start_soon(feed.run)
        for _ in range(3):
            bench.journal.writer.append([b"x" * 60000], 0, DATE)
        await until(lambda: bench.journal.cursor("fake").next_sequence == 3)
        assert bench.stats.segments == 3
        hangs.set()
        await until(lambda: bench.stats.segments == 1)
        for feed in bench.feeds.values():
            feed.stop()


async def test_a_cursor_that_cannot_be_saved_is_saved_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = FlavorJournal.advance
    full = True

    def stand_in(journal: FlavorJournal, backend: str, progress: Progress, holes: Sequence[Hole], times: Times) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        advance(journal, backend, progress, holes, times)

    monkeypatch.setattr(FlavorJournal, "advance", stand_in)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.feeds["fake"].run)
        bench.append(0, 1, 2)
        await until(lambda: bench.errors["fake"].errors["journal"] > 1)
        assert bench.stats.feeds["fake"].persisted_lines == 0
        full = False
        await until(lambda: bench.journal.cursor("fake").next_sequence == 3)
        assert bench.stats.feeds["fake"].persisted_lines == 3
        bench.feeds["fake"].stop()
    assert bench.received() == [0, 1, 2]
    assert bench.residuals() == [0]


async def test_a_journal_that_cannot_be_read_is_read_later(bench: Bench) -> None:
    bench.append(0)
    (path,) = bench.journal.directory.glob("*.segment")
    aside = path.rename(path.with_name("aside"))
    path.mkdir()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.feeds["fake"].run)
        await until(lambda: bench.errors["fake"].errors["journal"] > 1)
        path.rmdir()
        aside.rename(path)
        await until(lambda: bool(bench.backend.received) and bench.received() == [0])
        bench.feeds["fake"].stop()


async def test_an_unreadable_cursor_stops_its_backend_alone(open_journal: OpenJournal) -> None:
    before = Bench(open_journal, "fake", "other")
    before.append(0, 1)
    for turn in "ab":
        (before.journal.directory / f"fake.cursor.{turn}").write_bytes(b"garbage")
    await before.journal.writer.close()
    bench = Bench(open_journal, "fake", "other")
    await bench.run_to_the_end()
    assert bench.received("other") == [0, 1]
    assert not bench.backends["fake"].received
    assert bench.stats.feeds["fake"].state == "stopped"
    assert bench.errors["fake"].errors == {"cursor": 1}
    assert "move both away" in str((bench.errors["fake"].last_error or {})["message"])


async def test_a_bug_in_a_backend_is_not_survived(bench: Bench) -> None:
    feed = Feed(
        Refusing(ZeroDivisionError("a bug")),
        bench.journal,
        bench.stats.feeds["fake"],
        bench.errors["fake"],
        Log("service"),
        clock_ms=lambda: 0,
    )
    with pytest.raises(ZeroDivisionError):
        await feed.run()


# Opening anew, because lines are to go elsewhere.


async def test_a_reopened_backend_goes_on_where_it_was(bench: Bench) -> None:
    received = bench.backend.received
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.feeds["fake"].run)
        for number in range(5):
            bench.append(number)
            bench.feeds["fake"].reopen()
            await until(lambda number=number: bool(received) and received["gr"].openings > number)  # type: ignore[misc]
        bench.feeds["fake"].stop()
    assert bench.received() == [0, 1, 2, 3, 4], "settled before, so nothing comes again"
    assert received["gr"].most_open == 1
    assert bench.errors["fake"].errors == {}
    assert bench.residuals() == [0]


async def test_reopening_waits_for_what_hangs(bench: Bench) -> None:
    bench.backend.mischief.hangs = trio.Event()
    bench.append(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.feeds["fake"].run)
        await until(lambda: bool(bench.backend.received) and bench.backend.received["gr"].open_now == 1)
        bench.feeds["fake"].reopen()
        await trio.testing.wait_all_tasks_blocked()
        assert bench.backend.received["gr"].openings == 1
        bench.backend.mischief.hangs.set()
        bench.backend.mischief.hangs = None
        await until(lambda: bench.backend.received["gr"].openings == 2)
        bench.feeds["fake"].stop()
    assert bench.received() == [0]
    assert bench.backend.received["gr"].most_open == 1


async def test_reopening_ends_a_wait_between_openings(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(supervisor_module, "BACK_OFF_FIRST_S", 1000.0)
    monkeypatch.setattr(supervisor_module, "BACK_OFF_MOST_S", 1000.0)
    bench.backend.mischief.open_failures = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.feeds["fake"].run)
        await trio.sleep(1)
        bench.feeds["fake"].reopen()
        await trio.sleep(1)
        assert bench.stats.feeds["fake"].state == "running"
        nursery.cancel_scope.cancel()


async def test_a_feed_that_was_stopped_goes_on(bench: Bench) -> None:
    feed = bench.feeds["fake"]
    bench.backend.mischief.hangs = trio.Event()
    bench.append(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        await until(lambda: bool(bench.backend.received) and bench.backend.received["gr"].open_now == 1)
        feed.stop()
        await trio.testing.wait_all_tasks_blocked()
        feed.go_on()
        bench.backend.mischief.hangs.set()
        bench.backend.mischief.hangs = None
        await until(lambda: bench.journal.cursor("fake").next_sequence == 1)
        bench.append(1)
        await until(lambda: bench.journal.cursor("fake").next_sequence == 2)
        feed.stop()
    assert bench.stats.feeds["fake"].state == "stopped"
    feed.go_on()
    bench.append(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)  # ended, it begins again
        await until(lambda: bench.journal.cursor("fake").next_sequence == 3)
        feed.stop()
    assert bench.received() == [0, 1, 2]
