"""The contract between the supervisor and a backend. A third backend can be written from this module alone.

The supervisor reads the journal, keeps the cursor and decides when to open anew; a backend brings lines to safety
downstream and says how far it has come. The life of one (backend, flavor):

1. `Backend.open` with an `Opening`: everything at or beyond `opening.sequence` will be taken, in order. Opening may
   fail, and must not have side effects that a second opening cannot bear. The very first one saves where lines go, so
   that a flavor can be drained there once it is removed from the configuration.
2. `Outlet.take`, again and again, with what comes next in the journal. It may wait (that is the back pressure: nothing
   else is read meanwhile) and it may buffer.
3. `Outlet.settle` once a second while something is unsettled, and at the end: what is durable downstream by now? Only
   a prefix counts. The supervisor saves it in the cursor; from then on the journal may forget it.
4. Any `BackendError` ends the opening. The supervisor leaves the context, waits a while and opens again at the cursor,
   so lines that were taken and not settled come again. A backend that wants exactly once recognises them by what it put
   into `Progress.replay` (as the file backend does); one that does not is at least once (as Kafka is).

Rules, each kept by a test against every backend:

- Nothing blocks the loop: what may hang goes into a thread, and leaving the context returns only after the last such
  call has returned. So there are never two writers.
- Foreign errors are translated at the edge into `BackendError`; anything else is a bug and ends the process.
- One flavor's failure is that flavor's alone.
- Memory is bounded: at most what was taken and not yet settled, and `take` waits before that grows large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from scratchd.journal.flavor import Progress
from scratchd.journal.format import Frame
from scratchd.journal.gaps import Gap
from scratchd.journal.reader import Hole
from scratchd.journal.set_aside import Row
from scratchd.stats import State

__all__ = ["Backend", "BackendError", "Frame", "Gap", "Hole", "Opening", "Outlet", "Progress", "Row"]


class BackendError(Exception):
    """The opening has failed: keep the cursor, back off, open anew.

    Args:
        kind: one lower-case word for `/stats` and metrics, of a small fixed set.
        message: what, where, expected, got, and the cure where an operator has to act.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """What a backend gets at each opening.

    Attributes:
        flavor: its name.
        directory: the flavor's in the journal.
        sequence: the first that `take` will get.
        replayed_until: lines below it were in the journal before this start of the process or were handed to an
            earlier opening, so they may already be downstream; none at or beyond it is.
        replay: what the last saved `Progress` held, empty at the very first opening.
        save: saves progress at once, durably; blocking, for a thread of the backend's own while it is opened, during
            `take` or `settle`. Raises BackendError.
        set_aside: keeps lines that are refused for good, in order, durably; blocking as `save`. They are to be kept
            before any progress passes them. Raises BackendError.
        set_state: says that lines wait although nothing has failed (`backing_off`), or that they flow (`running`).
        report: counts and logs why lines wait, where the opening has not failed.
        gaps: the gaps that the cursor has by now.
    """

    flavor: str
    directory: Path
    sequence: int
    replayed_until: int
    replay: dict[str, Any]
    save: Callable[[Progress], None]
    set_aside: Callable[[Sequence[Row]], None]
    set_state: Callable[[State], None]
    report: Callable[[BackendError], None]
    gaps: Callable[[], Sequence[Gap]] = field(default=tuple)


class Outlet(Protocol):
    """One opening of a backend for one flavor. Its methods are called one at a time."""

    async def take(self, pieces: Sequence[Frame | Hole]) -> None:
        """Takes over what comes next; sequences follow on without a break, holes included.

        After Cancelled, part of it may have been taken.

        Raises:
            BackendError: some of it, or of what was taken before, cannot be brought downstream now.
        """
        ...

    async def settle(self, *, final: bool) -> Progress | None:
        """Says what has become durable since the last call, None where nothing has.

        Args:
            final: nothing more will be taken: wait until all that was taken is durable.

        Raises:
            BackendError: as `take`.
        """
        ...


class Backend(Protocol):
    """A place for lines.

    Attributes:
        name: one word, used in the configuration, the cursor's file and figures.
        linger_s: how long lines may wait so that more of them go together.
        read_bytes: about how much of a flavor's journal it is given at a time, which is memory and, from the page
            cache, less than a millisecond of the loop.
    """

    name: str
    linger_s: float
    read_bytes: int

    def open(self, opening: Opening) -> AbstractAsyncContextManager[Outlet]:
        """Opens the backend for one flavor.

        Raises:
            BackendError: it cannot be opened now.
        """
        ...
