"""Records: what a flavor's directory in the journal says about the past, read without touching anything.

Cursors are read as they stand, so a running instance is not disturbed and what is read was true a moment ago. Knows the
journal's files and the configuration, no backend's work.
"""

from __future__ import annotations

import bisect
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scratchd.config import Config
from scratchd.flavors import Flavors
from scratchd.journal import cursor as journal_cursor
from scratchd.journal import epochs
from scratchd.journal.cursor import Cursor, CursorError
from scratchd.journal.epochs import Epoch
from scratchd.journal.ranges import Range


class RecordError(Exception):
    """The records cannot be read, or there are none: nothing can be said about the past."""


@dataclass(frozen=True, slots=True)
class Record:
    """One flavor.

    Attributes:
        directory: in the journal.
        zone: of its days: the configured one; of a removed flavor the one that its cursor has saved.
        cursors: by backend, those that could be read.
        unreadable: why others could not.
        epochs: of all its sequences.
        template: path of its log files with `{date}` in it, None where nobody knows it any more.
        topics: where its lines are in Kafka; where new ones go is the last.
    """

    flavor: str
    directory: Path
    zone: zoneinfo.ZoneInfo
    cursors: Mapping[str, Cursor]
    unreadable: Mapping[str, str]
    epochs: Sequence[Epoch]
    template: str | None
    topics: Sequence[str]

    def epoch_of(self, sequence: int) -> str | None:
        """The epoch of a sequence, None where it is older than what is known."""
        index = bisect.bisect_right(self.epochs, sequence, key=lambda epoch: epoch.first)
        return self.epochs[index - 1].epoch if index else None

    def gaps(self, backend: str) -> list[Range]:
        """The gaps of a backend."""
        cursor = self.cursors.get(backend)
        return [(gap.first, gap.last) for gap in cursor.gaps] if cursor else []

    def path(self, date: str) -> Path | None:
        """The log file of a day as the configuration has it."""
        return Path(self.template.replace("{date}", date)) if self.template else None


def read(config: Config, only: str | None = None) -> list[Record]:
    """Every flavor that has a journal, the removed ones' too, or the one named `only`.

    Raises:
        RecordError: there is no journal, none of that name, or it cannot be read.
    """
    directory = config.journal_directory
    flavors = Flavors(config)
    try:
        names = sorted(entry.name for entry in directory.iterdir() if entry.is_dir())
        if only is not None and only not in names:
            raise RecordError(f"{directory}: no flavor {only!r} has a journal here; there are: {', '.join(names)}")
        return [_record(directory / name, name, flavors) for name in names if only in {None, name}]
    except OSError as error:
        raise RecordError(f"{error.filename or directory}: {error.strerror}") from error


def _record(directory: Path, name: str, flavors: Flavors) -> Record:
    cursors: dict[str, Cursor] = {}
    unreadable: dict[str, str] = {}
    for backend in journal_cursor.backends(directory):
        try:
            cursor = journal_cursor.load(directory, backend)
        except CursorError as error:
            unreadable[backend] = str(error)
            continue
        if cursor is not None:
            cursors[backend] = cursor
    flavor = flavors.by_name.get(name)
    file = cursors["file"].replay if "file" in cursors else {}
    kafka = cursors["kafka"].replay if "kafka" in cursors else {}
    used = [topic for _, topic in kafka.get("topics", ())] or [topic for topic in (kafka.get("topic"),) if topic]
    now = flavor.kafka_topic if flavor else None
    topics = [*dict.fromkeys(topic for topic in used if topic != now), *([now] if now else [])]
    return Record(
        flavor=name,
        directory=directory,
        zone=flavor.zone if flavor else zoneinfo.ZoneInfo(file.get("time_zone") or "UTC"),
        cursors=cursors,
        unreadable=unreadable,
        epochs=epochs.load(directory),
        template=flavor.file_path if flavor else file.get("template"),
        topics=topics,
    )
