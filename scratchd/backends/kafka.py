"""The Kafka backend: a topic per flavor, delivery reports move the cursors. At least once.

Knows what to hand to the producer and when; how to talk to librdkafka is the producer's (`scratchd.backends.producer`).
What is in the producer's queue is memory, so it is bounded per flavor, in lines and bytes, far below librdkafka's own
limits: a full queue means waiting, never failure, and an outage costs no memory. A message never expires
(`message.timeout.ms` = 0): librdkafka holds it until a broker has it or refuses it for good.

What a broker refuses, it refuses by the batch, and later batches may slip past a refused one. So a line goes alone,
with nothing else in flight, where a refusal is to be reckoned with:

- the first of an opening. A topic that refuses lines is asked with one line at each opening, and no later line can come
  before an earlier one while the topic changes its mind;
- one longer than any that this topic is known to take. If it is too large, it is surely the one that is: it is set
  aside, and nothing has slipped past it.

A batch can still be too large when none of its lines is: `batch.size` exceeds the topic's `max.message.bytes`. Then its
lines go again, fewer at a time, down to one; lines that were behind it in flight may have come before it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from operator import itemgetter
from typing import Any

import msgspec
import trio

from scratchd.backends.contract import BackendError, Frame, Hole, Opening, Outlet, Progress, Row
from scratchd.backends.producer import TOO_LARGE, Producer, TooLargeError, failure, refusal
from scratchd.stats import iso_time

MOST_IN_FLIGHT_LINES = 2000
MOST_IN_FLIGHT_BYTES = 4 << 20
"""What one flavor may have in librdkafka at a time.

A backlog leaves as fast as a round trip takes that many. With 1,000 lines it was 0.6 of this rate and 1 MB less memory,
with 4,000 1.5 and 2 MB more, and at full load answers waited longer for their turn.
"""

SURE_BYTES = 8192
"""Up to here every topic takes a line, once it has taken any."""

TURN_S = 0.001
"""How long lines are handed over without letting others have their turn."""

MOST_ROWS_BYTES = 1 << 20
"""How much that was set aside waits in memory for being written."""

LINGER_S = 0.02

READ_BYTES = 1 << 16
"""It takes lines one at a time, so reading more of them at once saves nothing."""

_UNSURE = -1


class KafkaBackend:
    """Topics for every flavor.

    Args:
        topics: topic by flavor; a flavor that is not among them keeps the one that its cursor has saved.
        key_parameter: the parameter whose value is the message's key, None for no keys.
        producer: of all flavors; runs elsewhere.
    """

    def __init__(self, *, topics: Mapping[str, str], key_parameter: str | None, producer: Producer) -> None:
        self.name = "kafka"
        self.linger_s = LINGER_S
        self.read_bytes = READ_BYTES
        self._topics = topics
        self._key_parameter = key_parameter
        self._producer = producer
        self._refused: set[str] = set()

    def adopt(self, topics: Mapping[str, str]) -> None:
        """Opens flavors by these from now on; what is open stays as it is until it is opened anew."""
        self._topics = topics
        self._producer.topic = next(iter(topics.values()))

    @asynccontextmanager
    async def open(self, opening: Opening) -> AsyncIterator[Outlet]:
        """Opens one flavor's topic; leaving waits for the reports of what was handed over.

        Raises:
            BackendError: the producer failed for good and there are reports to wait for before a new one is made.
        """
        topic = self._topics.get(opening.flavor) or opening.replay.get("topic")
        if topic is None:
            raise BackendError("removed", f"flavor {opening.flavor} is not configured and its cursor has no topic")
        await self._producer.renew()
        outlet = _KafkaOutlet(self._producer, opening, topic, self._key_parameter, self._refused)
        self._producer.watchers.add(outlet.show_state)
        outlet.show_state()
        try:
            await outlet.begin()
            yield outlet
        finally:
            self._producer.watchers.discard(outlet.show_state)
            await outlet.wait_for_reports()


class _KafkaOutlet:
    """One opening.

    Args:
        refused: flavors whose topic refused lines, at this opening's beginning perhaps this one's.
    """

    def __init__(
        self, producer: Producer, opening: Opening, topic: str, key_parameter: str | None, refused: set[str]
    ) -> None:
        self._producer = producer
        self._opening = opening
        self._topic = topic
        self._key_parameter = key_parameter
        self._refused = refused
        # Every topic so far and the first sequence that went there: for whoever looks for a line later.
        topics = opening.replay.get("topics", [[0, opening.replay.get("topic", topic)]])
        self._topics = topics if topics[-1][1] == topic else [*topics, [opening.sequence, topic]]
        self._flavor_header = ("scratchd-flavor", opening.flavor.encode())
        self._limiter = trio.CapacityLimiter(1)
        self._reported = trio.Event()
        self._failed: BackendError | None = None
        self._in_flight_lines = 0
        self._in_flight_bytes = 0
        self._most_bytes = MOST_IN_FLIGHT_BYTES
        # The longest line that may have company, and whether what is in flight must have none.
        self._sure_bytes = _UNSURE
        self._alone = False
        # Refused as part of too large a batch: to go again before anything else, in order.
        self._again: list[tuple[int, Frame]] = []
        self._refused_bytes = 0
        # The prefix that is safe ends at `_next`; behind it are holes by their first sequence, and lines whose
        # reports came before an earlier one's (partitions are delivered independently).
        self._next = self._settled = opening.sequence
        self._holes: dict[int, int] = {}
        self._done: dict[int, bool] = {}
        self._persisted_lines = 0
        self._set_aside_lines = 0
        self._rows: list[Row] = []
        self._rows_bytes = 0

    async def begin(self) -> None:
        """Saves the topic before the first line, so that a flavor that is removed meanwhile is drained to it."""
        progress = self._progress_so_far()
        if progress.replay != self._opening.replay:
            with suppress(BackendError):  # the first progress saves it too
                await trio.to_thread.run_sync(self._opening.save, progress, limiter=self._limiter)

    async def take(self, pieces: Sequence[Frame | Hole]) -> None:
        await trio.lowlevel.checkpoint()
        for piece in pieces:
            if isinstance(piece, Hole):
                self._holes[piece.first_sequence] = piece.end_sequence
                self._advance()
            else:
                await self._take_frame(piece)

    async def settle(self, *, final: bool) -> Progress | None:
        await trio.lowlevel.checkpoint()
        await self._send_again()
        while final and self._in_flight_lines:
            await self._wait()
            await self._send_again()
        self._raise_failure()
        if self._next == self._settled:
            return None
        return await self._progress()

    async def wait_for_reports(self) -> None:
        """Returns once every message handed over has its report, and saves what that brought."""
        while self._in_flight_lines:
            self._reported = trio.Event()
            await self._reported.wait()
        if self._next > self._settled:
            progress = await self._progress()
            await trio.to_thread.run_sync(self._opening.save, progress, limiter=self._limiter)

    def show_state(self) -> None:
        """Says whether lines flow: some broker answers, and this topic took the last line that it was asked with."""
        flows = self._producer.reachable and self._opening.flavor not in self._refused
        self._opening.set_state("running" if flows else "backing_off")

    # Handing over.

    async def _take_frame(self, frame: Frame) -> None:
        self._raise_failure()
        turn_ends = time.perf_counter() + TURN_S
        epoch = b"%b/" % frame.epoch.encode()
        for sequence, line in enumerate(frame.lines(), frame.first_sequence):
            if self._again or not self._has_room(len(line)):
                await self._make_room(len(line))
            self._send(sequence, frame, line, epoch)
            if not sequence % 32 and time.perf_counter() > turn_ends:
                await trio.lowlevel.checkpoint()
                self._raise_failure()
                turn_ends = time.perf_counter() + TURN_S

    async def _make_room(self, size: int) -> None:
        await self._send_again()
        while not self._has_room(size):
            await self._wait()
            await self._send_again()

    def _has_room(self, size: int) -> bool:
        """Whether a line of `size` bytes may join what is in flight."""
        if not self._in_flight_lines:
            return True
        return (
            not self._alone
            and size <= self._sure_bytes
            and self._in_flight_lines < MOST_IN_FLIGHT_LINES
            and self._in_flight_bytes + size <= self._most_bytes
        )

    def _send(self, sequence: int, frame: Frame, line: bytes, epoch: bytes) -> None:
        """Hands a line over; `epoch` is its frame's, as a header has it."""
        size = len(line)
        try:
            self._producer.produce(
                self._topic,
                line,
                partial(self._report, sequence, size, frame),
                key=None if self._key_parameter is None else key_of(line, self._key_parameter),
                time_ms=frame.time_ms,
                headers=[("scratchd-id", b"%b%d" % (epoch, sequence)), self._flavor_header],
            )
        except TooLargeError as error:
            self._set_aside(sequence, frame, line, str(error))
            return
        self._alone = size > self._sure_bytes or size > self._most_bytes
        self._in_flight_lines += 1
        self._in_flight_bytes += size

    async def _send_again(self) -> None:
        """Sends the lines of too large batches again, fewer at a time, until each is in flight or set aside."""
        self._raise_failure()
        while self._again:
            while self._in_flight_lines:
                await self._wait()
            again = sorted(self._again, key=itemgetter(0))
            self._again = []
            lines = deque(
                (sequence, frame, _line(frame, sequence), b"%b/" % frame.epoch.encode()) for sequence, frame in again
            )
            self._most_bytes = min(self._most_bytes, self._refused_bytes // 2)
            self._refused_bytes = 0
            while lines and not self._again:
                if self._has_room(len(lines[0][2])):
                    self._send(*lines.popleft())
                else:
                    await self._wait()
            self._again += [(sequence, frame) for sequence, frame, _, _ in lines]

    async def _wait(self) -> None:
        """Returns after the next delivery report; there must be one to come."""
        self._raise_failure()
        self._reported = trio.Event()
        if self._rows_bytes > MOST_ROWS_BYTES:
            await self._keep_rows()  # the report may come meanwhile
        await self._reported.wait()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._producer.fatal or self._failed:
            raise self._producer.fatal or self._failed or AssertionError

    # What came of it.

    def _report(self, sequence: int, size: int, frame: Frame, error: Any, _message: Any) -> None:  # noqa: ANN401 - untyped in Debian 13's version
        """A delivery report."""
        self._producer.reported(delivered=error is None)
        self._in_flight_lines -= 1
        self._in_flight_bytes -= size
        if error is None:
            if size > self._sure_bytes:
                self._sure_bytes = size if self._sure_bytes != _UNSURE else max(size, SURE_BYTES)
                self._refused.discard(self._opening.flavor)
                self.show_state()
            if sequence == self._next and not self._done and not self._holes:
                self._next += 1
                self._persisted_lines += 1
            else:
                self._done[sequence] = True
                self._advance()
        elif (reason := refusal(error)) is not None:
            self._too_large(sequence, size, frame, reason)
        elif self._failed is None:
            self._failed = failure(error, self._topic)
            if not self._producer.fatal:
                self._refused.add(self._opening.flavor)
        self._reported.set()

    def _too_large(self, sequence: int, size: int, frame: Frame, reason: str) -> None:
        """A broker refused the batch that the line was in."""
        if not self._alone:
            if not self._again:
                self._producer.complain(
                    self._opening.flavor,
                    BackendError(
                        "batch_too_large",
                        f"{self._topic}: {reason}; expected batch.size (kafka.librdkafka) below the topic's "
                        "max.message.bytes",
                    ),
                    "a batch is refused, its lines go again, fewer at a time",
                )
            self._again.append((sequence, frame))
            self._refused_bytes += size
            return
        if size > self._most_bytes:  # the batches were refused because of this line
            self._most_bytes = MOST_IN_FLIGHT_BYTES
        self._sure_bytes = min(self._sure_bytes, size - 1)
        self._set_aside(sequence, frame, _line(frame, sequence), reason)

    def _set_aside(self, sequence: int, frame: Frame, line: bytes, reason: str) -> None:
        self._rows.append(Row(f"{frame.epoch}/{sequence}", iso_time(frame.time_ms), reason, line.decode()))
        self._rows_bytes += len(line)
        told = f"{self._topic}: {reason} ({len(line)} bytes, {frame.epoch}/{sequence})"
        self._producer.complain(self._opening.flavor, BackendError(TOO_LARGE, told), "a line is set aside")
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

    async def _progress(self) -> Progress:
        # What is set aside is kept first; more may be set aside meanwhile, which this progress must not pass.
        progress = self._progress_so_far()
        await self._keep_rows()
        self._settled = progress.next_sequence
        self._persisted_lines -= progress.persisted_lines
        self._set_aside_lines -= progress.set_aside_lines
        return progress

    def _progress_so_far(self) -> Progress:
        replay = {"topic": self._topic, "topics": self._topics}
        return Progress(self._next, self._persisted_lines, self._set_aside_lines, replay)

    async def _keep_rows(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._rows_bytes = 0
            try:
                await trio.to_thread.run_sync(self._opening.set_aside, rows, limiter=self._limiter)
            except BackendError:
                self._rows = rows + self._rows  # no progress without them, however the opening ends
                raise


def key_of(line: bytes, parameter: str) -> bytes | None:
    """The message's key: a parameter's value in the line, of an array the last; None where it is absent or empty."""
    value = msgspec.json.decode(line).get(parameter)
    if isinstance(value, list):
        value = value[-1]
    return value.encode() if value else None


def _line(frame: Frame, sequence: int) -> bytes:
    return frame.lines()[sequence - frame.first_sequence]
