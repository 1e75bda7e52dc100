"""Gaps: ranges of sequences that a backend will never get from the journal. Pure.

The cursor of a backend holds its gaps, so that a gap and the position behind it are saved in one step and no gap is
counted twice. `gaps.jsonl` in the flavor's directory is the same list for people and programs, one object per line,
with the epochs of the sequences, so that each missing line can be named by its `scratchd-id`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from scratchd.journal.epochs import Epoch, within
from scratchd.stats import iso_time

Kind = Literal["quota", "corrupt", "lost", "disabled"]


class Gap(msgspec.Struct, frozen=True):
    """A range of sequences and why it is missing.

    Attributes:
        kind: `quota` (the journal was full while the backend lagged), `corrupt` (unreadable), `lost` (gone in a power
            failure), `disabled` (the backend was switched off).
        first: first missing sequence.
        last: last missing sequence, inclusive.
        after_ms: arrival of the last line known before it, None where none is.
        before_ms: arrival of the first line known behind it, None until one is.
        noticed_ms: when it was recorded.
    """

    kind: Kind
    first: int
    last: int
    after_ms: int | None = None
    before_ms: int | None = None
    noticed_ms: int | None = None

    @property
    def lines(self) -> int:
        """How many lines are missing."""
        return self.last - self.first + 1


def add(gaps: tuple[Gap, ...], gap: Gap) -> tuple[Gap, ...]:
    """`gaps` and one more behind them; one that continues the last of its kind lengthens it."""
    if gaps and gaps[-1].kind == gap.kind and gaps[-1].last + 1 == gap.first:
        return (*gaps[:-1], msgspec.structs.replace(gaps[-1], last=gap.last, before_ms=gap.before_ms))
    return (*gaps, gap)


def closed(gaps: tuple[Gap, ...], behind_ms: Mapping[int, int]) -> tuple[Gap, ...]:
    """`gaps` with the times of the lines behind them, as far as they are known by now.

    Args:
        gaps: in order.
        behind_ms: arrival of lines by their sequence, those that may stand right behind a gap.
    """
    found = list(gaps)
    for index in reversed(range(len(found))):
        gap = found[index]
        if gap.before_ms is not None:
            break  # so are those before it
        follower = found[index + 1] if index + 1 < len(found) else None
        time_ms = behind_ms.get(gap.last + 1)
        if time_ms is None and follower is not None and follower.first == gap.last + 1:
            time_ms = follower.before_ms
        if time_ms is not None:
            found[index] = msgspec.structs.replace(gap, before_ms=time_ms)
    return tuple(found)


def rendered(gaps_by_backend: Mapping[str, Iterable[Gap]], epochs: Sequence[Epoch] = ()) -> bytes:
    """The content of `gaps.jsonl`."""
    rows = [
        {"backend": backend, **described(gap), "epochs": within(epochs, gap.first, gap.last)}
        for backend, gaps in gaps_by_backend.items()
        for gap in gaps
    ]
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def described(gap: Gap) -> dict[str, object]:
    """A gap as files show it: times in ISO 8601, UTC, null where unknown."""
    return {
        "kind": gap.kind,
        "first": gap.first,
        "last": gap.last,
        "lines": gap.lines,
        "after": _iso(gap.after_ms),
        "before": _iso(gap.before_ms),
        "noticed": _iso(gap.noticed_ms),
    }


def _iso(time_ms: int | None) -> str | None:
    return None if time_ms is None else iso_time(time_ms)
