"""`scratchd tail`: shows the events of flavors as they come, from the journal.

Reads files alone, as whoever may read the journal: nothing is asked of the service, which neither notices nor has to
be running. Every poll looks at each flavor's directory; what came of several flavors meanwhile is shown in the order of
its arrival.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import pwd
import re
import select
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import msgspec

from scratchd.config import Config
from scratchd.journal.follower import Follower, backwards
from scratchd.journal.format import Frame
from scratchd.journal.reader import Hole
from scratchd.tools.terminal import Palette, quoted, safe_json

POLL_MS = 100

LOOK_BACK = 4
"""Segments that are looked through for the last lines, beside the one that is written: what matches a filter may be
rare, and one does not want to wait for it while the present passes by."""


class TailError(Exception):
    """There is nothing to follow, or it may not be read; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What a parameter is to be.

    Attributes:
        name: the parameter's.
        value: what it is, None where `pattern` is to be found in it.
    """

    name: str
    value: str | None
    pattern: re.Pattern[str] | None = None

    @classmethod
    def parse(cls, text: str) -> Filter:
        """From `name=value`, or `name=~expression` for a regular one.

        Raises:
            ValueError: it is neither; the message says why.
        """
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} is not name=value or name=~expression")
        if not value.startswith("~"):
            return cls(name, value)
        try:
            return cls(name, None, re.compile(value[1:]))
        except re.error as error:
            raise ValueError(f"{value[1:]!r} is not a regular expression: {error}") from error

    def matches(self, values: Mapping[str, str | list[str]]) -> bool:
        """Whether an event has it; of a parameter that came several times, any one."""
        found = values.get(self.name)
        if found is None:
            return False
        each = found if isinstance(found, list) else [found]
        if self.pattern is not None:
            return any(self.pattern.search(value) for value in each)
        return self.value in each


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Attributes:
        flavors: which; all of them where it is empty.
        filters: every one has to match.
        lines: how many of those that are there already come first, of all flavors together.
        raw: whether the JSON objects as they stand are wanted.
    """

    flavors: Sequence[str] = ()
    filters: Sequence[Filter] = ()
    lines: int = 10
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a journal."""

    time_ms: int
    flavor: str
    line: bytes


class Audience:
    """Whoever reads what is shown.

    Args:
        out: where it is shown.
    """

    def __init__(self, out: TextIO) -> None:
        self._fd = out.fileno()

    def wait(self, timeout_ms: int | None, source: int | None = None) -> None:
        """Waits that long, None for ever, or until there is something to read from `source`, or its end.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        waiting = select.poll()
        # Always reported: POLLERR where a pipe's reader has left, POLLHUP alone where a socket's has.
        waiting.register(self._fd, 0)
        if source is not None:
            waiting.register(source, select.POLLIN)
        if any(fd == self._fd for fd, _ in waiting.poll(timeout_ms)):
            raise BrokenPipeError


def run(config: Config, order: Order, palette: Palette, out: TextIO, notes: TextIO) -> None:
    """Shows events until it is interrupted, or until nobody reads `out`.

    Raises:
        TailError: there is nothing to follow, or it may not be read.
        BrokenPipeError: nobody reads `out` any more.
    """
    with contextlib.ExitStack() as held, _readable(config.journal_directory):
        followers = {
            flavor: held.enter_context(contextlib.closing(Follower(config.journal_directory / flavor)))
            for flavor in _flavors(config, order.flavors)
        }
        show = _Show(order, palette, out, max(map(len, followers), default=0))
        show.events(_last(config.journal_directory, followers, order))
        audience = Audience(out)
        while True:
            came = 0
            for event in _merged(followers, order, notes):
                show.events([event])
                came += 1
            if not came:
                out.flush()
                audience.wait(POLL_MS)


def _flavors(config: Config, wanted: Sequence[str]) -> list[str]:
    """The names of those to be followed: configured, or removed and still in the journal."""
    directory = config.journal_directory
    try:
        there = {entry for entry in os.listdir(directory) if (directory / entry).is_dir()}  # noqa: PTH208 - eager
    except FileNotFoundError:
        there = set()  # the service has not run yet, and may be about to
    known = {flavor.name for flavor in config.flavors} | there
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise TailError(f"there is no flavor {quoted(unknown[0])}; there are: {', '.join(sorted(known))}")
    return sorted(set(wanted) or known)


@contextlib.contextmanager
def _readable(directory: Path) -> Iterator[None]:
    """Turns what may not or cannot be read into words."""
    try:
        yield
    except PermissionError as error:
        raise TailError(f"{error.filename}: permission denied; run it as {advised(directory)}") from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TailError(f"{error.filename or directory}: {error.strerror}") from error


def advised(directory: Path) -> str:
    """The command line that may read the journal: as the user who owns what of `directory` can be seen."""
    owner = "scratchd"
    for path in (directory, *directory.parents):
        with contextlib.suppress(OSError, KeyError):
            owner = pwd.getpwuid(path.stat().st_uid).pw_name
            break
    return "sudo scratchd tail" if owner == "root" else f"sudo -u {owner} scratchd tail"


def _last(directory: Path, followers: Mapping[str, Follower], order: Order) -> list[Event]:
    """The last events that match, oldest first; reads every follower to its end."""
    found: list[Event] = []
    for flavor, follower in followers.items():
        recent = deque[Event](maxlen=order.lines)
        while pieces := follower.read():
            recent.extend(event for piece in pieces for event in _events(flavor, piece, order.filters))
        for frames in itertools.islice(backwards(directory / flavor, follower.began), LOOK_BACK):
            if len(recent) >= order.lines:
                break
            earlier = [event for frame in frames for event in _events(flavor, frame, order.filters)]
            recent.extendleft(reversed(earlier[len(recent) - order.lines :]))
        found += recent
    return sorted(found, key=lambda event: event.time_ms)[-order.lines :] if order.lines else []


def _merged(followers: Mapping[str, Follower], order: Order, notes: TextIO) -> list[Event]:
    """What came of all flavors since, in the order of arrival."""
    found: list[Event] = []
    for flavor, follower in followers.items():
        for piece in follower.read():
            if isinstance(piece, Hole):
                print(f"scratchd tail: {flavor}: {piece.count:,} events are not in the journal", file=notes, flush=True)
            found += _events(flavor, piece, order.filters)
    return sorted(found, key=lambda event: event.time_ms)


def _events(flavor: str, piece: Frame | Hole, filters: Sequence[Filter]) -> Iterator[Event]:
    if isinstance(piece, Hole):
        return
    for line in piece.lines():
        if not filters or all(one.matches(_values(line)) for one in filters):
            yield Event(piece.time_ms, flavor, line)


def _values(line: bytes) -> dict[str, str | list[str]]:
    return msgspec.json.decode(line, type=dict[str, str | list[str]])


class _Show:
    """Prints events."""

    def __init__(self, order: Order, palette: Palette, out: TextIO, width: int) -> None:
        self._raw = order.raw
        self._palette = palette
        self._out = out
        self._width = width
        self._date: datetime.date | None = None
        self._terminal = out.isatty()

    def events(self, events: Sequence[Event]) -> None:
        """Prints them, each on a line of its own."""
        for event in events:
            self._out.write(self._json(event) if self._raw else self._pretty(event))
        self._out.flush()

    def _json(self, event: Event) -> str:
        line = event.line.decode()
        return (safe_json(line) if self._terminal else line) + "\n"

    def _pretty(self, event: Event) -> str:
        paint = self._palette
        when = datetime.datetime.fromtimestamp(event.time_ms / 1000).astimezone()
        new_day = ""
        if when.date() != self._date:
            self._date = when.date()
            new_day = paint.dim(f"-- {when:%A, %Y-%m-%d %Z} --") + "\n"
        time = paint.dim(f"{when:%H:%M:%S}.{event.time_ms % 1000:03d}")
        parts = (f"{paint.name(quoted(name))}={_shown(value)}" for name, value in _values(event.line).items())
        return f"{new_day}{time} {paint.flavor(f'{event.flavor:{self._width}}')} {' '.join(parts)}\n"


def _shown(value: str | list[str]) -> str:
    if isinstance(value, str):
        return quoted(value)
    return "[" + ", ".join(quoted(each) for each in value) + "]"
