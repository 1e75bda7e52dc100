"""`scratchd replay`: sends the requests of an access log again, to one or two targets, when they are due.

Owns the command: the log is read a batch at a time in a thread, each line becomes a request (`recorded`) that is due at
a time (`Pace`), and goes into the queue of each target (`target`). What was sent is kept (`replay_state`), counted and
printed (`replayed`). One task reads, the targets' connections are tasks of one nursery; an interruption stops the
reading, drops what waits in the queues and lets what is in flight be answered.
"""

from __future__ import annotations

import functools
import hashlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

import msgspec
import trio

from scratchd.tools import inputs, recorded
from scratchd.tools.recorded import MalformedError, Request
from scratchd.tools.replay_state import State, StateError
from scratchd.tools.replayed import Answers, Summary, Tally
from scratchd.tools.table import number
from scratchd.tools.target import Failed, Target, Url, Wire, Worker

_SHOW_TERMINAL_S = 0.5
_SHOW_LOG_S = 10.0

ORIGINAL = "original"
OF_TARGET = "target"


class ReplayError(Exception):
    """The replay cannot begin or go on: a log that cannot be read, a state that cannot be used."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Attributes:
        inputs: paths of logs, `-` for standard input.
        targets: one or more.
        rate: requests a second; None: at the log's own pace.
        speed: that pace times this.
        host: `original`, `target`, or a name in which `{host}` stands for the original one.
        haproxy_host: which of HAProxy's captured request headers is Host.
        forwarded_for: send the log's client as X-Forwarded-For.
        methods: what is sent at all.
        path: only requests with this path; None: every one.
        limit: at most so many requests; None: all.
        connections: to each target.
        timeout_s: for one request.
        state: where to keep what was sent; None: nowhere.
        resend: what was in flight at an interruption is sent again.
        differing: where requests are written that the targets answered differently; None: nowhere.
    """

    inputs: Sequence[str]
    targets: Sequence[Url]
    rate: float | None = None
    speed: float = 1.0
    host: str = ORIGINAL
    haproxy_host: int = 1
    forwarded_for: bool = False
    methods: frozenset[bytes] = frozenset({b"GET", b"HEAD"})
    path: bytes | None = None
    limit: int | None = None
    connections: int = 64
    timeout_s: float = 10.0
    state: Path | None = None
    resend: bool = False
    differing: Path | None = None


class Pace:
    """When requests are due, in seconds since the replay began.

    At a rate, one after another; at the log's pace as far behind the first one as they were then. Logs are written when
    requests end, so times go back a little: what should have been sent already is due at once.
    """

    def __init__(self, rate: float | None, speed: float) -> None:
        self._rate = rate
        self._speed = speed
        self._count = 0
        self._first_s: float | None = None
        self._due_s = 0.0

    def due_s(self, request: Request) -> float:
        """When the next request is due, never before the one before.

        Raises:
            MalformedError: the log has no time and no rate was given.
        """
        if self._rate is not None:
            self._due_s = self._count / self._rate
            self._count += 1
            return self._due_s
        if request.time_s is None:
            raise MalformedError("it has no time, so a rate must be given (--rate)")
        if self._first_s is None:
            self._first_s = request.time_s
        self._due_s = max(self._due_s, (request.time_s - self._first_s) / self._speed)
        return self._due_s


def run(order: Order, stdin: BinaryIO, out: TextIO, terminal: TextIO, *, as_json: bool) -> Summary:
    """Replays and prints the summary to `out`, progress to `terminal`.

    Raises:
        ReplayError: see there; what was sent until then is kept and the summary printed.
    """
    replay = _Replay(order, stdin, terminal)
    try:
        trio.run(replay.run)
    finally:
        summary = replay.summary
        out.write(msgspec.json.encode(summary.document()).decode() + "\n" if as_json else summary.page())
        out.flush()
    return summary


class _Replay:
    """One run."""

    def __init__(self, order: Order, stdin: BinaryIO, terminal: TextIO) -> None:
        self._order = order
        self._batches: Iterator[list[bytes]] = inputs.batches(order.inputs, stdin)
        self._terminal = terminal
        try:
            urls = [url.text for url in order.targets]
            self._state = State(order.state, order.inputs, urls, order.connections, resend=order.resend)
            self._differing = order.differing.open("ab") if order.differing else None
        except StateError as error:
            raise ReplayError(str(error)) from error
        except OSError as error:
            raise ReplayError(f"{error.filename}: {error.strerror}") from error
        self._behind = tuple(self._state.begun)
        self._again = [frozenset(lines) if order.resend else frozenset[int]() for lines in self._state.unknown]
        self._answers = Answers(len(order.targets))
        self._requests: dict[int, Request] = {}  # those that differing answers may be told of
        self._stopping = False
        self._read_all = False
        self._started_at = 0.0
        self.summary = Summary([Tally(url) for url in urls], behind=min(self._behind))
        if not order.resend:
            pairs = zip(urls, self._state.unknown, strict=True)
            self.summary.in_flight = {url: lines for url, lines in pairs if lines}

    async def run(self) -> None:
        """Sends everything, or until a signal."""
        began = time.monotonic()
        try:
            if not self._state.complete:
                await self._run()
        except* (inputs.InputError, StateError) as group:
            first: BaseException = group
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise ReplayError(str(first)) from first
        finally:
            self._state.close()
            if self._differing:
                self._differing.close()
            self.summary.differing = self._answers.differing
            self.summary.elapsed_s = time.monotonic() - began

    async def _run(self) -> None:
        async with trio.open_nursery() as background:
            reading = trio.CancelScope()
            await background.start(self._stop_on_signal, reading)
            background.start_soon(self._show)
            self._started_at = trio.current_time()
            async with trio.open_nursery() as nursery:
                targets = [self._target(index, url) for index, url in enumerate(self._order.targets)]
                for target in targets:
                    nursery.start_soon(target.run)
                with reading:
                    await self._read(targets)
                for target in targets:
                    target.end()
            background.cancel_scope.cancel()
        if self._read_all:
            self._state.finish()

    async def _stop_on_signal(
        self, reading: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                self._stopping = self.summary.interrupted = True
                reading.cancel()

    # Reading.

    async def _read(self, targets: Sequence[Target]) -> None:
        pace = Pace(self._order.rate, self._order.speed)
        sent = 0
        async for line_number, line in self._lines():
            if self._order.limit is not None and sent >= self._order.limit:
                return
            missing = [
                index
                for index, behind in enumerate(self._behind)
                if line_number > behind or line_number in self._again[index]
            ]
            if not missing or not line.strip():
                continue
            try:
                request = recorded.parse(line, self._order.haproxy_host)
                why = self._unwanted(request)
                if why:
                    self.summary.skipped[why] += 1
                    continue
                wires = [self._wire(request, self._order.targets[index]) for index in missing]
                due = self._started_at + pace.due_s(request)
            except MalformedError as error:
                self.summary.spoil(line_number, str(error), recorded.shown(line))
                continue
            sent += 1
            if self._differing and len(missing) > 1:
                self._requests[line_number] = request
            if due > trio.current_time():
                await trio.sleep_until(due)
            for index, (method, target, fields) in zip(missing, wires, strict=True):
                await targets[index].put(Wire(line_number, method, target, fields, due))
        self._read_all = True

    async def _lines(self) -> AsyncIterator[tuple[int, bytes]]:
        """Lines with their numbers; a thread reads, so that a slow input holds no answer up."""
        take: Callable[[], list[bytes] | None] = functools.partial(next, self._batches, None)
        while (batch := await trio.to_thread.run_sync(take, abandon_on_cancel=True)) is not None:
            for line in batch:
                self.summary.lines += 1
                if self.summary.lines == 1:
                    self._state.check_first(hashlib.blake2b(line, digest_size=16).hexdigest())
                yield self.summary.lines, line

    def _unwanted(self, request: Request) -> str:
        if request.method not in self._order.methods:
            return f"method {recorded.shown(request.method)}"
        if self._order.path is not None and request.target.partition(b"?")[0] != self._order.path:
            return "another path"
        return ""

    def _wire(self, request: Request, url: Url) -> tuple[bytes, bytes, bytes]:
        """Method, target and fields as they go out."""
        if self._order.host == OF_TARGET:
            host = url.text.removeprefix("http://").rstrip("/").encode()
        elif self._order.host == ORIGINAL or "{host}" in self._order.host:
            if request.host is None:
                raise MalformedError("the log has no host, so one must be given (--host NAME)")
            template = "{host}" if self._order.host == ORIGINAL else self._order.host
            host = template.encode().replace(b"{host}", request.host)
        else:
            host = self._order.host.encode()
        fields = [b"Host: " + host, b"User-Agent: scratchd-replay"]
        if self._order.forwarded_for and request.client:
            fields.append(b"X-Forwarded-For: " + request.client)
        if request.method not in (b"GET", b"HEAD"):
            fields.append(b"Content-Length: 0")  # logs have no bodies
        return request.method, request.target, b"\r\n".join(fields)

    # Sending.

    def _target(self, index: int, url: Url) -> Target:
        tally = self.summary.tallies[index]

        def repeated() -> None:
            tally.repeated += 1

        async def handle(wire: Wire, worker: Worker) -> None:
            if self._stopping:
                return
            self._state.begin(wire.number, index)
            tally.began(trio.current_time() - wire.due)
            try:
                status = await worker.send(wire)
            except Failed as failed:
                answer = str(failed)
                tally.failures[answer] += 1
            else:
                answer = str(status)
                tally.statuses[status] += 1
                tally.latencies.add(trio.current_time() - wire.due)
            self._state.done(wire.number, index)
            self._compare(wire.number, index, answer)

        return Target(url, self._order.connections, lambda: Worker(url, self._order.timeout_s, repeated), handle)

    def _compare(self, line_number: int, index: int, answer: str) -> None:
        differing = self._answers.add(line_number, index, answer)
        if self._differing is None or not self._answers.is_settled(line_number):
            return
        request = self._requests.pop(line_number, None)
        if differing and request:
            document = {
                "line": line_number,
                "method": request.method.decode("latin-1"),
                "target": request.target.decode("latin-1"),
                "host": (request.host or b"").decode("latin-1"),
                "answers": differing,
            }
            self._differing.write(msgspec.json.encode(document) + b"\n")

    # Showing.

    async def _show(self) -> None:
        """Progress: in place on a terminal, now and then as a line of a log."""
        is_terminal = self._terminal.isatty()
        try:
            await self._show_until_cancelled(_SHOW_TERMINAL_S if is_terminal else _SHOW_LOG_S)
        finally:
            if is_terminal:
                self._terminal.write("\r\x1b[K")
                self._terminal.flush()

    async def _show_until_cancelled(self, pause_s: float) -> None:
        while True:
            await trio.sleep(pause_s)
            elapsed_s = trio.current_time() - self._started_at
            parts = [f"{elapsed_s:.0f} s, {number(self.summary.lines)} lines"]
            for tally in self.summary.tallies:
                answered = tally.statuses.total()
                waiting = tally.sent - answered - tally.failures.total()
                what = f"{number(answered)} answered, {number(waiting)} waiting, {number(tally.failed)} failed"
                parts.append(f"{tally.url}: {what}, p99 {tally.latencies.quantile_s(0.99) * 1000:.0f} ms")
            text = "; ".join(parts)
            self._terminal.write(f"\r\x1b[K{text}" if self._terminal.isatty() else f"{text}\n")
            self._terminal.flush()
