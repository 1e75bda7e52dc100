"""The bed: what all measurements need and no contender owns: cores, built programs, Debian 13, a real Kafka.

The server that is measured has a core of its own (`SERVER_CORE`); load, broker and this process share the other one
(`LOAD_CORE`). So what is measured is what a server makes of its core, and nobody can buy throughput by taking CPU from
the load.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer

import debian13
from daemon import free_port
from engine import docker, engine
from kafka_client import CLIENT, Broker, with_ports

SOURCE = Path(__file__).parents[1]
SERVER_CORE = 0
LOAD_CORE = 1

_IMAGE_FILES = ("build.sh", "pom.xml", "log4j2.yaml", "server.properties")


@dataclass(frozen=True, slots=True)
class Bed:
    """Where measurements are made.

    Attributes:
        place: a directory for everything that is made, gone at the end.
        load: the load generator.
        reference: the Go reference.
        debian: the tree with Debian 13's Python, None: this process' own Python is measured.
        broker: the real Kafka, None where none was asked for.
    """

    place: Path
    load: Path
    reference: Path
    debian: Path | None
    broker: Broker | None

    def python(self, tree: Path) -> list[str]:
        """The command that runs the measured Python; `tree` is where scratchd's source is."""
        inside = [] if self.debian is None else list(self._entering(self.debian, tree))
        return [*inside, "python3" if self.debian is None else debian13.PYTHON, "-P"]

    def _entering(self, debian: Path, tree: Path) -> Sequence[str]:
        return debian13.entering(
            debian, read_only=(tree, *([SOURCE] if tree != SOURCE else [])), writable=(self.place,)
        )

    def environment(self, tree: Path) -> dict[str, str]:
        """The environment in which that Python finds scratchd, and its compiled code, in `tree`."""
        # Compiled code lies where it may be written, as it would after an installation.
        ours = {"PYTHONPATH": str(tree), "PYTHONPYCACHEPREFIX": str(self.place / "pycache")}
        return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | ours

    @property
    def kafka(self) -> Broker:
        """The broker, where one is needed."""
        if self.broker is None:
            raise SystemExit("this measurement needs Kafka")
        return self.broker

    @contextlib.contextmanager
    def consumer(self) -> Iterator[Consumer]:
        """One to ask for topics' ends."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": "bench", **CLIENT})
        try:
            yield consumer
        finally:
            consumer.close()

    def pin_broker(self) -> None:
        """Keeps the broker off the server's core; it must be told again after a restart."""
        pid = int(docker("inspect", "--format={{.State.Pid}}", self.kafka.container))
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), {LOAD_CORE})


@contextlib.contextmanager
def made(*, with_kafka: bool = True, with_debian: bool = True) -> Iterator[Bed]:
    """Makes the bed, and unmakes it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that containers and directories are removed
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two cores are needed: one for the server, one for the load")
    with contextlib.ExitStack() as held:
        place = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="scratchd-bench-")))
        load = _built("load")
        reference = _built("reference") if with_kafka else place / "none"
        debian = debian13.tree(SOURCE / ".cache") if with_debian else None
        broker = held.enter_context(_broker(place)) if with_kafka else None
        os.sched_setaffinity(0, {LOAD_CORE})
        bed = Bed(place, load, reference, debian, broker)
        if broker is not None:
            bed.pin_broker()
        yield bed


def machine() -> dict[str, str | int]:
    """What was measured on."""
    models = [
        line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "commit": commit.stdout.strip(),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "load_average": f"{os.getloadavg()[0]:.1f}",
    }


def _built(program: str) -> Path:
    """A Go program of this directory, built where its source has changed (Go's own cache tells)."""
    out = SOURCE / ".cache" / "bench" / program
    done = subprocess.run(
        ["go", "build", "-trimpath", "-buildvcs=false", "-o", str(out), "."],
        cwd=SOURCE / "bench" / program,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"bench/{program} does not build:\n{done.stdout[-3000:]}")
    return out


@contextlib.contextmanager
def _broker(place: Path) -> Iterator[Broker]:
    """The broker of the integration tests, in a container of its own."""
    with engine(place / "dockerd.log"):
        kafka = SOURCE / "tests" / "integration" / "kafka"
        content = hashlib.sha256(b"".join((kafka / name).read_bytes() for name in _IMAGE_FILES))
        image = os.environ.get("SCRATCHD_KAFKA_IMAGE") or f"scratchd-kafka:{content.hexdigest()[:12]}"
        if not docker("images", "--quiet", image):
            subprocess.run([str(kafka / "build.sh"), image], check=True)
        port, directory = free_port(), place / "kafka"
        directory.mkdir()
        properties = (kafka / "server.properties").read_text()
        properties = with_ports(properties, PLAINTEXT=port, SASL=free_port(), CONTROLLER=free_port())
        (directory / "server.properties").write_text(properties)
        place.chmod(0o755)  # Apache's own image reads it as a user of its own
        volume = f"--volume={directory}:/mnt/shared/config:ro"
        container = docker("run", "--detach", "--network=host", volume, image)
        try:
            broker = Broker(f"127.0.0.1:{port}", container)
            broker.wait_ready()
            yield broker
        finally:
            docker("rm", "--force", "--volumes", container)
