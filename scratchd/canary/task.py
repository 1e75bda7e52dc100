"""The canary's task: sends beacons, has them looked for, and writes the figures.

A configuration that changes anything for the canary begins it anew, with a run of its own: what the old one has under
way is not waited for.
"""

from __future__ import annotations

import datetime
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import trio

from scratchd.canary.leg import Leg
from scratchd.canary.lookout import Opener, file_opener, keep_looking, topic_opened
from scratchd.config import Canary as Section
from scratchd.config import Config
from scratchd.flavors import Flavors
from scratchd.log import Log
from scratchd.stats import CanaryStats, LegStats, Stats, iso_time

if TYPE_CHECKING:
    from scratchd.canary.beacon import Target  # HTTP's and TLS' client cost memory: only when it is on

LOOK_S = 0.25
"""How often it is looked for beacons that are overdue."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What follows from a configuration for the canary; equal ones need no new beginning.

    Attributes:
        section: its keys.
        pattern: where the flavor's log files are, None where there are none.
        zone: in which its days begin.
        topic: its topic, None where there is none.
    """

    section: Section
    pattern: str | None
    zone: str
    topic: str | None


def plan_of(config: Config) -> Plan | None:
    """The plan of a valid configuration, None where the canary is off."""
    section = config.canary
    if not section.url:
        return None
    flavor = next(flavor for flavor in config.flavors if flavor.name == section.flavor)
    return Plan(
        section,
        config.file_pattern(flavor) if config.file.enabled else None,
        flavor.time_zone,
        config.kafka_topic(flavor) if config.kafka.enabled else None,
    )


@dataclass(slots=True)
class _Places:
    """Threads that may hang have one place each, over all runs: there is never a second one."""

    answer: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))
    backends: dict[str, trio.CapacityLimiter] = field(default_factory=dict)

    def backend(self, name: str) -> trio.CapacityLimiter:
        return self.backends.setdefault(name, trio.CapacityLimiter(1))


class Canary:
    """Sends beacons and finds them again, while it is on.

    Args:
        config: the configuration.
        flavors: its flavors.
        stats: where its figures go.
        log: where it is told what keeps beacons from arriving.
        clock_ms: the wall clock, milliseconds since the epoch.
        monotonic: seconds, the clock of `stats`.
    """

    def __init__(
        self,
        config: Config,
        flavors: Flavors,
        stats: Stats,
        log: Log,
        *,
        clock_ms: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._config = config
        self._flavors = flavors
        self._plan = plan_of(config)
        self._stats = stats
        self._log = log
        self._clock_ms = clock_ms
        self._monotonic = monotonic
        self._places = _Places()
        self._changed = trio.Event()
        self._failing: set[str] = set()

    def adopt(self, config: Config, flavors: Flavors) -> None:
        """Goes by this configuration from now on."""
        self._flavors = flavors
        plan = plan_of(config)
        if plan != self._plan:
            self._config, self._plan = config, plan
            self._changed.set()

    async def run(self) -> None:
        """Runs until cancelled; nothing that fails here ends it."""
        while True:
            self._changed = trio.Event()
            async with trio.open_nursery() as nursery:
                if self._plan is None:
                    self._stats.canary = None
                else:
                    nursery.start_soon(self._watch, self._plan)
                await self._changed.wait()
                nursery.cancel_scope.cancel()

    async def _watch(self, plan: Plan) -> None:
        from scratchd.canary.beacon import Target  # noqa: PLC0415 - as above

        target = Target(plan.section.url, uuid.uuid4().hex)
        stats = self._stats.canary = self._stats.canary or CanaryStats()
        openers = self._openers(plan)
        stats.backends = {name: stats.backends.get(name) or LegStats() for name in openers}
        legs = {name: Leg(stats.backends[name], plan.section.timeout_s) for name in openers}
        for leg in stats.backends.values():
            leg.waiting_since_s = None
        self._failing.clear()
        async with trio.open_nursery() as nursery:
            for name, opener in openers.items():
                nursery.start_soon(self._look, name, opener, target, legs[name])
            nursery.start_soon(self._count_overdue, legs, plan.section.timeout_s)
            await self._send(plan.section, target, stats, list(legs.values()))

    def _openers(self, plan: Plan) -> Mapping[str, Opener]:
        openers: dict[str, Opener] = {}
        if plan.pattern is not None:
            openers["file"] = file_opener(plan.pattern, self._today)
        if plan.topic is not None:
            openers["kafka"] = partial(topic_opened, self._config.kafka, plan.topic, self._clock_ms())
        return openers

    # Sending.

    async def _send(self, section: Section, target: Target, stats: CanaryStats, legs: Sequence[Leg]) -> None:
        answer = Leg(stats.answer, section.timeout_s)
        number = 0
        while True:
            number += 1
            next_s = trio.current_time() + section.interval_s
            stats.beacons += 1
            for leg in (answer, *legs):
                leg.sent(number, self._monotonic())
            error = await self._ask(target, number, section.timeout_s)
            if error is None:
                answer.found(number, self._monotonic(), self._clock_ms())
                self._works("answer")
            else:
                for leg in (answer, *legs):
                    leg.forget(number)
                stats.answer.failures += 1
                self._fails("answer", error)
            await trio.sleep_until(next_s)

    async def _ask(self, target: Target, number: int, timeout_s: float) -> str | None:
        """What is wrong with a beacon's answer, None where nothing is."""
        from scratchd.canary.beacon import UnansweredError  # noqa: PLC0415 - as above

        with trio.move_on_after(timeout_s):
            try:
                await trio.to_thread.run_sync(
                    target.send, number, timeout_s, abandon_on_cancel=True, limiter=self._places.answer
                )
            except UnansweredError as error:
                return str(error)
            return None
        return f"{target.url}: no answer within {timeout_s:g} s"

    # Finding again.

    async def _look(self, name: str, opener: Opener, target: Target, leg: Leg) -> None:
        over = threading.Event()

        def tell(lines: Sequence[bytes], error: str) -> None:
            if over.is_set():  # from a thread that was left behind
                return
            if error:
                self._fails(name, error)
            for line in lines:
                if (number := target.number(line)) is not None:
                    leg.found(number, self._monotonic(), self._clock_ms())
                    self._works(name)

        def look() -> None:
            keep_looking(opener, over, lambda lines, error: trio.from_thread.run_sync(tell, lines, error))

        try:
            await trio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=self._places.backend(name))
        finally:
            over.set()

    async def _count_overdue(self, legs: Mapping[str, Leg], timeout_s: float) -> None:
        while True:
            await trio.sleep(LOOK_S)
            for name, leg in legs.items():
                if leg.overdue(self._monotonic()):
                    self._fails(name, f"not found within {timeout_s:g} s; {len(leg)} are on their way")

    # Telling.

    def _fails(self, where: str, why: str) -> None:
        at = iso_time(self._clock_ms())
        if self._stats.canary is not None:
            self._stats.canary.last_error = {"at": at, "where": where, "message": why}
        write = self._log.debug if where in self._failing else self._log.warning
        self._failing.add(where)
        write("the canary's beacons do not arrive", where=where, why=why)

    def _works(self, where: str) -> None:
        if where in self._failing:
            self._failing.discard(where)
            self._log.info("the canary's beacons arrive again", where=where)

    def _today(self) -> datetime.date:
        flavor = self._flavors.by_name.get(self._plan.section.flavor) if self._plan else None
        return flavor.date(self._clock_ms()) if flavor else datetime.datetime.now(datetime.UTC).date()
