"""A manifest: what a finished log file is to hold, `LOGFILE.manifest.json` beside it. Blocking.

A file is finished when its day is over in its flavor's zone, nothing of that day waits in the journal, and its cursor
is saved. From then on it does not change, and the manifest says so: who finds one may process the file and can check it
by length and digest. A line that comes back to a finished day (a clock that was set back) takes the manifest away
first, and a new one comes when the file is finished again.

Knows log files and sequences, neither outlet nor supervisor. The same rows, one per line, are kept in the flavor's
directory of the journal (`file.days.jsonl`, the last row for a file counts), so that a file that is lost together with
its manifest can be rebuilt and checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from scratchd.journal import rows
from scratchd.journal.gaps import Gap, described
from scratchd.journal.ranges import Range
from scratchd.journal.storage import replace_durably

DAYS = "file.days.jsonl"

_PIECE_BYTES = 1 << 20


class Run(msgspec.Struct, frozen=True):
    """Lines that follow each other in a file without a break in their sequences, of one epoch; `last` is inclusive."""

    epoch: str
    first: int
    last: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content.

    Attributes:
        version: of this format.
        flavor: its name.
        date: the local day.
        time_zone: the zone of the day, IANA, null where it is not known.
        file: the log file's path.
        lines: in the file.
        bytes: length of the file.
        sha256: of the file, hexadecimal.
        first: first sequence in the file.
        last: last one.
        runs: which sequences the file has, in its order.
        other_lines: lines beside those: they stood there before scratchd began, or the journal had lost them.
        gaps: what the file backend did not get within the day or at its borders, and why.
        finished: when this was written, ISO 8601, UTC.
    """

    version: int = 1
    flavor: str
    date: str
    time_zone: str | None
    file: str
    lines: int
    bytes: int
    sha256: str
    first: int
    last: int
    runs: list[Run]
    other_lines: int
    gaps: list[dict[str, Any]]
    finished: str

    @property
    def ranges(self) -> list[Range]:
        """The sequences in the file."""
        return [(run.first, run.last) for run in self.runs]


def path_of(file: Path) -> Path:
    """Where a log file's manifest stands."""
    return file.with_name(file.name + ".manifest.json")


def read(file: Path) -> Manifest | None:
    """The manifest beside a log file, None where there is none that can be read."""
    try:
        return msgspec.json.decode(path_of(file).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None


def write(manifest: Manifest, directory: Path) -> None:
    """Puts a manifest beside its file and into the flavor's `directory`, durably; twice does no harm.

    Raises:
        OSError: one of the disks fails.
    """
    write_beside(manifest)
    rows.append(directory / DAYS, [manifest])


def write_beside(manifest: Manifest) -> None:
    """Puts a manifest beside its file, durably.

    Raises:
        OSError: the disk fails.
    """
    replace_durably(path_of(Path(manifest.file)), rows.encoded([manifest]))


def remove(file: Path) -> None:
    """Takes a manifest away, since its file goes on."""
    with contextlib.suppress(FileNotFoundError):
        path_of(file).unlink()


def days(directory: Path) -> dict[str, Manifest]:
    """The last manifest of every log file, by its path, from a flavor's directory of the journal.

    Raises:
        OSError: it cannot be read.
    """
    # One torn by a crash was written again behind it.
    return {manifest.file: manifest for manifest in rows.load(directory / DAYS, Manifest)}


def add_run(runs: list[Run], epoch: str, first: int, last: int) -> None:
    """Lengthens the last of `runs`, or adds one."""
    if runs and runs[-1].epoch == epoch and runs[-1].last + 1 == first:
        runs[-1] = Run(epoch, runs[-1].first, last)
    else:
        runs.append(Run(epoch, first, last))


def concerning(gaps: Iterable[Gap], runs: Sequence[Run]) -> list[Gap]:
    """The gaps within the sequences of `runs` or right at their borders: those may have held lines of the day too."""
    ordered = sorted(gaps, key=lambda gap: gap.first)
    first, last = min(run.first for run in runs), max(run.last for run in runs)
    for gap in reversed(ordered):
        if gap.last + 1 == first:
            first = gap.first
    for gap in ordered:
        if gap.first == last + 1:
            last = gap.last
    return [gap for gap in ordered if gap.last >= first and gap.first <= last]


class Tally:
    """Counts and digests a file in steps, so that a large one holds nobody up."""

    def __init__(self) -> None:
        self.bytes = 0
        self.lines = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what was read, hexadecimal."""
        return self._digest.hexdigest()

    def read(self, path: Path, most_bytes: int) -> bool:
        """Reads on; True once the file's end was reached.

        Raises:
            OSError: the file cannot be read.
        """
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            end = self.bytes + most_bytes
            while self.bytes < end:
                piece = os.pread(fd, min(_PIECE_BYTES, end - self.bytes), self.bytes)
                if not piece:
                    return True
                self._digest.update(piece)
                self.lines += piece.count(b"\n")
                self.bytes += len(piece)
        finally:
            os.close(fd)
        return False


def described_gaps(gaps: Iterable[Gap]) -> list[dict[str, Any]]:
    """As a manifest shows them."""
    return [described(gap) for gap in gaps]
