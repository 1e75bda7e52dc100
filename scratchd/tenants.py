"""Tenants: every flavor's journal and the feeds that empty it, those of removed flavors too.

Owns what lives as long as a flavor does, and its order: a journal is opened before a request may ask for it, and closed
when nothing is left to bring away. Knows backends by their contract, and nothing of requests.

A flavor that leaves the configuration, while the service runs or between two runs, is *removed*: its journal takes
nothing more, its feeds are opened anew (they then go where its cursors say) and stop at the journal's end. When that
is reached everywhere, the journal is closed and forgotten; its directory stays. A flavor that comes back before that
goes on where it is. `changing` is held by whoever changes which flavors there are, so that no directory is opened while
it is being closed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from scratchd.backends.contract import Backend
from scratchd.backends.supervisor import Feed
from scratchd.config import Journal
from scratchd.flavors import Flavors
from scratchd.journal import cursor as journal_cursor
from scratchd.journal.flavor import FlavorJournal, Limits
from scratchd.journal.recovery import NewerJournalError
from scratchd.journal.writer import Writer
from scratchd.log import Log
from scratchd.stats import FlavorStats, Stats


@dataclass(slots=True, eq=False)
class Tenant:
    """One flavor.

    Attributes:
        journal: its journal, opened.
        stats: its figures.
        feeds: by backend.
        running: backends whose feeds run.
        removed: whether it has left the configuration.
        syncs: whether the task runs that syncs its journal.
        writing: ends that task.
        written: set when it has ended.
    """

    journal: FlavorJournal
    stats: FlavorStats
    feeds: dict[str, Feed]
    running: set[str] = field(default_factory=set)
    removed: bool = False
    syncs: bool = False
    writing: trio.CancelScope = field(default_factory=trio.CancelScope)
    written: trio.Event = field(default_factory=trio.Event)

    @property
    def name(self) -> str:
        """The flavor's name."""
        return self.journal.flavor

    def pending(self) -> dict[str, int]:
        """Lines that each backend has yet to get."""
        return {name: self.stats.pending_lines(name) for name in self.feeds}

    def is_finished(self) -> bool:
        """Whether nothing is left to do for its backends; never while a cursor cannot be read."""
        if self.journal.broken:
            return False
        return not any(self.pending().values()) and not any(self.journal.cursor(name).unfinished for name in self.feeds)


class ComebackError(Exception):
    """A removed flavor cannot come back before it is drained: a restart can do it."""


class Tenants:
    """All flavors of one instance.

    Args:
        directory: the instance's, a directory for each flavor below it.
        config: the journals' configuration.
        stats: where every flavor has its figures.
        clock_ms: the wall clock, milliseconds since the epoch.

    Attributes:
        changing: held by whoever changes which flavors there are.
    """

    def __init__(self, directory: Path, config: Journal, stats: Stats, *, clock_ms: Callable[[], int]) -> None:
        self.changing = trio.Lock()
        self._directory = directory
        self._config = config
        self._backends: dict[str, Backend] = {}
        self._stats = stats
        self._clock_ms = clock_ms
        self._log = Log("service")
        self._tenants: dict[str, Tenant] = {}
        self._stopping = trio.Event()
        self._deadline = math.inf
        # Of the tasks that sync and of those that feed, while they run.
        self._nurseries: tuple[trio.Nursery, trio.Nursery] | None = None

    @property
    def writers(self) -> Mapping[str, Writer]:
        """Those that take lines: of the flavors in the configuration."""
        return {name: tenant.journal.writer for name, tenant in self._tenants.items() if not tenant.removed}

    # Opening.

    async def open(self, flavors: Flavors, backends: Sequence[Backend], step: Callable[[str], None]) -> None:
        """Opens the journals of all flavors, and of those removed ones that are not drained.

        Args:
            flavors: those of the configuration.
            backends: those that are enabled.
            step: told of each journal before it is opened, which may take long.

        Raises:
            OSError: a directory cannot be read or written to.
        """
        self._backends = {backend.name: backend for backend in backends}
        for flavor in flavors:
            step(f"opening the journal of {flavor.name}")
            self._add(await self._open(flavor.name, list(self._backends), flavor.quota_bytes, takes_lines=True))
        for directory in sorted(self._directory.iterdir()):
            if directory.is_dir() and directory.name not in flavors.by_name:
                step(f"opening the journal of {directory.name}, which was removed")
                await self._open_removed(directory)

    async def _open_removed(self, directory: Path) -> None:
        saved = journal_cursor.backends(directory)
        draining = [name for name in self._backends if name in saved]
        if not draining:
            return
        tenant = await self._open(directory.name, draining, self._config.quota_bytes, takes_lines=False)
        if tenant.is_finished():
            return
        self._add(tenant)
        self._remove(tenant)

    async def _open(self, flavor: str, backends: Sequence[str], quota_bytes: int, *, takes_lines: bool) -> Tenant:
        config, stats = self._config, FlavorStats()
        limits = Limits(config.segment_bytes, quota_bytes, config.sync, config.sync_interval_s)

        def open_blocking() -> FlavorJournal:
            directory, totals, log = self._directory / flavor, self._stats.journal, Log("journal")
            journal = FlavorJournal(directory, flavor, backends, limits, stats=stats, totals=totals, log=log)
            if takes_lines:
                journal.writer.try_to_take()
            return journal

        journal = await trio.to_thread.run_sync(open_blocking)
        return Tenant(journal, stats, {name: self._feed(journal, stats, name) for name in backends})

    def _feed(self, journal: FlavorJournal, stats: FlavorStats, backend: str) -> Feed:
        return Feed(
            self._backends[backend],
            journal,
            stats.feeds[backend],
            self._stats.backends[backend],
            Log(backend),
            clock_ms=self._clock_ms,
        )

    def _add(self, tenant: Tenant) -> None:
        self._tenants[tenant.name] = tenant
        self._stats.flavors[tenant.name] = tenant.stats
        self._begin(tenant)

    # Changing.

    async def open_added(self, flavors: Flavors) -> list[Tenant]:
        """Opens the journals of flavors that are not here yet, for `adopt`, or for `discard`. Holds: `changing`.

        Raises:
            ComebackError: one is still being drained, to other backends.
            OSError, NewerJournalError: one cannot be opened.
        """
        names = list(self._backends)
        for flavor in flavors:
            known = self._tenants.get(flavor.name)
            if known is not None and set(known.feeds) != set(names):
                # It was removed before a backend was switched on, so its journal knows nothing of that one.
                lacks = ", ".join(sorted(set(names).difference(known.feeds)))
                raise ComebackError(f"flavor {flavor.name} is still being drained, and not to {lacks}: restart")
        added: list[Tenant] = []
        try:
            for flavor in (flavor for flavor in flavors if flavor.name not in self._tenants):
                tenant = await self._open(flavor.name, names, flavor.quota_bytes, takes_lines=True)
                added.append(tenant)
        except (OSError, NewerJournalError):
            await self.discard(added)
            raise
        return added

    async def discard(self, added: Sequence[Tenant]) -> None:
        """Closes what `open_added` opened."""
        for tenant in added:
            await tenant.journal.writer.close()

    def adopt(self, flavors: Flavors, added: Sequence[Tenant], elsewhere: Collection[tuple[str, str]]) -> None:
        """Has these flavors from now on, at once. Holds: `changing`.

        Args:
            flavors: those of the configuration.
            added: what `open_added` opened for them.
            elsewhere: pairs of flavor and backend that are to be opened anew.
        """
        for tenant in list(self._tenants.values()):
            flavor = flavors.by_name.get(tenant.name)
            if flavor is None:
                if not tenant.removed:
                    self._remove(tenant)
                continue
            tenant.journal.adopt(flavor.quota_bytes)
            for name in tenant.feeds:
                if tenant.removed or (tenant.name, name) in elsewhere:
                    tenant.feeds[name].reopen()
            if tenant.removed:
                self._take_back(tenant)
        for tenant in added:
            self._add(tenant)

    def _remove(self, tenant: Tenant) -> None:
        self._log.info(
            "draining a flavor that was removed from the configuration", flavor=tenant.name, **tenant.pending()
        )
        tenant.removed = True
        for feed in tenant.feeds.values():
            feed.reopen()
            feed.stop()

    def _take_back(self, tenant: Tenant) -> None:
        self._log.info("a flavor that was being drained has come back", flavor=tenant.name, **tenant.pending())
        tenant.removed = False
        for feed in tenant.feeds.values():
            feed.go_on()
        self._begin(tenant)

    # Running.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Feeds and syncs until `stop` and what follows it, then closes every journal."""
        async with trio.open_nursery() as writing:
            async with trio.open_nursery() as feeding:
                self._nurseries = writing, feeding
                for tenant in self._tenants.values():
                    self._begin(tenant)
                task_status.started()
                await self._stopping.wait()
                for tenant in self._tenants.values():
                    for feed in tenant.feeds.values():
                        feed.stop()
                feeding.cancel_scope.deadline = self._deadline
            self._nurseries = None
            writing.cancel_scope.cancel()
        for tenant in self._tenants.values():
            await tenant.journal.writer.close()

    def stop(self, deadline: float) -> None:
        """Lets `run` return once everything in the journals was brought to safety, or at `deadline`, trio's clock."""
        self._deadline = deadline
        self._stopping.set()

    def _begin(self, tenant: Tenant) -> None:
        """Starts the tasks of a tenant that do not run; does nothing before `run`."""
        if self._nurseries is None:
            return
        writing, feeding = self._nurseries
        if not tenant.syncs:
            tenant.syncs = True
            writing.start_soon(self._sync, tenant)
        for name, feed in tenant.feeds.items():
            if name not in tenant.running:
                tenant.running.add(name)
                feeding.start_soon(self._run_feed, tenant, name, feed)

    async def _sync(self, tenant: Tenant) -> None:
        try:
            with tenant.writing:
                await tenant.journal.writer.run()
        finally:
            tenant.written.set()

    async def _run_feed(self, tenant: Tenant, name: str, feed: Feed) -> None:
        await feed.run()
        tenant.running.discard(name)
        if tenant.removed and not tenant.running:
            await self._forget(tenant)

    async def _forget(self, tenant: Tenant) -> None:
        async with self.changing:
            if not tenant.removed or tenant.running or not tenant.is_finished():
                return
            del self._tenants[tenant.name], self._stats.flavors[tenant.name]
            tenant.writing.cancel()
            await tenant.written.wait()  # a journal is closed when nobody syncs it
            await tenant.journal.writer.close()
            self._log.info("a removed flavor is drained", flavor=tenant.name)
