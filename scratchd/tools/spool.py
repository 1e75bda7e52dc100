"""A spool: lines that come in any order and are wanted in that of their sequences.

Lines go to disk, their positions stay in memory. Knows ranges of sequences and bytes, not where lines come from or go
to. The file has no name, so it vanishes with the process, however that ends.
"""

from __future__ import annotations

import bisect
import itertools
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from scratchd.journal.ranges import Range, count, merged


@dataclass(frozen=True, slots=True)
class Found:
    """A line, without its newline."""

    sequence: int
    time_ms: int
    value: bytes


class Spool:
    """A context; 20 bytes of memory for each wanted sequence.

    Args:
        wanted: what is taken, ranges inclusive.
        directory: whose disk holds the lines.

    Attributes:
        left: how many of `wanted` are still missing.
    """

    def __init__(self, wanted: Sequence[Range], directory: Path) -> None:
        self._wanted = merged(wanted)
        self._firsts = [first for first, _ in self._wanted]
        sizes = (last - first + 1 for first, last in self._wanted)
        self._slots = list(itertools.accumulate(sizes, initial=0))
        self.left = count(self._wanted)
        self._offsets = array("q", [-1]) * self.left
        self._lengths = array("I", [0]) * self.left
        self._times = array("q", [0]) * self.left
        self._end = 0
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed on leaving

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _slot(self, sequence: int) -> int | None:
        index = bisect.bisect_right(self._firsts, sequence) - 1
        if index < 0 or sequence > self._wanted[index][1]:
            return None
        return self._slots[index] + sequence - self._wanted[index][0]

    def add(self, sequence: int, time_ms: int, value: bytes) -> None:
        """Keeps a line that is wanted and not there yet.

        Raises:
            OSError: the disk is full or fails.
        """
        slot = self._slot(sequence)
        if slot is None or self._offsets[slot] >= 0:
            return
        self._file.write(value)
        self._offsets[slot], self._lengths[slot], self._times[slot] = self._end, len(value), time_ms
        self._end += len(value)
        self.left -= 1

    def lines(self, first: int, last: int) -> Iterator[Found]:
        """What was found of a range, in order."""
        for sequence in range(first, last + 1):
            slot = self._slot(sequence)
            if slot is not None and self._offsets[slot] >= 0:
                self._file.seek(self._offsets[slot])
                yield Found(sequence, self._times[slot], self._file.read(self._lengths[slot]))

    def missing(self) -> list[Range]:
        """What was wanted and not found."""
        return merged(
            (sequence, sequence)
            for first, last in self._wanted
            for sequence in range(first, last + 1)
            if self._offsets[self._slot(sequence) or 0] < 0
        )
