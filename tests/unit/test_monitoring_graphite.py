"""What Graphite's feeder makes of a document."""

from __future__ import annotations

import re

import pytest

from scratchd_monitoring import graphite


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"a": {"b": 1}}, {"a.b": 1}),
        ({"a": None, "b": "words"}, {}),
        ({"a": True, "b": False}, {"a": 1, "b": 0}),
        ({"state": "running"}, {"running": 1}),
        ({"kafka": {"state": "backing_off"}}, {"kafka.running": 0}),
        ({"brokers": {"a.example:9092": {"up": True}}}, {"brokers.a_example_9092.up": 1}),
        ({"gc": [{"collections": 3}, {"collections": 2}]}, {"gc.0.collections": 3, "gc.1.collections": 2}),
        ({"latency_histogram_s": {"count": 2, "buckets": {"0.1": 2}}}, {"latency_histogram_s.count": 2}),
        ({"requests": {"200": 5}}, {"requests.200": 5}),
    ],
)
def test_figures_of_a_document(document: object, expected: dict[str, float]) -> None:
    assert dict(graphite.figures(document)) == expected


def test_lines_are_carbons() -> None:
    sent = graphite.lines("scratchd.host", {"a": {"b": 0.25}, "n": 12345678901234}, 1000.9)
    assert sent == [
        "scratchd.host.up 1 1000\n",
        "scratchd.host.a.b 0.25 1000\n",
        "scratchd.host.n 12345678901234 1000\n",
    ]


def test_what_does_not_answer_is_not_up() -> None:
    assert graphite.lines("p", None, 5) == ["p.up 0 5\n"]


@pytest.mark.parametrize(
    "arguments",
    [("--carbon", "nowhere"), ("--prefix", "a..b"), ("--prefix", "a b"), ("--address", "x"), ("--address", "a:0")],
    ids=" ".join,
)
def test_wrong_usage_is_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        graphite.main(arguments)
    assert ended.value.code == 2
    assert re.search(r"error: .*--\w+: ", capsys.readouterr().err)
