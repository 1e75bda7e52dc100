"""Whether scratchd runs with what Debian 13 ships: its Python and its libraries, as `apt install` will give them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import scratchd
from daemon import SOURCE, Daemon
from debian13 import PYTHON, NoTree, entering, tree
from kafka_client import SASL_PASSWORD, SASL_USER, Broker


@pytest.fixture(scope="session")
def debian13() -> Path:
    """The tree, made once."""
    try:
        return tree(SOURCE / ".cache")
    except NoTree as error:
        pytest.fail(str(error), pytrace=False)


def test_unit_tests_pass_with_the_packages_of_debian_13(debian13: Path) -> None:
    command = [*entering(debian13, read_only=(SOURCE,)), PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis"}  # noqa: S108
    done = subprocess.run(
        [*command, "tests/unit"],
        cwd=SOURCE,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


def test_a_request_reaches_file_and_topic_with_the_packages_of_debian_13(
    debian13: Path,
    kafka: Broker,
    make_topic: Callable[..., str],
    tmp_path: Path,
    start_daemon: Callable[..., Daemon],
) -> None:
    topic = make_topic()
    (tmp_path / "user").write_text(f"{SASL_USER}\n")
    (tmp_path / "password").write_text(f"{SASL_PASSWORD}\n")
    properties = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": {"credential": "user"},
        "sasl.password": {"credential": "password"},
    }
    daemon = start_daemon(
        python=(*entering(debian13, read_only=(SOURCE,), writable=(tmp_path,)), PYTHON, "-B"),
        kafka={"enabled": True, "bootstrap_servers": kafka.sasl_servers, "librdkafka": properties},
        flavors=[{"name": "gr", "hosts": ["gr.test"], "time_zone": "Europe/Athens", "kafka_topic": topic}],
        environment={"CREDENTIALS_DIRECTORY": str(tmp_path)},
    )
    executable = Path(f"/proc/{daemon.pid}/exe").readlink()
    assert executable.name == "python3.13"

    assert daemon.get("/track?n=%CE%BA%CE%B1&a=1", host="gr.test").status == 200

    expected = '{"n":"κα","a":"1"}'.encode()
    assert [message.value for message in kafka.messages(topic, 1)] == [expected]
    daemon.wait_drained()
    assert daemon.lines("gr") == [expected]

    daemon.config["flavors"].append({"name": "canary", "hosts": ["localhost"], "kafka_topic": make_topic()})
    port = daemon.address.rpartition(":")[2]
    daemon.config["canary"] = {"url": f"http://localhost:{port}/track", "interval_s": 0.5}
    daemon.reload()
    daemon.wait_for(
        lambda: all(leg["last_success_at"] for leg in daemon.stats()["canary"]["backends"].values()),
        30,
        "beacons found",
    )

    daemon.stop()
    (path,) = daemon.file_paths("gr")
    path.unlink()
    scratchd(daemon, "backfill", "--to", "file", "--day", path.stem)
    assert daemon.lines("gr") == [expected]
    assert "Everything holds" in scratchd(daemon, "audit")
