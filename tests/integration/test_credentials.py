"""Secrets that systemd hands over: the real broker lets in who has the right one, and nobody gets to see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import scratchd
from daemon import SOURCE, Daemon
from flow import Flow
from kafka_client import SASL_PASSWORD, SASL_USER, Broker

PROPERTIES = {
    "security.protocol": "sasl_plaintext",
    "sasl.mechanism": "PLAIN",
    "sasl.username": {"credential": "kafka-user"},
    "sasl.password": {"credential": "kafka-password"},
    "socket.timeout.ms": 3000,
    "debug": "security,broker",  # librdkafka says all that it would ever say
}


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """What `LoadCredential=` would make."""
    place = tmp_path / "credentials"
    place.mkdir(0o500)
    for name, content in (("kafka-user", SASL_USER), ("kafka-password", SASL_PASSWORD)):
        (place / name).write_text(content + "\n")
    return place


@pytest.fixture
def start(start_daemon: Callable[..., Daemon], kafka: Broker, topic: str, credentials: Path) -> Callable[[], Daemon]:
    def started() -> Daemon:
        return start_daemon(
            kafka={"enabled": True, "bootstrap_servers": kafka.sasl_servers, "librdkafka": PROPERTIES},
            log={"level": "debug"},
            flavors=[{"name": "any", "hosts": ["any.test"], "kafka_topic": topic}],
            environment={"CREDENTIALS_DIRECTORY": str(credentials)},
        )

    return started


def test_the_broker_lets_in_who_has_the_credential(
    start: Callable[[], Daemon], kafka: Broker, topic: str, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon = start()
    with Flow(daemon) as flow:
        flow.go_on()
    flow.assert_arrived(kafka, topic)
    told = f"{daemon.log()}{daemon.stats()}{daemon.admin('/metrics').body!r}{scratchd(daemon, 'check')}"
    assert SASL_PASSWORD not in told
    assert "librdkafka" in daemon.log()


def test_a_wrong_credential_is_told_and_not_shown(start: Callable[[], Daemon], credentials: Path) -> None:
    (credentials / "kafka-password").write_text("mistyped-secret")
    daemon = start()
    assert daemon.get("/track?a=1").status == 200
    daemon.wait_for(lambda: daemon.stats()["backends"]["kafka"]["errors"].get("authentication"), 30, "refused by Kafka")
    assert "mistyped" not in f"{daemon.log()}{daemon.stats()}"
    daemon.kill()


def test_tools_resolve_it_too(start: Callable[[], Daemon], kafka: Broker, topic: str) -> None:
    daemon = start()
    with Flow(daemon) as flow:
        flow.go_on()
    flow.assert_arrived(kafka, topic)
    daemon.stop()
    (path,) = daemon.file_paths("any")
    content = path.read_bytes()
    path.unlink()
    told = scratchd(daemon, "backfill", "--to", "file", "--day", path.stem)
    assert path.read_bytes() == content
    assert SASL_PASSWORD not in told

    daemon.environment["CREDENTIALS_DIRECTORY"] = ""
    told = scratchd(daemon, "backfill", "--to", "kafka", status=78)
    assert 'scratchd backfill: kafka.librdkafka.sasl.password: the credential "kafka-password" is unresolved' in told

    told = scratchd(daemon, "audit")
    assert "Everything holds" in told
    assert 'any: kafka: topics were not read: kafka.librdkafka.sasl.username: the credential "kafka-user"' in told


def run(command: str, config: dict[str, object], tmp_path: Path, directory: str) -> tuple[int, str, str]:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "scratchd", command, "--config", str(path)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "CREDENTIALS_DIRECTORY": directory},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def config_of(tmp_path: Path, **kafka: object) -> dict[str, object]:
    return {
        "journal": {"directory": str(tmp_path / "journal")},
        "kafka": {"enabled": True, "bootstrap_servers": "127.0.0.1:1", "librdkafka": PROPERTIES, **kafka},
        "flavors": [{"name": "any", "hosts": ["*"]}],
    }


def test_outside_of_the_unit_a_check_warns_and_serve_refuses(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    status, out, err = run("check", config, tmp_path, "")
    assert (status, out) == (0, "OK\n")
    assert err.splitlines() == [
        f'warning: kafka.librdkafka.sasl.{name}: the credential "kafka-{credential}" is unresolved: '
        "there is no $CREDENTIALS_DIRECTORY, as outside of a unit with LoadCredential="
        for name, credential in (("username", "user"), ("password", "password"))
    ]
    status, out, err = run("serve", config, tmp_path, str(tmp_path))
    assert (status, out) == (78, "")
    assert f'sasl.password: the credential "kafka-password" is unresolved: {tmp_path}: cannot be read' in err
    assert not (tmp_path / "journal").exists()


def test_outside_of_the_unit_all_else_is_checked(tmp_path: Path) -> None:
    config = config_of(tmp_path, librdkafka={**PROPERTIES, "linger.ms": -1, "foo": {"credential": "x"}})
    status, out, err = run("check", config, tmp_path, "")
    assert (status, out) == (78, "")
    assert "kafka.librdkafka.linger.ms: -1: librdkafka refuses it" in err
    assert "kafka.librdkafka.foo: librdkafka refuses it: No such configuration property" in err
