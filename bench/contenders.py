"""Contenders: the servers that are measured, each started anew for each measurement, and what they have persisted.

Knows how to start each and where its lines go; knows no load and no figures. All of them answer
`GET /track?…` with 200 and an image of 43 bytes or less.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition

from bed import SERVER_CORE, SOURCE, Bed
from daemon import free_port
from deadline import wait_for
from wire import Connection

HOST = "any.test"
READY_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30

_NGINX = """\
daemon off; master_process off; worker_processes 1; pid {place}/nginx.pid; error_log {place}/error.log;
events {{ worker_connections 20000; }}
http {{
    access_log {place}/log/nginx.log; keepalive_requests 1000000000; keepalive_timeout 75s;
    client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
    server {{ listen 127.0.0.1:{port} backlog=4096; location = /track {{ empty_gif; }} }}
}}
"""


@dataclass(slots=True)
class Server:
    """A running contender.

    Attributes:
        address: `127.0.0.1:port`.
        process: its process, which is the server itself.
        log: the directory of its log files, None where it keeps none.
        topic: its topic, None where it sends nothing to Kafka.
        ready_s: from its start to its first answer.
        asked: requests that were answered before anything was measured: lines of theirs are there too.
        consumer: for asking how much its topic has, None where it has none.
    """

    address: str
    process: subprocess.Popen[bytes]
    log: Path | None
    topic: str | None
    ready_s: float = 0.0
    asked: int = 0
    _read: dict[Path, tuple[int, int]] = field(default_factory=dict)
    consumer: Consumer | None = None

    @property
    def pid(self) -> int:
        """The process' id."""
        return self.process.pid

    def file_lines(self) -> int:
        """How many lines its log files have; each byte is read once."""
        for path in self.log.rglob("*.log") if self.log is not None else ():
            offset, lines = self._read.get(path, (0, 0))
            with path.open("rb") as file:
                file.seek(offset)
                while piece := file.read(1 << 20):
                    offset += len(piece)
                    lines += piece.count(b"\n")
            self._read[path] = offset, lines
        return sum(lines for _, lines in self._read.values())

    def topic_lines(self) -> int:
        """How many messages its topic has."""
        if self.consumer is None or self.topic is None:
            return 0
        try:
            offsets = self.consumer.get_watermark_offsets(TopicPartition(self.topic, 0), timeout=10, cached=False)
        except KafkaException:
            return 0  # a broker that has just come back does not know yet what it leads
        return offsets[1] if offsets else 0

    def cpu_s(self) -> float:
        """The CPU time that it has had so far, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> tuple[int, int]:
        """Its resident memory: now, and at its peak."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return int(status["VmRSS"].split()[0]) * 1024, int(status["VmHWM"].split()[0]) * 1024


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to answer beacons.

    Attributes:
        name: as the table shows it.
        backends: which it has at most: `file`, `kafka`.
        tree: scratchd's source, for those that run it.
    """

    name: str
    backends: frozenset[str]
    tree: Path = SOURCE

    @contextlib.contextmanager
    def running(self, bed: Bed, *, kafka: bool) -> Iterator[Server]:
        """Starts it with a directory and a topic of its own, waits for its first answer, and stops it."""
        with contextlib.ExitStack() as held:
            place = bed.place / "server"
            (place / "log").mkdir(parents=True)
            held.callback(shutil.rmtree, place)
            wants_kafka = kafka and "kafka" in self.backends
            topic = held.enter_context(bed.kafka.topic()) if wants_kafka else None
            port = free_port()
            command, environment = self._command(bed, place, port, topic)
            begun = time.monotonic()
            with (place / "stderr").open("wb") as log:
                process = subprocess.Popen(
                    ["taskset", "--cpu-list", str(SERVER_CORE), *command],
                    cwd=place,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            held.callback(_stop, process)
            server = Server(f"127.0.0.1:{port}", process, place / "log" if self.backends else None, topic)
            if topic:
                server.consumer = held.enter_context(bed.consumer())
            try:
                wait_for(lambda: _answers(server), READY_TIMEOUT_S, f"{self.name} answers")
            except AssertionError as error:
                raise SystemExit(f"{error}\n{(place / 'stderr').read_text()[-3000:]}") from None
            server.ready_s = time.monotonic() - begun
            yield server

    def _command(self, bed: Bed, place: Path, port: int, topic: str | None) -> tuple[Sequence[str], Mapping[str, str]]:
        brokers = bed.kafka.bootstrap_servers if topic else ""
        if self.name == "nginx":
            (place / "nginx.conf").write_text(_NGINX.format(place=place, port=port))
            return ["nginx", "-c", str(place / "nginx.conf"), "-e", str(place / "error.log")], os.environ
        if self.name == "go":
            file = str(place / "log" / "reference.log")
            more = ["-kafka", brokers, "-topic", topic] if topic else []
            return [str(bed.reference), "-listen", f"127.0.0.1:{port}", "-file", file, *more], os.environ
        environment = bed.environment(self.tree)
        if self.name == "stock":
            return [*bed.python(self.tree), str(SOURCE / "bench" / "idle_app.py"), str(port)], environment
        config = place / "config.json"
        config.write_text(json.dumps(scratchd_config(place, [f"127.0.0.1:{port}"], brokers, topic)))
        program = [str(SOURCE / "bench" / "hypercorn_alone.py")] if self.name == "alone" else ["-m", "scratchd"]
        return [*bed.python(self.tree), *program, "serve", "--config", str(config)], environment


def scratchd_config(place: Path, listen: Sequence[str], brokers: str, topic: str | None) -> dict[str, object]:
    """The configuration of a scratchd that is measured: the defaults, with one flavor for any host."""
    flavor = {"name": "any", "hosts": ["*"], "time_zone": "Europe/Athens", "kafka_topic": topic or "none"}
    return {
        "http": {"listen": listen, "admin_listen": []},
        "journal": {"directory": str(place / "journal")},
        "file": {"path": str(place / "log" / "{flavor}" / "{date}.log")},
        "kafka": {"enabled": True, "bootstrap_servers": brokers} if topic else {},
        "flavors": [flavor],
    }


BOTH = frozenset({"file", "kafka"})
SCRATCHD = Contender("scratchd", BOTH)
ALONE = Contender("alone", BOTH)
GO = Contender("go", BOTH)
NGINX = Contender("nginx", frozenset({"file"}))
STOCK = Contender("stock", frozenset())

TITLES = {
    "scratchd": "scratchd",
    "alone": "scratchd, Hypercorn alone",
    "go": "Go reference",
    "stock": "Hypercorn, idle app",
    "nginx": "nginx, access log",
}


def _answers(server: Server) -> bool:
    if server.process.poll() is not None:
        raise AssertionError(f"ended with {server.process.returncode}")
    try:
        with Connection(server.address) as connection:
            status = connection.get("/track?begin=1", HOST).status
    except (OSError, EOFError):
        return False
    server.asked += status == 200
    return status == 200


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
