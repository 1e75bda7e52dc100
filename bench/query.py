"""What converting a query costs, beside the standard library's `parse_qsl` and `json.dumps` on the same query.

    python bench/query.py [--rounds 15] [--json FILE]

Owns the queries to measure and the measuring; knows of scratchd only `to_json`. Run it with the tree's own directory on
PYTHONPATH, or with scratchd installed.

Both are called in turns of less than a millisecond, so that whatever else the machine does meets both alike; what is
told is the median over the rounds, and the ratio of the two medians, which is what a limit can be set for. The answers
are compared first. The standard library takes text, and gets it decoded for nothing.

Three groups: `query` are the two sizes for which limits are set; `corpus` the beacons of the unit tests; `hostile` what
is written to be expensive, in three sizes: a cost in microseconds per byte that grows with them is not linear.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec

from scratchd.query import Repeated, to_json

BEACONS = Path(__file__).parents[1] / "tests" / "unit" / "beacons.txt"

TYPICAL = (
    "v=2&tid=G-ABC123DEF4&cid=555.1716300000&en=page_view&sr=1920x1080&ul=el-gr"
    "&dl=https%3A%2F%2Fshop.example.gr%2Fcart%3Fstep%3D2&dt=Cart+%7C+Shop&_s=3&z=42"
)
ESCAPES = (
    "dl=https%3A%2F%2Fshop.example.gr%2F%CF%80%CF%81%CE%BF%CF%8A%CF%8C%CE%BD%CF%84%CE%B1%2F%3Futm_source%3Dnewsletter"
    "%26utm_medium%3Demail&dr=https%3A%2F%2Fwww.google.com%2Fsearch%3Fq%3D%CF%80%CE%B1%CF%80%CE%BF%CF%8D%CF%84%CF%83"
    "%CE%B9%CE%B1%26hl%3Del&dt=%CE%A0%CF%81%CE%BF%CF%8A%CF%8C%CE%BD%CF%84%CE%B1+%7C+%CE%9A%CE%B1%CF%84%CE%AC%CF%83"
    "%CF%84%CE%B7%CE%BC%CE%B1&ul=el-gr&sr=1920x1080&cid=1034567890.1700000000&en=page_view&ep=%7B%22list%22%3A%5B%22"
    "%CE%91%22%2C%22%CE%92%22%5D%2C%22currency%22%3A%22EUR%22%2C%22ok%22%3Atrue%7D&v=2&_s=3&z=1122334455"
)
HOSTILE = {
    "percent signs": "%",
    "escaped percent signs": "%25",
    "stray percent signs": "%zz",
    "escaped NULs": "%00",
    "escaped separators": "%1E",
    "malformed UTF-8": "%FF",
    "ampersands": "&",
    "equals signs": "=",
    "plus signs": "+",
    "quotation marks": '"',
    "escaped line ends": "%0D%0A",
    "names without values": "a&",
    "empty names": "=&",
    "one name": "a=1&",
    "one name, stray percent signs": "a=%&",
}
SIZES_BYTES = (2048, 4096, 8192)

TURN_S = 0.0004
"""How long each is called before it is the other's turn: long for the clock, short for the scheduler."""


class Measured(msgspec.Struct):
    """One query's figures: medians, in microseconds."""

    group: str
    name: str
    query_bytes: int
    scratchd_us: float
    standard_library_us: float
    ratio: float


def queries() -> Iterator[tuple[str, str, str, Repeated]]:
    """Group, name, query, and what becomes of repeated names."""
    yield "query", "typical", TYPICAL, "last"
    yield "query", "full of escapes", ESCAPES, "last"
    for block in BEACONS.read_text("utf-8").split("\n\n")[1:]:
        comment, query, _ = block.strip("\n").split("\n")
        yield "corpus", comment[2:], query, "last"
    for name, unit in HOSTILE.items():
        for size in SIZES_BYTES:
            yield "hostile", name, (unit * size)[:size], "list"


def by_standard_library(query: str, repeated: Repeated) -> str:
    """The same conversion: grouped where a list is asked for, else what `dict` does."""
    pairs = parse_qsl(query, keep_blank_values=True)
    if repeated == "last":
        return json.dumps(dict(pairs), ensure_ascii=False, separators=(",", ":"))
    lists: dict[str, list[str]] = {}
    for name, value in pairs:
        lists.setdefault(name, []).append(value)
    merged = {name: values if len(values) > 1 else values[0] for name, values in lists.items()}
    return json.dumps(merged, ensure_ascii=False, separators=(",", ":"))


def measure(group: str, name: str, text: str, repeated: Repeated, rounds: int) -> Measured:
    """Takes turns for as many rounds."""
    query = text.encode("ascii")
    if to_json(query, repeated) != by_standard_library(text, repeated).encode():
        raise SystemExit(f"{name}: the two answer differently")

    def scratchd() -> None:
        to_json(query, repeated)

    def standard_library() -> None:
        by_standard_library(text, repeated)

    contenders = [(scratchd, _calls(scratchd)), (standard_library, _calls(standard_library))]
    times = [[_microseconds(call, calls) for call, calls in contenders] for _ in range(rounds)]
    mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    return Measured(group, name, len(query), round(mine, 3), round(theirs, 3), round(mine / theirs, 3))


def _calls(call: Callable[[], None]) -> int:
    once_s = min(_microseconds(call, 1) for _ in range(5)) / 1e6
    return max(1, round(TURN_S / once_s))


def _microseconds(call: Callable[[], None], calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begun) / calls * 1e6


def main() -> None:
    """Measures all, prints a table, and writes it where it is asked to."""
    parser = argparse.ArgumentParser(description="What converting a query costs.")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contender (15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    versions = {"python": platform.python_version(), "msgspec": msgspec.__version__}
    print(" ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"{'':74}{'bytes':>6}{'scratchd':>12}{'parse_qsl':>12}{'ratio':>8}")
    measured = []
    for group, name, text, repeated in queries():
        one = measure(group, name, text, repeated, arguments.rounds)
        measured.append(one)
        figures = f"{one.query_bytes:>6}{one.scratchd_us:>9.2f} µs{one.standard_library_us:>9.2f} µs{one.ratio:>8.3f}"
        print(f"{group:8}{name[:65]:66}{figures}", flush=True)
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(versions | {"queries": measured})))


if __name__ == "__main__":
    main()
