"""The service: builds the parts from a configuration, opens them in order, and closes them in reverse.

The wiring is all here and nothing else is. Order: sockets, admin, journals, backends, gate; so `/health/*` answers
while a long recovery runs, and no request is taken before its journal is open. At SIGTERM or SIGINT the gate finishes
what it has begun, then the backends bring what is in the journal to safety, both within `http.stop_timeout_s`; what is
left waits in the journal. A second signal stops at once.

An unexpected exception in any task is a bug: it ends the process, systemd starts it again, and the journal holds
everything.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import sdnotify
import trio

from scratchd import __version__
from scratchd.backends.contract import Backend
from scratchd.backends.file import FileBackend
from scratchd.backends.supervisor import Feed
from scratchd.config import Config, librdkafka
from scratchd.flavors import Flavors
from scratchd.history import History
from scratchd.http.admin import Admin
from scratchd.http.gate import Gate
from scratchd.http.intake import Intake
from scratchd.http.listen import ListenError, Listeners, listeners
from scratchd.http.page import Page
from scratchd.journal import cursor as journal_cursor
from scratchd.journal.flavor import FlavorJournal, JournalLockedError, Limits, locked
from scratchd.journal.outlook import Outlook
from scratchd.log import Log
from scratchd.metrics import Metrics
from scratchd.stats import BackendStats, FlavorStats, Stats, rates
from scratchd.track import Track

PULSE_S = 0.5
"""How often the loop says that it turns: for its lag and for systemd's watchdog."""


def clock_ms() -> int:
    """The wall clock, milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class StartError(Exception):
    """The service cannot start: something on this machine is not as the configuration says."""


def run(config: Config) -> bool:
    """Runs until a signal ends it.

    Returns:
        False when it could not start; why is in the log.
    """
    log = Log("service")
    failures: list[BaseException] = []
    try:
        trio.run(Service(config, log).run, strict_exception_groups=True)
    except* StartError as group:
        failures += _leaves(group)
    for failure in failures:
        log.error("cannot start", error=failure)
    return not failures


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Turns what may be wrong with a machine into `StartError`."""
    try:
        yield
    except (ListenError, JournalLockedError, OSError) as error:
        raise StartError(str(error)) from error


class Service:
    """One instance."""

    def __init__(self, config: Config, log: Log) -> None:
        self._config = config
        self._log = log
        self._flavors = Flavors(config)
        self._stats = Stats(__version__, config.instance, clock_ms, time.monotonic)
        self._stats.build |= {"python": platform.python_version(), "trio": trio.__version__, "librdkafka": ""}
        self._stopping = trio.Event()
        self._ready = False
        self._journals: dict[str, FlavorJournal] = {}
        self._systemd = sdnotify.SystemdNotifier()

    async def run(self) -> None:
        """Runs until the first SIGTERM or SIGINT and what follows it, or until the second."""
        with contextlib.ExitStack() as held:
            with _starting():
                sockets = held.enter_context(listeners(self._config.track_addresses, self._config.admin_addresses))
                held.enter_context(locked(self._directory))
            held.enter_context(self._watched_gc())
            async with trio.open_nursery() as background:
                background.start_soon(self._heed_signals, background.cancel_scope)
                background.start_soon(self._pulse)
                await self._serve(sockets, background)
                background.cancel_scope.cancel()
        self._log.info("stopped", **self._pending())

    @property
    def _directory(self) -> Path:
        return self._config.journal_directory

    @contextlib.contextmanager
    def _watched_gc(self) -> Iterator[None]:
        self._stats.runtime.watch_gc()
        try:
            yield
        finally:
            self._stats.runtime.unwatch_gc()

    async def _serve(self, sockets: Listeners, background: trio.Nursery) -> None:
        config, stats = self._config, self._stats
        history = History(stats, time.monotonic)
        background.start_soon(history.run)
        page = Page(stats.document, history, self._readiness, lambda: datetime.datetime.now(datetime.UTC))
        admin = Admin(config.http, stats.document, Metrics(stats).render, page, self._readiness, log=Log("http"))
        background.start_soon(admin.serve, sockets.admin)
        backends = await self._open_backends(background)
        feeds = await self._open_journals(backends, background)
        background.start_soon(self._outlook().run)
        background.start_soon(self._keep_rates)
        intake = Intake(
            Track(config, self._flavors),
            self._flavors,
            {flavor.name: self._journals[flavor.name].writer for flavor in self._flavors},
            stats.http,
            Log("http"),
            clock_ms=clock_ms,
        )
        gate = Gate(config.http, intake, stats.http, Log("http"), clock_ms=clock_ms)
        async with trio.open_nursery() as feeding:
            for feed in feeds:
                feeding.start_soon(feed.run)
            async with trio.open_nursery() as gating:
                gating.start_soon(gate.serve, sockets.track)
                self._ready = True
                self._systemd.notify("READY=1")
                self._log.info("ready", version=__version__, listen=",".join(sockets.track_names), pid=os.getpid())
                await self._stopping.wait()
                self._systemd.notify("STOPPING=1")
                self._log.info("stopping", within_s=config.http.stop_timeout_s)
                deadline = trio.current_time() + config.http.stop_timeout_s
                gating.cancel_scope.deadline = deadline
                gate.stop()
            for feed in feeds:
                feed.stop()
            feeding.cancel_scope.deadline = deadline
        await self._close_journals()

    def _outlook(self) -> Outlook:
        # The quota is kept by making room for one segment more.
        segment_bytes = self._config.journal.segment_bytes
        quotas = {flavor.name: flavor.quota_bytes - segment_bytes for flavor in self._flavors}
        stats, log = self._stats, Log("journal")
        return Outlook(self._directory, quotas, stats.journal, stats.flavors, log, monotonic=time.monotonic)

    def _readiness(self) -> str:
        """The word of `/health/ready`."""
        if self._stopping.is_set():
            return "stopping"
        if not self._ready:
            return "starting"
        takes = any(self._journals[flavor.name].writer.takes_lines for flavor in self._flavors)
        return "ready" if takes else "journal_full"

    async def _open_backends(self, background: trio.Nursery) -> list[Backend]:
        config, backends = self._config, list[Backend]()
        if config.file.enabled:
            self._stats.backends["file"] = BackendStats()
            paths = {flavor.name: flavor.file_path for flavor in self._flavors}
            zones = {flavor.name: flavor.zone.key for flavor in self._flavors}
            backends.append(FileBackend(paths, self._today, config.file.flush_interval_s, Log("file"), zones))
        if config.kafka.enabled:
            # Importing it takes longer than all else together, so only who uses it pays.
            from scratchd.backends.kafka import KafkaBackend  # noqa: PLC0415
            from scratchd.backends.producer import Producer, library_version  # noqa: PLC0415

            self._stats.build["librdkafka"] = library_version()
            stats = self._stats.backends["kafka"] = BackendStats()
            topics = {flavor.name: flavor.kafka_topic for flavor in self._flavors}
            properties = librdkafka.settings(config.kafka.librdkafka)
            producer = Producer(
                {**properties, "bootstrap.servers": config.kafka.bootstrap_servers},
                next(iter(topics.values())),
                stats=stats,
                log=Log("kafka"),
                clock_ms=clock_ms,
            )
            await background.start(producer.run)
            backends.append(KafkaBackend(topics=topics, key_parameter=config.kafka.key_parameter, producer=producer))
        return backends

    def _today(self, flavor: str) -> datetime.date:
        known = self._flavors.by_name.get(flavor)
        return known.date(clock_ms()) if known else datetime.datetime.now(datetime.UTC).date()

    async def _open_journals(self, backends: Sequence[Backend], background: trio.Nursery) -> list[Feed]:
        """Opens every flavor's journal, the removed ones' too, which are drained and take nothing more."""
        feeds: list[Feed] = []
        names = [backend.name for backend in backends]
        for flavor in self._flavors:
            journal = await self._open_journal(flavor.name, names, flavor.quota_bytes)
            journal.writer.try_to_take()
            feeds += self._feeds(journal, backends)
        for directory in sorted(self._directory.iterdir()):
            if directory.is_dir() and directory.name not in self._flavors.by_name:
                feeds += await self._open_removed(directory, backends)
        for journal in self._journals.values():
            background.start_soon(journal.writer.run)
        return feeds

    async def _open_removed(self, directory: Path, backends: Sequence[Backend]) -> list[Feed]:
        saved = journal_cursor.backends(directory)
        draining = [backend for backend in backends if backend.name in saved]
        if not draining:
            return []
        journal = await self._open_journal(
            directory.name, [backend.name for backend in draining], self._config.journal.quota_bytes
        )
        pending = {
            backend.name: self._stats.flavors[directory.name].pending_lines(backend.name) for backend in draining
        }
        unfinished = any(
            journal.cursor(backend.name).unfinished for backend in draining if backend.name not in journal.broken
        )
        if not unfinished and not any(pending.values()):
            del self._journals[directory.name], self._stats.flavors[directory.name]
            return []
        self._log.info("draining a flavor that was removed from the configuration", flavor=directory.name, **pending)
        feeds = self._feeds(journal, draining)
        for feed in feeds:
            feed.stop()
        return feeds

    async def _open_journal(self, flavor: str, backends: Sequence[str], quota_bytes: int) -> FlavorJournal:
        journal = self._config.journal
        stats = self._stats.flavors[flavor] = FlavorStats()
        limits = Limits(journal.segment_bytes, quota_bytes, journal.sync, journal.sync_interval_s)

        def open_blocking() -> FlavorJournal:
            directory, totals, log = self._directory / flavor, self._stats.journal, Log("journal")
            return FlavorJournal(directory, flavor, backends, limits, stats=stats, totals=totals, log=log)

        with _starting():
            opened = self._journals[flavor] = await trio.to_thread.run_sync(open_blocking)
        return opened

    def _feeds(self, journal: FlavorJournal, backends: Sequence[Backend]) -> list[Feed]:
        stats = self._stats
        return [
            Feed(
                backend,
                journal,
                stats.flavors[journal.flavor].feeds[backend.name],
                stats.backends[backend.name],
                Log(backend.name),
                clock_ms=clock_ms,
            )
            for backend in backends
        ]

    async def _close_journals(self) -> None:
        for journal in self._journals.values():
            await journal.writer.close()

    async def _heed_signals(self, everything: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                if self._stopping.is_set():
                    self._log.warning("stopping at once", signal=signal.Signals(number).name)
                    everything.cancel()
                    return
                self._stopping.set()

    async def _pulse(self) -> None:
        watched = "WATCHDOG_USEC" in os.environ
        while True:
            began = trio.current_time()
            await trio.sleep(PULSE_S)
            self._stats.runtime.woke(max(0.0, trio.current_time() - began - PULSE_S))
            if watched:
                self._systemd.notify("WATCHDOG=1")

    async def _keep_rates(self) -> None:
        while True:
            self._stats.rates.sample()
            await trio.sleep(rates.INTERVAL_S)

    def _pending(self) -> Mapping[str, int]:
        return {
            f"{name}_pending": sum(
                flavor.pending_lines(name) for flavor in self._stats.flavors.values() if name in flavor.feeds
            )
            for name in self._stats.backends
        }
