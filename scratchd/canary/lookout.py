"""Lookouts: where the canary's lines are looked for. Blocking, each for a thread of its own; a look lasts a moment.

Both look as a consumer would: at the log file's name, whoever wrote it, and at the topic with a consumer's own
connection. What was there before they were opened first is not looked at.
"""

from __future__ import annotations

import datetime
import glob
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from scratchd.config import Kafka
from scratchd.config.credentials import CredentialError, resolved
from scratchd.config.librdkafka import readers_settings

FILE_PAUSE_S = 0.1
"""Between two looks at a file: how exact its delay is."""

TOPIC_WAIT_S = 0.25
"""How long a look at a topic waits for a message."""

ANSWER_S = 5.0
"""How long a broker may take to say where a topic ends."""

PAUSE_S = 5.0
"""Before a place that could not be looked at is opened anew."""

MOST_BYTES = 1 << 20
"""More than this of a file is not read in one look: what is older is passed over."""


class LookoutError(Exception):
    """The place cannot be looked at now: open it anew after a while."""


class Lookout(Protocol):
    """A place that is looked at."""

    def look(self) -> Sequence[bytes]:
        """The lines that came since the last look.

        Raises:
            LookoutError: it cannot be looked at.
        """
        ...


Opener = Callable[[], AbstractContextManager[Lookout]]


def keep_looking(opener: Opener, over: threading.Event, tell: Callable[[Sequence[bytes], str], None]) -> None:
    """Looks until that is over.

    Args:
        opener: opens the place, again and again where it cannot be looked at.
        over: set when nobody wants to know any more.
        tell: called with lines, or with none and what keeps them from being seen.
    """
    while not over.is_set():
        try:
            with opener() as lookout:
                while not over.is_set():
                    if lines := lookout.look():
                        tell(lines, "")
        except LookoutError as error:
            tell((), str(error))
            over.wait(PAUSE_S)


class FileLookout:
    """A flavor's log files.

    Args:
        pattern: of their paths, with `{date}` for the day, and perhaps with wildcards (glob(7)) for instances.
        today: the local date now.
    """

    def __init__(self, pattern: str, today: Callable[[], datetime.date]) -> None:
        self._pattern = pattern
        self._today = today
        # By path: which file it was, and how much of it was read.
        self._read: dict[str, tuple[int, int]] = {}
        for path in self._paths():
            status = Path(path).stat()
            self._read[path] = status.st_ino, status.st_size

    def look(self) -> list[bytes]:
        """The whole lines that came since the last look; waits a little first."""
        time.sleep(FILE_PAUSE_S)
        try:
            return [line for path in self._paths() for line in self._lines(path)]
        except OSError as error:
            raise LookoutError(f"{error.filename or self._pattern}: {error.strerror}") from error

    def _paths(self) -> list[str]:
        # A line that was taken a moment before midnight comes to a file that is over.
        today = self._today()
        days = (today - datetime.timedelta(days=1), today)
        patterns = (self._pattern.replace("{date}", day.isoformat()) for day in days)
        return [path for pattern in patterns for path in glob.glob(pattern)]  # noqa: PTH207 - pathlib's has to be below

    def _lines(self, path: str) -> list[bytes]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        try:
            status = os.fstat(fd)
            inode, at = self._read.get(path, (status.st_ino, 0))
            if inode != status.st_ino or status.st_size < at:
                at = 0
            at = max(at, status.st_size - MOST_BYTES)
            data = os.pread(fd, MOST_BYTES, at)
        finally:
            os.close(fd)
        whole = data.rfind(b"\n") + 1
        self._read[path] = status.st_ino, at + whole
        return data[:whole].splitlines()


def file_opener(pattern: str, today: Callable[[], datetime.date]) -> Opener:
    """What opens a lookout for a flavor's files: the same one each time, so that it finds what came in between."""
    kept: list[FileLookout] = []

    @contextmanager
    def opened() -> Iterator[Lookout]:
        if not kept:
            try:
                kept.append(FileLookout(pattern, today))
            except OSError as error:
                raise LookoutError(f"{error.filename or pattern}: {error.strerror}") from error
        yield kept[0]

    return opened


class _TopicLookout:
    def __init__(self, consumer: Any, topic: str) -> None:  # noqa: ANN401 - untyped in Debian 13's version
        self._consumer = consumer
        self._topic = topic

    def look(self) -> list[bytes]:
        from confluent_kafka import KafkaException  # noqa: PLC0415 - only where it is used

        try:
            message = self._consumer.poll(TOPIC_WAIT_S)
        except KafkaException as exception:
            raise LookoutError(f"topic {self._topic}: {exception.args[0].str()}") from exception
        if message is None:
            return []
        if message.error() is not None:
            raise LookoutError(f"topic {self._topic}: {message.error().str()}")
        return [message.value() or b""]


@contextmanager
def topic_opened(kafka: Kafka, topic: str, since_ms: int) -> Iterator[Lookout]:
    """A lookout for a topic.

    Args:
        kafka: how brokers are reached.
        topic: its name.
        since_ms: messages of before are passed over, milliseconds since the Unix epoch.
    """
    from confluent_kafka import Consumer, KafkaException, TopicPartition  # noqa: PLC0415 - only where it is used

    logger = logging.getLogger("scratchd.kafka.canary")
    logger.setLevel(logging.CRITICAL)  # what keeps beacons from being found is told in sum
    try:
        settings = readers_settings(resolved(kafka.librdkafka), "scratchd-canary")
    except CredentialError as error:
        raise LookoutError(str(error)) from error
    servers = {"bootstrap.servers": kafka.bootstrap_servers, "auto.offset.reset": "latest"}
    try:
        consumer = Consumer({**settings, **servers}, logger=logger)
    except KafkaException as exception:  # e.g. a certificate that is being replaced
        raise LookoutError(f"topic {topic}: {exception.args[0].str()}") from exception
    try:
        try:
            found = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
            if found.error is not None:
                raise LookoutError(f"topic {topic}: {found.error.str()}")
            ends = {
                partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_S)[1]
                for partition in found.partitions
            }
            wanted = [TopicPartition(topic, partition, since_ms) for partition in ends]
            begun = consumer.offsets_for_times(wanted, timeout=ANSWER_S)
            # Where nothing has come since then, the end as it was before that was asked.
            consumer.assign(
                [TopicPartition(topic, p.partition, p.offset if p.offset >= 0 else ends[p.partition]) for p in begun]
            )
        except KafkaException as exception:
            raise LookoutError(f"topic {topic}: {exception.args[0].str()}") from exception
        yield _TopicLookout(consumer, topic)
    finally:
        consumer.close()
