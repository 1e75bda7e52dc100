"""Takeover: which part of a new configuration a running service can put into effect.

Pure. A key that only a start can change is marked where it is described (`restart` in `scratchd.config.sections`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec import inspect

from scratchd.config.document import Report, join
from scratchd.config.rules import check
from scratchd.config.sections import Config

Section = TypeVar("Section", bound=msgspec.Struct)


class TakeoverError(Exception):
    """What can be taken over does not fit to what waits for a restart; the message has every error."""


@dataclass(frozen=True, slots=True)
class Takeover:
    """What becomes of a configuration that was read.

    Attributes:
        config: to be put into effect: as it was read, with the running one's values for what needs a restart.
        waiting: the keys in which those two differ.
    """

    config: Config
    waiting: tuple[str, ...]


def take_over(running: Config, read: Config) -> Takeover:
    """Sorts out what of `read` can take the place of `running`.

    Raises:
        TakeoverError: the two do not fit together.
    """
    waiting: list[str] = []
    config = _merged("", running, read, waiting)
    if waiting:
        report = Report()
        check(config, report)
        if report.errors:
            raise TakeoverError(
                f"it does not fit to what waits for a restart ({', '.join(waiting)}): {'; '.join(report.errors)}"
            )
    return Takeover(config, tuple(waiting))


def needs_restart(field: inspect.Field) -> bool:
    """Whether only a start can change a key."""
    return isinstance(field.type, inspect.Metadata) and bool((field.type.extra or {}).get("restart"))


def _merged(path: str, running: Section, read: Section, waiting: list[str]) -> Section:
    kept: dict[str, object] = {}
    for field in _fields(type(read)):
        old, new = getattr(running, field.name), getattr(read, field.name)
        key = join(path, field.name)
        if isinstance(new, msgspec.Struct):
            kept[field.name] = _merged(key, old, new, waiting)
        elif needs_restart(field) and old != new:
            kept[field.name] = old
            waiting.append(key)
    return msgspec.structs.replace(read, **kept)


def _fields(struct: type[msgspec.Struct]) -> Iterator[inspect.Field]:
    kind = inspect.type_info(struct)
    return iter(kind.fields if isinstance(kind, inspect.StructType) else ())
