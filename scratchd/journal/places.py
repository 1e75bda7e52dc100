"""Places: where in which file a backend put which sequences, so that a gap of another backend can be filled from there.

`{backend}.places.jsonl` in the flavor's directory, written by a backend that writes files; knows no backend. A row
`{"sequence", "path", "offset", "epoch", "time_ms"}` says: the line `sequence`, of that epoch, which arrived then,
begins at that byte of that file, and the next ones follow it, up to the next row's sequence. A row without a path ends
that: the sequences from it on are in no file. A new row comes where anything in that breaks, and at least every minute
and every 16 MiB, which bounds both the search and the error of a line's time.

A row supersedes all earlier ones at or beyond its sequence: after a crash the backend takes the lines behind its cursor
again and says anew where they stand. Rows are synced before the cursor that counts on them; where the disk has no room
for them, the cursor says from where on they are missing, and moves on: it is what makes room. Those that nobody can
need any more leave at a start. Blocking.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from scratchd.journal import rows
from scratchd.journal.ranges import Range
from scratchd.journal.storage import replace_durably

STEP_MS = 60_000
STEP_BYTES = 16 << 20


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row; see above. `path` is empty where nothing is known from `sequence` on."""

    sequence: int
    path: str = ""
    offset: int = 0
    epoch: str = ""
    time_ms: int = 0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Lines that follow each other in a file.

    Attributes:
        offset: where the line `known_sequence` begins, at or before `first`.
        first: first sequence wanted.
        last: last one, inclusive.
        time_ms: arrival of the line at `offset`: the others came at most about a minute later.
    """

    path: Path
    offset: int
    known_sequence: int
    first: int
    last: int
    epoch: str
    time_ms: int


class Places:
    """The writing end.

    Args:
        path: of the file; `path_of`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[Place] = []
        self._last = Place(-1)
        self._next: tuple[int, str, int, str] | None = None

    def wrote(self, place: Place, count: int, size: int) -> None:
        """Notes that `count` lines, `size` bytes, stand at `place`."""
        if self._next != (place.sequence, place.path, place.offset, place.epoch) or self._is_far(place):
            self._last = place
            self._rows.append(place)
        self._next = (place.sequence + count, place.path, place.offset + size, place.epoch)

    def _is_far(self, place: Place) -> bool:
        last = self._last
        return place.offset - last.offset >= STEP_BYTES or not 0 <= place.time_ms - last.time_ms < STEP_MS

    def missed(self, sequence: int) -> None:
        """Notes that the sequences from this one on are in no file, until the next `wrote`."""
        self._next = None
        self._rows.append(Place(sequence))

    @property
    def unsaved_from(self) -> int | None:
        """From which sequence on rows are not durable, None where all are."""
        return self._rows[0].sequence if self._rows else None

    def save(self) -> None:
        """Makes what was noted durable.

        Raises:
            OSError: the journal's disk is full or fails; it is tried again with the next call.
        """
        if not self._rows:
            return
        rows.append(self._path, self._rows)
        self._rows.clear()


def path_of(directory: Path, backend: str) -> Path:
    """Where a backend's places are kept."""
    return directory / f"{backend}.places.jsonl"


def load(path: Path) -> list[Place]:
    """The rows that count, in order of their sequences; none where there is no file. Torn rows are passed over.

    Raises:
        OSError: it cannot be read.
    """
    found: list[Place] = []
    for place in rows.load(path, Place):
        while found and found[-1].sequence >= place.sequence:
            found.pop()
        found.append(place)
    return found


def stretches(places: Sequence[Place], ranges: Iterable[Range]) -> Iterator[Stretch]:
    """Where the lines of `ranges` stand, in order, as far as that is known."""
    ends = [row.sequence - 1 for row in places[1:]] + [None]
    there = _standing(places)
    for wanted_first, wanted_last in ranges:
        for index, (row, end) in enumerate(zip(places, ends, strict=False)):
            first = max(wanted_first, row.sequence)
            last = wanted_last if end is None else min(wanted_last, end)
            if index in there and first <= last:
                yield Stretch(Path(row.path), row.offset, row.sequence, first, last, row.epoch, row.time_ms)


def _standing(places: Sequence[Place]) -> set[int]:
    """Indices of the rows whose file still is what its path names, as far as the rows tell.

    Within a file offsets only grow: where one does not, the file was moved away, deleted or cut, and begun anew.
    """
    by_path: dict[str, list[int]] = {}
    for index, row in enumerate(places):
        if not row.path:
            continue
        known = by_path.setdefault(row.path, [])
        if known and places[known[-1]].offset >= row.offset:
            while known and places[known[-1]].offset >= row.offset:
                known.pop()
            del known[-1:]  # its lines may reach beyond the cut
        known.append(index)
    return {index for known in by_path.values() for index in known}


def prune(path: Path, ranges: Iterable[Range], onward: int) -> None:
    """Drops the rows that say nothing of any sequence in `ranges` or at or beyond `onward`.

    Raises:
        OSError: it could not be written; the old rows stay.
    """
    places = load(path)
    wanted = list(ranges)
    ends: list[int | None] = [*(row.sequence for row in places[1:]), None]
    kept: list[Place] = []
    for row, end in zip(places, ends, strict=False):
        needed = end is None or end > onward or any(row.sequence <= last and first < end for first, last in wanted)
        if needed and row.path:
            kept.append(row)
        elif kept and kept[-1].path:
            kept.append(Place(row.sequence))
    if len(kept) < len(places):
        replace_durably(path, rows.encoded(kept))
