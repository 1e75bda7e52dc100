"""`scratchd backfill`: fills the gaps of one backend from what the other one has.

Beside a running instance or at rest: nothing of the journal is written but `backfilled.jsonl`, where what was filled is
recorded, and a lock of its own. The work is in `fill_files` and `fill_topic`; this is the command.
"""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from typing import Literal, TextIO

from scratchd.config import Config
from scratchd.tools import backfilled, records, topics
from scratchd.tools.fill_files import FileFiller
from scratchd.tools.fill_topic import TopicFiller
from scratchd.tools.records import Record
from scratchd.tools.report import Report
from scratchd.tools.topics import Topics


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Attributes:
        to: whose gaps are filled.
        flavor: None for every one.
        day: a lost file to rebuild instead, only to `file`.
        dry_run: say what would be done.
    """

    to: Literal["file", "kafka"]
    flavor: str | None
    day: datetime.date | None
    dry_run: bool


def run(config: Config, order: Order, out: TextIO, terminal: TextIO) -> bool:
    """Fills; prints what it does to `out`, a progress bar to `terminal` if it is one.

    Returns:
        Whether everything that was missing is filled now.
    """
    report = Report(out, terminal, dry_run=order.dry_run)
    try:
        found = records.read(config, order.flavor)
        with topics.opened(config) as opened:
            for record in found:
                _fill(config, order, record, opened, report)
    except records.RecordError as error:
        report.problem(str(error))
    report.close()
    return not report.problems


def _fill(config: Config, order: Order, record: Record, opened: Topics, report: Report) -> None:
    now_ms = time.time_ns() // 1_000_000
    for backend in sorted({order.to} & set(record.unreadable)):
        report.problem(record.unreadable[backend])
    try:
        with backfilled.locked(record.directory):
            if order.to == "kafka":
                TopicFiller(config, record, opened, report, now_ms, dry_run=order.dry_run).fill_gaps()
            elif order.day is None:
                FileFiller(record, opened, report, now_ms, dry_run=order.dry_run).fill_gaps()
            else:
                FileFiller(record, opened, report, now_ms, dry_run=order.dry_run).rebuild(order.day)
    except (topics.TopicError, backfilled.BusyError) as error:
        report.problem(f"{record.flavor}: {error}")
    except OSError as error:
        report.problem(f"{record.flavor}: {error.filename or record.directory}: {error.strerror}")
