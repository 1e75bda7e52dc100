"""A flame graph of scratchd under full load: where its time goes, by py-spy.

    make flame          python bench/flame.py [--out docs/hot-path.svg] [--seconds 8] [--raw]

Samples of the main thread and of those beside it that are on the CPU; time within libraries written in C is shown at the
Python line that called them. The profile is taken under full load with a file and a real Kafka.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import bed
from bed import LOAD_CORE, SOURCE
from contenders import SCRATCHD
from measure import Load, Running, warm_up
from query import TYPICAL
from run import numbered

RATE = 250
"""Samples a second; py-spy stops the process for each, so more of them would be a load of their own."""


def main() -> None:
    """Profiles and writes the SVG."""
    parser = argparse.ArgumentParser(description="Scratchd's flame graph.")
    parser.add_argument("--out", type=Path, default=SOURCE / "docs" / "hot-path.svg")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0, help="requests a second instead of as many as it takes")
    parser.add_argument("--raw", action="store_true", help="write counted stacks instead, for other tools")
    arguments = parser.parse_args()
    py_spy = Path(sys.executable).with_name("py-spy")
    load = Load(numbered(TYPICAL), 64, arguments.seconds + 3, arguments.rate)
    with bed.made() as made, SCRATCHD.running(made, kafka=True) as server:
        warm_up(made, server, load)
        running = Running(made, load, server.address)
        command = [str(py_spy), "record", "--pid", str(server.pid), "--duration", str(arguments.seconds)]
        what = ["--format", "raw" if arguments.raw else "flamegraph", "--rate", str(RATE), "--output", arguments.out]
        pinned = ["taskset", "--cpu-list", str(LOAD_CORE)]
        subprocess.run(
            [*pinned, *command, *what, "--function"] if arguments.raw else [*pinned, *command, *what], check=True
        )  # noqa: S603
        seen = running.answered()
        running.latency_ms()
    print(f"{seen.answered / seen.elapsed_s:,.0f} requests/s meanwhile; written: {arguments.out}")


if __name__ == "__main__":
    main()
