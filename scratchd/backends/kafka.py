"""The Kafka backend: one idempotent producer for all flavors, delivery reports move the cursors. At least once.

The only module that knows confluent-kafka. The producer's queue is librdkafka's memory, so what is in it is bounded per
flavor, far below librdkafka's own limits: a full queue means waiting, never failure, and an outage costs no memory.
A message never expires (`message.timeout.ms` = 0): librdkafka holds it until a broker has it or refuses it for good.

An opening begins with one message and takes the rest only after that was delivered. So a topic that refuses lines
is asked with one line at each opening, and no later line can slip in before an earlier one while it changes its mind.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio
from confluent_kafka import KafkaError, KafkaException, Producer

from scratchd.backends.contract import BackendError, Frame, Hole, Opening, Outlet, Progress
from scratchd.journal.storage import write_whole
from scratchd.log import Log
from scratchd.stats import BackendStats, iso_time

MOST_IN_FLIGHT_LINES = 2000
MOST_IN_FLIGHT_BYTES = 4 << 20
"""What one flavor may have in librdkafka at a time."""

POLL_S = 0.005
"""How often delivery reports are fetched while any are awaited."""

IDLE_POLL_S = 0.1

QUIET_S = 15.0
"""Without an error for so long some broker answers: librdkafka tries each again every few seconds and says so."""

COMPLAIN_S = 10.0
"""At most one log line of a kind within it."""

LINGER_S = 0.005

SET_ASIDE = "kafka.set-aside.jsonl"
"""In the flavor's directory: one object per line that Kafka refused for good."""

_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.INVALID_MSG)


class KafkaBackend:
    """Topics for every flavor.

    Args:
        bootstrap_servers: `host:port,host:port`.
        topics: topic by flavor; a flavor that is not among them keeps the one that its cursor has saved.
        key_parameter: the parameter whose value is the message's key, None for no keys.
        settings: librdkafka's properties, all but the brokers (`scratchd.config.librdkafka.settings`).
        clock_ms: the wall clock, for the time of an error.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        topics: Mapping[str, str],
        key_parameter: str | None,
        settings: Mapping[str, object],
        stats: BackendStats,
        log: Log,
        clock_ms: Callable[[], int],
    ) -> None:
        self.name = "kafka"
        self.linger_s = LINGER_S
        self.key_parameter = key_parameter
        self._topics = topics
        self._stats = stats
        self._log = log
        self._clock_ms = clock_ms
        self._settings = {
            **settings,
            "bootstrap.servers": bootstrap_servers,
            "error_cb": self._on_error,
        }
        self._producer: Any = None
        self._library_logger = log.logger.getChild("librdkafka")
        self._library_logger.filters[:] = [self._is_news]
        self._complained_at: dict[str, float] = {}
        self._opened: set[Opening] = set()
        self._unreachable = False
        self._trouble_at = 0.0
        self.awaited = 0
        self.fatal: BackendError | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Makes the producer and fetches delivery reports until cancelled."""
        self._new_producer()
        task_status.started()
        while True:
            # Callbacks run inside: on the loop, like everything else.
            served = self._producer.poll(0)
            if self._unreachable and trio.current_time() - self._trouble_at > QUIET_S:
                self.reached(reached=True)
            await trio.sleep(POLL_S if self.awaited or served else IDLE_POLL_S)

    def _new_producer(self) -> None:
        self._producer = Producer(self._settings, logger=self._library_logger)
        self.fatal = None

    def produce(self, topic: str, value: bytes, **more: Any) -> None:  # noqa: ANN401 - confluent-kafka's own arguments
        """Hands a message to librdkafka.

        Raises:
            BackendError: it does not take it.
            KafkaException: it never will.
        """
        try:
            self._producer.produce(topic, value, **more)
        except BufferError as error:
            raise BackendError(
                "queue_full", "librdkafka's queue is full, expected room within our own bounds"
            ) from error
        self.awaited += 1

    @asynccontextmanager
    async def open(self, opening: Opening) -> AsyncIterator[Outlet]:
        """Opens one flavor's topic; leaving waits for the reports of what was handed over.

        Raises:
            BackendError: the producer failed for good and there are reports to wait for before a new one is made.
        """
        topic = self._topics.get(opening.flavor) or opening.replay.get("topic")
        if topic is None:
            raise BackendError("removed", f"flavor {opening.flavor} is not configured and its cursor has no topic")
        if self.fatal:
            if self.awaited:
                raise self.fatal
            self._new_producer()
        outlet = _KafkaOutlet(self, opening, topic, self._clock_ms)
        self._opened.add(opening)
        if self._unreachable:
            opening.set_state("backing_off")
        try:
            yield outlet
        finally:
            await outlet.wait_for_reports()
            self._opened.discard(opening)

    def reached(self, *, reached: bool) -> None:
        """Notes whether any broker answers; lines that are in flight wait for one without failing."""
        if self._unreachable == reached:
            self._unreachable = not reached
            for opening in self._opened:
                opening.set_state("running" if reached else "backing_off")

    def _on_error(self, error: Any) -> None:  # noqa: ANN401 - KafkaError, untyped in Debian 13's version
        """Librdkafka's general errors: connections, authentication, fatal ones."""
        failed = _failure(error, "brokers")
        self._trouble_at = trio.current_time()
        if error.fatal():
            self.fatal = failed
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - confluent-kafka's name for it
            self.reached(reached=False)
        self._stats.failed(iso_time(self._clock_ms()), "", failed.kind, failed.message)
        if self._is_due(failed.kind):
            self._log.warning("librdkafka reports", kind=failed.kind, error=failed.message)

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Whether a line of librdkafka's own log is to be kept: in an outage it says the same many times a second."""
        facility = record.getMessage().partition(" ")[0]
        # A failed connection comes to `_on_error` as well.
        return facility != "FAIL" and self._is_due(f"log {facility}")

    def _is_due(self, complaint: str) -> bool:
        """Whether a complaint of its kind was not logged for a while."""
        now = time.monotonic()
        if now - self._complained_at.get(complaint, -COMPLAIN_S) < COMPLAIN_S:
            return False
        self._complained_at[complaint] = now
        return True


class _KafkaOutlet:
    def __init__(self, backend: KafkaBackend, opening: Opening, topic: str, clock_ms: Callable[[], int]) -> None:
        self._backend = backend
        self._opening = opening
        self._topic = topic
        self._clock_ms = clock_ms
        self._flavor_header = ("scratchd-flavor", opening.flavor.encode())
        self._limiter = trio.CapacityLimiter(1)
        self._room = trio.Event()
        self._in_flight_lines = 0
        self._in_flight_bytes = 0
        self._most_lines = 1
        self._failed: BackendError | None = None
        # The prefix that is safe ends at `_next`; behind it are holes by their first sequence, and lines whose
        # reports came before an earlier one's (partitions are delivered independently).
        self._next = self._settled = opening.sequence
        self._holes: dict[int, int] = {}
        self._done: dict[int, bool] = {}
        self._persisted_lines = 0
        self._set_aside_lines = 0
        self._to_set_aside: list[dict[str, object]] = []

    async def take(self, pieces: Sequence[Frame | Hole]) -> None:
        await trio.lowlevel.checkpoint()
        for piece in pieces:
            if isinstance(piece, Hole):
                self._holes[piece.first_sequence] = piece.end_sequence
                self._advance()
            else:
                await self._take_frame(piece)

    async def _take_frame(self, frame: Frame) -> None:
        for sequence, line in enumerate(frame.lines(), frame.first_sequence):
            while self._in_flight_lines >= self._most_lines or self._in_flight_bytes >= MOST_IN_FLIGHT_BYTES:
                await self._wait()
            self._raise_failure()
            self._produce(frame, sequence, line)
            if not sequence % 256:
                await trio.lowlevel.checkpoint()  # others get their turn

    def _produce(self, frame: Frame, sequence: int, line: bytes) -> None:
        identity = f"{frame.epoch}/{sequence}".encode()
        parameter = self._backend.key_parameter
        try:
            self._backend.produce(
                self._topic,
                line,
                key=None if parameter is None else key_of(line, parameter),
                timestamp=frame.time_ms,
                headers=[("scratchd-id", identity), self._flavor_header],
                on_delivery=partial(self._delivered, sequence, identity, frame.time_ms, line),
            )
        except KafkaException as exception:
            error = exception.args[0]
            if error.code() not in _TOO_LARGE:
                raise _failure(error, self._topic) from exception
            self._set_aside(sequence, identity, frame.time_ms, line, error)
            return
        self._in_flight_lines += 1
        self._in_flight_bytes += len(line)

    def _delivered(self, sequence: int, identity: bytes, time_ms: int, line: bytes, error: Any, _message: Any) -> None:  # noqa: ANN401 - untyped in Debian 13's version
        """A delivery report, from inside `poll`."""
        self._backend.awaited -= 1
        self._in_flight_lines -= 1
        self._in_flight_bytes -= len(line)
        if error is None:
            self._backend.reached(reached=True)
            self._most_lines = MOST_IN_FLIGHT_LINES
            self._done[sequence] = True
            self._advance()
        elif error.code() in _TOO_LARGE:
            self._set_aside(sequence, identity, time_ms, line, error)
        elif self._failed is None:
            self._failed = _failure(error, self._topic)
        self._room.set()

    def _set_aside(self, sequence: int, identity: bytes, time_ms: int, line: bytes, error: Any) -> None:  # noqa: ANN401 - the same
        self._to_set_aside.append(
            {"id": identity.decode(), "time": iso_time(time_ms), "reason": error.str(), "line": line.decode()}
        )
        self._done[sequence] = False
        self._advance()

    def _advance(self) -> None:
        """Moves the end of the safe prefix."""
        while True:
            if (persisted := self._done.pop(self._next, None)) is not None:
                self._next += 1
                if persisted:
                    self._persisted_lines += 1
                else:
                    self._set_aside_lines += 1
            elif self._next in self._holes:
                self._next = self._holes.pop(self._next)
            else:
                return

    async def _wait(self) -> None:
        """Returns after the next delivery report."""
        self._raise_failure()
        self._room = trio.Event()
        await self._room.wait()

    def _raise_failure(self) -> None:
        if self._failed or self._backend.fatal:
            raise self._failed or self._backend.fatal or AssertionError

    async def settle(self, *, final: bool) -> Progress | None:
        await trio.lowlevel.checkpoint()
        while final and self._in_flight_lines:
            await self._wait()
        self._raise_failure()
        if self._next == self._settled:
            return None
        return await self._progress()

    async def _progress(self) -> Progress:
        while self._to_set_aside:  # reports go on meanwhile, and the prefix must not pass a line that is kept nowhere
            rows, self._to_set_aside = self._to_set_aside, []
            try:
                await trio.to_thread.run_sync(self._write_set_aside, rows, limiter=self._limiter)
            except OSError as error:
                self._to_set_aside = rows + self._to_set_aside
                raise BackendError("journal", f"{self._opening.directory / SET_ASIDE}: {error.strerror}") from error
        progress = Progress(self._next, self._persisted_lines, self._set_aside_lines, {"topic": self._topic})
        self._settled, self._persisted_lines, self._set_aside_lines = self._next, 0, 0
        return progress

    def _write_set_aside(self, rows: Sequence[dict[str, object]]) -> None:
        data = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        path = self._opening.directory / SET_ASIDE
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            size = os.fstat(fd).st_size
            try:
                write_whole(fd, data)
                os.fdatasync(fd)
            except OSError:
                os.ftruncate(fd, size)  # they come again, and no row may begin behind a torn one
                raise
        finally:
            os.close(fd)

    async def wait_for_reports(self) -> None:
        """Returns once every message handed over has its report, and saves what that brought."""
        while self._in_flight_lines:
            self._room = trio.Event()
            await self._room.wait()
        if self._next > self._settled:
            progress = await self._progress()
            await trio.to_thread.run_sync(self._opening.save, progress, limiter=self._limiter)


def key_of(line: bytes, parameter: str) -> bytes | None:
    """The message's key: a parameter's value in the line, of an array the last; None where it is absent or empty."""
    value = msgspec.json.decode(line).get(parameter)
    if isinstance(value, list):
        value = value[-1]
    return value.encode() if value else None


def _failure(error: Any, where: str) -> BackendError:  # noqa: ANN401 - untyped in Debian 13's version
    """Librdkafka's error in the contract's terms."""
    kind = error.name().lower().lstrip("_")
    return BackendError(kind, f"{where}: {error.str()}")
