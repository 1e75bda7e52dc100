"""The condition: whether events flow, and what is wrong, from the figures. Pure; knows no markup.

What heals by itself without anybody losing anything is no trouble: a backend that is a few seconds behind, a client
that is refused. What is trouble: lines are refused for want of space or will be before long, a backend fails or does
not get on, the books do not balance, the process cannot keep up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["flowing", "idle", "trouble"]

PENDING_S = 60.0
"""A line that waits longer is trouble, whatever the backend says of itself."""

LEFT_S = 3600.0
"""So is space that lasts for less."""

LAG_S = 1.0
"""So is a loop that wakes this late: everyone who sends events waits as long."""

_SILENT_EVENTS = 20
_SILENT_LEAST_S = 15.0
_SILENT_MOST_S = 300.0
"""Silence is idleness once it has lasted for what would have brought 20 events at the last hour's pace: by chance that
happens once in 500 million times. At least for longer than there is between two samples, at most for five minutes."""

_WORDS: Mapping[str, str] = {
    "flowing": "Flowing",
    "idle": "Idle",
    "trouble": "Trouble",
    "starting": "Starting",
    "stopping": "Stopping",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """What is said before everything else.

    Attributes:
        state: for colour and shape.
        word: the state in a word, for people.
        sentence: what that means for events, without figures that change all the time.
        problems: one sentence each, the worst first; empty unless the state is trouble.
        flavors: those that have problems of their own.
    """

    state: State
    word: str
    sentence: str
    problems: tuple[str, ...] = ()
    flavors: frozenset[str] = frozenset()


def idle_after_s(mean_rate: float) -> float:
    """How long a silence lasts until it is idleness, where `mean_rate` lines a second are usual."""
    if mean_rate <= 0:
        return _SILENT_MOST_S
    return min(_SILENT_MOST_S, max(_SILENT_LEAST_S, _SILENT_EVENTS / mean_rate))


def judge(document: Mapping[str, Any], readiness: str, silence_s: float | None, mean_rate: float) -> Condition:
    """The condition.

    Args:
        document: of `/stats`.
        readiness: the word of `/health/ready`.
        silence_s: how long ago the last line came, None where none came since the start.
        mean_rate: lines a second over the last hour.
    """
    flows = silence_s is not None and silence_s <= idle_after_s(mean_rate)
    flavors = document["flavors"]
    troubled = frozenset(name for name, flavor in flavors.items() if _has_trouble(flavor))
    problems = (*_intake(document, readiness), *_backends(document), *_space(document), *_process(document))
    if problems:
        return Condition("trouble", _WORDS["trouble"], _in_trouble(document, readiness, flows), problems, troubled)
    if readiness in ("starting", "stopping"):
        sentence = {
            "starting": "The journals are being opened; no events are taken yet.",
            "stopping": "No more events are taken; the backends bring to safety what they can.",
        }[readiness]
        return Condition("idle", _WORDS[readiness], sentence)
    if flows:
        return Condition("flowing", _WORDS["flowing"], "Events arrive and every backend keeps up with them.")
    return Condition("idle", _WORDS["idle"], "Ready, nothing is wrong, and no events arrive.")


def has_fallen_silent(silence_s: float | None, mean_rate: float) -> bool:
    """Whether the silence is not the usual one: events came all the time until a moment ago."""
    usual = mean_rate * _SILENT_LEAST_S > _SILENT_EVENTS
    return usual and silence_s is not None and silence_s > idle_after_s(mean_rate)


def _in_trouble(document: Mapping[str, Any], readiness: str, flows: bool) -> str:
    refusing = [name for name, flavor in document["flavors"].items() if not flavor["takes_lines"]]
    if readiness == "journal_full":
        return "Events are refused."
    if refusing:
        return "Events of some flavors are refused."
    return "Events arrive and are safe in the journal." if flows else "No events arrive."


def _has_trouble(flavor: Mapping[str, Any]) -> bool:
    feeds = (feed for feed in flavor.values() if isinstance(feed, dict) and "pending_lines" in feed)
    left_s = flavor["quota_full_in_s"]
    return (
        not flavor["takes_lines"]
        or any(feed["state"] == "backing_off" for feed in feeds)
        or (left_s is not None and left_s < LEFT_S)
    )


def _intake(document: Mapping[str, Any], readiness: str) -> Iterator[str]:
    refusing = sorted(name for name, flavor in document["flavors"].items() if not flavor["takes_lines"])
    if readiness == "journal_full":
        yield "The journal takes no lines: every event is refused with 503."
    elif refusing:
        yield f"Journals that take no lines, so that events are refused with 503: {_some(refusing)}."


def _backends(document: Mapping[str, Any]) -> Iterator[str]:
    for name, backend in sorted(document["backends"].items()):
        flavors = document["flavors"].items()
        failing = sorted(flavor for flavor, of in flavors if of.get(name, {}).get("state") == "backing_off")
        old = backend["oldest_pending_age_s"] > PENDING_S
        if failing:
            where = "every flavor" if len(failing) == len(flavors) else _some(failing)
            yield f"The {name} backend fails for {where}; its lines wait in the journal."
        elif old and backend["state"] == "stopped":
            yield f"The {name} backend is stopped; its lines wait in the journal."
        elif old:
            yield f"The {name} backend is behind: a line has waited for more than {PENDING_S:.0f} seconds."
    residual = document["ledger"]["residual_lines"]
    if residual:
        yield f"The ledger does not balance: {residual:,} lines are unaccounted for. Run scratchd audit."


def _space(document: Mapping[str, Any]) -> Iterator[str]:
    full_in_s = document["journal"]["full_in_s"]
    if full_in_s is not None and 0 < full_in_s < LEFT_S:
        yield f"The journal's disk is full in {_minutes(full_in_s)} at this rate; then events are refused."
    quotas = ((flavor["quota_full_in_s"], name) for name, flavor in document["flavors"].items())
    scarce = sorted((left_s, name) for left_s, name in quotas if left_s is not None and left_s < LEFT_S)
    if scarce:
        names = _some([name for _, name in scarce])
        yield f"The quota of {names} is full in {_minutes(scarce[0][0])}; then lines leave that a backend has not read."


def _process(document: Mapping[str, Any]) -> Iterator[str]:
    lag_s = document["runtime"]["loop_lag_s"]
    if lag_s > LAG_S:
        yield f"The process cannot keep up: it was {lag_s:.1f} seconds late a moment ago."


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"


def _some(names: list[str]) -> str:
    """`a, b, c and 4 more`."""
    shown, more = names[:5], len(names) - 5
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
