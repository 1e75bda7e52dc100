"""The benchmark: every contender in every scenario, in interleaved rounds; a table, JSON and a chart.

    make bench [QUICK=1]          python bench/run.py [--quick] [--rounds N] [--only SCENARIO…]

A round is every scenario with every contender once, so that whatever else the machine does meets all alike. What is
told are medians over the rounds, and ratios of medians, with the spread of the rounds' own ratios beside them. Rates at
half capacity follow from the first scenario's medians and are therefore measured behind the rounds; so are the outage
and the starts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

import bed
import chart
from bed import SERVER_CORE, SOURCE, Bed
from contenders import ALONE, GO, NGINX, SCRATCHD, STOCK, TITLES, Contender
from deadline import wait_for
from measure import BROWSER, Figures, Load, Running, drained, measure, warm_up
from query import ESCAPES, TYPICAL

RESULTS = SOURCE / "bench" / "results"

IMPORTS = "import trio, hypercorn.trio, confluent_kafka"


class Scenario(msgspec.Struct, frozen=True):
    """What is asked of whom.

    Attributes:
        name: as `--only` and the table have it.
        contenders: who takes part, the first is the one that the others are compared with.
        load: what is sent.
        kafka: whether Kafka is on, for those that can.
        seldom: whether it is measured in every second round only, and not at all in quick ones.
    """

    name: str
    contenders: tuple[Contender, ...]
    load: Load
    kafka: bool = True
    seldom: bool = False


class Outage(msgspec.Struct):
    """Full load without Kafka, and what follows.

    Attributes:
        requests_s: answered a second while Kafka was down.
        grown_bytes: by which resident memory grew, from the outage's first seconds to its end.
        p99_ms: latency at full load.
        backlog_lines: waiting for Kafka when it came back.
        drain_lines_s: how fast they went, from the broker's first answer on.
    """

    requests_s: float
    grown_bytes: int
    p99_ms: float
    backlog_lines: int
    drain_lines_s: float


class Start(msgspec.Struct):
    """Seconds from nothing to the first answer, and to importing what scratchd imports."""

    ready_s: float
    imports_s: float


def numbered(query: str) -> str:
    """A query whose last value is every request's own."""
    head, name, _ = query.rpartition("z=")
    return f"{head}{name}{{n}}"


def scenarios(seconds: float, *, quick: bool) -> Iterator[Scenario]:
    """All that are measured in rounds."""
    typical, heavy = (Load(numbered(query), 64, seconds) for query in (TYPICAL, ESCAPES))
    change = msgspec.structs.replace
    yield Scenario("typical", (SCRATCHD, GO, ALONE), typical)
    yield Scenario("heavy", (SCRATCHD, GO), heavy)
    yield Scenario("file only", (SCRATCHD, GO, ALONE, STOCK, NGINX), typical, kafka=False)
    steady = (SCRATCHD, GO) if quick else (SCRATCHD, GO, ALONE, STOCK, NGINX)
    yield Scenario("1,000 a second", steady, change(typical, rate=1000))
    yield Scenario("browser's head", (SCRATCHD, GO), change(typical, fields=BROWSER), seldom=True)
    for connections in (1, 1000, 10000):
        plural = "s" if connections > 1 else ""
        yield Scenario(
            f"{connections:,} connection{plural}", (SCRATCHD, GO), change(typical, connections=connections), seldom=True
        )


Samples = dict[str, dict[str, list[Figures]]]
"""By scenario and contender, one for each round."""


class Run:
    """One run of everything."""

    def __init__(self, made: Bed, *, rounds: int, seconds: float, quick: bool, only: Sequence[str]) -> None:
        self._bed = made
        self.rounds = rounds
        self.seconds = seconds
        self._quick = quick
        self._only = only
        self._begun = time.monotonic()
        self.samples: Samples = {}
        self.outages: list[Outage] = []
        self.starts: list[Start] = []

    def all(self) -> None:
        """Measures everything that was asked for."""
        with SCRATCHD.running(self._bed, kafka=True):
            pass  # its Python is compiled now, as it is by an installation
        for number in range(self.rounds):
            for scenario in scenarios(self.seconds, quick=self._quick):
                if not scenario.seldom or (number % 2 == 0 and not self._quick):
                    self._measure(scenario, number)
        for number in range(1 if self._quick else 3):
            for half in self._half_capacities():
                self._measure(half, number)
        if self._wanted("Kafka down"):
            self.outages += [self._outage(4 if self._quick else 20)]
        if self._wanted("start"):
            self.starts += [self._start() for _ in range(3 if self._quick else 9)]

    def _wanted(self, name: str) -> bool:
        return not self._only or name in self._only

    def _measure(self, scenario: Scenario, number: int) -> None:
        if not self._wanted(scenario.name):
            return
        # Each is the first one as often as the others.
        turn = number % len(scenario.contenders)
        for contender in scenario.contenders[turn:] + scenario.contenders[:turn]:
            with contender.running(self._bed, kafka=scenario.kafka) as server:
                figures = measure(self._bed, server, scenario.load)
            self.samples.setdefault(scenario.name, {}).setdefault(contender.name, []).append(figures)
            at = f"[{time.monotonic() - self._begun:5.0f} s] round {number + 1}"
            print(f"{at} {scenario.name:16} {TITLES[contender.name]:26} {shown(figures)}", flush=True)

    def _half_capacities(self) -> Iterator[Scenario]:
        for contender in (SCRATCHD, GO):
            known = self.samples.get("typical", {}).get(contender.name)
            if known:
                rate = round(statistics.median(figures.requests_s for figures in known) / 2, -2)
                load = Load(numbered(TYPICAL), 64, self.seconds, rate)
                yield Scenario("half capacity", (contender,), load)

    def _outage(self, seconds: float) -> Outage:
        """Scratchd under full load while Kafka is down, and the drain behind it."""
        load = Load(numbered(TYPICAL), 64, seconds)
        with SCRATCHD.running(self._bed, kafka=True) as server:
            warmed = warm_up(self._bed, server, load)
            with self._bed.kafka.stopped():
                first = Running(self._bed, msgspec.structs.replace(load, seconds=2), server.address)
                answered = first.answered().answered
                first.latency_ms()
                resident, _ = server.memory_bytes()
                running = Running(self._bed, load, server.address)
                seen = running.answered()
                grown_bytes = server.memory_bytes()[0] - resident
                latency_ms = running.latency_ms()
            self._bed.pin_broker()
            lines = warmed + answered + seen.answered
            arrived = server.topic_lines()
            wait_for(lambda: server.topic_lines() > arrived, 30, "the backlog begins to drain")
            begun, at = time.monotonic(), server.topic_lines()
            if not drained(server, lines):
                raise SystemExit(f"the backlog of {lines - arrived} lines did not drain")
            rate = (lines - at) / (time.monotonic() - begun)
        p99_ms = latency_ms["p99"]
        return Outage(seen.answered / seen.elapsed_s, grown_bytes, p99_ms, lines - arrived, rate)

    def _start(self) -> Start:
        python = ["taskset", "--cpu-list", str(SERVER_CORE), *self._bed.python(SOURCE)]
        begun = time.monotonic()
        environment = self._bed.environment(SOURCE)
        subprocess.run([*python, "-c", IMPORTS], check=True, env=environment, cwd=self._bed.place)
        imports_s = time.monotonic() - begun
        with SCRATCHD.running(self._bed, kafka=True) as server:
            return Start(server.ready_s, imports_s)


def shown(figures: Figures) -> str:
    """A line of one measurement."""
    lines = f"{figures.lines_s:9,.0f}" if figures.lines_s is not None else f"{'-':>9}"
    latency = " ".join(f"{figures.latency_ms[name]:8.2f}" for name in ("p50", "p99", "p99.9", "max"))
    return (
        f"{figures.requests_s:9,.0f} {lines} {figures.cpu_s_1000 * 1000:8.1f} {figures.busy:6.0%}"
        f" {figures.peak_bytes / 1e6:7.1f} {latency} {figures.failed:6}"
    )


HEAD = (
    f"{'':27}{'req/s':>9} {'lines/s':>9} {'CPU ms/k':>8} {'busy':>6} {'MB':>7}"
    f" {'p50 ms':>8} {'p99':>8} {'p99.9':>8} {'max':>8} {'failed':>6}"
)


def median(samples: Sequence[Figures]) -> Figures:
    """The median of each figure by itself; failures are added up."""

    def middle(figure: Callable[[Figures], float]) -> float:
        return statistics.median(map(figure, samples))

    lines_s = [figures.lines_s for figures in samples if figures.lines_s is not None]
    return Figures(
        requests_s=middle(lambda figures: figures.requests_s),
        lines_s=statistics.median(lines_s) if len(lines_s) == len(samples) else None,
        cpu_s_1000=middle(lambda figures: figures.cpu_s_1000),
        busy=middle(lambda figures: figures.busy),
        peak_bytes=round(middle(lambda figures: figures.peak_bytes)),
        grown_bytes=round(middle(lambda figures: figures.grown_bytes)),
        latency_ms={
            name: statistics.median(figures.latency_ms[name] for figures in samples) for name in samples[0].latency_ms
        },
        ready_s=middle(lambda figures: figures.ready_s),
        failed=sum(figures.failed for figures in samples),
    )


class Aim(msgspec.Struct):
    """A ratio that is to be reached, what it is, and its smallest and largest over the rounds."""

    name: str
    limit: float
    ratio: float
    low: float
    high: float
    at_least: bool = False

    @property
    def reached(self) -> bool:
        """Whether it is."""
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit


def aims(samples: Samples, outages: Sequence[Outage], starts: Sequence[Start]) -> Iterator[Aim]:
    """What is to be reached, as far as it was measured."""

    def compared(
        scenario: str, other: str, name: str, figure: Callable[[Figures], float | None], limit: float, *, at_least: bool
    ) -> Iterator[Aim]:
        both = samples.get(scenario, {})
        if {"scratchd", other} <= set(both):
            pairs = [
                (figure(mine), figure(theirs)) for mine, theirs in zip(both["scratchd"], both[other], strict=False)
            ]
            ratios = [mine / theirs for mine, theirs in pairs if mine is not None and theirs]
            mine, theirs = figure(median(both["scratchd"])), figure(median(both[other]))
            if ratios and mine is not None and theirs:
                yield Aim(name, limit, at_least=at_least, ratio=mine / theirs, low=min(ratios), high=max(ratios))

    for query in ("typical", "heavy"):
        name = f"sustained lines/s, {query} queries, to the Go reference"
        yield from compared(query, "go", name, lambda figures: figures.lines_s, 1.8, at_least=True)
    for query in ("typical", "heavy"):
        name = f"CPU for a request, {query} queries, to the Go reference"
        yield from compared(query, "go", name, lambda figures: figures.cpu_s_1000, 0.55, at_least=False)
    name = "requests/s, file only, to idle Hypercorn"
    yield from compared("file only", "stock", name, lambda figures: figures.requests_s, 25, at_least=True)
    name = "p99 at 1,000 a second, to the Go reference"
    yield from compared("1,000 a second", "go", name, lambda figures: figures.latency_ms["p99"], 1.5, at_least=False)
    peaks = [
        figures.peak_bytes / 1e6
        for query in ("typical", "heavy")
        for figures in samples.get(query, {}).get("scratchd", ())
    ]
    if peaks:
        name = "peak memory under full load, MB"
        yield Aim(name, 52, ratio=statistics.median(peaks), low=min(peaks), high=max(peaks))
    if outages:
        grown = [outage.grown_bytes / 1e6 for outage in outages]
        name = "memory grown in 20 s of full load without Kafka, MB"
        yield Aim(name, 3, ratio=statistics.median(grown), low=min(grown), high=max(grown))
        loaded = [figures.requests_s for figures in samples.get("typical", {}).get("scratchd", ())]
        if loaded:
            ratios = [outage.drain_lines_s / statistics.median(loaded) for outage in outages]
            name = "a backlog's lines/s to Kafka, to the intake at full load"
            yield Aim(name, 3, ratio=statistics.median(ratios), low=min(ratios), high=max(ratios), at_least=True)
    if starts:
        ratios = [start.ready_s / start.imports_s for start in starts]
        ready_s, imports_s = (
            statistics.median(column) for column in zip(*map(msgspec.structs.astuple, starts), strict=True)
        )
        name = "start to the first answer, to importing trio, Hypercorn and confluent-kafka"
        yield Aim(name, 1.5, ratio=ready_s / imports_s, low=min(ratios), high=max(ratios))


def report(run: Run) -> Iterator[str]:
    """The table."""
    for scenario, contenders in run.samples.items():
        yield f"\n{scenario}\n{HEAD}"
        for name, samples in contenders.items():
            yield f"  {TITLES[name]:25}{shown(median(samples))}"
    for outage in run.outages:
        yield (
            f"\nKafka down: {outage.requests_s:,.0f} requests/s, p99 {outage.p99_ms:.1f} ms, memory"
            f" {outage.grown_bytes / 1e6:+.1f} MB\nrecovering: {outage.backlog_lines:,} lines at"
            f" {outage.drain_lines_s:,.0f} lines/s"
        )
    for start in sorted(run.starts, key=lambda start: start.ready_s)[len(run.starts) // 2 : len(run.starts) // 2 + 1]:
        yield f"start: first answer after {start.ready_s:.2f} s, imports alone {start.imports_s:.2f} s"
    yield f"\n{'aim':77}{'limit':>7}{'ratio':>8}{'from':>8}{'to':>8}"
    for aim in aims(run.samples, run.outages, run.starts):
        limit = f"{'≥' if aim.at_least else '≤'} {aim.limit:g}"
        verdict = "" if aim.reached else "   missed"
        yield f"{aim.name:77}{limit:>7}{aim.ratio:8.2f}{aim.low:8.2f}{aim.high:8.2f}{verdict}"


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description="Scratchd beside other servers.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: four minutes at most")
    parser.add_argument("--rounds", type=int, help="how many (5, quick: 2)")
    parser.add_argument("--seconds", type=float, help="of each load (4, quick: 2)")
    parser.add_argument("--only", nargs="+", default=[], metavar="SCENARIO", help="by name; also: 'Kafka down', start")
    parser.add_argument("--host-python", action="store_true", help="measure this Python instead of Debian 13's")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (2 if arguments.quick else 5)
    seconds = arguments.seconds or (2 if arguments.quick else 4)
    about = bed.machine()
    print(" ".join(f"{name}={value}" for name, value in about.items()))
    with bed.made(with_debian=not arguments.host_python) as made:
        run = Run(made, rounds=rounds, seconds=seconds, quick=arguments.quick, only=arguments.only)
        print(f"{'':49}{HEAD[27:]}")
        try:
            run.all()
        finally:
            write(run, about)


def write(run: Run, about: Mapping[str, str | int]) -> None:
    """Prints and writes what there is."""
    print("\n".join(report(run)))
    RESULTS.mkdir(exist_ok=True)
    document = {
        "machine": about,
        "rounds": run.rounds,
        "seconds": run.seconds,
        "samples": run.samples,
        "outages": run.outages,
        "starts": run.starts,
        "aims": list(aims(run.samples, run.outages, run.starts)),
    }
    name = f"{time.strftime('%Y-%m-%d-%H%M')}-{about['commit']}"
    written = [RESULTS / f"{name}.json", RESULTS / f"{name}.svg"]
    written[0].write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    medians = {scenario: {who: median(all_) for who, all_ in found.items()} for scenario, found in run.samples.items()}
    written[1].write_text(chart.drawn(medians, f"{about['cpu']}, commit {about['commit']}, {run.rounds} rounds"))
    print("\nwritten:", *(path.relative_to(SOURCE) for path in written))


if __name__ == "__main__":
    main()
