"""Two commits beside each other: what has become slower.

    make bench-compare A=main B=HEAD        python bench/compare.py A B [--rounds N]

Each commit gets a work tree of its own; rounds take them in turns, so the ratio of each round is of two measurements
made within seconds. A figure has become worse where the median ratio is beyond `TOLERANCE` and nine rounds in ten agree
on the direction.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import bed
from bed import SOURCE
from contenders import BOTH, Contender
from measure import Figures, Load, measure
from query import ESCAPES, TYPICAL
from run import numbered

TOLERANCE = 0.03
AGREEING = 0.9

FIGURES: Mapping[str, tuple[Callable[[Figures], float], bool]] = {
    "requests/s": (lambda figures: figures.requests_s, True),
    "sustained lines/s": (lambda figures: figures.lines_s or 0.0, True),
    "CPU for a request": (lambda figures: figures.cpu_s_1000, False),
    "p50": (lambda figures: figures.latency_ms["p50"], False),
    "p99": (lambda figures: figures.latency_ms["p99"], False),
    "peak memory": (lambda figures: figures.peak_bytes, False),
}
"""The figure, and whether more of it is better."""


@contextlib.contextmanager
def worktree(path: Path, commit: str) -> Iterator[Path]:
    """A commit's files, removed at the end."""
    git = ["git", "-C", str(SOURCE), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(path), commit], check=True)
    try:
        yield path
    finally:
        subprocess.run([*git, "remove", "--force", str(path)], check=True)


def verdict(ratios: Sequence[float], *, more_is_better: bool) -> str:
    """What the rounds say of a figure, as B to A."""
    change = statistics.median(ratios) - 1
    agreeing = sum((ratio > 1) == (change > 0) for ratio in ratios) / len(ratios)
    if abs(change) <= TOLERANCE or agreeing < AGREEING:
        return "same"
    return "better" if (change > 0) == more_is_better else "WORSE"


def main() -> None:
    """Measures, prints, and exits with 1 where anything has become worse."""
    parser = argparse.ArgumentParser(description="Two commits beside each other.")
    parser.add_argument("a", help="the commit to compare with")
    parser.add_argument("b", help="the commit that is judged")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.5)
    parser.add_argument("--only", nargs="+", metavar="LOAD", help="typical, heavy, '1,000 a second'")
    arguments = parser.parse_args()
    loads = {
        "typical": Load(numbered(TYPICAL), 64, arguments.seconds),
        "heavy": Load(numbered(ESCAPES), 64, arguments.seconds),
        "1,000 a second": Load(numbered(TYPICAL), 64, arguments.seconds, 1000),
    }
    loads = {name: load for name, load in loads.items() if not arguments.only or name in arguments.only}
    found: dict[str, list[tuple[Figures, Figures]]] = {name: [] for name in loads}
    with bed.made() as made, contextlib.ExitStack() as trees:
        commits = {"a": arguments.a, "b": arguments.b}
        paths = {name: trees.enter_context(worktree(made.place / name, commit)) for name, commit in commits.items()}
        contenders = {name: Contender("scratchd", BOTH, path) for name, path in paths.items()}
        for contender in contenders.values():
            with contender.running(made, kafka=True):
                pass  # its Python is compiled now, as it is by an installation
        for number in range(arguments.rounds):
            for name, load in loads.items():
                measured = {}
                for who in ("ab", "ba")[number % 2]:
                    with contenders[who].running(made, kafka=True) as server:
                        measured[who] = measure(made, server, load)
                found[name].append((measured["a"], measured["b"]))
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    worse = False
    print(f"{'':36}{'A':>10}{'B':>10}{'B/A':>8}{'from':>8}{'to':>8}")
    for load_name, pairs in found.items():
        for name, (figure, more_is_better) in FIGURES.items():
            if load_name == "1,000 a second" and more_is_better:
                continue  # as many as were asked for
            ratios = [figure(b) / figure(a) for a, b in pairs if figure(a)]
            if not ratios:
                continue
            said = verdict(ratios, more_is_better=more_is_better)
            worse |= said == "WORSE"
            medians = [statistics.median(figure(pair[side]) for pair in pairs) for side in (0, 1)]
            shown = "".join(f"{value / 1e6 if name == 'peak memory' else value:10,.4g}" for value in medians)
            spread = f"{statistics.median(ratios):8.3f}{min(ratios):8.3f}{max(ratios):8.3f}"
            print(f"{load_name:16}{name:20}{shown}{spread}   {said}")
    sys.exit(worse)


if __name__ == "__main__":
    main()
