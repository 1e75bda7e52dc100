"""What recognising a hot request costs, beside parsing it, and that neither is made expensive by hostile heads.

    python bench/hot.py [--rounds 15] [--json FILE]

Owns the heads to measure and the measuring; knows of scratchd only the two that read heads. Run it with the tree's own
directory on PYTHONPATH, or with scratchd installed.

`ordinary` heads are what clients and proxies send. `hostile` ones are as large as the default limit lets them be, and
half of that, written so that a pattern that went back would: the last column is the cost of the whole divided by that
of the half, about 2 where it is linear. What is told is the median over the rounds; the calls take turns.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from scratchd.http.head import parse
from scratchd.http.hot import Recogniser

MAX_HEAD_BYTES = 16384

TARGET = b"/track?v=2&tid=G-ABC123DEF4&cid=555.1716300000&en=page_view&sr=1920x1080&dt=Cart+%7C+Shop&_s=3&z=42"
LINE = b"GET " + TARGET + b" HTTP/1.1\r\n"
HOST = b"Host: www.shop.example.gr\r\n"
BROWSER = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5\r\n"
    b"Accept-Language: el,en-US;q=0.7,en;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Referer: https://www.shop.example.gr/cart\r\nCookie: _ga=GA1.2.1034567890.1700000000; consent=yes\r\n"
    b"Sec-Fetch-Dest: image\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Site: cross-site\r\n"
)
ORDINARY = {
    "least": LINE + HOST + b"\r\n",
    "load generator": LINE + HOST + b"User-Agent: wrk\r\nConnection: keep-alive\r\n\r\n",
    "browser behind a proxy": LINE + HOST + BROWSER + b"X-Forwarded-For: 203.0.113.7\r\n\r\n",
    "left to the parser": LINE + HOST + b"Connection: close\r\n\r\n",
}
HOSTILE = {
    "names beginning like host": b"hos:\r\n",
    "names beginning like content-length": b"content-lengt:\r\n",
    "names beginning like transfer-encoding": b"transfer-encodinh:\r\n",
    "connection fields": b"Connection: keep-alive\r\n",
    "connection fields with white space": b"Connection:" + b" " * 200 + b"keep-alive\r\n",
    "shortest fields": b"a:\r\n",
    "one long value": b"",
    "one long name": b"",
}


class Measured(msgspec.Struct):
    """One head's figures: medians, in microseconds; `growth` is None where there is nothing to compare with."""

    group: str
    name: str
    head_bytes: int
    hot_us: float
    parse_us: float
    growth: float | None


def hostile(name: str, size: int) -> bytes:
    """A head of about `size` bytes whose last line is what makes it not hot: everything before was read for nothing."""
    room = size - len(LINE) - len(HOST) - 30
    unit = HOSTILE[name]
    fields = unit * (room // len(unit)) if unit else b"x" * room + b": y\r\n"
    if name == "one long value":
        fields = b"X: " + b"c" * room + b"\r\n"
    return LINE + HOST + fields + b"Host: again\r\n\r\n"


def measure(group: str, name: str, data: bytes, half: bytes | None, rounds: int) -> Measured:
    """Takes turns for as many rounds."""
    recogniser = Recogniser(MAX_HEAD_BYTES)
    calls: list[Callable[[], object]] = [
        lambda: recogniser.recognise(data, 0),
        lambda: parse(data, 0, MAX_HEAD_BYTES, http2=False),
    ]
    if half is not None:
        calls.append(lambda: recogniser.recognise(half, 0))
    count = 200 if half is None else 5
    times = [[_microseconds(call, count) for call in calls] for _ in range(rounds)]
    hot, parsed, *halves = (statistics.median(column) for column in zip(*times, strict=True))
    growth = round(hot / halves[0], 2) if halves else None
    return Measured(group, name, len(data), round(hot, 2), round(parsed, 2), growth)


def _microseconds(call: Callable[[], object], calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begun) / calls * 1e6


def main() -> None:
    """Measures all, prints a table, and writes it where it is asked to."""
    parser = argparse.ArgumentParser(description="What recognising a hot request costs.")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contender (15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    print(f"python {platform.python_version()}")
    print(f"{'':50}{'bytes':>7}{'hot':>12}{'parser':>12}{'growth':>8}")
    measured = [measure("ordinary", name, data, None, arguments.rounds) for name, data in ORDINARY.items()]
    for name in HOSTILE:
        whole, half = hostile(name, MAX_HEAD_BYTES), hostile(name, MAX_HEAD_BYTES // 2)
        measured.append(measure("hostile", name, whole, half, arguments.rounds))
    for one in measured:
        growth = "" if one.growth is None else f"{one.growth:.2f}"
        print(f"{one.group:9}{one.name:41}{one.head_bytes:>7}{one.hot_us:>9.2f} µs{one.parse_us:>9.2f} µs{growth:>8}")
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(measured)))


if __name__ == "__main__":
    main()
