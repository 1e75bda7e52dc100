"""The condition: what is flowing, idle and trouble, and which words say why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hour import Hour
from scratchd.http.condition import Condition, has_fallen_silent, idle_after_s, judge

Change = Callable[[dict[str, Any]], object]


def document(failing: str = "") -> dict[str, Any]:
    """The figures of an instance with two flavors."""
    hour = Hour({"gr": 10.0, "tr": 5.0})
    hour.passes(12, failing=failing)
    return dict(hour.stats.document())


def judged(change: Change = lambda _: None, readiness: str = "ready", silence_s: float | None = 0.0) -> Condition:
    figures = document()
    change(figures)
    return judge(figures, readiness, silence_s, 15.0)


@pytest.mark.parametrize(
    ("silence_s", "readiness", "state", "word"),
    [
        (0.0, "ready", "flowing", "Flowing"),
        (15.0, "ready", "flowing", "Flowing"),
        (15.1, "ready", "idle", "Idle"),
        (None, "ready", "idle", "Idle"),
        (None, "starting", "idle", "Starting"),
        (0.0, "stopping", "idle", "Stopping"),
        (0.0, "journal_full", "trouble", "Trouble"),
    ],
)
def test_a_state_has_its_word(silence_s: float | None, readiness: str, state: str, word: str) -> None:
    found = judged(readiness=readiness, silence_s=silence_s)
    assert (found.state, found.word) == (state, word)
    assert bool(found.problems) is (state == "trouble")


@pytest.mark.parametrize(
    ("mean_rate", "seconds"),
    [(0.0, 300.0), (0.001, 300.0), (0.1, 200.0), (1.0, 20.0), (2.0, 15.0), (60_000.0, 15.0)],
)
def test_silence_is_idleness_where_events_would_have_come(mean_rate: float, seconds: float) -> None:
    assert idle_after_s(mean_rate) == seconds


@pytest.mark.parametrize(
    ("silence_s", "mean_rate", "fallen"),
    [(None, 100.0, False), (10.0, 100.0, False), (16.0, 100.0, True), (400.0, 0.01, False)],
)
def test_silence_is_unusual_where_events_always_come(silence_s: float | None, mean_rate: float, fallen: bool) -> None:
    assert has_fallen_silent(silence_s, mean_rate) is fallen


def _refuses(name: str) -> Change:
    return lambda figures: figures["flavors"][name].update(takes_lines=False)


def _fails(*names: str) -> Change:
    def change(figures: dict[str, Any]) -> None:
        figures["backends"]["kafka"].update(state="backing_off", oldest_pending_age_s=3.0)
        for name in names:
            figures["flavors"][name]["kafka"]["state"] = "backing_off"

    return change


def _old(state: str) -> Change:
    return lambda figures: figures["backends"]["file"].update(state=state, oldest_pending_age_s=60.1)


TROUBLE: dict[str, tuple[Change, str, frozenset[str]]] = {
    "a full journal": (_refuses("gr"), "refused with 503: gr.", frozenset({"gr"})),
    "a backend": (_fails("gr", "tr"), "The kafka backend fails for every flavor", frozenset({"gr", "tr"})),
    "a backend for one": (_fails("tr"), "The kafka backend fails for tr;", frozenset({"tr"})),
    "a backlog": (_old("running"), "The file backend is behind", frozenset()),
    "a stopped backend": (_old("stopped"), "The file backend is stopped", frozenset()),
    "the ledger": (lambda figures: figures["ledger"].update(residual_lines=3), "3 lines are", frozenset()),
    "the disk": (lambda figures: figures["journal"].update(full_in_s=600.0), "full in 10 minutes", frozenset()),
    "the quota": (
        lambda figures: figures["flavors"]["gr"].update(quota_full_in_s=90.0),
        "The quota of gr is full in 90 seconds",
        frozenset({"gr"}),
    ),
    "the loop": (lambda figures: figures["runtime"].update(loop_lag_s=1.5), "cannot keep up: it was 1.5", frozenset()),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_is_told_in_a_sentence(name: str) -> None:
    change, sentence, flavors = TROUBLE[name]
    found = judged(change)
    assert found.state == "trouble"
    assert len(found.problems) == 1
    assert sentence in found.problems[0]
    assert found.flavors == flavors


NO_TROUBLE: dict[str, Change] = {
    "a backlog of a minute": lambda figures: figures["backends"]["file"].update(oldest_pending_age_s=60.0),
    "space for more than an hour": lambda figures: figures["journal"].update(full_in_s=3600.0),
    "gaps of the past": lambda figures: figures["backends"]["kafka"].update(gap_lines=9),
    "refusals": lambda figures: figures["http"].update(refused={"bad_request": 10**6}),
    "errors of the past": lambda figures: figures["backends"]["kafka"].update(errors={"unreachable": 3}),
}


@pytest.mark.parametrize("name", NO_TROUBLE)
def test_what_hurts_nobody_is_no_trouble(name: str) -> None:
    assert judged(NO_TROUBLE[name]).state == "flowing"


def test_in_trouble_it_is_said_whether_events_arrive() -> None:
    assert judged(_fails("gr")).sentence == "Events arrive and are safe in the journal."
    assert judged(_fails("gr"), silence_s=None).sentence == "No events arrive."
    assert judged(_refuses("gr")).sentence == "Events of some flavors are refused."
    assert judged(_refuses("gr"), readiness="journal_full").sentence == "Events are refused."


def test_many_flavors_are_named_in_part() -> None:
    figures = document()
    one = figures["flavors"]["gr"]
    figures["flavors"] = {f"f{number}": {**one, "takes_lines": False} for number in range(8)}
    (problem,) = judge(figures, "ready", 0.0, 1.0).problems
    assert problem.endswith(": f0, f1, f2, f3, f4 and 3 more.")


def test_quotas_of_many_are_one_sentence() -> None:
    figures = document()
    one = figures["flavors"]["gr"]
    figures["flavors"] = {f"f{number}": {**one, "quota_full_in_s": 900.0 - number} for number in range(8)}
    (problem,) = judge(figures, "ready", 0.0, 1.0).problems
    assert problem.startswith("The quota of f7, f6, f5, f4, f3 and 3 more is full in 15 minutes; ")
