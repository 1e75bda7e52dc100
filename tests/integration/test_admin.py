"""Whether operators see what is promised: health, figures, metrics, and who may ask for them."""

from __future__ import annotations

import datetime
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import scratchd
from daemon import Daemon, daemons, free_port
from scratchd.stats.durations import BOUNDS_S
from wire import Connection, request

FLAVORS = [{"name": "gr", "hosts": ["gr.test"]}, {"name": "tr", "hosts": ["tr.test"]}]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon to which a known number of requests was sent, over and done with."""
    with daemons(tmp_path_factory.mktemp("admin")) as start:
        daemon = start(flavors=FLAVORS, checks={"duplicate_window_s": 60})
        with daemon.connect() as connection:
            for number in range(5):
                connection.get(f"/track?n={number}", "gr.test")
            connection.get("/track?n=1", "gr.test")
            connection.get("/track?n=1", "tr.test", method="HEAD")
            connection.get("/track?n=1", "tr.test")
            connection.get("/track", "tr.test")
            connection.get("/track", "tr.test")
            connection.get("/", "tr.test")
            connection.get("/track?a=1", "tr.test", method="PUT")
        daemon.wait_drained()
        daemon.wait_for(lambda: daemon.stats()["http"]["connections"] == 0)
        yield daemon


def shape(document: object) -> object:
    """The document's keys, with what its values are in their place."""
    if isinstance(document, Mapping):
        return {key: shape(value) for key, value in document.items()}
    if isinstance(document, list):
        return [shape(value) for value in document]
    return "number" if isinstance(document, int | float) else type(document).__name__


FEED = dict.fromkeys(
    (
        "pending_lines",
        "oldest_pending_age_s",
        "persisted_lines",
        "persisted_lines_per_s",
        "gap_lines",
        "set_aside_lines",
    ),
    "number",
) | {"state": "str"}
LAST_MINUTE = {"p50": "number", "p99": "number", "max": "number"}
STATS = {
    "version": "str",
    "instance": "str",
    "build": dict.fromkeys(("python", "trio", "librdkafka"), "str"),
    "started_at": "str",
    "uptime_s": "number",
    "http": {
        "connections": "number",
        "requests": dict.fromkeys(("200", "400", "404", "405"), "number"),
        "requests_per_s": "number",
        "refused": dict.fromkeys(("empty_query", "method_not_allowed", "not_found"), "number"),
        "refused_per_s": "number",
        "duplicates": "number",
        "connections_failed": "number",
        "latency_s": LAST_MINUTE,
        "latency_histogram_s": {
            "count": "number",
            "sum": "number",
            "buckets": dict.fromkeys((f"{bound:g}" for bound in BOUNDS_S), "number"),
        },
    },
    "journal": dict.fromkeys(
        (
            "appended_lines",
            "appended_lines_per_s",
            "appended_bytes",
            "appended_bytes_per_s",
            "segments",
            "bytes",
            "append_errors",
            "sync_errors",
            "cut_bytes",
            "corrupt_lines",
            "free_bytes",
        ),
        "number",
    )
    | {
        "full_in_s": "NoneType",
        "sync_s": {"count": "number", "total": "number", "max": "number", "last_minute": LAST_MINUTE},
    },
    "backends": {
        "file": FEED | {"errors": {}, "last_error": "NoneType"},
    },
    "flavors": {
        name: {
            "epoch": "str",
            "received_lines": "number",
            "received_lines_per_s": "number",
            "refused": dict.fromkeys(refused, "number"),
            "takes_lines": "number",
            "journal_bytes": "number",
            "quota_full_in_s": "NoneType",
            "file": FEED,
        }
        for name, refused in {"gr": (), "tr": ("empty_query", "method_not_allowed", "not_found")}.items()
    },
    "ledger": {"residual_lines": "number"},
    "runtime": {
        **dict.fromkeys(("rss_bytes", "cpu_s", "open_fds", "threads", "loop_lag_s", "loop_lag_max_s"), "number"),
        "gc": [dict.fromkeys(("collections", "collected", "uncollectable"), "number")] * 3,
        "gc_pause_s": {"count": "number", "total": "number", "max": "number"},
    },
}


def test_stats_has_just_the_keys_that_are_promised(daemon: Daemon) -> None:
    answer = daemon.admin("/stats")
    assert answer.field("content-type") == "application/json"
    assert shape(json.loads(answer.body)) == STATS


def test_stats_has_the_figures_of_what_was_sent(daemon: Daemon) -> None:
    stats = daemon.stats()
    assert stats["version"] == scratchd.__version__
    assert stats["instance"] == ""
    started = datetime.datetime.fromisoformat(stats["started_at"])
    assert 0 <= time.time() - started.timestamp() - stats["uptime_s"] < 2
    http = stats["http"]
    assert http["requests"] == {"200": 8, "400": 2, "404": 1, "405": 1}
    assert http["refused"] == {"empty_query": 2, "method_not_allowed": 1, "not_found": 1}
    assert (http["duplicates"], http["connections_failed"], http["connections"]) == (1, 0, 0)
    assert 0 < http["latency_s"]["p50"] <= http["latency_s"]["p99"] <= http["latency_s"]["max"] < 10
    journal = stats["journal"]
    assert journal["appended_lines"] == 6
    assert journal["appended_bytes"] > sum(map(len, daemon.lines("gr") + daemon.lines("tr")))
    assert journal["bytes"] > 0
    assert journal["segments"] >= 2
    assert [journal[key] for key in ("append_errors", "sync_errors", "cut_bytes", "corrupt_lines")] == [0] * 4
    feed = {"state": "running", "pending_lines": 0, "oldest_pending_age_s": 0, "gap_lines": 0, "set_aside_lines": 0}
    refused = {"gr": {}, "tr": {"empty_query": 2, "method_not_allowed": 1, "not_found": 1}}
    for name, lines in {"gr": 5, "tr": 1}.items():
        epoch = stats["flavors"][name].pop("epoch")
        assert str(uuid.UUID(epoch)) == epoch
        assert stats["flavors"][name].pop("journal_bytes") > 0
        assert stats["flavors"][name].pop("received_lines_per_s") > 0
        assert stats["flavors"][name]["file"].pop("persisted_lines_per_s") >= 0
        assert stats["flavors"][name] == {
            "received_lines": lines,
            "refused": refused[name],
            "takes_lines": True,
            "quota_full_in_s": None,
            "file": feed | {"persisted_lines": lines},
        }
    assert stats["backends"]["file"].pop("persisted_lines_per_s") >= 0
    whole = {"persisted_lines": 6, "errors": {}, "last_error": None}
    assert stats["backends"] == {"file": feed | whole}
    assert stats["ledger"] == {"residual_lines": 0}
    runtime = stats["runtime"]
    assert 10e6 < runtime["rss_bytes"] < 500e6
    assert runtime["cpu_s"] > 0
    assert runtime["open_fds"] > 3
    assert runtime["threads"] >= 1


METRICS: dict[str, set[str]] = {
    "scratchd_http_requests_total": {"code"},
    "scratchd_http_refused_total": {"reason"},
    "scratchd_flavor_refused_total": {"flavor", "reason"},
    "scratchd_http_latency_seconds_count": set(),
    "scratchd_http_latency_seconds_sum": set(),
    "scratchd_received_lines_total": {"flavor"},
    "scratchd_backend_pending_lines": {"backend", "flavor"},
    "scratchd_backend_oldest_pending_seconds": {"backend", "flavor"},
    "scratchd_backend_persisted_lines_total": {"backend", "flavor"},
    "scratchd_backend_gap_lines_total": {"backend", "flavor"},
    "scratchd_backend_set_aside_lines_total": {"backend", "flavor"},
    "scratchd_backend_up": {"backend", "flavor"},
    "scratchd_journal_bytes": {"flavor"},
    "scratchd_journal_takes_lines": {"flavor"},
    "scratchd_journal_quota_full_in_seconds": {"flavor"},
    "scratchd_journal_full_in_seconds": set(),
    "scratchd_journal_free_bytes": set(),
    "scratchd_ledger_residual_lines": set(),
    "scratchd_gc_pause_seconds_count": set(),
    "scratchd_gc_pause_seconds_sum": set(),
    "process_resident_memory_bytes": set(),
    "process_cpu_seconds_total": set(),
    "process_open_fds": set(),
    "process_start_time_seconds": set(),
}


def metrics(daemon: Daemon) -> dict[tuple[str, ...], float]:
    """Every sample of `/metrics`: its name and label values, sorted by label, to its value."""
    answer = daemon.admin("/metrics")
    assert answer.status == 200
    assert (answer.field("content-type") or "").startswith("text/plain")
    families = text_string_to_metric_families(answer.body.decode())
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_have_the_names_and_labels_that_are_promised(daemon: Daemon) -> None:
    body = daemon.admin("/metrics").body.decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(body):
        for sample in family.samples:
            found.setdefault(sample.name, set(sample.labels))
            assert found[sample.name] == set(sample.labels)
    assert {name: found.get(name) for name in METRICS} == METRICS
    # Kept for when there are any: no errors were made in this test.
    assert "# TYPE scratchd_backend_errors_total counter" in body


def test_metrics_follow_the_conventions(daemon: Daemon) -> None:
    for family in text_string_to_metric_families(daemon.admin("/metrics").body.decode()):
        assert re.fullmatch("[a-z][a-z0-9_]*", family.name)
        assert family.documentation, family.name
        if family.name.startswith("scratchd_") and family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)


def test_metrics_have_the_figures_of_stats(daemon: Daemon) -> None:
    found, stats = metrics(daemon), daemon.stats()
    for code, count in stats["http"]["requests"].items():
        assert found["scratchd_http_requests_total", code] == count
    for reason, count in stats["http"]["refused"].items():
        assert found["scratchd_http_refused_total", reason] == count
    for name, flavor in stats["flavors"].items():
        for reason, count in flavor["refused"].items():
            assert found["scratchd_flavor_refused_total", name, reason] == count
    assert found["scratchd_http_latency_seconds_count",] == sum(stats["http"]["requests"].values())
    for name, flavor in stats["flavors"].items():
        assert found["scratchd_received_lines_total", name] == flavor["received_lines"]
        assert found["scratchd_journal_bytes", name] > 0
        assert found["scratchd_backend_persisted_lines_total", "file", name] == flavor["file"]["persisted_lines"]
        assert found["scratchd_backend_pending_lines", "file", name] == 0
        assert found["scratchd_backend_oldest_pending_seconds", "file", name] == 0
        assert found["scratchd_backend_up", "file", name] == 1
    assert found["scratchd_ledger_residual_lines",] == 0


# Health.


def test_health_answers_in_one_word(daemon: Daemon) -> None:
    live, ready = daemon.admin("/health/live"), daemon.admin("/health/ready")
    assert (live.status, ready.status) == (200, 200)
    assert ready.body.strip() == b"ready"
    assert re.fullmatch(rb"[a-z]+\n?", live.body)


def test_stopping_is_not_ready_while_others_are_still_served(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(http={"stop_timeout_s": 4})
    with daemon.connect() as idle:
        assert idle.get("/track?n=1", "any.test").status == 200
        daemon.sigterm()
        stopping = daemon.wait_for(lambda: _unready(daemon), 3, "unready")
        assert stopping == b"stopping"
        assert daemon.admin("/health/live").status == 200
        last = idle.get("/track?n=2", "any.test")
        assert (last.status, last.field("connection")) == (200, "close")
    assert daemon.wait() == 0
    assert daemon.lines("any") == [b'{"n":"1"}', b'{"n":"2"}']


def _unready(daemon: Daemon) -> bytes:
    answer = daemon.admin("/health/ready")
    return answer.body.strip() if answer.status == 503 else b""


def test_a_failing_backend_makes_nothing_unready(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where a directory should be")
    daemon = start_daemon(
        http={"stop_timeout_s": 1},  # for nothing: neither backend will get rid of its line
        file={"path": f"{tmp_path}/blocked/{{flavor}}/{{date}}.log"},
        kafka={"enabled": True, "bootstrap_servers": f"127.0.0.1:{free_port()}"},
    )
    assert daemon.get("/track?a=1").status == 200

    def failing() -> bool:
        backends = daemon.stats()["backends"]
        return backends["file"]["state"] == "backing_off" and bool(backends["file"]["last_error"])

    daemon.wait_for(failing)
    assert daemon.admin("/health/ready").status == 200
    stats = daemon.stats()
    assert {name: backend["pending_lines"] for name, backend in stats["backends"].items()} == {"file": 1, "kafka": 1}
    assert stats["backends"]["file"]["oldest_pending_age_s"] > 0
    error = stats["backends"]["file"]["last_error"]
    assert shape(error) == {"at": "str", "flavor": "str", "kind": "str", "message": "str"}
    assert error["flavor"] == "any"
    assert stats["backends"]["file"]["errors"][error["kind"]] >= 1
    assert stats["ledger"]["residual_lines"] == 0
    found = metrics(daemon)
    assert found["scratchd_backend_up", "file", "any"] == 0
    assert found["scratchd_backend_errors_total", "file", error["kind"]] >= 1
    assert found["scratchd_backend_pending_lines", "kafka", "any"] == 1


# Who may ask.


@pytest.mark.parametrize("host", ["localhost", "localhost:9007", "LOCALHOST", "127.0.0.1", "192.0.2.7:80", "[::1]:1"])
def test_an_address_or_localhost_may_be_asked(daemon: Daemon, host: str) -> None:
    for path in ("/health/live", "/health/ready", "/stats", "/metrics"):
        assert daemon.admin(path, host).status == 200


@pytest.mark.parametrize("host", ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "gr.test:9007", "1.2.3"])
def test_a_rebound_name_is_refused(daemon: Daemon, host: str) -> None:
    for path in ("/health/live", "/health/ready", "/stats", "/metrics"):
        assert daemon.admin(path, host).status == 421


def test_only_allowed_networks_see_more_than_health(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    tcp, unix = f"127.0.0.1:{free_port()}", f"unix:{tmp_path}/admin.sock"
    start_daemon(http={"admin_listen": [tcp, unix], "admin_allow": ["192.0.2.0/24"]}, wait_ready=True)
    expected = dict.fromkeys(("/", "/stats", "/metrics"), (403, 200))
    expected |= dict.fromkeys(("/health/live", "/health/ready"), (200, 200))
    found = {}
    for path in expected:
        with Connection(tcp) as by_tcp, Connection(unix) as by_unix:
            found[path] = (by_tcp.get(path, "localhost").status, by_unix.get(path, "localhost").status)
    assert found == expected


@pytest.mark.parametrize(
    "path", ["/index.html", "/track?a=1", "/stats/", "/health", "/health/", "/%ff", "/metrics/../stats"]
)
def test_there_is_nothing_else(daemon: Daemon, path: str) -> None:
    assert daemon.admin(path).status == 404


def test_garbage_hurts_nobody(daemon: Daemon) -> None:
    assert daemon.admin_address is not None
    for garbage in (
        b"\x16\x03\x01\x00\xff" * 50,
        b"GET /stats HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n" * 50,
    ):
        with Connection(daemon.admin_address) as connection:
            connection.send(garbage)
            connection.shut_write()
            connection.rest()
    assert daemon.admin("/health/live").status == 200


def test_the_admin_listener_takes_no_events_and_the_other_tells_no_figures(daemon: Daemon) -> None:
    before = daemon.stats()["flavors"]["gr"]["received_lines"]
    assert daemon.admin("/track?a=1").status == 404
    assert daemon.get("/stats", host="gr.test").status == 404
    assert daemon.stats()["flavors"]["gr"]["received_lines"] == before


def test_asking_for_figures_while_requests_flow_loses_none(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    asked: list[dict[str, Any]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            asked.append(daemon.stats())
            metrics(daemon)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        with daemon.connect() as connection:
            for _ in range(100):
                connection.send(request("/track?a=1", "any.test") * 20)
                for _ in range(20):
                    assert connection.response().status == 200
    finally:
        done.set()
        asking.join()
    assert {document["ledger"]["residual_lines"] for document in asked} == {0}
    counts = [document["journal"]["appended_lines"] for document in asked]
    assert counts == sorted(counts)
    daemon.wait_drained()
    assert len(daemon.lines("any")) == 2000
