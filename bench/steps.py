"""What each step of the hot path costs by itself, in this process (pyperf).

    make bench-steps        python bench/steps.py [pyperf's options, e.g. --fast, -o FILE]

The steps are called as the gate calls them, for a typical query of about 150 bytes and a heavy one of about 550.
Sending and receiving are the kernel's and not here; the difference between the sum of these and the CPU for a request
that `make bench` tells is theirs, the turn's, and the backends'.
"""

from __future__ import annotations

import datetime
import itertools
import tempfile
import time
from pathlib import Path

import msgspec
import pyperf

from query import ESCAPES, TYPICAL
from scratchd.config import Config
from scratchd.flavors import Flavors
from scratchd.http.answers import Answers
from scratchd.http.hot import Recogniser
from scratchd.journal.format import frame, parse_frame
from scratchd.query import to_json
from scratchd.stats import HttpStats
from scratchd.track import Accepted, Request, Track

HOST = "any.test"
PASS = 64
"""Requests that a turn takes together in the larger steps."""


def main() -> None:
    """Measures all."""
    runner = pyperf.Runner(metadata={"what": "steps of scratchd's hot path"})
    config = msgspec.convert({"flavors": [{"name": "any", "hosts": ["*"], "time_zone": "Europe/Athens"}]}, Config)
    flavors = Flavors(config)
    track, recogniser = Track(config, flavors), Recogniser(config.http.max_head_bytes)
    now_ms, day = time.time_ns() // 1_000_000, datetime.datetime.now(datetime.UTC).date()
    stats, answers = HttpStats(time.monotonic), Answers(lambda: now_ms)
    for name, text in (("typical", TYPICAL), ("heavy", ESCAPES)):
        query = text.encode()
        head = b"GET /track?%s HTTP/1.1\r\nHost: %s\r\n\r\n" % (query, HOST.encode())
        request = Request(b"GET", b"/track", query, HOST, "")
        accepted = track.receive(request, now_ms, 0.0)
        if not isinstance(accepted, Accepted):
            raise SystemExit(accepted)
        lines = [accepted.line.values] * PASS
        data = frame(lines, 0, now_ms, day)
        runner.bench_func(f"recognise, {name}", recogniser.recognise, head, 0)
        runner.bench_func(f"to_json, {name}", to_json, query, "last")
        runner.bench_func(f"track.receive, {name}", track.receive, request, now_ms, 0.0)
        runner.bench_func(f"frame of {PASS} lines, {name}", frame, lines, 0, now_ms, day)
        runner.bench_func(f"parse_frame of {PASS} lines, {name}", parse_frame, data, 0, "epoch")
        _bench_write(runner, f"write of {PASS} lines, {name}", data)
    accepted_again = track.receive(Request(b"GET", b"/track", b"a=1", HOST, ""), now_ms, 0.0)
    runner.timeit(
        "answer",
        "answer(outcome, bodiless=False, closes=False)",
        globals={"answer": answers.answer, "outcome": accepted_again},
    )
    runner.bench_func("stats.answered", stats.answered, 200, 0.001, PASS)


def _bench_write(runner: pyperf.Runner, name: str, data: bytes) -> None:
    """One write(2) of a whole frame into the page cache."""

    def loops(count: int) -> float:
        with tempfile.TemporaryDirectory() as directory, (Path(directory) / "segment").open("wb", buffering=0) as file:
            begun = time.perf_counter()
            for _ in itertools.repeat(None, count):
                file.write(data)
            return time.perf_counter() - begun

    runner.bench_time_func(name, loops)


if __name__ == "__main__":
    main()
