"""What an outage of Kafka costs: latency and memory while 500,000 lines wait, and how fast they are gone afterwards.

    python bench/outage.py [--rate 8000] [--lines 500000] [--seconds 15] [--padding 0] [--no-file]

Owns one broker (a container of the integration tests' image, which `make test` builds), a daemon, a client, and the
measuring. Takes `lines / rate` and about a minute more. Run it with the tree's own directory on PYTHONPATH.

The client sends at a steady rate whatever happens, some requests every two milliseconds, and waits for no answer. An
answer's latency counts from when its request was due, so that a daemon that stands still is charged for every request
that it kept waiting. Client, broker and daemon share the machine: compare the rows with each other, not with another
machine's.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

TEST_BED = Path(__file__).parents[1] / "tests" / "integration"
sys.path.insert(0, str(TEST_BED))

from daemon import Daemon, free_port  # noqa: E402 - found there
from engine import docker  # noqa: E402 - the same
from kafka_client import Broker, with_ports  # noqa: E402 - the same
from wire import request  # noqa: E402 - the same

QUERY = (
    "v=2&tid=G-ABC123DEF4&cid=555.1716300000&en=page_view&sr=1920x1080&ul=el-gr"
    "&dl=https%3A%2F%2Fshop.example.gr%2Fcart%3Fstep%3D2&dt=Cart+%7C+Shop&_s=3&z=42"
)
TICK_S = 0.002
DRAIN_LIMIT_S = 180


class Client:
    """Sends `rate` requests a second over one connection from entering to leaving.

    Attributes:
        latencies_s: of the answers since `start_row`.
    """

    def __init__(self, daemon: Daemon, rate: int, padding_bytes: int) -> None:
        self.latencies_s: list[float] = []
        self._connection = daemon.connect()
        self._burst = max(1, round(rate * TICK_S))
        self._tick_s = self._burst / rate
        self._request = request(f"/track?{QUERY}" + "&x=" * (padding_bytes > 0) + "x" * padding_bytes, "any.test")
        self._due: deque[float] = deque()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._send, self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        self._connection.close()

    def start_row(self) -> list[float]:
        """The latencies so far; those that follow go into a new list."""
        measured, self.latencies_s = self.latencies_s, []
        return measured

    def _send(self) -> None:
        data = self._request * self._burst
        due = time.perf_counter()
        while not self._ending.is_set():
            due += self._tick_s
            time.sleep(max(0.0, due - time.perf_counter()))
            self._due.append(due)
            self._connection.send(data)
        self._connection.shut_write()

    def _receive(self) -> None:
        answer = self._connection.response()
        wanted = self._burst * (len(answer.head) + 4 + len(answer.body))
        received = wanted // self._burst
        while answers := self._connection.socket.recv(1 << 16):
            received += len(answers)
            now = time.perf_counter()
            while received >= wanted:
                received -= wanted
                self.latencies_s += [now - self._due.popleft()] * self._burst


@dataclass(slots=True)
class Row:
    """What a phase showed."""

    name: str
    latencies_s: list[float]
    seconds: float
    rss_bytes: list[int] = field(default_factory=list)
    persisted: int = 0

    def quantile_ms(self, share: float) -> float:
        """A latency's quantile."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Run:
    """One daemon under a steady load, watched."""

    def __init__(self, daemon: Daemon, client: Client) -> None:
        self._daemon = daemon
        self._client = client
        self.pending = 0

    def phase(self, name: str, limit_s: float, *, until_pending: range | None = None) -> Row:
        """Watches for `limit_s`, or until the number of pending lines is in a range."""
        self._client.start_row()
        began = time.monotonic()
        persisted = self._look()[1]
        rss: list[int] = []
        while (passed_s := time.monotonic() - began) < limit_s:
            rss_bytes, now_persisted = self._look()
            rss.append(rss_bytes)
            if until_pending is not None and self.pending in until_pending:
                break
            time.sleep(0.25)
        return Row(name, self._client.start_row(), passed_s, rss, now_persisted - persisted)

    def _look(self) -> tuple[int, int]:
        stats = self._daemon.stats()
        kafka = stats["backends"]["kafka"]
        self.pending = kafka["pending_lines"]
        return stats["runtime"]["rss_bytes"], kafka["persisted_lines"]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=int, default=8000, help="requests a second")
    parser.add_argument("--lines", type=int, default=500_000, help="that are to wait")
    parser.add_argument("--seconds", type=float, default=15, help="of the first row")
    parser.add_argument("--padding", type=int, default=0, help="bytes that each line is longer")
    parser.add_argument("--no-file", action="store_true", help="Kafka is the only backend")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, broker(Path(place)) as kafka, kafka.topic() as topic:
        daemon = Daemon(
            Path(place) / "daemon",
            {
                "file": {"enabled": not chosen.no_file},
                "kafka": {"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
                "flavors": [{"name": "any", "hosts": ["*"], "kafka_topic": topic}],
            },
        )
        daemon.start()
        try:
            with Client(daemon, chosen.rate, chosen.padding) as client:
                rows = phases(Run(daemon, client), kafka, chosen)
        finally:
            daemon.close()
    report(rows, chosen.rate)


def phases(run: Run, kafka: Broker, chosen: argparse.Namespace) -> list[Row]:
    """What is done to the daemon."""
    run.phase("warm-up", 5)
    rows = [run.phase("before", chosen.seconds)]
    with kafka.stopped():
        enough = range(chosen.lines, sys.maxsize)
        rows.append(run.phase("outage", 3 * chosen.lines / chosen.rate, until_pending=enough))
    # What a save of the cursor a second leaves pending at any time is not waited for.
    rows.append(run.phase("drain", DRAIN_LIMIT_S, until_pending=range(2 * chosen.rate)))
    rows.append(run.phase("after", chosen.seconds))
    return rows


def report(rows: list[Row], rate: int) -> None:
    """Prints the rows and what is aimed at."""
    before, outage, drain, _ = rows
    print(f"{'phase':8}{'s':>7}{'sent/s':>9}{'to Kafka/s':>12}{'p50 ms':>8}{'p99 ms':>8}{'RSS MB':>8}{'most':>7}")
    for row in rows:
        sent, persisted = len(row.latencies_s) / row.seconds, row.persisted / row.seconds
        median, most = statistics.median(row.rss_bytes) / 1e6, max(row.rss_bytes) / 1e6
        figures = f"{row.quantile_ms(0.5):8.2f}{row.quantile_ms(0.99):8.2f}{median:8.1f}{most:7.1f}"
        print(f"{row.name:8}{row.seconds:7.1f}{sent:9.0f}{persisted:12.0f}{figures}")
    print(f"p99 in the outage: {outage.quantile_ms(0.99) / before.quantile_ms(0.99):.2f}x of before (aim: 2x)")
    grown = (max(outage.rss_bytes) - statistics.median(before.rss_bytes)) / 1e6
    print(f"RSS grown in the outage: {grown:.1f} MB (aim: under 10)")
    print(f"drained at {drain.persisted / drain.seconds / rate:.1f}x the intake (aim: 3x)")


@contextlib.contextmanager
def broker(place: Path) -> Iterator[Broker]:
    """A broker of the newest image that the integration tests have built."""
    image = docker("images", "--quiet", "scratchd-kafka").partition("\n")[0]
    if not image:
        sys.exit("no image scratchd-kafka: make test builds it")
    ports = {name: free_port() for name in ("PLAINTEXT", "SASL", "CONTROLLER")}
    properties = place / "server.properties"
    properties.write_text(with_ports((TEST_BED / "kafka" / "server.properties").read_text(), **ports))
    place.chmod(0o755)
    container = docker("run", "--detach", "--network=host", f"--volume={place}:/mnt/shared/config:ro", image)
    try:
        kafka = Broker(f"127.0.0.1:{ports['PLAINTEXT']}", container)
        kafka.wait_ready()
        yield kafka
    finally:
        docker("rm", "--force", "--volumes", container)


if __name__ == "__main__":
    main()
