"""Multisets: how often each side of a comparison has each JSON value, on disk, whatever the sides' size.

Knows lines as bytes and digests of four readings of them, from the loosest to the strictest; each implies those above:

| reading | of what |
|---|---|
| `value` | the JSON value as it is compared: names in any order, and normalised if a normaliser is given |
| `plain` | the same without the normaliser |
| `ordered` | names in their order |
| `written` | the line's bytes |

A row a line goes into a SQLite database that nobody else sees and the line itself into a file beside it; SQLite's
sorter, which works on disk, brings equal values together. So memory does not depend on the number of lines, and the
disks (`directory`, and $TMPDIR or /var/tmp, where SQLite sorts) need the size of both sides, unpacked, and some 250
bytes a line. All of it is gone when the comparison ends.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

OLD, NEW = 0, 1
_BATCH_LINES = 10_000
_LINES = """CREATE TABLE line (
    side INTEGER, flavor INTEGER, value BLOB, plain BLOB, ordered BLOB, written BLOB,
    start INTEGER, length INTEGER, place TEXT
)"""

Normaliser = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class NotJson:
    """What a line is that is no JSON document; equal to nothing but its own bytes."""


@dataclass(frozen=True, slots=True)
class Surplus:
    """A value that one side has more often.

    Attributes:
        flavor: whose.
        side: which one, OLD or NEW.
        count: by how many.
        row: of one line that has it, for `line`.
    """

    flavor: str
    side: int
    count: int
    row: int


@dataclass(slots=True)
class Matched:
    """How many lines of both sides have the same value, and how many of them differ in a stricter reading.

    Attributes:
        lines: pairs of lines with the same `value`.
        normalised: of them those with another `plain`.
        order: of the rest those with another `ordered`.
        spelling: of the rest those with another `written`.
        examples: of each of these, rows of a pair.
    """

    lines: int = 0
    normalised: int = 0
    order: int = 0
    spelling: int = 0
    examples: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


def decoded(line: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """The JSON value of a line, `NotJson` for what is none; bytes that are no UTF-8 become surrogates."""
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    except RecursionError:
        return NotJson
    try:
        return json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return NotJson


def encoded(value: Any, *, ordered: bool) -> bytes:  # noqa: ANN401 - any JSON value
    """One serialisation for each JSON value; its names sorted, or in their order."""
    try:
        return msgspec.json.encode(value, order=None if ordered else "sorted")
    except UnicodeEncodeError:
        return json.dumps(value, sort_keys=not ordered).encode()


def digest(data: bytes) -> bytes:
    """16 bytes: among a billion lines two share one with a chance below 10^-20."""
    return hashlib.blake2b(data, digest_size=16).digest()


class Multisets:
    """Both sides; a context.

    Args:
        directory: on whose disk to work.
        normalise: what is compared in place of an object.
        ignored: top-level names that are left out.

    Attributes:
        lines: of each side.
        not_json: lines of each side that are no JSON.
        repeated: messages of each side that had been there before.
    """

    def __init__(self, directory: Path, normalise: Normaliser | None, ignored: Iterable[str]) -> None:
        self._normalise = normalise
        self._ignored = frozenset(ignored)
        self._directory = tempfile.TemporaryDirectory(prefix="scratchd-compare-", dir=directory)
        place = Path(self._directory.name)
        self._spool = (place / "lines").open("w+b")
        self._end = 0
        self._database = sqlite3.connect(place / "rows", isolation_level=None)
        self._flavors: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self._names: dict[str, int] = {}
        self.lines = [0, 0]
        self.not_json = [0, 0]
        self.repeated = [0, 0]
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "PRAGMA cache_size = -32768",
            _LINES,
            "CREATE TABLE seen (side INTEGER, identity BLOB, PRIMARY KEY (side, identity)) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(statement)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._spool.close()
        self._directory.cleanup()

    def add(self, side: int, lines: Iterable[tuple[str, bytes, str, str]]) -> None:
        """Takes lines: flavor, line, identity (empty, or lines that share it are one), and where it was found.

        Raises:
            OSError: the disk is full or fails; `sqlite3.OperationalError` alike.
        """
        batch: list[tuple[object, ...]] = []
        for flavor, line, identity, place in lines:
            if identity and not self._is_first(side, identity):
                self.repeated[side] += 1
                continue
            self._flavors[side].setdefault(flavor, 0)
            number = self._names.setdefault(flavor, len(self._names))
            self._spool.write(line)
            batch.append((side, number, *self._readings(side, line), self._end, len(line), place))
            self._end += len(line)
            self.lines[side] += 1
            if len(batch) == _BATCH_LINES:
                self._insert(batch)
                batch.clear()
        self._insert(batch)

    def _is_first(self, side: int, identity: str) -> bool:
        row = (side, digest(identity.encode()))
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", row).rowcount > 0

    def _insert(self, batch: list[tuple[object, ...]]) -> None:
        self._database.executemany("INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", batch)

    def _readings(self, side: int, line: bytes) -> tuple[bytes, bytes | None, bytes, bytes]:
        """The digests; only that of the value needs all its bytes, the others are compared within one value."""
        written = digest(line)
        value = decoded(line)
        if value is NotJson:
            self.not_json[side] += 1
            return digest(b"!" + line), None, b"", written[:8]
        ordered = encoded(value, ordered=True)
        if isinstance(value, dict):
            for name in self._ignored & value.keys():
                del value[name]
        plain = digest(encoded(value, ordered=False))
        order = written[:8] if ordered == line else digest(ordered)[:8]
        if self._normalise is None or not isinstance(value, dict):
            return plain, None, order, written[:8]
        return digest(encoded(self._normalise(value), ordered=False)), plain[:8], order, written[:8]

    @property
    def by_flavor(self) -> bool:
        """Whether both sides tell flavors; where one of them does not, they are compared as one."""
        return all(set(flavors) != {""} for flavors in self._flavors)

    def matched(self, surplus: Callable[[Surplus], None], examples: int) -> dict[str, Matched]:
        """Compares, in one sorted pass.

        Args:
            surplus: called with everything that the sides have not equally often.
            examples: how many of each kind are kept.

        Returns:
            By flavor what they have in common.
        """
        names = {number: name for name, number in self._names.items()} if self.by_flavor else {0: ""}
        found = {name: Matched() for name in sorted(names.values())}
        flavor = "flavor" if self.by_flavor else "0"
        rows = self._database.execute(
            f"SELECT {flavor}, value, plain, ordered, written, SUM(side = 0), SUM(side = 1),"  # noqa: S608 - of two words
            " MIN(CASE side WHEN 0 THEN rowid END), MIN(CASE side WHEN 1 THEN rowid END)"
            " FROM line GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"
        )
        for (number, _), group in groupby((_Row(*row) for row in rows), key=lambda row: row[:2]):
            _match(names[number], list(group), found[names[number]], surplus, examples)
        return found

    def line(self, row: int) -> tuple[bytes, str]:
        """A line and where it was found."""
        start, length, place = self._database.execute(
            "SELECT start, length, place FROM line WHERE rowid = ?", (row,)
        ).fetchone()
        self._spool.seek(start)
        return self._spool.read(length), place


class _Row(NamedTuple):
    """One spelling of a value: how often each side has it, and one line of each."""

    flavor: int
    value: bytes
    plain: bytes | None
    ordered: bytes
    written: bytes
    old: int
    new: int
    old_row: int | None
    new_row: int | None


def _match(flavor: str, rows: list[_Row], found: Matched, surplus: Callable[[Surplus], None], examples: int) -> None:
    """One value: `rows` are its spellings."""
    old, new = sum(row.old for row in rows), sum(row.new for row in rows)
    same = min(old, new)
    found.lines += same
    if old > new:
        row = next(row.old_row for row in rows if row.old > row.new)
        surplus(Surplus(flavor, OLD, old - new, row or 0))
    elif new > old:
        row = next(row.new_row for row in rows if row.new > row.old)
        surplus(Surplus(flavor, NEW, new - old, row or 0))
    for name, columns in (("normalised", slice(2, 3)), ("order", slice(2, 4)), ("spelling", slice(2, 5))):
        alike = _alike(rows, columns)
        if alike < same:
            setattr(found, name, getattr(found, name) + same - alike)
            kept = found.examples.setdefault(name, [])
            if len(kept) < examples and (pair := _pair(rows, columns)):
                kept.append(pair)
        same = alike


def _alike(rows: list[_Row], columns: slice) -> int:
    """How many lines of both sides agree in these columns too."""
    if len(rows) == 1:
        return min(rows[0].old, rows[0].new)
    groups = (list(group) for _, group in groupby(rows, key=lambda row: row[columns]))
    return sum(min(sum(row.old for row in group), sum(row.new for row in group)) for group in groups)


def _pair(rows: list[_Row], columns: slice) -> tuple[int, int] | None:
    """One line of each side that do not agree in these columns."""
    for one in rows:
        for other in rows:
            if one.old_row and other.new_row and one[columns] != other[columns]:
                return one.old_row, other.new_row
    return None
