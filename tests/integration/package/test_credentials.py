"""Kafka's password as a systemd credential: used for a real login, and shown nowhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deadline import wait_for
from installed import SERVICE, Installed
from kafka_client import SASL_PASSWORD, SASL_USER, Broker
from network import Relay

NAME = "scratchd.kafka-password"
STORED = f"/etc/credstore/{NAME}"


@pytest.fixture
def collector(shared: Installed, kafka: Broker) -> Iterator[Installed]:
    """The machine, in which the broker's port with SASL can be reached; ended with the configuration of the package."""
    assert shared.machine.network
    with Relay(shared.machine.network, int(kafka.sasl_servers.rpartition(":")[2])):
        yield shared
        shared.no_drop_in()
        shared.configure({"flavors": [{"name": "site", "hosts": ["*"]}]})
        shared.machine.path(STORED).unlink(missing_ok=True)
        shared.systemctl("reset-failed")
        shared.systemctl("restart", SERVICE)


def _with_kafka(collector: Installed, kafka: Broker, topic: str) -> None:
    collector.configure(
        {
            "kafka": {
                "enabled": True,
                "bootstrap_servers": kafka.sasl_servers,
                "topic": "{flavor}",
                "librdkafka": {
                    "security.protocol": "sasl_plaintext",
                    "sasl.mechanism": "PLAIN",
                    "sasl.username": SASL_USER,
                    "sasl.password": {"credential": NAME},
                },
            },
            "flavors": [{"name": "site", "hosts": ["*"], "kafka_topic": topic}],
            "log": {"level": "debug"},
        }
    )


def _shown(collector: Installed) -> str:
    """Everything that anybody may see of the service without being root, and what only root may see beside."""
    machine, pid = collector.machine, collector.pid()
    commands = (
        ("journalctl", "--no-pager", "--output=export"),
        ("systemctl", "show", SERVICE),
        ("systemctl", "status", "--no-pager", SERVICE),
        ("cat", f"/proc/{pid}/cmdline", f"/proc/{pid}/environ"),
        ("scratchd", "stats", "--json"),
        ("sh", "-c", "scratchd check 2>&1"),
        ("sh", "-c", "cat /var/lib/scratchd/_/site/* | strings -n 4 || true"),
    )
    said = "".join(machine.attempt(*command).stdout for command in commands)
    return said + collector.admin("/metrics").body.decode()


@pytest.mark.parametrize("way", ["a file in /etc/credstore", "LoadCredential in a drop-in"])
def test_the_credential_logs_in_and_is_shown_nowhere(collector: Installed, kafka: Broker, topic: str, way: str) -> None:
    if way == "a file in /etc/credstore":
        collector.machine.write(STORED, f"{SASL_PASSWORD}\n", mode=0o600)
    else:
        collector.machine.write("/root/secret", f"{SASL_PASSWORD}\n", mode=0o600)
        collector.drop_in("[Service]", f"LoadCredential={NAME}:/root/secret")
    _with_kafka(collector, kafka, topic)
    collector.systemctl("restart", SERVICE)

    assert collector.get("/track?n=1").status == 200
    assert [message.value for message in kafka.messages(topic, 1)] == [b'{"n":"1"}']
    collector.wait_persisted()
    assert collector.stats()["backends"]["kafka"]["state"] == "running"
    assert SASL_PASSWORD not in _shown(collector)


def test_a_wrong_credential_is_told_from_a_broker_that_is_away_and_shown_nowhere(
    collector: Installed, kafka: Broker, topic: str
) -> None:
    collector.machine.write(STORED, "not-the-pass-word", mode=0o600)
    _with_kafka(collector, kafka, topic)
    collector.systemctl("restart", SERVICE)
    assert collector.get("/track?n=1").status == 200
    wait_for(
        lambda: "authentication" in collector.stats()["backends"]["kafka"]["errors"], 30, "the broker refuses the login"
    )
    assert "not-the-pass-word" not in _shown(collector)

    # The cure that docs/kafka.md names: correct the file, restart.
    collector.machine.write(STORED, SASL_PASSWORD, mode=0o600)
    collector.systemctl("restart", SERVICE)
    assert [message.value for message in kafka.messages(topic, 1)] == [b'{"n":"1"}']


def test_a_missing_credential_ends_the_start_and_is_not_tried_again(
    collector: Installed, kafka: Broker, topic: str
) -> None:
    _with_kafka(collector, kafka, topic)
    assert collector.machine.attempt("systemctl", "restart", SERVICE).returncode != 0
    assert collector.state("ActiveState", "ExecMainStatus") == {"ActiveState": "failed", "ExecMainStatus": "78"}
    assert any(NAME in line for line in collector.log())
    assert "OK" in collector.machine.run("scratchd", "check")  # in a shell it is unresolved, which is no error


def test_without_kafka_its_library_is_not_loaded_and_with_it_it_is(
    collector: Installed, kafka: Broker, topic: str
) -> None:
    def libraries() -> str:
        return collector.machine.run("cat", f"/proc/{collector.pid()}/maps")

    assert "librdkafka" not in libraries()
    collector.machine.write(STORED, SASL_PASSWORD, mode=0o600)
    _with_kafka(collector, kafka, topic)
    collector.systemctl("restart", SERVICE)
    assert "librdkafka" in libraries()
    # Not even where it cannot be loaded: a library's trouble is Kafka's, and nobody else's.
    collector.configure({"flavors": [{"name": "site", "hosts": ["*"]}]})
    package = "/usr/lib/python3/dist-packages/confluent_kafka"
    collector.machine.run("mv", package, f"{package}.away")
    try:
        collector.systemctl("restart", SERVICE)
        assert collector.get("/track?n=without").status == 200
    finally:
        collector.machine.run("mv", f"{package}.away", package)
