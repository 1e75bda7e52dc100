"""The writing end of one flavor's journal: appending and syncing. Knows no backend and no HTTP.

Appending is synchronous and happens on the loop: one write(2) into the page cache of a local disk, with its blocks
reserved ahead, is what an answer waits for. Everything that may take long (fdatasync, deleting) happens in a thread.

A failed fdatasync is not tried again on the same pages, since the kernel may have marked them clean: the frames since
the last good one are read back and written again, under the same epoch and sequences, into new segments. Nothing is
appended meanwhile.
"""

from __future__ import annotations

import datetime
import os
import time
import uuid
from collections.abc import Sequence
from typing import Literal

import trio

from scratchd.journal.format import frame
from scratchd.journal.reader import Extent
from scratchd.journal.segments import Segments
from scratchd.journal.storage import sync_directory
from scratchd.log import Log
from scratchd.stats import FlavorStats, JournalStats

RETRY_S = 1.0
"""How often a journal that refuses lines is tried without waiting for a request."""

Sync = Literal["none", "interval", "always"]


class JournalError(Exception):
    """Lines were not taken: answer 503 and let the client come again."""


class Writer:
    """Appends to one flavor's journal.

    Attributes:
        flavor: its name.
        epoch: a UUID of this start.
        next_sequence: of the next line.
        waits_for_disk: whether `settled` may have to wait.
        takes_lines: False from a failed append until one succeeds, or a try without a request does.
    """

    def __init__(
        self,
        flavor: str,
        segments: Segments,
        next_sequence: int,
        *,
        sync: Sync,
        sync_interval_s: float,
        stats: FlavorStats,
        totals: JournalStats,
        log: Log,
    ) -> None:
        self.flavor = flavor
        self.epoch = str(uuid.uuid4())
        self.next_sequence = next_sequence
        self.takes_lines = True
        self._segments = segments
        self.waits_for_disk = sync == "always"
        self._sync = sync
        self._sync_interval_s = sync_interval_s
        self._stats = stats
        self._totals = totals
        self._log = log
        self._limiter = trio.CapacityLimiter(1)
        self._appended = trio.Event()
        self._synced_sequence = next_sequence
        self._sync_wanted = trio.Event()
        self._sync_done = trio.Event()
        self._sync_error: OSError | None = None
        self._rewriting = False
        self._publish()

    # Appending: on the loop, never waits.

    def append(self, lines: Sequence[bytes], time_ms: int, date: datetime.date) -> None:
        """Appends lines (each one JSON object without a newline) as one frame with one write(2).

        Raises:
            JournalError: nothing was appended, and nothing of it will be read.
        """
        data = frame(lines, self.next_sequence, time_ms, date)
        try:
            if self._sync_error:
                raise self._sync_error
            self._segments.append(data, self.next_sequence, self.epoch)
        except OSError as error:
            self._totals.append_errors += 1
            self._refuse(error)
            raise JournalError(f"{self._segments.directory}: {error.strerror}") from error
        self.next_sequence += len(lines)
        self._totals.appended_bytes += len(data)
        self._stats.appended_bytes += len(data)
        self._take()
        self._appended.set()

    def try_to_take(self) -> None:
        """Finds out whether lines can be taken, without one; sets `takes_lines`."""
        try:
            if self._sync_error:
                raise self._sync_error
            if self._segments.fd < 0:
                self._segments.begin(self.next_sequence, self.epoch)
            self._segments.probe()
        except OSError as error:
            self._refuse(error)
        else:
            self._take()

    def _refuse(self, error: OSError) -> None:
        if self.takes_lines:
            self._log.error(
                "the journal takes no lines, requests are answered 503",
                flavor=self.flavor,
                directory=self._segments.directory,
                error=error.strerror,
            )
        self.takes_lines = self._stats.takes_lines = False

    def _take(self) -> None:
        if not self.takes_lines:
            self._log.info("the journal takes lines again", flavor=self.flavor)
        self.takes_lines = self._stats.takes_lines = True
        self._publish()

    def _publish(self) -> None:
        self._stats.epoch = self.epoch
        self._stats.received_lines = self.next_sequence
        self._stats.segments = len(self._segments)
        self._stats.journal_bytes = self._segments.total_bytes
        self._stats.reserved_bytes = self._segments.reserved_bytes

    # Reading and releasing.

    def extents(self) -> list[Extent]:
        """What may be read now, in order."""
        return self._segments.extents(self.next_sequence)

    async def wait_beyond(self, sequence: int) -> None:
        """Returns once a line at or beyond `sequence` was appended."""
        while self.next_sequence <= sequence:
            if self._appended.is_set():
                self._appended = trio.Event()
            await self._appended.wait()

    async def release(self, sequence: int) -> None:
        """Deletes the segments that lie wholly below `sequence`: everyone who reads has passed it, durably.

        The last one stays, unless lines are refused: its space may be all that there is to be had.
        """
        if self.takes_lines or self._rewriting or sequence < self.next_sequence:
            leaving = self._segments.below(sequence)
        else:
            leaving = self._segments.all()
            self._synced_sequence = self.next_sequence  # nobody will read it again, so it need not be synced
            self._sync_wanted.set()  # which closes the ended ones
        if leaving:
            self._publish()
            for segment in leaving:
                await trio.to_thread.run_sync(self._segments.delete, segment, limiter=self._limiter)

    # Syncing.

    async def settled(self) -> None:
        """With `sync` = `always`, returns once everything appended before the call is on disk; else at once.

        One fdatasync serves everyone who waits.

        Raises:
            JournalError: it is not sure to be on disk.
        """
        if self._sync != "always":
            return
        wanted = self.next_sequence
        while self._synced_sequence < wanted:
            if self._sync_error and not self._rewriting:
                raise JournalError(f"{self._segments.directory}: {self._sync_error.strerror}")
            self._sync_wanted.set()
            await self._sync_done.wait()

    async def run(self) -> None:
        """Syncs as `sync` says, and tries a refusing journal each second, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_trying)
            while True:
                if self._sync == "always":
                    await self._sync_wanted.wait()
                    self._sync_wanted = trio.Event()
                else:
                    await trio.sleep(self._sync_interval_s)
                await self.sync()

    async def _keep_trying(self) -> None:
        while True:
            await trio.sleep(RETRY_S)
            if self._sync_error and not self._rewriting:
                await self._rewrite()
            elif not self.takes_lines:
                self.try_to_take()

    async def sync(self) -> None:
        """Puts what was appended on disk, unless `sync` is `none` or it is there."""
        if self._rewriting:
            return  # whoever waits is told when that has ended
        if self._sync == "none":
            self._segments.close_unsynced()
        elif not self._sync_error and (self._synced_sequence < self.next_sequence or self._segments.unsynced):
            await self._sync_descriptors()
        self._tell()

    def _tell(self) -> None:
        """Wakes everyone who waits for a sync."""
        done, self._sync_done = self._sync_done, trio.Event()
        done.set()

    async def _sync_descriptors(self) -> None:
        sequence, ended = self.next_sequence, list(self._segments.unsynced)
        names, self._segments.names_unsynced = self._segments.names_unsynced, False  # more may come meanwhile
        # An ended segment's descriptor is closed below and nowhere else, so none is closed under the thread.
        descriptors = [fd for fd, _ in ended] + ([self._segments.fd] if self._segments.fd >= 0 else [])

        def work() -> float:
            began = time.perf_counter()
            for fd in descriptors:
                os.fdatasync(fd)
            if names:
                sync_directory(self._segments.directory)
            return time.perf_counter() - began

        try:
            took_s = await trio.to_thread.run_sync(work, limiter=self._limiter)
        except trio.Cancelled:  # before the thread began
            self._segments.names_unsynced |= names
            raise
        except OSError as error:
            self._totals.sync_errors += 1
            self._log.error(
                "fdatasync failed, the frames since the last one are written again into a new segment",
                flavor=self.flavor,
                error=error.strerror,
            )
            self._sync_error = error
            await self._rewrite()
            return
        self._totals.syncs.add(took_s)
        for item in ended:
            os.close(item[0])
            self._segments.unsynced.remove(item)
        self._synced_sequence = max(self._synced_sequence, sequence)

    async def _rewrite(self) -> None:
        """Writes the frames since the last good sync again; appends fail until that has succeeded."""
        self._rewriting = True
        try:
            adopt = await trio.to_thread.run_sync(
                self._segments.rewrite, self._synced_sequence, self.epoch, limiter=self._limiter
            )
        except OSError as error:
            self._sync_error = error
            self._refuse(error)
        else:
            adopt()
            self._sync_error = None
            self._synced_sequence = self.next_sequence
            self._take()
        finally:
            self._rewriting = False
            self._tell()

    async def close(self) -> None:
        """Syncs and ends the open segment."""
        await self.sync()
        self._segments.leave()
        self._segments.close_unsynced()
