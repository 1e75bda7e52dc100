"""Whether Grafana's dashboard shows something: every panel's query, asked of a real Prometheus under load.

Its JSON is read by Grafana's own models (grafana-foundation-sdk): what they do not know, or know as another type, is an
error.
"""

from __future__ import annotations

import contextlib
import enum
import json
import re
import subprocess
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as models

from daemon import Daemon, daemons, free_port
from deadline import wait_for
from kafka_client import Broker
from load import Load
from prometheus import MONITORING, Prometheus, scraping
from promql import OTHERS, ROOT, documented, metrics, rules
from wire import Connection

FILE = MONITORING / "grafana" / "scratchd.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]

EDGE = """\
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
frontend metrics
    bind {exporter}
    http-request use-service prometheus-exporter if {{ path /metrics }}
frontend track
    bind {track}
    use_backend legacy_gr if {{ query -m beg legacy }}
    default_backend scratchd_gr
backend scratchd_gr
    server primary {scratchd} check inter 200ms
backend legacy_gr
    http-request return status 200
"""
"""The names that haproxy/haproxy.cfg gives to both sides, and its exporter."""


# The JSON.


def test_the_file_is_what_its_script_makes() -> None:
    made = subprocess.run(
        [sys.executable, str(FILE.with_name("dashboard.py"))], capture_output=True, text=True, check=True
    )
    assert made.stdout == FILE.read_text(), (
        "run: python monitoring/grafana/dashboard.py > monitoring/grafana/scratchd.json"
    )


def test_grafanas_own_models_know_all_of_it() -> None:
    register_default_plugins()
    read = models.Dashboard.from_json(DASHBOARD)
    assert list(_lost(DASHBOARD, json.loads(JSONEncoder().encode(read)), "")) == []
    assert list(_ill_typed(read, "dashboard")) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({"refrsh": "30s"}, ".refrsh is not known", id="unknown key"),
        pytest.param({"tags": "scratchd"}, "dashboard.tags", id="wrong type"),
        pytest.param({"graphTooltip": 7}, "dashboard.graph_tooltip", id="no such choice"),
    ],
)
def test_the_models_would_object(change: dict[str, Any], complaint: str) -> None:
    register_default_plugins()
    wrong = {**DASHBOARD, **change}
    read = models.Dashboard.from_json(wrong)
    found = [*_lost(wrong, json.loads(JSONEncoder().encode(read)), ""), *_ill_typed(read, "dashboard")]
    assert [text for text in found if text.startswith(complaint)] != []


def _lost(written: object, read: object, where: str) -> Iterator[str]:
    """What the models dropped."""
    if isinstance(written, Mapping) and isinstance(read, Mapping):
        for key, value in written.items():
            if key in read:
                yield from _lost(value, read[key], f"{where}.{key}")
            else:
                yield f"{where}.{key} is not known"
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for index, (one, other) in enumerate(zip(written, read, strict=True)):
            yield from _lost(one, other, f"{where}[{index}]")
    elif written != read:
        yield f"{where}: {written!r} is read as {read!r}"


def _ill_typed(value: object, where: str) -> Iterator[str]:
    """Attributes of the models, and of those below, whose values are not what their annotations say."""
    annotations = typing.get_type_hints(type(value)) if type(value).__module__.startswith("grafana") else {}
    for name, kind in annotations.items():
        held = getattr(value, name)
        if not _is(held, kind):
            yield f"{where}.{name}: expected {kind}, got {held!r}"
        for index, below in enumerate(held if isinstance(held, list) else [held]):
            yield from _ill_typed(below, f"{where}.{name}[{index}]" if isinstance(held, list) else f"{where}.{name}")


def _is(value: object, kind: Any) -> bool:  # noqa: ANN401, PLR0911 - any annotation, each its own answer
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or kind is object:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(_is(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is(item, arguments[1]) for item in value.values())
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return value in {member.value for member in kind}
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_there_is_a_row_for_each_question() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Overview", "Backends", "Journal", "Runtime", "Rollout"]


def test_the_edge_is_named_as_the_dashboard_asks_for_it() -> None:
    edge = (ROOT / "haproxy" / "haproxy.cfg").read_text()
    for side in ("scratchd", "legacy"):
        assert re.findall(rf"^backend {side}_\w+$", edge, re.MULTILINE)
    (port,) = re.findall(r"^frontend metrics\n\s+bind \S+:(\d+)$", edge, re.MULTILINE)
    assert f":{port}" in (MONITORING / "prometheus" / "prometheus.yml").read_text()


# What it asks.


@pytest.fixture(scope="module")
def observed(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus over a service with files, Kafka and HAProxy, under load, some of it refused, one backend failing."""
    place = tmp_path_factory.mktemp("observed")
    (place / "blocked").write_text("a file where a directory should be")
    with kafka.topic(2) as topic, kafka.topic() as other, daemons(place) as start:
        daemon = start(
            http={"stop_timeout_s": 1},
            flavors=[
                {"name": "gr", "hosts": ["gr.test"], "kafka_topic": topic},
                {
                    "name": "broken",
                    "hosts": ["broken.test"],
                    "kafka_topic": other,
                    "file_path": f"{place}/blocked/{{flavor}}/{{date}}.log",
                },
            ],
            kafka={
                "enabled": True,
                "bootstrap_servers": kafka.bootstrap_servers,
                "librdkafka": {"statistics.interval.ms": 500},
            },
        )
        with _edge(place, daemon) as exporter, _under_load(daemon):
            assert daemon.admin_address is not None
            jobs = {"scratchd": [daemon.admin_address], "scratchd-edge": [exporter]}
            with scraping(place / "prometheus", jobs) as prometheus:
                yield prometheus


@contextlib.contextmanager
def _edge(place: Path, daemon: Daemon) -> Iterator[str]:
    """HAProxy with both sides, asked all the time; gives its exporter's address."""
    exporter, track = (f"127.0.0.1:{free_port()}" for _ in range(2))
    configuration = place / "haproxy.cfg"
    configuration.write_text(EDGE.format(exporter=exporter, track=track, scratchd=daemon.address))
    with (place / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(["haproxy", "-db", "-f", str(configuration)], stdout=log, stderr=log)
    try:
        wait_for(lambda: _answers(track, "/track?a=1"), 30, "HAProxy answers")
        with _repeating(lambda: [_answers(track, target) for target in ("/track?a=1", "/track", "/track?legacy=1")]):
            yield exporter
    finally:
        process.terminate()
        process.wait(10)


def _answers(address: str, target: str) -> bool:
    try:
        with Connection(address) as connection:
            return connection.get(target, "gr.test").status < 500
    except (OSError, EOFError):
        return False


@contextlib.contextmanager
def _under_load(daemon: Daemon) -> Iterator[None]:
    """Events of both flavors, and requests that are refused."""
    load = Load(daemon, "load", hosts=("gr.test", "broken.test"), connections=2, pause_s=0.5)
    refused = ("gr.test", "/track"), ("broken.test", "/"), ("nobody.test", "/track?a=1")
    with load.running(), _repeating(lambda: [daemon.get(target, host) for host, target in refused]):
        yield


@contextlib.contextmanager
def _repeating(ask: Callable[[], object]) -> Iterator[None]:
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(0.1):
            ask()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(20)


def asked(expression: str) -> str:
    """A query as Grafana asks it, with everything chosen."""
    for variable, value in {"$__rate_interval": "20s", "$job": "scratchd", "$instance": ".*", "$flavor": ".*"}.items():
        expression = expression.replace(variable, value)
    assert re.search(r"\$[a-z_]", expression) is None
    return expression


@pytest.mark.parametrize("expression", QUERIES)
def test_every_panel_shows_something(observed: Prometheus, expression: str) -> None:
    assert wait_for(lambda: observed.values(asked(expression)), 20, expression)


def test_the_variables_have_values(observed: Prometheus) -> None:
    queries = [each["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    assert len(queries) == 3
    for query in queries:
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()  # type: ignore[union-attr]
        found = wait_for(lambda series=series: observed.values(asked(series)), 20, query)  # type: ignore[misc]
        assert all(json.loads(labels)[label] for labels in found)


def test_starts_are_an_annotation_that_can_be_asked(observed: Prometheus) -> None:
    (annotation,) = DASHBOARD["annotations"]["list"]
    assert observed.values(asked(annotation["expr"])) == {}


def test_the_rules_work_on_real_figures(observed: Prometheus) -> None:
    for rule in rules("record"):
        assert wait_for(lambda rule=rule: observed.values(rule["record"]), 20, rule["record"])  # type: ignore[misc]
    groups = observed.get("rules")["groups"]
    assert {rule["name"]: rule["health"] for group in groups for rule in group["rules"] if rule["health"] != "ok"} == {}

    def alerts() -> set[tuple[str, str]]:
        return {(each["alertname"], each["alertstate"]) for each in map(json.loads, observed.values("ALERTS"))}

    # What is wrong here is wrong for too short a time to fire, but it is seen; and nothing else is.
    expected = {("ScratchdBackendBackingOff", "pending"), ("ScratchdRefusals", "pending")}
    wait_for(lambda: alerts() >= expected, 30, "alerts")
    assert alerts() == expected


@pytest.mark.parametrize("expression", QUERIES)
def test_every_metric_of_the_dashboard_is_documented(expression: str) -> None:
    names = metrics(asked(expression))
    assert names
    assert {name for name in names if not name.startswith("haproxy_")} - documented() - OTHERS == set()
