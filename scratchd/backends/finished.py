"""Finished log files whose manifest is due: read in steps, described, and forgotten. Blocking.

Belongs to the file backend, which closes the files and keeps `marks` in its cursor until the manifests stand. A large
file is read some bytes at a time, so that no line waits for it.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from scratchd.backends import manifest
from scratchd.backends.contract import Gap
from scratchd.backends.manifest import Run, Tally
from scratchd.log import Log
from scratchd.stats import iso_time

_STEP_BYTES = 64 << 20
"""How much is read at a call, once a second: a tenth of a second's work."""

_RETRY_S = 60.0
"""After a disk has refused a manifest."""


@dataclass(slots=True, eq=False)
class _File:
    """A closed file.

    Attributes:
        length: what it must have.
        tally: how far it was read.
        not_before: monotonic seconds; later than now after a failure.
    """

    date: datetime.date
    path: Path
    length: int
    runs: list[Run]
    tally: Tally = field(default_factory=Tally)
    not_before: float = 0.0


class Finished:
    """One flavor's finished files, oldest first.

    Args:
        flavor: its name.
        directory: the flavor's in the journal.
        time_zone: of its days, IANA, None where it is not known.
        gaps: what the backend did not get so far.
        marks: what `marks` gave before the last stop.
    """

    def __init__(
        self,
        flavor: str,
        directory: Path,
        time_zone: str | None,
        log: Log,
        *,
        gaps: Callable[[], Sequence[Gap]],
        marks: Iterable[Mapping[str, Any]],
    ) -> None:
        self._flavor = flavor
        self._directory = directory
        self._time_zone = time_zone
        self._gaps = gaps
        self._log = log
        self._files = [
            _File(datetime.date.fromisoformat(mark["date"]), Path(mark["path"]), mark["length"], runs_of(mark))
            for mark in marks
        ]

    def __len__(self) -> int:
        return len(self._files)

    def marks(self) -> list[dict[str, Any]]:
        """For the cursor."""
        return [{"date": str(file.date), **mark_of(file.path, file.length, file.runs)} for file in self._files]

    def add(self, date: datetime.date, path: Path, length: int, runs: list[Run]) -> None:
        """A file was closed for good; one without a line of ours gets no manifest."""
        if runs:
            self._files.append(_File(date, path, length, runs))

    def take_back(self, path: Path, length: int) -> list[Run]:
        """Lines come back to a file that is `length` bytes long: what is in it, empty where that is not known."""
        again = [file for file in self._files if file.path == path]
        self._files = [file for file in self._files if file.path != path]
        if again:
            return again[-1].runs if again[-1].length == length else []
        earlier = manifest.read(path)
        return list(earlier.runs) if earlier is not None and earlier.bytes == length else []

    def is_due(self) -> bool:
        """Whether `describe` has something to do now."""
        now = time.monotonic()
        return any(file.not_before <= now for file in self._files)

    def describe(self, *, to_the_end: bool) -> None:
        """Goes on with the manifests; failures are logged and tried again later."""
        left_bytes = (1 << 62) if to_the_end else _STEP_BYTES
        for file in [file for file in self._files if file.not_before <= time.monotonic()]:
            before_bytes = file.tally.bytes
            try:
                if not file.tally.read(file.path, left_bytes):
                    return
                self._write(file)
            except FileNotFoundError:
                self._log.warning("gone before its manifest was written", path=file.path)
            except OSError as error:
                self._log.error("a manifest waits", path=manifest.path_of(file.path), error=error.strerror)
                file.not_before = time.monotonic() + _RETRY_S
                file.tally = Tally()
                continue
            left_bytes -= file.tally.bytes - before_bytes
            self._files.remove(file)

    def _write(self, file: _File) -> None:
        tally, runs = file.tally, file.runs
        if tally.bytes != file.length:
            self._log.error(
                "changed after its day was over, it gets no manifest",
                path=file.path,
                expected_bytes=file.length,
                bytes=tally.bytes,
            )
            return
        described = manifest.Manifest(
            flavor=self._flavor,
            date=file.date.isoformat(),
            time_zone=self._time_zone,
            file=str(file.path),
            lines=tally.lines,
            bytes=tally.bytes,
            sha256=tally.sha256,
            first=min(run.first for run in runs),
            last=max(run.last for run in runs),
            runs=runs,
            other_lines=tally.lines - sum(run.last - run.first + 1 for run in runs),
            gaps=manifest.described_gaps(manifest.concerning(self._gaps(), runs)),
            finished=iso_time(time.time_ns() // 1_000_000),
        )
        manifest.write(described, self._directory)
        self._log.info("day finished", path=file.path, lines=tally.lines, bytes=tally.bytes)


def mark_of(path: Path, length: int, runs: Sequence[Run]) -> dict[str, Any]:
    """What the cursor keeps of a file."""
    return {"path": str(path), "length": length, "runs": msgspec.to_builtins(runs)}


def runs_of(mark: Mapping[str, Any]) -> list[Run]:
    """The runs in a mark."""
    return msgspec.convert(mark.get("runs", []), list[Run])
