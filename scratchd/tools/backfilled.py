"""What was backfilled: `backfilled.jsonl` in the flavor's directory, a row per file written or topic filled.

Its own file, since cursors and `gaps.jsonl` belong to the running instance: a gap stays a gap in the ledger, and which
of its lines were filled is said here. Blocking.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from scratchd.journal import rows
from scratchd.journal.ranges import Range, merged

NAME = "backfilled.jsonl"


class Filled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row.

    Attributes:
        backend: whose gap was filled.
        ranges: sequences that it has now.
        lines: how many.
        at: when, ISO 8601, UTC.
        file: what was written; empty for Kafka.
        bytes: its length.
        topic: where they went; empty for files.
    """

    backend: str
    ranges: list[Range]
    lines: int
    at: str
    file: str = ""
    bytes: int = 0
    topic: str = ""


class BusyError(Exception):
    """Another backfill of this flavor runs."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One backfill of a flavor at a time, beside a running instance.

    Raises:
        BusyError: another one runs.
        OSError: the directory cannot be written to.
    """
    fd = os.open(directory / "backfill.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{directory}: another backfill runs") from None
        yield
    finally:
        os.close(fd)


def add(directory: Path, filled: Filled) -> None:
    """Appends a row, durably.

    Raises:
        OSError: the disk fails.
    """
    rows.append(directory / NAME, [filled])


def ranges(directory: Path, backend: str) -> list[Range]:
    """What of a backend's gaps is filled; a file that is gone or shorter than it was fills nothing."""
    return merged(filled for row in load(directory) if row.backend == backend and _stands(row) for filled in row.ranges)


def load(directory: Path) -> list[Filled]:
    """Every row that can be read; what one torn by a crash would have said is found out again."""
    return list(rows.load(directory / NAME, Filled))


def _stands(row: Filled) -> bool:
    if not row.file:
        return True
    try:
        return Path(row.file).stat().st_size == row.bytes
    except OSError:
        return False
