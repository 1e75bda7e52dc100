"""`scratchd audit`: whether what was received is all accounted for, from journal, cursors, files and topics at rest.

Reads everything and changes nothing; holds the journal's lock meanwhile, so that nothing moves. A *finding* is
something that does not hold, and makes the command fail; a *note* is something that could not be checked, and why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import msgspec

from scratchd.backends import manifest
from scratchd.backends.manifest import Tally
from scratchd.config import Config
from scratchd.config.credentials import CredentialError
from scratchd.journal.cursor import Cursor
from scratchd.journal.flavor import JournalLockedError, locked
from scratchd.journal.format import SEGMENT_HEAD_BYTES, Frame, SegmentName, scan
from scratchd.journal.ranges import Range, Sequences, common, count, merged, shown, without
from scratchd.tools import backfilled, records
from scratchd.tools.fill_files import Expected, known_files, set_aside
from scratchd.tools.records import Record
from scratchd.tools.report import Report
from scratchd.tools.table import columns, counted, number
from scratchd.tools.topics import TopicError, Topics, opened


class AuditError(Exception):
    """Nothing can be audited: the instance runs, or it has no journal."""


@dataclass(slots=True)
class Ledger:
    """One backend's side of a flavor; `residual_lines` must be 0."""

    persisted_lines: int
    pending_lines: int
    gap_lines: int
    backfilled_lines: int
    set_aside_lines: int
    residual_lines: int


@dataclass(slots=True)
class Day:
    """A log file and what is known that it must hold.

    Attributes:
        state: `ok`, `open` (its day is not over; what the cursor counts on was checked), `gone` or `differs`.
    """

    date: str
    file: str
    lines: int
    bytes: int
    state: str


@dataclass(slots=True)
class Audited:
    """What was found about one flavor."""

    flavor: str
    received_lines: int = 0
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    days: list[Day] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    checked_from: int | None = None
    found_lines: int = 0
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run(config: Config, flavor: str | None, out: TextIO, terminal: TextIO, *, as_json: bool) -> bool:
    """Audits and prints.

    Returns:
        Whether everything holds.

    Raises:
        AuditError: the instance runs, or has no journal, or none of that flavor.
    """
    report = Report(out, terminal)
    with _at_rest(config), contextlib.ExitStack() as stack:
        topics = _topics_at(config, stack)
        try:
            audited = [_audit(record, config, topics, report) for record in records.read(config, flavor)]
        except records.RecordError as error:
            raise AuditError(str(error)) from error
    findings = [f"{flavor.flavor}: {finding}" for flavor in audited for finding in flavor.findings]
    if as_json:
        document = {"holds": not findings, "flavors": {one.flavor: one for one in audited}}
        out.write(msgspec.json.encode(document).decode() + "\n")
    else:
        out.write(_page(audited, findings) + "\n")
    return not findings


@contextlib.contextmanager
def _at_rest(config: Config) -> Iterator[None]:
    directory = config.journal_directory
    if not directory.is_dir():
        raise AuditError(f"{directory}: there is no journal here")
    try:
        with locked(directory):
            yield
    except JournalLockedError as error:
        raise AuditError(f"the instance runs, and an audit needs it at rest: {error}") from error
    except OSError as error:
        raise AuditError(f"{error.filename or directory}: {error.strerror}") from error


def _topics_at(config: Config, stack: contextlib.ExitStack) -> Topics | str:
    """Who reads topics, or why nobody can."""
    if not config.kafka.bootstrap_servers:
        return "the configuration has no kafka.bootstrap_servers"
    try:
        return stack.enter_context(opened(config))
    except CredentialError as error:
        return str(error)


def _audit(record: Record, config: Config, topics: Topics | str, report: Report) -> Audited:
    audited = Audited(record.flavor)
    audited.findings += record.unreadable.values()
    stored, end = _journal(record.directory)
    audited.received_lines = max([end, *(cursor.next_sequence for cursor in record.cursors.values())])
    for backend, cursor in sorted(record.cursors.items()):
        _audit_ledger(audited, record, backend, cursor, stored)
    _audit_files(audited, record, report)
    if "kafka" in record.cursors:
        _audit_set_aside(audited, record)
        if isinstance(topics, str):
            audited.notes.append(f"kafka: topics were not read: {topics}")
        else:
            _audit_topics(audited, record, topics, report)
    elif config.kafka.enabled:
        audited.notes.append("Kafka is enabled and has no cursor yet")
    return audited


def _journal(directory: Path) -> tuple[list[Range], int]:
    """Which sequences the segments hold, and the one behind the last."""
    names = sorted(name for entry in directory.iterdir() if (name := SegmentName.parse(entry.name)))
    ends: list[int | None] = [*(name.first_sequence for name in names[1:]), None]
    held: list[Range] = []
    last = 0
    for name, end in zip(names, ends, strict=True):
        last = max(last, name.first_sequence)
        for piece in scan((directory / str(name)).read_bytes(), SEGMENT_HEAD_BYTES, name.epoch):
            if isinstance(piece, Frame):
                stop = piece.end_sequence if end is None else min(piece.end_sequence, end)
                held.append((piece.first_sequence, stop - 1))
                last = max(last, stop)
    return merged(held), last


def _audit_ledger(audited: Audited, record: Record, backend: str, cursor: Cursor, stored: list[Range]) -> None:
    gaps = merged(record.gaps(backend))
    pending = audited.received_lines - cursor.next_sequence
    accounted = cursor.persisted_lines + pending + cursor.gap_lines + cursor.set_aside_lines
    residual = audited.received_lines - accounted
    audited.ledgers[backend] = Ledger(
        persisted_lines=cursor.persisted_lines,
        pending_lines=pending,
        gap_lines=cursor.gap_lines,
        backfilled_lines=count(common(gaps, backfilled.ranges(record.directory, backend))),
        set_aside_lines=cursor.set_aside_lines,
        residual_lines=residual,
    )
    if residual:
        audited.findings.append(f"{backend}: {counted(residual, 'line')} received and not accounted for")
    if count(gaps) != cursor.gap_lines:
        audited.findings.append(f"{backend}: gaps overlap in its cursor")
    if pending:
        unreadable = without([(cursor.next_sequence, audited.received_lines - 1)], stored)
        if unreadable:
            what = f"{counted(count(unreadable), 'pending line')} not in the journal: {shown(unreadable)}"
            audited.findings.append(f"{backend}: {what}; the next start makes a gap of them")


# Files.


def _audit_files(audited: Audited, record: Record, report: Report) -> None:
    known = known_files(record)
    with report.progress(f"reading files of {record.flavor}", sum(one.bytes for one in known.values())) as progress:
        for path, expected in sorted(known.items(), key=lambda item: (item[1].date, item[0])):
            audited.days.append(_audit_file(audited, path, expected))
            progress.add(expected.bytes)
    cursor = record.cursors.get("file")
    if cursor is None:
        return
    in_files = merged(one for expected in known.values() for one in expected.ranges)
    claimed = without([(0, cursor.next_sequence - 1)], record.gaps("file"))
    twice = sum(count(expected.ranges) for expected in known.values()) - count(in_files)
    if twice:
        audited.notes.append(f"{counted(twice, 'line')} stand in more than one file: a day went on at another path")
    if alien := common(in_files, record.gaps("file")):
        audited.findings.append(f"file: {shown(alien)} are in a file and in a gap")
    if missing := without(claimed, in_files):
        what = f"{counted(count(missing), 'persisted line')} in no file on record: {shown(missing)}"
        audited.notes.append(f"file: {what}; files moved or deleted within their day leave no record")


def _audit_file(audited: Audited, path: Path, expected: Expected) -> Day:
    day = Day(expected.date, str(path), count(expected.ranges) + expected.other_lines, expected.bytes, "ok")
    beside = manifest.read(path)
    tally = Tally()
    try:
        # Of an open day's file only what the cursor counts on is sure: behind it stands what a kill left.
        tally.read(path, (1 << 62) if expected.manifest else expected.bytes)
    except FileNotFoundError:
        day.state = "gone"
        if beside is not None:
            audited.findings.append(f"{path}: gone, and its manifest stands")
        else:
            audited.notes.append(f"{path}: gone, its manifest too")
        return day
    except OSError as error:
        day.state = "differs"
        audited.findings.append(f"{path}: {error.strerror}")
        return day
    if expected.manifest is None:
        day.state = "open"
        if tally.bytes < expected.bytes or tally.lines < day.lines:
            day.state = "differs"
            audited.findings.append(
                f"{path}: {number(tally.lines)} lines in {number(tally.bytes)} bytes, the cursor counts on "
                f"{number(day.lines)} in {number(expected.bytes)}"
            )
        return day
    if (tally.bytes, tally.lines, tally.sha256) != (expected.bytes, day.lines, expected.sha256):
        day.state = "differs"
        audited.findings.append(
            f"{path}: not what its manifest says: {number(tally.lines)} lines, {number(tally.bytes)} bytes, sha256 "
            f"{tally.sha256[:12]}…; expected {number(day.lines)}, {number(expected.bytes)}, {expected.sha256[:12]}…"
        )
    elif beside is None:
        audited.findings.append(f"{manifest.path_of(path)}: gone or unreadable")
    elif beside.sha256 != expected.sha256:
        audited.findings.append(f"{manifest.path_of(path)}: differs from what was written")
    return day


# Kafka.


def _audit_set_aside(audited: Audited, record: Record) -> None:
    cursor = record.cursors["kafka"]
    kept = len({found.sequence for found in set_aside(record)})
    if kept < cursor.set_aside_lines:
        what = f"{number(cursor.set_aside_lines)} lines were set aside, {number(kept)} are in the files of them"
        audited.notes.append(f"kafka: {what}; the oldest leave at the quota")


def _audit_topics(audited: Audited, record: Record, reader: Topics, report: Report) -> None:
    """Whether the topics hold what the cursor says is persisted, as far back as retention reaches."""
    cursor = record.cursors["kafka"]
    there = Sequences()
    audited.topics = list(record.topics)
    unsure = 0
    for topic in record.topics:
        try:
            unsure = max(unsure, _read_topic(record, topic, reader, report, there))
        except TopicError as error:
            audited.findings.append(f"kafka: {error}")
            return
    claimed = without([(0, cursor.next_sequence - 1)], record.gaps("kafka"))
    claimed = without(claimed, [(found.sequence, found.sequence) for found in set_aside(record)])
    filled = common(record.gaps("kafka"), backfilled.ranges(record.directory, "kafka"))
    checked = common([*claimed, *filled], [(unsure, cursor.next_sequence - 1)])
    missing = there.missing(checked)
    audited.found_lines = len(there)
    audited.checked_from = unsure
    if unsure:
        audited.notes.append(f"kafka: retention has let go of lines below sequence {unsure}, those were not looked for")
    if missing:
        what = f"{counted(count(missing), 'line')} persisted and not there: {shown(missing)}"
        audited.findings.append(f"kafka: topic {', '.join(record.topics)}: {what}")


def _read_topic(record: Record, topic: str, reader: Topics, report: Report, there: Sequences) -> int:
    """Adds what a topic has to `there`; returns the sequence below which retention may have let go of lines."""
    spans = reader.spans(topic)
    firsts: dict[int, int] = {}
    highest = 0
    with report.progress(f"reading {topic}", sum(high - low for low, high in spans.values())) as progress:
        for message in reader.read(topic, record.flavor, spans, progress.add):
            if record.epoch_of(message.sequence) == message.epoch:
                there.add(message.sequence)
                firsts.setdefault(message.partition, message.sequence)
                highest = max(highest, message.sequence)
    shortened = [partition for partition, (low, _) in spans.items() if low > 0]
    # A partition without any line left may have had every one up to now.
    return max([firsts.get(partition, highest + 1) for partition in shortened], default=0)


# The page.


def _page(audited: list[Audited], findings: list[str]) -> str:
    parts = [_ledgers(audited), _days(audited), _topics(audited)]
    notes = [f"{one.flavor}: {note}" for one in audited for note in one.notes]
    if notes:
        parts.append("NOTES\n" + "\n".join(f"  {note}" for note in notes))
    if findings:
        parts.append("DOES NOT HOLD\n" + "\n".join(f"  {finding}" for finding in findings))
    else:
        parts.append("Everything holds: received = persisted + pending + gaps + set aside.")
    return "\n\n".join(part for part in parts if part)


def _ledgers(audited: list[Audited]) -> str:
    rows = [["FLAVOR", "BACKEND", "RECEIVED", "PERSISTED", "PENDING", "GAPS", "BACKFILLED", "SET ASIDE", "RESIDUAL"]]
    for one in audited:
        for backend, ledger in one.ledgers.items():
            figures = [
                one.received_lines,
                ledger.persisted_lines,
                ledger.pending_lines,
                ledger.gap_lines,
                ledger.backfilled_lines,
                ledger.set_aside_lines,
                ledger.residual_lines,
            ]
            rows.append([one.flavor, backend, *map(number, figures)])
    return columns(rows, "<<" + ">" * 7, indent="")


def _days(audited: list[Audited]) -> str:
    rows: list[list[Any]] = [["FLAVOR", "DAY", "LINES", "BYTES", "STATE", "FILE"]]
    rows += [
        [one.flavor, day.date, number(day.lines), number(day.bytes), day.state, day.file]
        for one in audited
        for day in one.days
    ]
    return columns(rows, "<<>><<", indent="") if len(rows) > 1 else ""


def _topics(audited: list[Audited]) -> str:
    rows = [["FLAVOR", "TOPIC", "DISTINCT LINES", "CHECKED FROM"]]
    rows += [
        [one.flavor, ", ".join(one.topics), number(one.found_lines), str(one.checked_from)]
        for one in audited
        if one.topics and one.checked_from is not None
    ]
    return columns(rows, "<<>>", indent="") if len(rows) > 1 else ""
