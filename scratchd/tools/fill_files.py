"""Filling log files from Kafka's topics: recorded gaps, and days whose file is lost. Never edits a file that stands.

A gap's lines go beside the day's own file, `{date}.backfill-FIRST-LAST.log`, in order; a lost day's file comes back as
it was. Either is written under another name, synced, and put in its place whole, so a kill leaves nothing half done and
the next run finds out what is left to do. What Kafka refused as too large is in the journal's file of set-aside lines,
and taken from there.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from scratchd.backends import manifest
from scratchd.backends.logfile import make_directories
from scratchd.backends.manifest import Manifest
from scratchd.journal.ranges import Range, common, count, merged, shown, without
from scratchd.journal.storage import sync_directory
from scratchd.stats import iso_time
from scratchd.tools import backfilled
from scratchd.tools.backfilled import Filled
from scratchd.tools.records import Record
from scratchd.tools.report import Report
from scratchd.tools.spool import Found, Spool
from scratchd.tools.table import counted
from scratchd.tools.topics import Message, Topics

SET_ASIDE = "kafka.set-aside*"


class _SetAside(msgspec.Struct, frozen=True):
    id: str
    time: str
    line: str


class FileFiller:
    """Fills one flavor's files."""

    def __init__(self, record: Record, topics: Topics, report: Report, now_ms: int, *, dry_run: bool) -> None:
        self._record = record
        self._topics = topics
        self._report = report
        self._now_ms = now_ms
        self._dry_run = dry_run

    # Gaps.

    def fill_gaps(self) -> None:
        """Fills what is not filled of the file backend's gaps.

        Raises:
            TopicError: a topic cannot be read.
            OSError: a disk fails.
        """
        cursor = self._record.cursors.get("file")
        if cursor is None or not cursor.gaps:
            return
        left = without(self._record.gaps("file"), backfilled.ranges(self._record.directory, "file"))
        if not left:
            return
        if self._record.template is None:
            self._report.problem(f"{self._record.flavor}: neither the configuration nor its cursor has a path for it")
            return
        open_gaps = [gap for gap in cursor.gaps if common([(gap.first, gap.last)], left)]
        since_ms = None if any(gap.after_ms is None for gap in open_gaps) else open_gaps[0].after_ms
        with self._spooled(left, since_ms) as spool:
            for first, last in left:
                self._write_range(spool, first, last)
            missing = spool.missing()
        if missing:
            self._report.problem(
                f"{self._record.flavor}: {counted(count(missing), 'line')} in no topic any more: {shown(missing)}",
                count(missing),
            )

    def _write_range(self, spool: Spool, first: int, last: int) -> None:
        by_date: dict[datetime.date, list[int]] = {}
        for found in spool.lines(first, last):
            by_date.setdefault(self._date(found.time_ms), []).append(found.sequence)
        for date, sequences in sorted(by_date.items()):
            day = self._record.path(date.isoformat())
            if day is None:
                continue
            path = day.with_name(f"{day.stem}.backfill-{first}-{last}{day.suffix}")
            ranges = merged((sequence, sequence) for sequence in sequences)
            self._report.filled(f"{self._record.flavor}: {counted(len(sequences), 'line')} into {path}", len(sequences))
            if not self._dry_run:
                self._write_backfill(spool, path, ranges)

    def _write_backfill(self, spool: Spool, path: Path, ranges: list[Range]) -> None:
        new = _written(path, (found.value for first, last in ranges for found in spool.lines(first, last)))
        if path.exists() and not _holds(new.path, path):
            new.path.unlink()
            lines = count(ranges)
            self._report.problem(f"{path}: stands there and holds something else; move it away", lines, undone=lines)
            return
        new.path.replace(path)
        sync_directory(path.parent)
        row = Filled(
            backend="file",
            ranges=ranges,
            lines=count(ranges),
            at=iso_time(self._now_ms),
            file=str(path),
            bytes=new.bytes,
        )
        backfilled.add(self._record.directory, row)

    # Lost days.

    def rebuild(self, date: datetime.date) -> None:
        """Writes a day's log file anew, where none stands.

        Raises:
            TopicError: a topic cannot be read.
            OSError: a disk fails.
        """
        known = known_files(self._record)
        for path, expected in known.items():
            if expected.date == date.isoformat():
                self._rebuild_known(path, expected)
        if not any(expected.date == date.isoformat() for expected in known.values()):
            self._rebuild_unknown(date)

    def _rebuild_known(self, path: Path, expected: Expected) -> None:
        name, lines = self._record.flavor, count(expected.ranges)
        if path.exists():
            if path.stat().st_size < expected.bytes:
                self._report.problem(f"{path}: stands, shorter than it was; move it away", lines)
            else:
                self._report.note(f"{path}: stands, nothing to do")
            return
        if expected.other_lines:
            self._report.problem(f"{path}: {counted(expected.other_lines, 'line')} in it had no sequence", lines)
            return
        midnight_ms = self._midnight_ms(datetime.date.fromisoformat(expected.date))
        with self._spooled(expected.ranges, midnight_ms) as spool:
            if missing := spool.missing():
                what = f"{counted(count(missing), 'line')} in no topic any more: {shown(missing)}"
                self._report.problem(f"{name}: {path} cannot be rebuilt: {what}", lines)
                return
            self._put(path, spool, expected.ranges, expected)

    def _rebuild_unknown(self, date: datetime.date) -> None:
        """No record says what the day's file held: what the topics have of that day, without gaps of the file."""
        path = self._record.path(date.isoformat())
        if path is None or path.exists():
            self._report.note(f"{path}: stands, nothing to do" if path else f"{self._record.flavor}: no path is known")
            return
        sequences = [
            message.sequence
            for message in self._messages(self._midnight_ms(date), lambda: False)
            if self._date(message.time_ms) == date
        ]
        ranges = without(merged((sequence, sequence) for sequence in sequences), self._record.gaps("file"))
        if not ranges:
            self._report.problem(f"{self._record.flavor}: the topics have no line of {date}")
            return
        inside = without([(ranges[0][0], ranges[-1][1])], [*ranges, *self._record.gaps("file")])
        if inside:
            what = f"{counted(count(inside), 'line')} in no topic any more: {shown(inside)}"
            self._report.problem(f"{self._record.flavor}: {path} cannot be rebuilt: {what}", count(ranges))
            return
        self._report.note(f"{path}: no record says what it held, rebuilt from what the topics have of {date}")
        with self._spooled(ranges, self._midnight_ms(date)) as spool:
            self._put(path, spool, ranges, None)

    def _put(self, path: Path, spool: Spool, ranges: Sequence[Range], expected: Expected | None) -> None:
        lines = count(ranges)
        self._report.filled(f"{self._record.flavor}: {counted(lines, 'line')} into {path}", lines)
        if self._dry_run:
            return
        new = _written(path, (found.value for first, last in ranges for found in spool.lines(first, last)))
        try:
            if expected and (new.bytes != expected.bytes or expected.sha256 not in {"", new.sha256}):
                self._report.problem(f"{path}: what the topics have is not what the file was", lines, undone=lines)
                return
            os.link(new.path, path)  # unlike a rename it replaces nothing
        except FileExistsError:
            self._report.problem(f"{path}: stands there since a moment ago", lines, undone=lines)
        finally:
            new.path.unlink()
        sync_directory(path.parent)
        if expected and expected.manifest and manifest.read(path) is None:
            manifest.write_beside(expected.manifest)

    # Lines.

    def _date(self, time_ms: int) -> datetime.date:
        return datetime.datetime.fromtimestamp(time_ms // 1000, self._record.zone).date()

    def _midnight_ms(self, date: datetime.date) -> int:
        midnight = datetime.datetime.combine(date, datetime.time(), self._record.zone)
        return int(midnight.timestamp() * 1000)

    @contextlib.contextmanager
    def _spooled(self, wanted: Sequence[Range], since_ms: int | None) -> Iterator[Spool]:
        """Everything of `wanted` that the topics have, or the set-aside lines."""
        with Spool(wanted, self._spool_directory()) as spool:
            for found in set_aside(self._record):
                spool.add(found.sequence, found.time_ms, found.value)
            for message in self._messages(since_ms, lambda: not spool.left):
                spool.add(message.sequence, message.time_ms, message.value)
            yield spool

    def _messages(self, since_ms: int | None, is_enough: Callable[[], bool]) -> Iterator[Message]:
        """The lines of this journal in all topics: what came since then first, then, if needed, what is older."""
        for topic in reversed(self._record.topics):
            if is_enough():
                return
            spans = self._topics.spans(topic)
            before, behind = self._topics.since(topic, spans, since_ms)
            for part in (behind, before):
                total = sum(high - low for low, high in part.values())
                with self._report.progress(f"reading {topic}", total) as progress:
                    for message in self._topics.read(topic, self._record.flavor, part, progress.add):
                        if self._record.epoch_of(message.sequence) == message.epoch:
                            yield message
                        if is_enough():
                            return

    def _spool_directory(self) -> Path:
        """On the log files' disk: the journal's is what answers depend on."""
        path = self._record.path("date") or self._record.directory / "x"
        while not path.parent.exists():
            path = path.parent
        return path.parent


@dataclass(frozen=True, slots=True)
class Expected:
    """What a log file is known to have held; `sha256` is empty and `manifest` None while its day is not finished."""

    date: str
    ranges: Sequence[Range]
    bytes: int
    other_lines: int
    sha256: str
    manifest: Manifest | None


def known_files(record: Record) -> dict[Path, Expected]:
    """The log files that the records know: finished ones by their manifests, the others by the cursor's marks."""
    known = {
        Path(path): Expected(day.date, day.ranges, day.bytes, day.other_lines, day.sha256, day)
        for path, day in manifest.days(record.directory).items()
    }
    replay = record.cursors["file"].replay if "file" in record.cursors else {}
    marks = [(date, mark) for date, mark in replay.get("files", {}).items()]
    marks += [(mark["date"], mark) for mark in replay.get("finished", ())]
    for date, mark in marks:
        ranges = [(run["first"], run["last"]) for run in mark.get("runs", ())]
        known[Path(mark["path"])] = Expected(date, ranges, mark["length"], 0, "", None)
    return known


def set_aside(record: Record) -> Iterator[Found]:
    """The lines that Kafka refused for good and scratchd kept."""
    for path in sorted(record.directory.glob(SET_ASIDE)):
        for line in path.read_bytes().splitlines():
            try:
                row = msgspec.json.decode(line, type=_SetAside)
                time_ms = int(datetime.datetime.fromisoformat(row.time).timestamp() * 1000)
            except (msgspec.MsgspecError, ValueError):
                continue
            epoch, _, sequence = row.id.partition("/")
            if sequence.isdecimal() and record.epoch_of(int(sequence)) == epoch:
                yield Found(int(sequence), time_ms, row.line.encode())


@dataclass(frozen=True, slots=True)
class _New:
    path: Path
    bytes: int
    sha256: str


def _written(path: Path, lines: Iterable[bytes]) -> _New:
    """A synced file beside `path`, to be put in its place."""
    make_directories(path.parent)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)  # of a run that was killed
    size, digest = 0, hashlib.sha256()
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640), "wb") as file:
        os.fchmod(file.fileno(), 0o640)
        for line in lines:
            data = line + b"\n"
            file.write(data)
            digest.update(data)
            size += len(data)
        file.flush()
        os.fsync(file.fileno())
    return _New(new, size, digest.hexdigest())


def _holds(new: Path, old: Path) -> bool:
    """Whether every line of `old` is in `new`, in its order."""
    with new.open("rb") as lines, old.open("rb") as earlier:
        return all(line in lines for line in earlier)
