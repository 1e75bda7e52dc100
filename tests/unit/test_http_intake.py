"""The intake: passes, what failing journals do to them, and what is counted and logged."""

from __future__ import annotations

import datetime
import logging

import pytest
import trio
import trio.testing

from scratchd.config import Checks, Config, Flavor
from scratchd.flavors import Flavors
from scratchd.http.fake import FakeJournal, Room
from scratchd.refusal import Reason, Refusal
from scratchd.track import Accepted, Duplicate, HeadOnly, Request, Track

WINDOW = Checks(duplicate_window_s=60)


def request(query: bytes = b"a=b", host: str = "gr.example", method: bytes = b"GET") -> Request:
    return Request(method, b"/track", query, host, "9.9.9.9")


def reasons(outcomes: list[object]) -> list[Reason | None]:
    return [outcome.reason if isinstance(outcome, Refusal) else None for outcome in outcomes]


async def test_a_pass_is_one_append_for_each_flavor() -> None:
    room = Room()
    outcomes = await room.intake.take(
        [request(b"a=1"), request(b"b=1", "tr.example"), request(b""), request(b"a=2"), request(b"b=2", "tr.example")]
    )
    assert [type(outcome) for outcome in outcomes] == [Accepted, Accepted, Refusal, Accepted, Accepted]
    assert room.journals["gr"].appends == [[b'{"a":"1"}', b'{"a":"2"}']]
    assert room.journals["tr"].appends == [[b'{"b":"1"}', b'{"b":"2"}']]
    assert room.journals["gr"].dates == [datetime.date(2026, 11, 23)]


async def test_a_pass_without_lines_appends_nothing() -> None:
    room = Room()
    outcomes = await room.intake.take([request(method=b"HEAD"), request(b""), request(host="x.example")])
    assert [type(outcome) for outcome in outcomes] == [HeadOnly, Refusal, Refusal]
    assert room.journals["gr"].appends == []
    assert await room.intake.take([]) == []


async def test_a_refusing_journal_concerns_its_flavor_alone() -> None:
    room = Room()
    room.journals["gr"].refuses = True
    outcomes = await room.intake.take([request(), request(host="tr.example"), request(b"")])
    assert reasons(list(outcomes)) == [Reason.JOURNAL_FULL, None, Reason.EMPTY_QUERY]
    assert isinstance(outcomes[0], Refusal)
    assert outcomes[0].retry_after_s == 1
    assert room.stats.flavor_refusals == {"gr": {"journal_full": 1, "empty_query": 1}}


async def test_only_what_reaches_a_flavors_host_counts_for_it() -> None:
    room = Room()
    await room.intake.take([request(b"", "a.gr.example"), request(b"", "tr.example"), request(host="x.example")])
    room.intake.refused(Refusal(Reason.BAD_REQUEST, "garbage"))
    assert room.stats.flavor_refusals == {"gr": {"empty_query": 1}, "tr": {"empty_query": 1}}
    assert room.stats.refusals == {"empty_query": 2, "unknown_host": 1, "bad_request": 1}


async def test_head_is_told_what_get_would_be() -> None:
    room = Room()
    room.journals["gr"].takes_lines = False
    outcomes = await room.intake.take([request(method=b"HEAD"), request(method=b"HEAD", host="tr.example")])
    assert reasons(list(outcomes)) == [Reason.JOURNAL_FULL, None]


@pytest.mark.parametrize("fault", ["refuses", "loses"])
async def test_what_was_not_kept_makes_no_duplicate(fault: str) -> None:
    room = Room(checks=WINDOW)
    setattr(room.journals["gr"], fault, True)
    outcomes = await room.intake.take([request(), request(), request()])
    assert reasons(list(outcomes)) == [Reason.JOURNAL_FULL] * 3
    setattr(room.journals["gr"], fault, False)
    again = await room.intake.take([request(), request()])
    assert [type(outcome) for outcome in again] == [Accepted, Duplicate]
    assert room.stats.duplicates == 1


async def test_nothing_is_answered_before_it_is_settled() -> None:
    room = Room(checks=WINDOW)
    room.journals["gr"].settles = trio.Event()
    done = []

    async def take(one: Request) -> None:
        done.append(await room.intake.take([one]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, request())
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take, request())  # a duplicate of what is not settled yet
        nursery.start_soon(take, request(host="tr.example"))
        await trio.testing.wait_all_tasks_blocked()
        assert len(done) == 1
        room.journals["gr"].settles.set()
    assert len(done) == 3
    assert room.stats.duplicates == 1


async def test_refusals_are_counted_and_logged_once_a_second(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    del autojump_clock
    caplog.set_level(logging.INFO, "scratchd.http")
    room = Room()
    await room.intake.take([request(b""), request(b""), request(host="evil\x1b[2J\nhttp: forged")])
    await trio.sleep(0.5)
    room.intake.refused(Refusal(Reason.EMPTY_QUERY, "none"))
    await trio.sleep(0.6)
    room.intake.refused(Refusal(Reason.EMPTY_QUERY, "none"))
    assert room.stats.refusals == {"empty_query": 4, "unknown_host": 1}
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(" why=")[0] for message in messages] == [
        "request refused reason=empty_query",
        "request refused reason=unknown_host",
        "request refused reason=empty_query",
    ]
    assert messages[2].endswith("not_logged=2")
    assert all(message.isprintable() for message in messages)


async def test_answers_are_counted() -> None:
    room = Room()
    room.intake.answered(200, 0.001)
    room.intake.answered(404, 0.002)
    assert room.stats.requests == {200: 1, 404: 1}


# A new configuration.


def tenancy(room: Room, checks: Checks, *flavors: Flavor) -> tuple[Track, Flavors]:
    config = Config(checks=checks, flavors=flavors)
    known = Flavors(config)
    return Track(config, known, room.intake.tenancy.track.memory), known


async def test_a_pass_ends_as_it_began() -> None:
    """Its flavor is gone, and its journal keeps what it was given: the answer waits for that one."""
    room = Room()
    gr = room.journals["gr"]
    gr.settles = trio.Event()
    taken = room.intake.begin([request(b"a=1"), request(b"", method=b"HEAD")])
    other = FakeJournal()
    track, flavors = tenancy(room, Checks(), Flavor(name="other", hosts=("gr.example",)))
    room.intake.adopt(track, flavors, {"other": other})
    later = await room.intake.take([request(b"a=2"), request(host="tr.example")])
    assert reasons(list(later)) == [None, Reason.UNKNOWN_HOST]
    gr.settles.set()
    await room.intake.settle(taken)
    assert [type(outcome) for outcome in taken.outcomes] == [Accepted, Refusal]
    assert (gr.lines, other.lines) == ([b'{"a":"1"}'], [b'{"a":"2"}'])


async def test_a_line_that_was_not_kept_is_no_duplicate_later_whatever_has_changed() -> None:
    room = Room(checks=WINDOW)
    gr = room.journals["gr"]
    gr.settles, gr.loses = trio.Event(), True
    taken = room.intake.begin([request(b"a=1")])
    track, flavors = tenancy(room, WINDOW, Flavor(name="gr", hosts=("gr.example",)))
    room.intake.adopt(track, flavors, {"gr": gr})
    gr.settles.set()
    await room.intake.settle(taken)
    gr.loses = False
    (again,) = await room.intake.take([request(b"a=1")])
    assert isinstance(again, Accepted)
    (duplicate,) = await room.intake.take([request(b"a=1")])
    assert isinstance(duplicate, Duplicate)
