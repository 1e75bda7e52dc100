"""Differences: what one side has and the other one has not, sorted into kinds. Knows no files and prints nothing.

First what a legacy application explains (`legacy="rack"`, see `rack`): a pair that agrees in everything but names that
contradict each other is `unsure`, a new line that Rack may have refused is `refused`, an old `{}` is `empty`, since
scratchd takes no event without parameters. Of the rest, a line of each side is one *pair* where they belong together by

1. the same names and values but for characters outside ASCII (`encoding`),
2. the same names and all values but one (`value`),
3. the same names and at least half of the values, looked for among the next lines only (`value`),

and what is still alone is `missing` (only the old side has it) or `extra`. The second and third look at each value of
every line, so they are left out beyond `MOST_PAIRED_LINES`: when so much differs, the counts and examples tell enough.

Memory: what differs, about 100 bytes a line; never what agrees.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from scratchd.tools import rack
from scratchd.tools.multiset import NotJson, Surplus, decoded, digest, encoded

MOST_PAIRED_LINES = 100_000
_WINDOW_LINES = 20
_NOT_ASCII = re.compile("[^\\x00-\\x7f]+")

Example = tuple[int, int]
"""Rows of an old and a new line; 0 where there is none."""


@dataclass(slots=True)
class Differences:
    """Of one flavor, or of all.

    Attributes:
        counts: by kind, in lines (a pair is one).
        reasons: of `refused`, by what Rack may have found.
        examples: by kind.
    """

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=dict)


@dataclass(slots=True)
class _Left:
    """What is left of a surplus while its lines are paired."""

    row: int
    count: int


class Sorter:
    """Takes what a flavor's sides have not in common; then sorts it.

    Args:
        line: gives a row's line.
        examples: how many of each kind are kept.
    """

    def __init__(self, line: Callable[[int], bytes], examples: int) -> None:
        self._line = line
        self._examples = examples
        self._left: tuple[list[_Left], list[_Left]] = ([], [])
        self._found = Differences()

    def add(self, surplus: Surplus) -> None:
        """Takes one."""
        self._left[surplus.side].append(_Left(surplus.row, surplus.count))

    def sort(self, ignored: frozenset[str], legacy: str | None) -> Differences:
        """Sorts everything that was added.

        Args:
            ignored: top-level names that are left out.
            legacy: `rack`, or None.
        """
        for side in self._left:
            side.sort(key=lambda left: left.row)  # in the order of the files: what belongs together is near
        if legacy == "rack":
            self._explain(ignored)
        self._pair("encoding", lambda left: [_folded(self._values(left, ignored))])
        few = sum(len(side) for side in self._remaining()) <= MOST_PAIRED_LINES
        if few:
            self._pair("value", lambda left: _all_but_one(self._values(left, ignored)))
            self._pair_near(ignored)
        for kind, side in zip(("missing", "extra"), self._remaining(), strict=True):
            for left in side:
                example = (left.row, 0) if kind == "missing" else (0, left.row)
                self._count(kind, left.count, example)
        return self._found

    def _values(self, left: _Left, ignored: frozenset[str]) -> Any:  # noqa: ANN401 - any JSON value
        line = self._line(left.row)
        value = decoded(line)
        if value is NotJson:
            return line.decode("utf-8", "surrogateescape")
        if isinstance(value, dict):
            return {name: child for name, child in value.items() if name not in ignored}
        return value

    def _remaining(self) -> tuple[list[_Left], list[_Left]]:
        old, new = ([left for left in side if left.count] for side in self._left)
        return old, new

    def _count(self, kind: str, count: int, example: Example) -> None:
        self._found.counts[kind] += count
        kept = self._found.examples.setdefault(kind, [])
        if len(kept) < self._examples:
            kept.append(example)

    # Pairs.

    def _take(self, kind: str, old: _Left, new: _Left) -> None:
        count = min(old.count, new.count)
        old.count -= count
        new.count -= count
        self._count(kind, count, (old.row, new.row))

    def _pair(self, kind: str, signatures: Callable[[_Left], Iterable[bytes]]) -> None:
        """Pairs lines that share a signature, each with the next one of the other side."""
        olds: dict[bytes, list[_Left]] = defaultdict(list)
        remaining_old, remaining_new = self._remaining()
        if not remaining_old or not remaining_new:
            return
        for old in reversed(remaining_old):
            for signature in signatures(old):
                olds[signature].append(old)
        for new in remaining_new:
            for signature in signatures(new):
                waiting = olds.get(signature, [])
                while waiting and new.count:
                    if waiting[-1].count:
                        self._take(kind, waiting[-1], new)
                    else:
                        waiting.pop()

    def _pair_near(self, ignored: frozenset[str]) -> None:
        """Pairs lines with the same names and at least half of their values."""
        groups: dict[bytes, tuple[list[tuple[_Left, Any]], list[tuple[_Left, Any]]]] = defaultdict(lambda: ([], []))
        for index, side in enumerate(self._remaining()):
            for left in side:
                values = self._values(left, ignored)
                if isinstance(values, dict) and values:
                    groups[digest(encoded(sorted(values), ordered=True))][index].append((left, values))
        for olds, news in groups.values():
            for old, values in olds:
                near = [(_agreeing(values, others), new) for new, others in news[:_WINDOW_LINES]]
                agreeing, new = max(near, key=lambda pair: pair[0], default=(0, old))
                if new is not old and agreeing * 2 >= len(values):
                    self._take("value", old, new)
                    news[:] = [pair for pair in news if pair[0].count]

    # What a legacy application explains.

    def _explain(self, ignored: frozenset[str]) -> None:
        olds, news = (
            [(left, rack.read(values)) for left in side if isinstance(values := self._values(left, ignored), dict)]
            for side in self._remaining()
        )
        waiting: dict[frozenset[str], dict[bytes, list[_Left]]] = defaultdict(lambda: defaultdict(list))
        for new, reading in news:
            if reading.unsure:
                waiting[reading.unsure][_sure(reading, reading.unsure)].append(new)
        for old, reading in olds:
            alike = (new for unsure, found in waiting.items() for new in found.get(_sure(reading, unsure), ()))
            for new in alike:
                if old.count and new.count:
                    self._take("unsure", old, new)
            if old.count and not reading.values:
                self._count("empty", old.count, (old.row, 0))
                old.count = 0
        for new, reading in news:
            if new.count and reading.refused_by:
                self._found.reasons[reading.refused_by] += new.count
                self._count("refused", new.count, (0, new.row))
                new.count = 0


def _sure(reading: rack.Reading, unsure: frozenset[str]) -> bytes:
    return digest(encoded(reading.sure(unsure), ordered=False))


def _agreeing(values: Mapping[str, Any], others: Mapping[str, Any]) -> int:
    return sum(others[name] == value for name, value in values.items())


def _folded(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """The same for values that differ in nothing but characters outside ASCII, malformed bytes among them."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return digest(_NOT_ASCII.sub("\ufffd", text).encode())


def _all_but_one(value: Any) -> Iterator[bytes]:  # noqa: ANN401 - any JSON value
    """For each name: the names, and all values but its own."""
    if isinstance(value, dict) and len(value) > 1:
        for name in value:
            yield digest(encoded({**value, name: None}, ordered=False))
    elif isinstance(value, dict):
        yield digest(encoded(list(value), ordered=True))
