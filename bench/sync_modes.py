"""What `journal.sync` costs: requests a second and the 99th percentile of latency of each mode, beside `none`.

    python bench/sync_modes.py [--rounds 5] [--seconds 4] [--directory DIR] [--json FILE]

Owns the load and the measuring; starts scratchd from the tree that it lies in. `--directory` says on which disk the
journal and the log files lie, which is what `always` depends on.

The three modes are measured in turns, in another order each round, so that whatever else the machine does meets all
alike. What is told is the median over the rounds of each round's ratio to `none`: a figure of one machine is no other
machine's, a ratio comes nearer to it. The load is that of wrk(1), which must be installed; files are on, Kafka is off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))

from daemon import Daemon

MODES = ("none", "interval", "always")
CONNECTIONS = (1, 64)
"""A client alone waits for the disk by itself; many share each wait."""

TARGET = "/track?v=2&cid=555.1716300000&en=page_view&ul=el-gr&dl=https%3A%2F%2Fshop.example.gr%2Fcart&z=42"
UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: requests a second, and the 99th percentile of latency in seconds."""

    requests_per_s: float
    p99_s: float


@contextlib.contextmanager
def serving(place: Path, mode: str) -> Iterator[Daemon]:
    """A daemon with its journal in `mode`; everything it makes is removed."""
    directory = Path(tempfile.mkdtemp(prefix="scratchd-sync-", dir=place))
    daemon = Daemon(directory, {"journal": {"directory": str(directory / "journal"), "sync": mode}})
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()
        shutil.rmtree(directory)


def measure(daemon: Daemon, connections: int, seconds: int) -> Measured:
    """Asks as fast as answers come, over `connections` at once."""
    command = ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://{daemon.address}{TARGET}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, p99 = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"99%\s+([\d.]+)(us|ms|s)\b", said)
    if rate is None or p99 is None or "Non-2xx" in said:
        raise SystemExit(f"wrk did not measure:\n{said}")
    return Measured(float(rate[1]), float(p99[1]) * UNITS_S[p99[2]])


def ratios(rounds: Sequence[dict[str, Measured]], mode: str) -> tuple[float, float]:
    """Median of a mode's requests a second and p99, as multiples of the same round's `none`."""
    return (
        statistics.median(measured[mode].requests_per_s / measured["none"].requests_per_s for measured in rounds),
        statistics.median(measured[mode].p99_s / measured["none"].p99_s for measured in rounds),
    )


def main() -> None:
    """Measures and tells."""
    parser = argparse.ArgumentParser(description="What each mode of journal.sync costs, beside none.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each run")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    parser.add_argument("--json", type=Path, help="writes everything that was measured to this file")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed")
    document = []
    for connections in CONNECTIONS:
        rounds: list[dict[str, Measured]] = []
        for _ in range(arguments.rounds):
            measured = {}
            for mode in random.sample(MODES, len(MODES)):
                with serving(arguments.directory, mode) as daemon:
                    measured[mode] = measure(daemon, connections, arguments.seconds)
            rounds.append(measured)
        for mode in MODES:
            rate, p99 = ratios(rounds, mode)
            print(f"{connections:3} connections  {mode:8}  requests/s x{rate:.2f}  p99 x{p99:.2f}")
            document += [
                {
                    "connections": connections,
                    "mode": mode,
                    "requests_per_s": measured[mode].requests_per_s,
                    "p99_s": measured[mode].p99_s,
                }
                for measured in rounds
            ]
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
