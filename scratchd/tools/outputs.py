"""Outputs: what a collector wrote, line by line with its flavor: log files, directories of them, topics. Blocking.

Knows where lines are and not what they mean. A source is written `PATH`, `topic:NAME`, or either behind `FLAVOR=`. The
flavor of a file below a directory is the directory's first part below it, or its own name without suffix and date:
`log/gr/2026-12-31.log`, `log/gr.log` and `log/gr-2026-12-31.log.gz` are all gr's. Of a message it is the header
`scratchd-flavor`. Where nothing says it, it is empty.

A message that came more than once (same `scratchd-id`) is told by its `identity`: Kafka has every line at least once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scratchd.config import Config
from scratchd.tools import inputs, topics

TOPIC = "topic:"
_FLAVOR = re.compile(r"([A-Za-z0-9_-]+)=(.+)", re.DOTALL)
_DATE = re.compile(r"[-_.]?[0-9]{4}-?[0-9]{2}-?[0-9]{2}")
_NO_LOG = (".manifest.json", ".json", ".tmp")


class OutputError(Exception):
    """A source cannot be read: which and why."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file, directory or topic.

    Attributes:
        flavor: of all its lines; None where each says it itself.
        place: a path, or a topic's name.
        is_topic: which of them.
    """

    flavor: str | None
    place: str
    is_topic: bool


@dataclass(frozen=True, slots=True)
class Output:
    """A line.

    Attributes:
        flavor: empty where nothing says it.
        line: without its newline.
        identity: of a message that may be there more than once; empty otherwise.
        place: where it was found, for people: `path:line` or `topic[partition]@offset`.
    """

    flavor: str
    line: bytes
    identity: str
    place: str


def parse(text: str) -> Source:
    """Reads a source as written on a command line."""
    match = None if Path(text).exists() else _FLAVOR.fullmatch(text)
    flavor, place = (match[1], match[2]) if match else (None, text)
    return Source(flavor, place.removeprefix(TOPIC), place.startswith(TOPIC))


def read(sources: Sequence[Source], config: Config | None, count: Callable[[int], None]) -> Iterator[Output]:
    """All lines of `sources`.

    Args:
        sources: in their order.
        config: for topics: brokers and credentials.
        count: called with how many lines were read.

    Raises:
        OutputError: one cannot be read.
    """
    try:
        for source in sources:
            if not source.is_topic:
                yield from _files(source, count)
        if config is not None and any(source.is_topic for source in sources):
            with topics.opened(config) as opened:
                for source in sources:
                    if source.is_topic:
                        yield from _messages(source, opened, count)
    except (inputs.InputError, topics.TopicError) as error:
        raise OutputError(str(error)) from error
    except OSError as error:
        raise OutputError(f"{error.filename}: {error.strerror}") from error


def _files(source: Source, count: Callable[[int], None]) -> Iterator[Output]:
    path = Path(source.place)
    if not path.is_dir():
        yield from _file(path, source.flavor or "", count)
        return
    for found in sorted(path.rglob("*")):
        if found.is_file() and not found.name.startswith(".") and not found.name.endswith(_NO_LOG):
            flavor = flavor_of(found.relative_to(path)) if source.flavor is None else source.flavor
            yield from _file(found, flavor, count)


def flavor_of(path: Path) -> str:
    """The flavor of a file at `path` below a directory."""
    if len(path.parts) > 1:
        return path.parts[0]
    return _DATE.sub("", path.name.partition(".")[0]).strip("-_")


def _file(path: Path, flavor: str, count: Callable[[int], None]) -> Iterator[Output]:
    with path.open("rb") as opened:
        for number, line in enumerate(inputs.lines_of(opened, str(path)), 1):
            count(1)
            yield Output(flavor, line, "", f"{path}:{number}")


def _messages(source: Source, opened: topics.Topics, count: Callable[[int], None]) -> Iterator[Output]:
    spans = opened.spans(source.place)
    for raw in opened.everything(source.place, spans, count):
        flavor = raw.flavor if source.flavor is None else source.flavor
        yield Output(flavor, raw.value, raw.identity, f"{source.place}[{raw.partition}]@{raw.offset}")
