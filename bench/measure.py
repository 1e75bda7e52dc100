"""Measuring: one load against one running contender, and the figures of it.

Sustained lines are counted from outside, alike for everyone: lines in the files and messages in the topic, and the time
is from the load's start until the last backend has the last of them. CPU is that of the server alone, from before the
load until then: what a server leaves for later is counted too.
"""

from __future__ import annotations

import itertools
import subprocess
import time

import msgspec

from bed import LOAD_CORE, Bed
from contenders import HOST, Server

BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
    "Referer: https://www.example.gr/",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: el-GR,el;q=0.9,en;q=0.8",
    "X-Forwarded-For: 192.0.2.7",
)
"""What a browser and a proxy add to a request."""

_DRAIN_TIMEOUT_S = 60
_POLL_S = 0.02

_numbers = itertools.count(0, 20_000_000)
"""The first numbers of loads: none sends a request that another one sent."""


class Figures(msgspec.Struct):
    """What one measurement found.

    Attributes:
        requests_s: answered a second.
        lines_s: sustained, None where nothing is persisted or not all of it ever was.
        cpu_s_1000: CPU seconds of the server for 1,000 requests.
        busy: its share of its core while the load lasted; well below 1 it was the load that was the limit.
        peak_bytes: of resident memory.
        grown_bytes: by which resident memory grew during the load.
        latency_ms: p50, p99, p99.9, max; of an open loop from when each request was due.
        ready_s: from the start of the process to its first answer.
        failed: requests without an answer, connections that broke, answers with another status.
    """

    requests_s: float
    lines_s: float | None
    cpu_s_1000: float
    busy: float
    peak_bytes: int
    grown_bytes: int
    latency_ms: dict[str, float]
    ready_s: float
    failed: int


class Load(msgspec.Struct, frozen=True):
    """What is sent.

    Attributes:
        query: with `{n}` where each request differs.
        connections: how many.
        seconds: for how long.
        rate: requests a second (open loop), 0 for as many as the server takes (closed loop).
        fields: further field lines.
        apart_ms: between two connections being opened, before anything is sent.
    """

    query: str
    connections: int
    seconds: float
    rate: float = 0
    fields: tuple[str, ...] = ()
    apart_ms: int = 0

    def command(self, bed: Bed, address: str) -> list[str]:
        """The load generator's command; each call's requests are new ones."""
        request = "\r\n".join([f"GET /track?{self.query} HTTP/1.1", f"Host: {HOST}", *self.fields, "", ""])
        options = {
            "to": address,
            "connections": self.connections,
            "seconds": self.seconds,
            "rate": self.rate,
            "apart": f"{self.apart_ms}ms",
        }
        flags = [f"-{name}={value}" for name, value in {**options, "first": next(_numbers)}.items()]
        return ["taskset", "--cpu-list", str(LOAD_CORE), str(bed.load), *flags, request]


class Answered(msgspec.Struct):
    """What the load generator counted; `begun` is by the wall clock, seconds since 1970."""

    begun: float
    sent: int
    answered: int
    other: int
    failed: int
    unanswered: int
    elapsed_s: float
    load_cpu_s: float


class Running:
    """A load that runs; `answered` waits for its end, `latency_ms` for what it makes of it."""

    def __init__(self, bed: Bed, load: Load, address: str) -> None:
        self._process = subprocess.Popen(load.command(bed, address), stdout=subprocess.PIPE)

    def answered(self) -> Answered:
        """The counts, at once when the load has ended."""
        return msgspec.json.decode(self._line(), type=Answered)

    def latency_ms(self) -> dict[str, float]:
        """The latencies; called behind `answered`."""
        latency_ms = msgspec.json.decode(self._line(), type=dict[str, float])
        self._process.wait()
        return latency_ms

    def _line(self) -> bytes:
        if self._process.stdout is None or not (line := self._process.stdout.readline()):
            raise SystemExit(f"the load failed with {self._process.wait()}")
        return line


def measure(bed: Bed, server: Server, load: Load) -> Figures:
    """Puts a load on a server that has just started."""
    # Connections, the first lines' files and the producer's first handshake are no part of it.
    warmed = warm_up(bed, server, load)
    cpu_s, (resident, _) = server.cpu_s(), server.memory_bytes()
    running = Running(bed, load, server.address)
    seen = running.answered()
    answered_cpu_s, (resident_after, _) = server.cpu_s(), server.memory_bytes()
    whole = drained(server, warmed + seen.answered)
    drained_s = time.time() - seen.begun
    return Figures(
        requests_s=seen.answered / seen.elapsed_s,
        lines_s=seen.answered / drained_s if whole and (server.log or server.topic) else None,
        cpu_s_1000=(server.cpu_s() - cpu_s) / max(1, seen.answered) * 1000,
        busy=(answered_cpu_s - cpu_s) / seen.elapsed_s,
        peak_bytes=server.memory_bytes()[1],
        grown_bytes=resident_after - resident,
        latency_ms=running.latency_ms(),
        ready_s=server.ready_s,
        failed=seen.other + seen.failed + seen.unanswered,
    )


def warm_up(bed: Bed, server: Server, load: Load) -> int:
    """Lets everything happen once; returns how many lines the server has persisted by then."""
    running = Running(bed, msgspec.structs.replace(load, connections=8, seconds=0.3, rate=500), server.address)
    persisted = running.answered().answered + server.asked
    running.latency_ms()
    drained(server, persisted)
    return persisted


def drained(server: Server, lines: int, timeout_s: float = _DRAIN_TIMEOUT_S) -> bool:
    """Waits until every backend has persisted so many lines; returns whether they have."""
    deadline = time.monotonic() + timeout_s
    counts = [server.file_lines] * (server.log is not None) + [server.topic_lines] * (server.topic is not None)
    while counts:
        counts = [count for count in counts if count() < lines]
        if time.monotonic() > deadline:
            return False
        if counts:
            time.sleep(_POLL_S)
    return True
