"""Lines that a backend refused for good, kept beside the journal for people and programs; knows no backend and no loop.

Files of one flavor and backend, in the flavor's directory::

    {backend}.set-aside-FIRST.jsonl       FIRST: 20 digits, sequence of the first line in it

A row is one JSON object and a newline: `id` (EPOCH/SEQUENCE, as in the header `scratchd-id`), `time` (of arrival, ISO
8601 in UTC), `reason` (what the backend said), `line` (the line's text, itself JSON). A row is written before the
cursor passes its line, so a crash may repeat rows, never lose one: who reads drops repeated `id`s.

All files of a flavor are inside its quota, and take a quarter of it at most: beyond that the oldest leaves. Another
begins when the last one has 16 MiB, or a quarter of that share. The newest row stays, however long it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from scratchd.journal.storage import sync_directory, write_whole
from scratchd.log import Log

SHARE = 4
"""One part in so many of the quota is for lines set aside, and one part in so many of that for a file."""

MOST_FILE_BYTES = 16 << 20
"""What an editor opens without complaint."""


class Row(msgspec.Struct, frozen=True):
    """One line set aside; see the module's docstring."""

    id: str
    time: str
    reason: str
    line: str


class SetAside:
    """The files of one flavor and backend. Blocking, one call at a time.

    Args:
        backend: its name.

    Raises:
        OSError: the directory cannot be read, or a torn end not be cut.
    """

    def __init__(self, directory: Path, backend: str, quota_bytes: int, log: Log) -> None:
        self._directory = directory
        self._backend = backend
        self.adopt(quota_bytes)
        self._log = log
        self._sizes = {path: path.stat().st_size for path in sorted(directory.glob(f"{backend}.set-aside-*.jsonl"))}
        if self._sizes:
            newest = next(reversed(self._sizes))
            self._sizes[newest] = _cut_torn_end(newest)

    def adopt(self, quota_bytes: int) -> None:
        """Keeps within its share of this quota from the next row on."""
        self._most_bytes = quota_bytes // SHARE
        self._file_bytes = min(MOST_FILE_BYTES, self._most_bytes // SHARE)

    @property
    def total_bytes(self) -> int:
        """Size of all its files."""
        return sum(self._sizes.values())

    def keep(self, rows: Sequence[Row]) -> None:
        """Writes rows durably, in order of their sequences; at least one.

        Raises:
            OSError: they are not sure to be kept: keep them again.
        """
        data = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        newest = next(reversed(self._sizes), None)
        if newest is None or self._sizes[newest] + len(data) > self._file_bytes:
            sequence = int(rows[0].id.partition("/")[2])
            newest = self._directory / f"{self._backend}.set-aside-{sequence:020}.jsonl"
        self._append(newest, data)
        while self.total_bytes > self._most_bytes and len(self._sizes) > 1:
            self._let_leave(next(iter(self._sizes)))

    def _append(self, path: Path, data: bytes) -> None:
        size = self._sizes.get(path, 0)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            write_whole(fd, data)
            os.fdatasync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
            raise
        finally:
            os.close(fd)
        if path not in self._sizes:
            sync_directory(self._directory)
        self._sizes[path] = size + len(data)

    def _let_leave(self, path: Path) -> None:
        self._log.warning(
            "the share of the quota for lines set aside is used up, the oldest file leaves",
            path=path,
            bytes=self._sizes.pop(path),
        )
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._log.warning("a file of lines set aside cannot be deleted", path=path, error=error.strerror)


def _cut_torn_end(path: Path) -> int:
    """Cuts what stands behind the last newline, which its line will bring again; returns the size then."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read() == b"\n":
            return size
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
    return whole
