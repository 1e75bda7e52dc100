"""Flavors: which tenant a host belongs to, and what day it is there.

Owns the choice of a flavor by host and its local time; knows no HTTP, reads no clock and no file but the system's tz
database. Paths and topics are resolved here once, so nobody else sees the configuration's templates.

A host is looked up as it stands, then each of the names it lies below, the longest first, among the wildcards, then
`*`: at most as many look-ups in dictionaries as it has labels.
"""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from scratchd.config import Config
from scratchd.config.syntax import normal_host


class _Last:
    """The millisecond that a flavor was last asked for, and its local time: one value, as threads ask too."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen: tuple[int | None, datetime.datetime] = (None, datetime.datetime.min.replace(tzinfo=datetime.UTC))


@dataclass(frozen=True, slots=True)
class Flavor:
    """A tenant.

    Attributes:
        name: letters, digits, `-` and `_`.
        zone: where its days begin and end.
        file_path: absolute path of its log files, with only `{date}` left to resolve.
        kafka_topic: name of its topic.
        quota_bytes: what its journal may keep.
    """

    name: str
    zone: zoneinfo.ZoneInfo
    file_path: str
    kafka_topic: str
    quota_bytes: int
    _last: _Last = field(default_factory=_Last, init=False, repr=False, compare=False)

    def time(self, time_ms: int) -> datetime.datetime:
        """The aware time in the flavor's zone, of milliseconds since the epoch.

        The last one is remembered: under load, when converting it would count, requests by the dozen share one.
        Remembering more, as a date until midnight, would be wrong where clocks are turned back over it.
        """
        last_ms, time = self._last.seen
        if time_ms != last_ms:
            second, ms = divmod(time_ms, 1000)
            # Not from a fraction: the milliseconds are to come back as they went in.
            time = datetime.datetime.fromtimestamp(second, self.zone).replace(microsecond=ms * 1000)
            self._last.seen = time_ms, time
        return time

    def date(self, time_ms: int) -> datetime.date:
        """The flavor's local date, of milliseconds since the epoch."""
        return self.time(time_ms).date()


class Flavors:
    """All flavors of a valid configuration, in its order.

    Attributes:
        by_name: the flavors by name.
    """

    def __init__(self, config: Config) -> None:
        self._exact: dict[str, Flavor] = {}
        self._below: dict[str, Flavor] = {}
        self._any: Flavor | None = None
        flavors: dict[str, Flavor] = {}
        for section in config.flavors:
            flavor = Flavor(
                name=section.name,
                zone=zoneinfo.ZoneInfo(section.time_zone),
                file_path=config.file_path(section),
                kafka_topic=config.kafka_topic(section),
                quota_bytes=config.quota_bytes(section),
            )
            flavors[flavor.name] = flavor
            for pattern in map(normal_host, section.hosts):
                if pattern == "*":
                    self._any = flavor
                elif pattern.startswith("*."):
                    self._below[pattern.removeprefix("*.")] = flavor
                else:
                    self._exact[pattern] = flavor
        self.by_name: Mapping[str, Flavor] = MappingProxyType(flavors)

    def __iter__(self) -> Iterator[Flavor]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)

    def match(self, host: str | None) -> Flavor | None:
        """The flavor of a host: exact before the longest wildcard before `*`; None where no flavor takes it.

        Args:
            host: lower case, without port and trailing dot, IPv6 canonical in brackets; None where a request has none,
                which only `*` takes.
        """
        if host is None:
            return self._any
        flavor = self._exact.get(host)
        name = host
        while flavor is None and "." in name:
            name = name.partition(".")[2]
            flavor = self._below.get(name)
        return flavor or self._any
