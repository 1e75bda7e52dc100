"""Which epoch a sequence belongs to, for ever: `epochs.jsonl` in the flavor's directory, a row per start that counted.

Segments name their epochs, and segments leave. Whoever looks for a line in a topic later must know its whole
`scratchd-id`, since several instances, each with sequences of its own, may share the topic. Blocking where it reads.

A row is `{"epoch", "first"}`: the sequences from `first` on, up to the next row's. Where a start took over sequences
that an earlier one had given and lost with the power, the later start's row counts, as in the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from scratchd.journal import rows
from scratchd.journal.format import SegmentName
from scratchd.journal.ranges import Range
from scratchd.journal.storage import replace_durably

NAME = "epochs.jsonl"


class Epoch(msgspec.Struct, frozen=True):
    """An epoch and the first of its sequences."""

    epoch: str
    first: int


def load(directory: Path) -> tuple[Epoch, ...]:
    """The epochs of a flavor's journal in order: what the file says, and what the names of its segments add.

    Raises:
        OSError: the directory or the file cannot be read.
    """
    firsts: dict[str, int] = {}
    for row in rows.load(directory / NAME, Epoch):  # what is torn or edited the segments may still know
        firsts[row.epoch] = row.first
    for name in sorted(found for entry in directory.iterdir() if (found := SegmentName.parse(entry.name))):
        firsts[name.epoch] = min(name.first_sequence, firsts.get(name.epoch, name.first_sequence))
    return _in_order(Epoch(epoch, first) for epoch, first in firsts.items())


def begin(directory: Path, epoch: str, first: int) -> tuple[Epoch, ...]:
    """Notes durably that an epoch begins; returns all that count from now on.

    Raises:
        OSError: it could not be noted.
    """
    earlier = (row for row in load(directory) if row.first < first)
    epochs = (*earlier, Epoch(epoch, first))
    replace_durably(directory / NAME, rows.encoded(epochs))
    return epochs


def within(epochs: Sequence[Epoch], first: int, last: int) -> list[Epoch]:
    """The epochs of a range of sequences; `first` of one that began before the range is the range's."""
    return [Epoch(epoch, start) for epoch, start, _ in spans(epochs, [(first, last)])]


def spans(epochs: Sequence[Epoch], ranges: Iterable[Range]) -> list[tuple[str, int, int]]:
    """`ranges` cut at the epochs' borders: (epoch, first, last); what is older than the oldest epoch is left out."""
    result = []
    ends = [row.first - 1 for row in epochs[1:]] + [None]
    for first, last in ranges:
        for row, end in zip(epochs, ends, strict=False):
            start, stop = max(first, row.first), last if end is None else min(last, end)
            if start <= stop:
                result.append((row.epoch, start, stop))
    return result


def _in_order(epochs: Iterable[Epoch]) -> tuple[Epoch, ...]:
    """Sorted; of those that begin at one sequence the latest counts."""
    by_first: dict[int, Epoch] = {}
    for row in epochs:
        by_first[row.first] = row
    return tuple(by_first[first] for first in sorted(by_first))
