"""Whether the figures of a running service are those that docs/metrics.md has, and bounded whatever clients send."""

from __future__ import annotations

import random
import re
import string
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon import Daemon
from kafka_client import Broker
from load import Load

DOCUMENTED = Path(__file__).parents[2] / "docs" / "metrics.md"
FLAVORS = [{"name": "gr", "hosts": ["gr.test", "*.gr.test"]}, {"name": "tr", "hosts": ["tr.test"]}]


def exposition(daemon: Daemon) -> str:
    """The text of `/metrics`."""
    return daemon.admin("/metrics").body.decode()


def documented() -> dict[str, str]:
    """Metric to type, from the page."""
    rows = re.findall(r"^\| `(\w+)(?:\{[\w,]+\})?` \|[^|]*\| (\w+) \|", DOCUMENTED.read_text(), re.MULTILINE)
    return {name: "gauge" if kind == "info" else kind for name, kind in rows}


def exposed(daemon: Daemon) -> dict[str, str]:
    """Metric to type, from the service."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposition(daemon), re.MULTILINE))


def series(daemon: Daemon) -> set[str]:
    """Every series, without its value."""
    return {line.rpartition(" ")[0] for line in exposition(daemon).splitlines() if not line.startswith("#")}


def check(text: str) -> str:
    """What promtool objects to."""
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, timeout=20, check=False
    )
    return checked.stdout + checked.stderr + (f"exit {checked.returncode}" if checked.returncode else "")


def test_a_service_exposes_exactly_what_is_documented(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=FLAVORS)
    assert exposed(daemon) == documented()
    assert len(documented()) > 60


def test_figures_with_files_and_kafka_under_load(
    start_daemon: Callable[..., Daemon], make_topic: Callable[..., str], kafka: Broker
) -> None:
    topic = make_topic(3)
    daemon = start_daemon(
        flavors=[{**FLAVORS[0], "kafka_topic": topic}],
        kafka={
            "enabled": True,
            "bootstrap_servers": kafka.bootstrap_servers,
            "librdkafka": {"statistics.interval.ms": 200},
        },
    )
    daemon.get("/track", "gr.test")
    load = Load(daemon, "a", hosts=("gr.test",), connections=2, pause_s=0.01)
    with load.running():
        producer = daemon.wait_for(lambda: _producer_that_sent(daemon), 30, "statistics of the broker")
        daemon.wait_for(lambda: daemon.stats()["flavors"]["gr"]["kafka"]["persisted_lines_per_s"] > 0, what="a rate")
    daemon.wait_drained()
    (broker,) = producer["brokers"]
    assert broker == kafka.bootstrap_servers
    found = producer["brokers"][broker]
    assert found["up"] is True
    assert 0 < found["round_trip_mean_s"] <= found["round_trip_p99_s"] < 10
    assert found["retries"] == found["timeouts"] == 0
    assert producer["age_s"] < 5
    stats = daemon.stats()
    assert stats["build"]["librdkafka"]
    assert stats["flavors"]["gr"]["received_lines_per_s"] > 0
    assert stats["flavors"]["gr"]["refused"] == {"empty_query": 1}
    assert stats["journal"]["sync_s"]["count"] > 0
    assert 0 < stats["journal"]["sync_s"]["max"] <= stats["journal"]["sync_s"]["total"]
    assert stats["http"]["latency_histogram_s"]["count"] == load.answered + 1
    text = exposition(daemon)
    assert f'scratchd_kafka_broker_up{{broker="{broker}"}} 1.0' in text
    assert exposed(daemon) == documented()
    assert check(text) == ""


def _producer_that_sent(daemon: Daemon) -> dict[str, Any]:
    producer: dict[str, Any] = daemon.stats()["backends"]["kafka"].get("producer", {})
    brokers = producer.get("brokers", {}).values()
    return producer if any(broker["sent_bytes"] and broker["round_trip_mean_s"] for broker in brokers) else {}


def test_a_broker_that_is_away_is_seen(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(
        http={"stop_timeout_s": 1},
        kafka={
            "enabled": True,
            "bootstrap_servers": "127.0.0.1:1",
            "librdkafka": {"statistics.interval.ms": 200},
        },
    )
    assert daemon.get("/track?a=1").status == 200
    daemon.wait_for(lambda: daemon.stats()["backends"]["kafka"].get("producer", {}).get("queue_messages") == 1)
    # A bootstrap server that has never answered is no broker of a cluster.
    assert daemon.stats()["backends"]["kafka"]["producer"]["brokers"] == {}
    assert daemon.stats()["flavors"]["any"]["kafka"]["oldest_pending_age_s"] > 0
    assert check(exposition(daemon)) == ""


def test_clients_make_no_series(start_daemon: Callable[..., Daemon]) -> None:
    """Random hosts, paths, methods, versions, fields and parameters; every reason and flavor is asked for first."""
    daemon = start_daemon(flavors=FLAVORS, http={"max_query_bytes": 200, "max_parameters": 4})
    source = random.Random(1)
    for host in ("gr.test", "tr.test"):
        for target in ("/track", "/", "/track?a&b&c&d&e", f"/track?{'x' * 201}", "/track?a=1"):
            daemon.get(target, host)
        daemon.get("/track?a=1", host, method="PUT")
    before = series(daemon)
    for _ in range(300):
        with daemon.connect() as connection:
            connection.send(_odd_request(source) * 3)
            connection.shut_write()
            connection.rest()
    assert sum(daemon.stats()["http"]["refused"].values()) > 300
    assert series(daemon) - before == set()
    assert len(before) < 300


def _odd_request(source: random.Random) -> bytes:
    def word() -> str:
        return "".join(source.choices(string.ascii_letters + string.digits, k=source.randrange(1, 12)))

    method = source.choice(["GET", "GET", "HEAD", "POST", word(), word().upper()])
    path = source.choice(["/track", "/track", f"/{word()}", f"/track/{word()}"])
    query = source.choice(
        ["", f"?{word()}={word()}", f"?{word()}&{word()}&{word()}&{word()}&{word()}", f"?{word() * 30}"]
    )
    version = source.choice(
        ["1.1", "1.1", "1.1", "1.0", "2.0", f"{source.randrange(9)}.{source.randrange(99)}", word()]
    )
    host = source.choice(["gr.test", f"{word()}.gr.test", "tr.test", f"{word()}.test", word(), f"{word()}..{word()}"])
    fields = source.choice(["", f"X-{word()}: {word()}\r\n", f"Host: {word()}\r\n", f"User-Agent: {word()}\r\n"])
    return f"{method} {path}{query} HTTP/{version}\r\nHost: {host}\r\n{fields}\r\n".encode()
