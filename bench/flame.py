"""A flame graph of scratchd under full load: where its time goes, by py-spy.

    make flame          python bench/flame.py [--out docs/hot-path.svg] [--query heavy] [--seconds 8]

Under full load, with a file and a real Kafka. Time in the kernel and in libraries written in C is shown at the Python
function that called them. The threads that trio keeps for what may block are left out while they wait for work, which
py-spy cannot tell from working; librdkafka's own threads run no Python and are not in it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape

import bed
from bed import LOAD_CORE, SOURCE
from contenders import SCRATCHD
from measure import Load, Running, warm_up
from query import ESCAPES, TYPICAL
from run import numbered

RATE = 250
"""Samples a second; py-spy stops the process for each, so more of them would be a load of their own."""

QUERIES = {"typical": TYPICAL, "heavy": ESCAPES}

_WAITING = "WorkerThread._work"
_WIDTH, _ROW, _MIN = 1200, 17, 0.7
_COLOURS = (
    ("scratchd/http", "#4c9f70"),
    ("scratchd/backends/kafka", "#c26d3d"),
    ("scratchd/backends", "#d09a4a"),
    ("scratchd/journal", "#5b7db8"),
    ("scratchd", "#8cb369"),
    ("trio", "#b9b9b9"),
)
"""By the first of these that a frame's text has."""


class Frame:
    """A function as called from where it stands in the graph; `samples` are its own and its callees'."""

    def __init__(self) -> None:
        self.samples = 0
        self.callees: dict[str, Frame] = {}

    def add(self, stack: list[str], samples: int) -> None:
        """Counts a stack, outermost first."""
        self.samples += samples
        if stack:
            self.callees.setdefault(stack[0], Frame()).add(stack[1:], samples)


def parsed(raw: str) -> Frame:
    """The graph of py-spy's counted stacks; what every stack begins with is left out."""
    root = Frame()
    for line in raw.splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = stack.split(";")
        if not frames[-1].startswith(_WAITING):
            root.add(frames, int(samples))
    while len(root.callees) == 1:
        root = next(iter(root.callees.values()))
    return root


def drawn(root: Frame, title: str) -> str:
    """The graph as SVG, callers above; a frame's title tells its share."""
    rows: list[str] = []

    def draw(frame: Frame, name: str, x: float, depth: int) -> int:
        width = frame.samples / root.samples * _WIDTH
        if width < _MIN:
            return depth
        colour = next((colour for part, colour in _COLOURS if part in name), "#dddddd")
        y = 30 + depth * _ROW
        share = f"{frame.samples / root.samples:.1%}"
        text = escape(name[: int(width / 6.2)]) if width > 25 else ""
        rows.append(
            f'<g><title>{escape(name)}: {share}</title><rect x="{x:.1f}" y="{y}" width="{width - 0.4:.1f}"'
            f' height="{_ROW - 1}" fill="{colour}"/><text x="{x + 3:.1f}" y="{y + 12}">{text}</text></g>'
        )
        deepest = depth + 1
        for callee, called in sorted(frame.callees.items()):
            deepest = max(deepest, draw(called, callee, x, depth + 1))
            x += called.samples / root.samples * _WIDTH
        return deepest

    height = 40 + draw(root, "all", 0, 0) * _ROW
    size = f'width="{_WIDTH}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="10">'
    return "\n".join([head, f'<text x="3" y="16" font-size="12">{escape(title)}</text>', *rows, "</svg>", ""])


def main() -> None:
    """Profiles and writes the SVG."""
    parser = argparse.ArgumentParser(description="Scratchd's flame graph.")
    parser.add_argument("--out", type=Path, default=SOURCE / "docs" / "hot-path.svg")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--query", choices=QUERIES, default="typical")
    parser.add_argument("--rate", type=float, default=0, help="requests a second instead of as many as it takes")
    arguments = parser.parse_args()
    py_spy = Path(sys.executable).with_name("py-spy")
    load = Load(numbered(QUERIES[arguments.query]), 64, arguments.seconds + 3, arguments.rate)
    with bed.made() as made, SCRATCHD.running(made, kafka=True) as server:
        warm_up(made, server, load)
        running = Running(made, load, server.address)
        raw = made.place / "raw"
        record = [str(py_spy), "record", "--pid", str(server.pid), "--duration", str(arguments.seconds)]
        form = ["--format", "raw", "--function", "--rate", str(RATE), "--output", str(raw)]
        subprocess.run(["taskset", "--cpu-list", str(LOAD_CORE), *record, *form], check=True)
        seen = running.answered()
        running.latency_ms()
        counted = parsed(raw.read_text())
    rate = f"{seen.answered / seen.elapsed_s:,.0f} requests/s meanwhile"
    title = f"scratchd, file and Kafka, {arguments.query} queries: {counted.samples} samples, {rate}"
    arguments.out.write_text(drawn(counted, title))
    print(f"{rate}; written: {arguments.out}")


if __name__ == "__main__":
    main()
