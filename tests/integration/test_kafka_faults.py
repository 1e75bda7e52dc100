"""Kafka's faults, one at a time: whether every line is there afterwards, in order, and whether an operator was told.

Told means in words that help: `state`, `errors` and `last_error` of /stats, and a log that says each thing once in ten
seconds. A broker that stops under load and a topic that is
forbidden are test_faults.py's; what size, key and compression do to a message is test_kafka_messages.py's.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from cluster import Cluster
from daemon import Daemon
from flow import Flow
from kafka_client import SASL_PASSWORD, SASL_USER, Broker

COMPLAIN_S = 10


@pytest.fixture
def start(start_daemon: Callable[..., Daemon], kafka: Broker) -> Callable[..., Daemon]:
    """Starts a daemon with Kafka alone: `start(topic)`, or `start(gr=topic, tr=topic)` with a flavor for each."""

    def started(
        topic: str | None = None,
        *,
        servers: str = kafka.bootstrap_servers,
        librdkafka: Mapping[str, str] | None = None,
        **topics: str,
    ) -> Daemon:
        every = {"any": topic} if topic else topics
        return start_daemon(
            file={"enabled": False},
            kafka={"enabled": True, "bootstrap_servers": servers, "librdkafka": librdkafka or {}},
            flavors=[{"name": flavor, "hosts": [f"{flavor}.test"], "kafka_topic": every[flavor]} for flavor in every],
        )

    return started


def backend(daemon: Daemon) -> dict[str, Any]:
    """What /stats says of Kafka."""
    found: dict[str, Any] = daemon.stats()["backends"]["kafka"]
    return found


AWAY = ("all_brokers_down", "transport")
SILENT = ("no_answer", "timed_out", *AWAY)
"""Which of them comes last is another thing from one librdkafka to the next."""


def wait_told(daemon: Daemon, kinds: str | tuple[str, ...], message: str, timeout_s: float = 20) -> None:
    """Waits until /stats says that lines wait, and why: an error of one of the kinds, whose message matches."""
    kinds = (kinds,) if isinstance(kinds, str) else kinds

    def told() -> bool:
        stats = backend(daemon)
        last = stats["last_error"] or {"kind": "", "message": ""}
        return (
            stats["state"] == "backing_off"
            and last["kind"] in kinds
            and re.search(message, last["message"]) is not None
        )

    daemon.wait_for(told, timeout_s, f"/stats says {kinds}: {message}")
    assert sum(backend(daemon)["errors"].get(kind, 0) for kind in kinds) >= 1


def wait_running(daemon: Daemon, timeout_s: float = 10) -> None:
    """Waits until /stats says that lines flow."""
    daemon.wait_for(lambda: backend(daemon)["state"] == "running", timeout_s, "state running again")


@contextmanager
def quiet_log(daemon: Daemon) -> Iterator[None]:
    """The log of the block has at most one line of a kind in ten seconds."""
    began, before = time.monotonic(), len(daemon.log())
    yield
    most = 1 + (time.monotonic() - began) / COMPLAIN_S
    lines = [line for line in daemon.log()[before:].splitlines() if line.startswith("kafka:")]
    kinds = Counter(re.sub(r"\berror=.*|\d+", "", line).partition(" [")[0] for line in lines)
    assert max(kinds.values(), default=0) <= most, kinds


def test_a_broker_that_comes_after_the_daemon(start: Callable[..., Daemon], kafka: Broker, topic: str) -> None:
    with kafka.stopped():
        daemon = start(topic)
        with quiet_log(daemon), Flow(daemon) as flow:
            wait_told(daemon, AWAY, f"{kafka.bootstrap_servers}.*Connection refused")
            flow.go_on()
    wait_running(daemon)
    flow.assert_arrived(kafka, topic)


def test_a_broker_that_is_away_for_long(start: Callable[..., Daemon], kafka: Broker, topic: str) -> None:
    daemon = start(topic)
    with Flow(daemon, pause_s=0.001) as flow:
        flow.go_on()
        with quiet_log(daemon), kafka.stopped():
            wait_told(daemon, AWAY, f"{kafka.bootstrap_servers}.*Connection refused")
            daemon.wait_for(lambda: backend(daemon)["pending_lines"] > 10_000, 30, "10,000 lines wait")
            assert backend(daemon)["oldest_pending_age_s"] > 1
        flow.go_on()
    flow.assert_arrived(kafka, topic)
    wait_running(daemon)


def test_a_broker_that_falls_silent(start: Callable[..., Daemon], kafka: Broker, topic: str) -> None:
    daemon = start(topic)
    with Flow(daemon) as flow:
        flow.go_on()
        with quiet_log(daemon), kafka.paused():
            wait_told(daemon, SILENT, r"no report on \d+ messages for 10 s|[Tt]imed out")
        flow.go_on()
    flow.assert_arrived(kafka, topic)
    wait_running(daemon)


def test_an_idle_daemon_sees_that_the_broker_is_back(start: Callable[..., Daemon], kafka: Broker, topic: str) -> None:
    daemon = start(topic)
    daemon.get("/track?n=1", "any.test")
    daemon.wait_drained()
    with kafka.killed():
        wait_told(daemon, AWAY, "Connection refused")
        assert backend(daemon)["pending_lines"] == 0
    wait_running(daemon)


def test_a_host_name_that_nobody_knows(start: Callable[..., Daemon], topic: str) -> None:
    daemon = start(topic, servers="kafka.invalid:9092")
    with quiet_log(daemon), Flow(daemon) as flow:
        wait_told(daemon, "resolve", "Failed to resolve 'kafka.invalid:9092'")
        flow.go_on()
    assert backend(daemon)["pending_lines"] == flow.count


SASL = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": SASL_USER}


@dataclass(frozen=True)
class Mistake:
    """Properties that no broker lets in, what is said of it, and the right ones."""

    wrong: dict[str, str]
    right: dict[str, str]
    kind: str
    message: str


MISTAKES = {
    "password": Mistake(
        {**SASL, "sasl.password": "mistyped"},
        {**SASL, "sasl.password": SASL_PASSWORD},
        "authentication",
        "Authentication failed: Invalid username or password",
    ),
    "protocol": Mistake({"security.protocol": "ssl"}, {}, "transport", "connecting to a PLAINTEXT broker listener"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_credentials_that_are_put_right(
    start: Callable[..., Daemon], kafka: Broker, topic: str, mistake: Mistake
) -> None:
    servers = kafka.sasl_servers if mistake.right else kafka.bootstrap_servers
    daemon = start(topic, servers=servers, librdkafka=mistake.wrong)
    with quiet_log(daemon), Flow(daemon) as flow:
        wait_told(daemon, mistake.kind, mistake.message)
        flow.go_on()
    assert backend(daemon)["pending_lines"] == flow.count
    assert "mistyped" not in f"{daemon.log()}{daemon.stats()}"

    daemon.kill()  # a stop in good order would wait for its deadline: the lines go nowhere
    daemon.config["kafka"]["librdkafka"] = mistake.right
    daemon.restart()
    flow.assert_arrived(kafka, topic)
    assert (backend(daemon)["state"], backend(daemon)["errors"]) == ("running", {})


def test_a_topic_that_is_deleted_and_made_again(start: Callable[..., Daemon], kafka: Broker, topic: str) -> None:
    daemon = start(topic)
    with quiet_log(daemon), Flow(daemon) as flow:
        flow.go_on()
        kafka.delete(topic)
        wait_told(daemon, "unknown_topic", f"{topic}: .*Unknown topic")
        kafka.create(topic)
        wait_running(daemon)
        flow.go_on()
    daemon.wait_drained()
    # What the topic had when it was deleted is gone; everything from some line on is there.
    messages = kafka.messages(topic, 1)
    arrived = [message.value for message in messages]
    assert arrived == flow.lines[-len(arrived) :]
    assert flow.count - len(arrived) < 200


def test_a_producer_that_fails_for_good(start: Callable[..., Daemon], kafka: Broker, topic: str) -> None:
    with kafka.no_idempotent_producers():
        daemon = start(topic)
        with quiet_log(daemon), Flow(daemon) as flow:
            wait_told(daemon, "cluster_authorization_failed", "Failed to acquire idempotence PID")
            flow.go_on()
            assert backend(daemon)["pending_lines"] > 0
    wait_running(daemon)
    flow.assert_arrived(kafka, topic)


# A leader that goes, in a cluster of three.


@pytest.mark.parametrize(
    ("fault", "longest_s"),
    [
        ("killed", 20.0),
        # With librdkafka's own socket.timeout.ms of a minute nothing is delivered for as long as that.
        ("paused", 20.0),
    ],
)
def test_a_leader_that_goes(
    start_daemon: Callable[..., Daemon], cluster: Cluster, fault: str, longest_s: float
) -> None:
    with cluster.topic() as topic:
        daemon = start_daemon(
            file={"enabled": False},
            kafka={"enabled": True, "bootstrap_servers": cluster.bootstrap_servers},
            flavors=[{"name": "any", "hosts": ["any.test"], "kafka_topic": topic}],
        )
        with quiet_log(daemon), Flow(daemon) as flow:
            # A producer that has not begun yet would need the controller first, which may be the same node.
            daemon.wait_for(lambda: backend(daemon)["persisted_lines"], 30, "delivery")
            with (cluster.leader_paused if fault == "paused" else cluster.leader_killed)(topic):
                began, lines = time.monotonic(), flow.count
                daemon.wait_for(lambda: backend(daemon)["persisted_lines"] > lines + 100, longest_s, "delivery goes on")
                stalled_s = time.monotonic() - began
            flow.go_on()
        print(f"leader {fault}: nothing delivered for {stalled_s:.1f} s")  # noqa: T201 - a figure for the docs
        flow.assert_arrived(cluster, topic)
        wait_running(daemon)
