"""The canary, behind a real HAProxy with TLS: what it finds in file and topic, and what it says when one is stuck."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import Client
from daemon import Daemon, free_port
from deadline import wait_for
from kafka_client import Broker
from tracing import injected
from wire import Connection

INTERVAL_S = 0.2
TIMEOUT_S = 2
GR = {"name": "gr", "hosts": ["gr.test"]}

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend public
    bind 127.0.0.1:{port} ssl crt {place}/site.pem alpn h2,http/1.1
    http-request set-header X-Forwarded-For %[src]
    default_backend scratchd
backend scratchd
    server one {address}
"""


class Edge:
    """HAProxy in front of a daemon, as `https://localhost:PORT`."""

    def __init__(self, place: Path) -> None:
        self.port = free_port()
        self.url = f"https://localhost:{self.port}/track?site=canary"
        self.certificate = place / "site.crt"
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None
        place.mkdir()
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        )
        made = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(place / "key"), "-out", str(self.certificate)]
        subprocess.run([*command.split(), *made], check=True, capture_output=True)
        (place / "site.pem").write_text(self.certificate.read_text() + (place / "key").read_text())

    def start(self, daemon: Daemon) -> None:
        """Begins to pass requests on."""
        path = self._place / "haproxy.cfg"
        path.write_text(HAPROXY.format(port=self.port, place=self._place, address=daemon.address))
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        self._process = subprocess.Popen(["haproxy", "-db", "-f", str(path)], env=environment)
        wait_for(self._listens, what="HAProxy listens")

    def stop(self) -> None:
        """Passes nothing on any more; connections are refused."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), Connection(f"127.0.0.1:{self.port}"):
            return True
        return False


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    made = Edge(tmp_path / "edge")
    yield made
    made.stop()


@pytest.fixture
def topics(make_topic: Callable[..., str]) -> dict[str, str]:
    return {"gr": make_topic(), "canary": make_topic(2)}


@pytest.fixture
def daemon(edge: Edge, kafka: Broker, topics: dict[str, str], start_daemon: Callable[..., Daemon]) -> Daemon:
    started = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        canary={"url": edge.url, "interval_s": INTERVAL_S, "timeout_s": TIMEOUT_S},
        flavors=[
            {**GR, "kafka_topic": topics["gr"]},
            {"name": "canary", "hosts": ["localhost"], "time_zone": "Asia/Tokyo", "kafka_topic": topics["canary"]},
        ],
        environment={"SSL_CERT_FILE": str(edge.certificate)},
    )
    edge.start(started)
    started.wait_for(lambda: has_found(started, "file", "kafka"), 30, "beacons are found")
    return started


def canary(daemon: Daemon) -> dict[str, Any]:
    document: dict[str, Any] = daemon.stats()["canary"]
    return document


def has_found(daemon: Daemon, *backends: str) -> bool:
    """Whether a beacon that was sent from now on was found in each of these, quickly."""
    before = canary(daemon)["beacons"]
    daemon.wait_for(lambda: canary(daemon)["beacons"] >= before + 3, what="three more beacons")
    found = canary(daemon)["backends"]
    return all(found[name]["delay_s"] is not None and found[name]["delay_s"] < TIMEOUT_S for name in backends)


def metrics(daemon: Daemon) -> dict[str, float]:
    text = daemon.admin("/metrics").body.decode()
    return {name: float(value) for name, value in re.findall(r"^(scratchd_canary\S*) (\S+)$", text, re.MULTILINE)}


def test_beacons_go_through_the_public_address_and_are_found(
    daemon: Daemon, kafka: Broker, topics: dict[str, str]
) -> None:
    assert daemon.get("/track?real=1", "gr.test").status == 200
    told, exposed = canary(daemon), metrics(daemon)
    assert told["answer"]["delay_s"] < 1
    assert set(told["backends"]) == {"file", "kafka"}
    for name in ("file", "kafka"):
        assert 0 < told["backends"][name]["delay_s"] < TIMEOUT_S
        assert told["backends"][name]["last_success_at"] > "2026"
        assert exposed[f'scratchd_canary_delay_seconds{{backend="{name}"}}'] < TIMEOUT_S
        assert exposed[f'scratchd_canary_last_success_timestamp_seconds{{backend="{name}"}}'] > 1.7e9
    assert exposed["scratchd_canary_answer_seconds"] < 1
    daemon.stop()
    # Its beacons are in its flavor, each once, and nowhere else; the proxy was in between.
    lines = daemon.lines("canary")
    assert len(lines) > 1
    assert {tuple(json.loads(line)) for line in lines} == {("site", "scratchd_canary")}
    numbers = [int(json.loads(line)["scratchd_canary"].partition(".")[2]) for line in lines]
    assert numbers == sorted(set(numbers))
    assert daemon.lines("gr") == [b'{"real":"1"}']
    assert {message.value for message in kafka.messages(topics["canary"], len(lines))} == set(lines)
    assert [message.value for message in kafka.messages(topics["gr"], 1)] == [b'{"real":"1"}']


def test_kafka_down_is_a_growing_delay_and_nobody_elses_trouble(daemon: Daemon, kafka: Broker) -> None:
    unanswered = canary(daemon)["answer"]["failures"]  # before the edge was there
    with Client(daemon.address, "gr.test") as client:
        with kafka.stopped():
            daemon.wait_for(lambda: canary(daemon)["backends"]["kafka"]["failures"] > 2, 30, "beacons are missed")
            grown = canary(daemon)["backends"]["kafka"]["delay_s"]
            assert grown > TIMEOUT_S
            daemon.wait_for(lambda: canary(daemon)["backends"]["kafka"]["delay_s"] > grown + 1, what="it grows")
            assert has_found(daemon, "file")
            assert canary(daemon)["last_error"]["where"] == "kafka"
            assert "the canary's beacons do not arrive where=kafka" in daemon.log()
        daemon.wait_for(lambda: has_found(daemon, "file", "kafka"), 60, "found again")
        assert "the canary's beacons arrive again where=kafka" in daemon.log()
        assert client.slowest_s < 3
    assert canary(daemon)["answer"]["failures"] == unanswered
    assert canary(daemon)["backends"]["file"]["failures"] == 0


@pytest.mark.parametrize("calls", ["writev,fdatasync", "openat,pread64"], ids=["writing", "reading"])
def test_a_stuck_file_system_is_a_growing_delay_and_nobody_elses_trouble(
    daemon: Daemon, tmp_path: Path, calls: str
) -> None:
    (path,) = daemon.file_paths("canary")
    with Client(daemon.address, "gr.test") as client:
        with injected(daemon.pid, tmp_path, f"{calls}:delay_enter=60s", path=path):
            daemon.wait_for(lambda: canary(daemon)["backends"]["file"]["failures"] > 2, 30, "beacons are missed")
            assert has_found(daemon, "kafka")
            assert canary(daemon)["backends"]["file"]["delay_s"] > TIMEOUT_S
            # However often it is begun anew, nothing piles up behind what hangs.
            threads = daemon.stats()["runtime"]["threads"]
            for number in range(10):
                daemon.config["canary"]["interval_s"] = INTERVAL_S + number / 1000
                daemon.reload()
            assert daemon.stats()["runtime"]["threads"] <= threads + 3
        daemon.wait_for(lambda: has_found(daemon, "file", "kafka"), 30, "found again")
        assert client.slowest_s < 3


def test_what_a_visitor_would_see_is_told(daemon: Daemon, edge: Edge) -> None:
    edge.stop()
    daemon.wait_for(lambda: canary(daemon)["answer"]["failures"] > 2, what="nobody answers")
    assert canary(daemon)["last_error"]["where"] == "answer"
    assert "Connection refused" in canary(daemon)["last_error"]["message"]
    assert all(leg["failures"] == 0 for leg in canary(daemon)["backends"].values()), "no beacon to look for"
    edge.start(daemon)
    daemon.wait_for(lambda: has_found(daemon, "file", "kafka"), 30, "found again")
    # A proxy that asks for another path.
    daemon.config["http"]["track_path"] = "/moved"
    daemon.reload()
    daemon.wait_for(lambda: "answered 404, expected 200" in str(canary(daemon)["last_error"]), what="404")


def test_a_certificate_that_no_browser_takes_is_told(start_daemon: Callable[..., Daemon], edge: Edge) -> None:
    daemon = start_daemon(
        canary={"url": edge.url, "interval_s": INTERVAL_S},
        flavors=[GR, {"name": "canary", "hosts": ["localhost"]}],
    )
    edge.start(daemon)
    daemon.wait_for(lambda: "certificate verify failed" in str(canary(daemon)["last_error"]), what="not believed")
    assert daemon.lines("canary") == []


def test_it_is_switched_off_and_on_again_by_a_reload(daemon: Daemon, edge: Edge) -> None:
    daemon.config["canary"]["url"] = ""
    daemon.reload()
    assert "canary" not in daemon.stats()
    assert metrics(daemon) == {}
    daemon.wait_drained()
    before = daemon.lines("canary")
    daemon.config["canary"]["url"] = edge.url
    daemon.config["flavors"][1]["file_path"] = str(daemon.directory / "elsewhere" / "{date}.log")
    daemon.reload()
    daemon.wait_for(lambda: has_found(daemon, "file", "kafka"), 30, "found where it is now")
    assert list((daemon.directory / "elsewhere").glob("*.log"))
    assert daemon.lines("canary") == before
