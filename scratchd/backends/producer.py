"""The producer: confluent-kafka's, for all flavors, made anew when it fails for good, and what it says of its brokers.

The only module that knows confluent-kafka, and so the only one where Kafka's errors are told apart. Knows no flavor,
no journal and no order of lines.

librdkafka connects, retries and reconnects by itself, on threads of its own. What it has to say comes in `poll`, on the
loop: delivery reports, errors, its log, and every few seconds its statistics. In an outage it says the same many times
a second, so complaints are counted each and logged once in ten seconds by kind. Messages that are in flight then fail
with nothing, they wait; that some broker answers or none is told to whoever asked (`Producer.watchers`).

An error is fatal when an idempotent producer cannot keep its promises any more: the broker refuses it the right to be
one, or the sequence of a partition is broken. Every later `produce` fails then, until `renew`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import trio
from confluent_kafka import KafkaError, KafkaException, libversion
from confluent_kafka import Producer as ConfluentProducer

from scratchd.backends import brokers
from scratchd.backends.contract import BackendError
from scratchd.log import Log
from scratchd.stats import BackendStats, iso_time

POLL_S = 0.005
"""How often delivery reports are fetched while any are awaited: a round trip on a network takes about as long."""

IDLE_POLL_S = 0.1

PROBE_S = 2.0
"""How often the brokers are asked for a sign of life while none is known to answer and no message would tell."""

PROBE_TIMEOUT_S = 1.0

SILENT_S = 10.0
"""Reports awaited for so long: nobody answers, whether librdkafka has noticed or not. Beyond `request.timeout.ms`."""

COMPLAIN_S = 10.0
"""At most one log line of a kind within it."""

Report = Callable[[Any, Any], None]
"""Takes a delivery report: an error (None where there is none, or see `refusal`) and the message."""

Header = tuple[str, bytes]

TOO_LARGE = "msg_size_too_large"

_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
_ABOUT_BROKERS = "brokers"


class TooLargeError(Exception):
    """A message exceeds a limit for its size: it will never be taken as it is."""


class Producer:
    """One librdkafka producer.

    Args:
        settings: its properties, brokers included, callbacks not.
        clock_ms: the wall clock, for the time of an error.
        conceal: cuts secrets out of what librdkafka says.
        make: makes the producer of confluent-kafka, or what stands for it in tests.

    Attributes:
        topic: one that is written to anyway, for asking whether brokers answer.
        fatal: why it can do nothing any more, until `renew`.
        awaited: how many messages have no report yet.
        reachable: whether some broker answers, as far as is known.
        watchers: called when `reachable` has changed.
    """

    def __init__(
        self,
        settings: Mapping[str, object],
        topic: str,
        *,
        stats: BackendStats,
        log: Log,
        clock_ms: Callable[[], int],
        conceal: Callable[[str], str] = str,
        make: Callable[..., Any] = ConfluentProducer,
    ) -> None:
        self.fatal: BackendError | None = None
        self.awaited = 0
        self.reachable = True
        self.watchers: set[Callable[[], None]] = set()
        self._settings = {**settings, "error_cb": self._on_error, "stats_cb": self._on_statistics}
        self.topic = topic
        self._stats = stats
        self._log = log
        self._clock_ms = clock_ms
        self._conceal = conceal
        self._make = make
        self._producer: Any = None
        self._library_logger = log.logger.getChild("librdkafka")
        self._library_logger.filters[:] = [self._is_news]
        self._complained_at: dict[str, float] = {}
        self._last_broker = "no reason is known yet"
        self._heard = False
        self._heard_at = 0.0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Makes the producer and serves its callbacks until cancelled."""
        self._producer = self._make(self._settings, logger=self._library_logger)
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._probe)
            while True:
                served = self._serve()
                self._note_silence()
                await trio.sleep(POLL_S if self.awaited or served else IDLE_POLL_S)

    def produce(
        self, topic: str, line: bytes, report: Report, *, key: bytes | None, time_ms: int, headers: Sequence[Header]
    ) -> None:
        """Hands a message over.

        Args:
            topic: where to.
            line: its value.
            report: is called once, in some later turn of the loop.
            key: None for none.
            time_ms: its timestamp, milliseconds since 1970 in UTC.
            headers: its headers, in order.

        Raises:
            TooLargeError: it exceeds the producer's own limit.
            BackendError: it is not taken now.
        """
        if not self.awaited:
            self._heard = True  # from here on silence counts
        try:
            self._producer.produce(topic, line, key, on_delivery=report, timestamp=time_ms, headers=headers)
        except BufferError as error:
            raise BackendError(
                "queue_full", "librdkafka's queue is full, expected room within our own bounds"
            ) from error
        except KafkaException as exception:
            if exception.args[0].code() in _TOO_LARGE:
                raise TooLargeError(exception.args[0].str()) from exception
            raise failure(exception.args[0], topic) from exception
        self.awaited += 1

    def reported(self, *, delivered: bool) -> None:
        """Notes that a report came, once for each; a broker answers where a message was delivered."""
        self.awaited -= 1
        self._heard = True
        if delivered and not self.reachable:
            self._tell(reachable=True)

    async def renew(self) -> None:
        """Replaces a producer that failed for good.

        Raises:
            BackendError: reports of it are still awaited, or another cannot be made, e.g. for want of a certificate.
        """
        if self.fatal is None:
            return
        if self.awaited:
            raise self.fatal
        try:
            new = self._make(self._settings, logger=self._library_logger)
        except KafkaException as exception:
            raise failure(exception.args[0], _ABOUT_BROKERS) from exception
        old, self._producer = self._producer, new
        self.fatal = None
        await trio.to_thread.run_sync(_drop, [old])
        del old

    def complain(self, flavor: str, failed: BackendError, message: str) -> None:
        """Counts an error, and logs it where none of its kind was logged for a while."""
        failed = BackendError(failed.kind, self._conceal(failed.message))
        self._stats.failed(iso_time(self._clock_ms()), flavor, failed.kind, failed.message)
        if self._is_due(f"{flavor} {failed.kind}"):
            where = {"flavor": flavor} if flavor else {}
            self._log.warning(message, **where, kind=failed.kind, error=failed.message)

    def _serve(self) -> int:
        """Calls what waits to be called: on the loop, like everything else."""
        try:
            served: int = self._producer.poll(0)
        except KafkaException as exception:  # the one way in which a fatal error comes: `error_cb` is not called
            self.fatal = failure(exception.args[0], _ABOUT_BROKERS)
            self.complain("", self.fatal, "the producer failed for good, another takes its place")
            self._producer.purge(blocking=False)  # of what is not sent; the rest has its reports anyway
            return 1
        return served

    def _note_silence(self) -> None:
        if self._heard:
            self._heard, self._heard_at = False, trio.current_time()
        elif self.reachable and self.awaited and trio.current_time() - self._heard_at > SILENT_S:
            silence = f"no report on {self.awaited} messages for {SILENT_S:.0f} s, expected one soon"
            self.complain("", BackendError("no_answer", f"{_ABOUT_BROKERS}: {silence}"), "the brokers are silent")
            self._tell(reachable=False)

    async def _probe(self) -> None:
        """Notices that brokers answer again although nothing is sent.

        That librdkafka complains no more would not tell: on a broker that hangs it waits for its own time limits.
        """
        while True:
            await trio.sleep(PROBE_S)
            if not self.reachable and not self.awaited and await trio.to_thread.run_sync(self._answers):
                self._tell(reachable=True)

    def _answers(self) -> bool:
        try:
            self._producer.list_topics(self.topic, timeout=PROBE_TIMEOUT_S)
        except KafkaException:
            return False
        return True

    def _tell(self, *, reachable: bool) -> None:
        self.reachable = reachable
        for watcher in self.watchers:
            watcher()

    def _on_error(self, error: Any) -> None:  # noqa: ANN401 - KafkaError, untyped in Debian 13's version
        """Takes librdkafka's general errors: connections, authentication."""
        failed = failure(error, _ABOUT_BROKERS)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - confluent-kafka's name
            # On the last one's error it is what an operator has to know.
            failed = BackendError(failed.kind, f"{_ABOUT_BROKERS}: none answers; {self._last_broker}")
            if self.reachable:
                self._tell(reachable=False)
        else:
            self._last_broker = error.str()
        self.complain("", failed, "librdkafka reports")

    def _on_statistics(self, report: str) -> None:
        """Takes librdkafka's statistics, every `statistics.interval.ms`."""
        try:
            self._stats.producer = brokers.parse(report, self._clock_ms())
        except msgspec.DecodeError as error:
            unread = f"librdkafka's statistics are not as expected: {error}"
            self.complain("", BackendError("statistics", unread), "no figures of the brokers")

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Whether a line of librdkafka's own log is to be kept."""
        record.msg, record.args = self._conceal(record.getMessage()), ()
        facility = record.msg.partition(" ")[0]
        if facility == "REQTMOUT":  # of a broker that hangs librdkafka says this in its log alone
            self._last_broker = record.msg.rpartition("]: ")[2]
        # A failed connection comes to `_on_error` as well.
        return facility != "FAIL" and self._is_due(f"log {facility}")

    def _is_due(self, complaint: str) -> bool:
        """Whether a complaint of its kind was not logged for a while."""
        now = time.monotonic()
        if now - self._complained_at.get(complaint, -COMPLAIN_S) < COMPLAIN_S:
            return False
        self._complained_at[complaint] = now
        return True


def library_version() -> str:
    """The version of librdkafka."""
    version: str = libversion()[0]
    return version


def refusal(error: Any) -> str | None:  # noqa: ANN401 - KafkaError, untyped in Debian 13's version
    """Why a report's message was refused for its size, None where it was not."""
    return error.str() if error.code() in _TOO_LARGE else None


def failure(error: Any, where: str) -> BackendError:  # noqa: ANN401 - the same
    """Puts librdkafka's error in the contract's terms."""
    return BackendError(error.name().lower().lstrip("_"), f"{where}: {error.str()}")


def _drop(owned: list[Any]) -> None:
    """Forgets the last reference, in a thread: librdkafka joins its own threads then."""
    owned.clear()
