"""Gaps: ranges of sequences that a backend will never get from the journal. Pure.

The cursor of a backend holds its gaps, so that a gap and the position behind it are saved in one step and no gap is
counted twice. `gaps.jsonl` in the flavor's directory is the same list for people and programs, one object per line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

Kind = Literal["quota", "corrupt", "lost", "disabled"]


class Gap(msgspec.Struct, frozen=True):
    """A range of sequences and why it is missing.

    Attributes:
        kind: `quota` (the journal was full while the backend lagged), `corrupt` (unreadable), `lost` (gone in a power
            failure), `disabled` (the backend was switched off).
        first: first missing sequence.
        last: last missing sequence, inclusive.
    """

    kind: Kind
    first: int
    last: int

    @property
    def lines(self) -> int:
        """How many lines are missing."""
        return self.last - self.first + 1


def add(gaps: tuple[Gap, ...], gap: Gap) -> tuple[Gap, ...]:
    """`gaps` and one more behind them; one that continues the last of its kind lengthens it."""
    if gaps and gaps[-1].kind == gap.kind and gaps[-1].last + 1 == gap.first:
        return (*gaps[:-1], msgspec.structs.replace(gaps[-1], last=gap.last))
    return (*gaps, gap)


def rendered(gaps_by_backend: Mapping[str, Iterable[Gap]]) -> bytes:
    """The content of `gaps.jsonl`."""
    rows = [
        {"backend": backend, **msgspec.structs.asdict(gap)} for backend, gaps in gaps_by_backend.items() for gap in gaps
    ]
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
