"""What a rollout's looks are made into: differences that survive restarts, and lines that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd_rollout.counts import SIDE_COUNTERS, Counts, Look, Mark, Side, Source, Tally, between

GR = ("gr",)
ADDRESS = "http://primary/stats"


def look(
    at: float,
    *,
    run: str = "1",
    scratchd: Mapping[str, int] | None = None,
    legacy: Mapping[str, int] | None = None,
    received: int | None = 0,
    meanwhile: int = 0,
    gaps: int = 0,
    errors: int = 0,
    duplicates: int = 0,
    started: str = "a",
) -> Look:
    """A look at one tenant and one instance; `received` None: it is silent."""
    counters = {
        f"gr/{side}/{name}": (given_ or {}).get(name, 0)
        for side, given_ in (("scratchd", scratchd), ("legacy", legacy))
        for name in SIDE_COUNTERS
    }
    speaks = received is not None
    return Look(
        at=at,
        haproxy=Source(run, counters),
        servers_up={"gr": 1},
        servers=1,
        lines={ADDRESS: Source("", {"received/gr": received, "gaps/gr/file": gaps})} if received is not None else {},
        received_meanwhile={ADDRESS: {"gr": meanwhile}} if speaks else {},
        events={ADDRESS: Source(started, {"duplicates": duplicates, "backend_errors": errors})} if speaks else {},
        residual_lines=0 if speaks else None,
        pending_age_s=0.0 if speaks else None,
        silent=frozenset() if speaks else frozenset([ADDRESS]),
    )


def counted(*looks: Look) -> Counts:
    """Between the first and the last."""
    tally = Tally().add(looks[0])
    first = tally.mark
    for one in looks[1:]:
        tally = tally.add(one)
    return between(first, first if first.whole else None, tally, looks[-1], GR, slow_s=0.1)


def events(count: int) -> dict[str, int]:
    return {"requests": count, "events": count, "timed": count, "within_0.1": count}


def test_what_was_there_before_the_first_look_does_not_count() -> None:
    counts = counted(look(0, scratchd=events(1000), received=5000), look(1, scratchd=events(1010), received=5010))
    assert (counts.scratchd.requests, counts.lost_lines, counts.ledger_events) == (10, 0, 10)


def test_sides_are_told_apart_and_slow_is_what_was_not_in_time() -> None:
    scratchd = {"requests": 10, "errors": 1, "malformed": 2, "events": 7, "timed": 9, "within_0.1": 5}
    counts = counted(look(0), look(3, scratchd=scratchd, legacy={"requests": 90}, received=7))
    assert counts.scratchd == Side(10, 1, 2, 7, 9, 4, (0, 0, 0, 0, 5, 0, 0, 0))
    assert counts.legacy == Side(requests=90)
    assert counts.seconds == 3


def test_a_restart_of_haproxy_costs_nothing_but_what_nobody_saw() -> None:
    counts = counted(
        look(0, scratchd=events(100), received=100),
        look(1, scratchd=events(150), received=150),
        look(2, run="2", scratchd=events(30), received=180),
    )
    assert (counts.scratchd.requests, counts.lost_lines) == (80, 0)


def test_a_restart_of_scratchd_does_not_take_errors_back() -> None:
    counts = counted(look(0, errors=5), look(1, errors=7), look(2, errors=1, started="b"))
    assert counts.backend_errors == 3


def told(at: float, answered: int, **lines: int) -> Look:
    """A look at which the instance tells these line counters, `__` for `/`, and no others."""
    counters = {name.replace("__", "/"): count for name, count in lines.items()}
    return replace(look(at, scratchd=events(answered)), lines={ADDRESS: Source("", counters)})


@pytest.mark.parametrize(
    "between_",
    [
        pytest.param({}, id="none"),
        pytest.param({"received__it": 70, "gaps__it__file": 3}, id="others"),
        pytest.param({"received__gr": 9000}, id="lines without a backend"),
        pytest.param({"received__gr": 9000, "gaps__gr__kafka": 4000}, id="one backend of two"),
    ],
)
def test_counters_that_are_away_for_a_look_go_on_where_they_were(between_: dict[str, int]) -> None:
    """History is no news, and neither hides what is lost now nor makes up a loss."""
    first = told(0, 0, received__gr=9000, gaps__gr__file=1000, gaps__gr__kafka=4000)
    last = told(2, 1000, received__gr=9990, gaps__gr__file=1002, gaps__gr__kafka=4001)
    assert counted(first, told(1, 0, **between_), last).lost_lines == 10 + 3


def test_what_an_instance_has_always_had_is_no_news_when_it_is_told_late() -> None:
    late = told(1, 1000, received__gr=9000, gaps__gr__file=5000)
    counts = counted(told(0, 1000), late, told(2, 2000, received__gr=9900, gaps__gr__file=5001))
    assert counts.lost_lines == 1000 - 900 + 1


def test_a_backend_that_is_switched_off_takes_no_gaps_with_it() -> None:
    counts = counted(
        told(0, 0, received__gr=0, gaps__gr__file=100, gaps__gr__kafka=150),
        told(1, 100, received__gr=100, gaps__gr__file=107),
        told(2, 200, received__gr=200, gaps__gr__file=107, gaps__gr__kafka=151),
    )
    assert counts.lost_lines == 8


def test_a_restart_of_scratchd_begins_its_errors_anew_and_not_its_journals() -> None:
    """The two kinds of counters of one instance: for the process, and for the journal's lifetime."""
    counts = counted(
        look(0, received=9000, gaps=5000, errors=5, duplicates=4),
        look(1, scratchd=events(100), received=9100, gaps=5000, errors=7, duplicates=4),
        look(2, scratchd=events(110), received=9108, gaps=5001, errors=1, duplicates=2, started="b"),
    )
    assert (counts.backend_errors, counts.lost_lines) == (3, 1)


def test_counters_that_somebody_cleared_begin_anew() -> None:
    counts = counted(look(0, scratchd=events(1000)), look(1, scratchd=events(1100)), look(2, scratchd=events(40)))
    assert counts.scratchd.requests == 140


def test_a_difference_that_steps_back_a_little_is_right_at_the_next_look() -> None:
    counts = counted(look(0, scratchd=events(1000)), look(1, scratchd=events(998)), look(2, scratchd=events(1003)))
    assert counts.scratchd.requests == 3


def test_lines_that_nobody_kept_are_missing() -> None:
    counts = counted(look(0, received=0), look(1, scratchd=events(100), received=90))
    assert counts.lost_lines == 10


def test_gaps_are_lost_and_duplicates_are_not() -> None:
    counts = counted(look(0), look(1, scratchd=events(100), received=90, duplicates=10, gaps=4))
    assert counts.lost_lines == 4


def test_lines_from_elsewhere_are_no_gain() -> None:
    assert counted(look(0), look(1, scratchd=events(100), received=500)).lost_lines == 0


def test_what_came_within_the_first_look_is_not_taken_for_lost() -> None:
    """HAProxy was read after the first and before the second reading of scratchd."""
    first = look(0, scratchd=events(0), received=8, meanwhile=8)  # of these 8 HAProxy had counted none yet
    assert counted(first, look(1, scratchd=events(108), received=108)).lost_lines == 0


def test_a_silent_instance_makes_lost_lines_unknown() -> None:
    assert counted(look(0), look(1, scratchd=events(5), received=None)).lost_lines is None
    assert counted(look(0, received=None), look(1, scratchd=events(5), received=5)).lost_lines is None


def test_a_silent_instance_is_made_up_for_when_it_speaks_again() -> None:
    counts = counted(look(0), look(1, scratchd=events(5), received=None), look(2, scratchd=events(9), received=9))
    assert (counts.lost_lines, counts.scratchd.requests) == (0, 9)


def test_a_haproxy_that_does_not_answer_leaves_the_counts_as_they_were() -> None:
    silent = Look(at=2, haproxy=None)
    counts = counted(look(0), look(1, scratchd=events(5), received=5), silent)
    assert counts.scratchd.requests == 5
    assert counts.servers_up is None


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_whatever_restarts_a_service_that_keeps_everything_never_loses(
    steps: list[tuple[int, bool, bool]],
) -> None:
    """Against a plain model: HAProxy's counters begin anew or not, scratchd tells or is silent."""
    looks, run, seen, received, total = [look(0)], 0, 0, 0, 0
    for at, (count, restarts, speaks) in enumerate(steps, 1):
        received += count
        total += count
        if restarts:
            run, seen = run + 1, 0
        seen += count
        looks.append(look(at, run=str(run), scratchd=events(seen), received=received if speaks else None))
    # HAProxy's first run is "1" in look(0) and must differ from the model's.
    looks[0] = look(0, run="0")
    counts = counted(*looks)
    assert counts.lost_lines in (0, None)
    assert counts.scratchd.events == total


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=20),
)
def test_what_is_missing_is_counted_to_the_line(steps: list[tuple[int, int]]) -> None:
    looks, answered, received = [look(0)], 0, 0
    for at, (kept, lost) in enumerate(steps, 1):
        answered += kept + lost
        received += kept
        looks.append(look(at, scratchd=events(answered), received=received))
    assert counted(*looks).lost_lines == answered - received


def test_a_tally_is_the_same_behind_json() -> None:
    tally = Tally().add(look(0, received=3, meanwhile=1)).add(look(1, scratchd=events(2), received=5))
    assert Tally.read(tally.document()) == tally
    assert Mark.read(tally.mark.document()) == tally.mark


@pytest.mark.parametrize(("part", "bound"), [(0.5, 0.01), (0.9, 0.1), (0.99, float("inf"))])
def test_quantiles_are_the_bounds_that_hold_them(part: float, bound: float) -> None:
    side = Side(timed=100, within=(10, 60, 80, 80, 95, 95, 95, 95))
    assert side.quantile_s(part) == bound


def test_there_is_no_quantile_of_nothing() -> None:
    assert Side().quantile_s(0.5) is None
