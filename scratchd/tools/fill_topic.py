"""Filling a Kafka topic from the log files: the lines of recorded gaps, by where the file backend said that they stand.

A line gets the `scratchd-id` and `scratchd-flavor` that it would have had, and one header more, `scratchd-backfill`,
the time of the run. Its timestamp is its arrival as far as that is known: that of a line at most a minute before it.
Which ids of a gap the topic has already is looked up first, so a run after a kill sends only what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
from confluent_kafka import KafkaException, Producer

from scratchd.backends.kafka import key_of
from scratchd.config import Config
from scratchd.config.credentials import resolved
from scratchd.config.librdkafka import settings
from scratchd.journal import places
from scratchd.journal.places import Stretch
from scratchd.journal.ranges import Range, Sequences, common, count, shown, without
from scratchd.stats import iso_time
from scratchd.tools import backfilled
from scratchd.tools.backfilled import Filled
from scratchd.tools.records import Record
from scratchd.tools.report import Report
from scratchd.tools.spool import Found
from scratchd.tools.table import counted
from scratchd.tools.topics import Topics

HEADER = "scratchd-backfill"

DELIVERY_S = 60
"""How long a message may take: unlike the service, somebody waits for this to end."""

_MOST_AWAITED = 10_000

_READ_BYTES = 1 << 20


class PlaceError(Exception):
    """A file does not hold what the list of places says."""


class TopicFiller:
    """Fills one flavor's topic."""

    def __init__(
        self, config: Config, record: Record, topics: Topics, report: Report, now_ms: int, *, dry_run: bool
    ) -> None:
        self._config = config
        self._record = record
        self._topics = topics
        self._report = report
        self._now_ms = now_ms
        self._dry_run = dry_run
        self._delivered = Sequences()
        self._awaited = 0
        self._refused: dict[str, int] = {}

    def fill_gaps(self) -> None:
        """Sends what the topic lacks of the Kafka backend's gaps.

        Raises:
            TopicError: the topic cannot be read.
            OSError: a disk fails.
        """
        cursor = self._record.cursors.get("kafka")
        if cursor is None or not cursor.gaps:
            return
        left = without(self._record.gaps("kafka"), backfilled.ranges(self._record.directory, "kafka"))
        if not left:
            return
        if not self._record.topics:
            self._report.problem(f"{self._record.flavor}: neither the configuration nor its cursor has a topic for it")
            return
        topic = self._record.topics[-1]
        open_gaps = [gap for gap in cursor.gaps if common([(gap.first, gap.last)], left)]
        since_ms = None if any(gap.after_ms is None for gap in open_gaps) else open_gaps[0].after_ms
        wanted = self._lacking(topic, left, since_ms)
        known = list(places.stretches(places.load(places.path_of(self._record.directory, "file")), wanted))
        nowhere = without(wanted, [(stretch.first, stretch.last) for stretch in known])
        if nowhere:
            what = f"{counted(count(nowhere), 'line')} in no log file that scratchd knows: {shown(nowhere)}"
            self._report.problem(f"{self._record.flavor}: {what}", count(nowhere))
        self._send(topic, known)
        if not self._dry_run:
            self._note(topic, left, wanted)

    def _lacking(self, topic: str, ranges: list[Range], since_ms: int | None) -> list[Range]:
        """What of `ranges` the topic does not have."""
        there = Sequences()
        _, spans = self._topics.since(topic, self._topics.spans(topic), since_ms)
        with self._report.progress(f"reading {topic}", sum(high - low for low, high in spans.values())) as progress:
            for message in self._topics.read(topic, self._record.flavor, spans, progress.add):
                if self._record.epoch_of(message.sequence) == message.epoch:
                    there.add(message.sequence)
        return there.missing(ranges)

    def _send(self, topic: str, stretches: list[Stretch]) -> None:
        lines = sum(stretch.last - stretch.first + 1 for stretch in stretches)
        if not lines:
            return
        self._report.filled(f"{self._record.flavor}: {counted(lines, 'line')} into topic {topic}", lines)
        producer = None if self._dry_run else self._producer()
        with self._report.progress(f"sending to {topic}", lines) as progress:
            for stretch in stretches:
                wanted = stretch.last - stretch.first + 1
                read = 0
                try:
                    for found in lines_of(stretch):
                        if producer is not None:
                            self._produce(producer, topic, stretch.epoch, found)
                        read += 1
                        progress.add()
                except (OSError, PlaceError) as error:
                    text = f"{stretch.path}: {error.strerror}" if isinstance(error, OSError) else str(error)
                    self._report.problem(f"{self._record.flavor}: {text}", wanted - read, undone=wanted - read)
        if producer is not None:
            producer.flush()  # ends: no message takes longer than DELIVERY_S
            for reason, times in self._refused.items():
                self._report.problem(f"{self._record.flavor}: {counted(times, 'line')}: {reason}", times, undone=times)

    def _producer(self) -> Any:  # noqa: ANN401 - untyped in Debian 13's version
        properties = settings(resolved(self._config.kafka.librdkafka))
        return Producer(
            {
                **properties,
                "bootstrap.servers": self._config.kafka.bootstrap_servers,
                "message.timeout.ms": DELIVERY_S * 1000,
                "log_level": 0,  # what fails is in the delivery report
            }
        )

    def _produce(self, producer: Any, topic: str, epoch: str, found: Found) -> None:  # noqa: ANN401 - the same
        parameter = self._config.kafka.key_parameter
        headers = [
            ("scratchd-id", f"{epoch}/{found.sequence}".encode()),
            ("scratchd-flavor", self._record.flavor.encode()),
            (HEADER, iso_time(self._now_ms).encode()),
        ]
        while self._awaited >= _MOST_AWAITED:
            producer.poll(0.1)
        try:
            producer.produce(
                topic,
                found.value,
                key=None if parameter is None else key_of(found.value, parameter),
                timestamp=found.time_ms,
                headers=headers,
                on_delivery=partial(self._on_delivery, found.sequence),
            )
        except KafkaException as exception:
            self._refuse(exception.args[0].str())
            return
        self._awaited += 1
        producer.poll(0)

    def _on_delivery(self, sequence: int, error: Any, _message: Any) -> None:  # noqa: ANN401 - the same
        self._awaited -= 1
        if error is None:
            self._delivered.add(sequence)
        else:
            self._refuse(error.str())

    def _refuse(self, reason: str) -> None:
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def _note(self, topic: str, left: list[Range], wanted: list[Range]) -> None:
        """Records what the topic has now: what was found there, and what was delivered."""
        there = without(left, self._delivered.missing(wanted))
        if there:
            row = Filled(backend="kafka", ranges=there, lines=count(there), at=iso_time(self._now_ms), topic=topic)
            backfilled.add(self._record.directory, row)


def lines_of(stretch: Stretch) -> Iterator[Found]:
    """The wanted lines of a stretch.

    Raises:
        OSError: the file cannot be read.
        PlaceError: it does not hold them.
    """
    fd = os.open(stretch.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb", buffering=_READ_BYTES) as file:
        file.seek(max(0, stretch.offset - 1))
        if stretch.offset and file.read(1) != b"\n":
            raise PlaceError(f"{stretch.path}: byte {stretch.offset}: expected the beginning of a line")
        for sequence in range(stretch.known_sequence, stretch.last + 1):
            line = file.readline()
            if not line.endswith(b"\n"):
                raise PlaceError(f"{stretch.path}: ends before the line of sequence {sequence}")
            if sequence >= stretch.first:
                yield Found(sequence, stretch.time_ms, _checked(stretch, sequence, line[:-1]))


def _checked(stretch: Stretch, sequence: int, line: bytes) -> bytes:
    try:
        if isinstance(msgspec.json.decode(line), dict):
            return line
    except msgspec.MsgspecError:
        pass
    raise PlaceError(f"{stretch.path}: expected a JSON object for sequence {sequence}; something else wrote there")
