"""The page on the figures, their declaration, and what a service says: the three agree."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scratchd.figures import GROUPS, Figure, exposed
from scratchd.metrics import Metrics
from scratchd.refusal import Reason
from scratchd.stats import (
    BackendStats,
    BrokerStats,
    CanaryStats,
    FeedStats,
    FlavorStats,
    LegStats,
    ProducerStats,
    Stats,
)
from scratchd.tools import figures

ROOT = Path(__file__).parents[2]
FIGURES = [figure for group in GROUPS for figure in group.figures]
BROKER = BrokerStats(
    up=True,
    round_trip_mean_s=0.1,
    round_trip_p99_s=0.1,
    queue_mean_s=0.1,
    queued_requests=1,
    awaited_requests=1,
    requests=1,
    sent_bytes=1,
    retries=1,
    errors=1,
    timeouts=1,
    disconnects=1,
    throttle_mean_s=0.1,
)


@pytest.fixture
def stats() -> Stats:
    """One in which everything has happened."""
    ticks = itertools.count(1000)
    stats = Stats("1.2.3", "one", lambda: next(ticks) * 1000, lambda: float(next(ticks)))
    stats.build = {"python": "3.13", "trio": "0.29", "librdkafka": "2.8"}
    stats.http.answered(200, 0.001)
    stats.http.answered(400, 0.001)
    stats.http.refused("empty_query", "gr")
    stats.journal.free_bytes = 1
    stats.journal.syncs.add(0.01)
    stats.flavors["gr"] = FlavorStats(
        epoch="e", received_lines=5, feeds={"file": FeedStats(next_sequence=5), "kafka": FeedStats(next_sequence=5)}
    )
    stats.backends = {"file": BackendStats(), "kafka": BackendStats()}
    for backend in stats.backends.values():
        backend.failed("2026-11-23T12:00:00.000Z", "gr", "timed_out", "why")
    stats.backends["kafka"].producer = ProducerStats(1, 2, 3, {"kafka1:9092": BROKER})
    leg = LegStats(delay_s=0.1, failures=1, last_success_ms=1)
    error = {"at": "2026-11-23T12:00:00.000Z", "where": "kafka", "message": "why"}
    stats.canary = CanaryStats(1, leg, {"file": leg, "kafka": leg}, error)
    stats.rates.sample()
    return stats


def paths(value: object, *keys: str) -> Iterator[tuple[str, ...]]:
    """The keys on the way to each leaf; a list is said by `[]` behind its key."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from paths(below, *keys, str(key))
    elif isinstance(value, list):
        for below in value:
            yield from paths(below, *keys[:-1], f"{keys[-1]}[]")
    else:
        yield keys


def declares(path: str, keys: tuple[str, ...]) -> bool:
    """Whether a declared path is that of a leaf."""
    parts = path.split(".")
    return len(parts) == len(keys) and all(
        part == key or part.startswith("{") for part, key in zip(parts, keys, strict=True)
    )


def test_the_page_is_what_is_declared() -> None:
    written = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert written == figures.page(), "run: python -m scratchd.tools.figures > docs/metrics.md"


def test_every_key_of_stats_is_declared_and_none_else(stats: Stats) -> None:
    found = list(paths(stats.document()))
    declared = [path for figure in FIGURES for path in figure.stats]
    assert [keys for keys in found if sum(declares(path, keys) for path in declared) != 1] == []
    assert [path for path in declared if not any(declares(path, keys) for keys in found)] == []


def families(stats: Stats) -> dict[str, tuple[str, str]]:
    """What `/metrics` has: family to type and help."""
    text = Metrics(stats).render().decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    return {name: (kind, helps[name]) for name, kind in types.items()}


@pytest.mark.parametrize("empty", [False, True], ids=["everything happened", "nothing happened"])
def test_every_metric_is_declared_and_none_else(stats: Stats, empty: bool) -> None:
    said = families(Stats("1.2.3", "", lambda: 0, lambda: 0.0) if empty else stats)
    assert set(said) == {figure.metric for figure in FIGURES if figure.metric}
    for name, figure in exposed().items():
        kind, meaning = said[name]
        assert kind == ("gauge" if figure.kind == "info" else figure.kind), name
        assert meaning.replace("\\\\", "\\") == figure.meaning, name


def test_the_labels_are_those_declared(stats: Stats) -> None:
    suffixes = {"histogram": ("le",), "summary": ()}
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(Metrics(stats).render().decode()):
        for sample in family.samples:
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found.setdefault(name, set()).update(sample.labels)
    for figure in FIGURES:
        if figure.metric:
            assert found[figure.metric] == {*figure.labels, *suffixes.get(figure.kind, ())}, figure.metric


def test_nothing_is_declared_twice() -> None:
    metrics = [figure.metric for figure in FIGURES if figure.metric]
    assert len(metrics) == len(set(metrics))
    assert [figure for figure in FIGURES if not figure.metric and not figure.stats] == []


@pytest.mark.parametrize("figure", FIGURES, ids=[figure.metric or figure.stats[0] for figure in FIGURES])
def test_a_figure_has_what_its_reader_needs(figure: Figure) -> None:
    assert figure.meaning
    assert not figure.meaning.endswith(".")
    assert figure.metric.endswith("_total") == (figure.kind == "counter" and bool(figure.metric))
    if figure.metric.startswith("scratchd_") and figure.kind != "info":
        assert figure.unit
        assert figure.advice
        assert ("seconds" in figure.metric) == (figure.unit == "seconds")


def test_every_reason_and_code_is_there_from_the_start() -> None:
    text = Metrics(Stats("1.2.3", "", lambda: 0, lambda: 0.0)).render().decode()
    for reason in Reason:
        assert f'scratchd_http_refused_total{{reason="{reason.word}"}} 0.0' in text
        assert f'scratchd_http_requests_total{{code="{reason.status}"}} 0.0' in text
    assert 'scratchd_http_requests_total{code="200"} 0.0' in text
