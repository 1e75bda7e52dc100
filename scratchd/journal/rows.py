"""Rows: files of JSON objects, one a line, that grow at their end and survive a crash there. Blocking.

A crash may tear the last row. Whoever appends next ends it with a newline first, so that it stays one row that cannot
be read, and whoever reads passes such rows over: each kind says where what a torn one told is found out again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from scratchd.journal.storage import write_whole

Row = TypeVar("Row", bound=msgspec.Struct)


def encoded(rows: Iterable[msgspec.Struct]) -> bytes:
    """As they stand in a file."""
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def append(path: Path, rows: Iterable[msgspec.Struct]) -> None:
    """Puts rows at a file's end, durably; the file is made where it is missing.

    Raises:
        OSError: the disk is full or fails.
    """
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(fd).st_size
        is_torn = size and os.pread(fd, 1, size - 1) != b"\n"
        write_whole(fd, (b"\n" if is_torn else b"") + encoded(rows))
        os.fdatasync(fd)
    finally:
        os.close(fd)


def load(path: Path, row_type: type[Row]) -> Iterator[Row]:
    """The rows that can be read, in order; none where there is no file.

    Raises:
        OSError: it cannot be read.
    """
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield msgspec.json.decode(line, type=row_type)
        except msgspec.MsgspecError:
            continue
