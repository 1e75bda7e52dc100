"""The configuration's sections: a frozen struct for each, every key with type, limits, meaning and default.

This is the one place where a key is described: `load` checks against it, and `docs/configuration.md` is made from it
(`python -m scratchd.tools.reference`). It reads no file; what concerns several keys at once is in
`scratchd.config.rules`. Descriptions are Markdown; a value that means something special (0: off) says so there.
"""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from scratchd import address
from scratchd.address import Address
from scratchd.config import librdkafka, syntax
from scratchd.config.credentials import Credential

_LARGEST = 2**63 - 1
"""What the kernel takes for a size: a number beyond it is a slip of the hand."""

_LONGEST_S = 1_000_000_000
"""Some thirty years: a longer time is a slip of the hand, and this one can still be added to any clock."""


def _ruled(rule: Callable[[str], None]) -> Meta:
    return Meta(extra={"rule": rule})


_RESTART = {"restart": True}
"""Marks a key that only a start can change: a reload names it and leaves it as it is."""

Seconds = Annotated[float, Meta(gt=0, le=_LONGEST_S)]
Count = Annotated[int, Meta(ge=1, le=_LARGEST)]
Network = Annotated[str, _ruled(syntax.network)]


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where requests are taken, from whom, and how large and how slow they may be."""

    listen: Annotated[
        tuple[Annotated[str, _ruled(syntax.listen)], ...],
        Meta(
            extra=_RESTART,
            min_length=1,
            description=(
                "Addresses of the track listener, each `host:port`, `[v6]:port` or `unix:/path`. "
                "Not used where systemd passes sockets named `track`."
            ),
        ),
    ] = ("127.0.0.1:9006",)
    admin_listen: Annotated[
        tuple[Annotated[str, _ruled(syntax.admin_listen)], ...],
        Meta(
            extra=_RESTART,
            description=(
                "Addresses of the admin listener (`/health/*`, `/stats`, `/metrics`), written alike; `{instance}` in "
                "the path of a unix socket is replaced by the instance's name. Not used where systemd passes sockets "
                "named `admin`. **Empty list: no admin listener.**"
            ),
        ),
    ] = ("127.0.0.1:9007",)
    admin_allow: Annotated[
        tuple[Network, ...],
        Meta(
            description=(
                "Networks whose addresses may use the admin endpoints; others get 403, except for `/health/*`, which "
                "is open to all. For unix sockets the file's mode decides. **Empty list: unix sockets only.**"
            )
        ),
    ] = ("127.0.0.0/8", "::1/128")
    track_path: Annotated[
        Annotated[str, _ruled(syntax.track_path)],
        Meta(
            description=(
                "The one path that takes events. Compared as raw bytes, nothing is decoded; begins with `/`, has no "
                "`?`, and consists of the bytes 0x21-0x7E."
            )
        ),
    ] = "/track"
    trusted_proxies: Annotated[
        tuple[Network, ...],
        Meta(
            description=(
                "Networks of the proxies whose `X-Forwarded-For` is believed and who may speak HTTP/2 with prior "
                "knowledge; who connects to a unix socket always is one. A request's client is the right-most address "
                "that is not in this list. **Empty list: no proxy is trusted, the client is who connects.**"
            )
        ),
    ] = ("127.0.0.0/8", "::1/128")
    max_head_bytes: Annotated[
        Count, Meta(description="Most bytes of a request's line and headers together; more is answered 431.")
    ] = 16384
    max_query_bytes: Annotated[Count, Meta(description="Most bytes of a query; more is answered 414.")] = 8192
    max_parameters: Annotated[
        Count,
        Meta(description="Most parameters: non-empty pieces between `&`, before merging; more is answered 400."),
    ] = 256
    head_timeout_s: Annotated[
        Seconds,
        Meta(
            description=(
                "Seconds from the first byte of a request to the end of its head; later is answered 408 and the "
                "connection closed."
            )
        ),
    ] = 10
    write_timeout_s: Annotated[
        Seconds, Meta(description="Seconds after which a peer that does not read its answers is closed.")
    ] = 10
    keep_alive_s: Annotated[Seconds, Meta(description="Seconds after which an idle connection is closed.")] = 75
    max_connections: Annotated[
        Count,
        Meta(description="Most connections open at once; above it new ones wait in the kernel's backlog."),
    ] = 10000
    stop_timeout_s: Annotated[
        Seconds,
        Meta(
            description=(
                "Seconds after SIGTERM for requests and backends together; idle connections may send one more request "
                "for half of it. What is then not persisted stays in the journal for the next start."
            )
        ),
    ] = 10


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a query string becomes a JSON object."""

    repeated: Annotated[
        Literal["last", "first", "list"],
        Meta(
            description=(
                "What becomes of a parameter that comes more than once: `last` or `first` keeps that value, `list` "
                "every value as a JSON array (only of parameters that do repeat)."
            )
        ),
    ] = "last"


class Checks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is held against repetition and excess. Off unless set."""

    duplicate_window_s: Annotated[
        float,
        Meta(
            ge=0,
            le=_LONGEST_S,
            description=(
                "Seconds within which an identical request (client, host, query) is answered 200 and not persisted. "
                "**0: off, every request is persisted.**"
            ),
        ),
    ] = 0
    client_requests_per_min: Annotated[
        int,
        Meta(
            ge=0,
            le=_LARGEST,
            description=(
                "Most requests of one client (IPv6: of one /64) in a minute that begins with its first request; more "
                "is answered 429. **0: off, no limit.**"
            ),
        ),
    ] = 0
    store_entries: Annotated[
        Count,
        Meta(description="Most entries in the memory of each check; above it the oldest are forgotten."),
    ] = 100000


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where answered lines are kept until every backend has them."""

    directory: Annotated[
        Annotated[str, _ruled(syntax.directory)],
        Meta(
            extra=_RESTART,
            description=(
                "Directory on a local disk. Below it is one directory an instance (`_` when unnamed) and in that one a "
                "flavor; locked while in use."
            ),
        ),
    ] = "/var/lib/scratchd"
    sync: Annotated[
        Literal["none", "interval", "always"],
        Meta(
            extra=_RESTART,
            description=(
                "When lines are forced to disk, which matters at a power loss only: `none` leaves it to the kernel, "
                "`interval` does it every `sync_interval_s`, `always` before each answer."
            ),
        ),
    ] = "interval"
    sync_interval_s: Annotated[
        Seconds, Meta(extra=_RESTART, description="Seconds between two syncs when `sync` is `interval`.")
    ] = 1
    segment_bytes: Annotated[
        int,
        Meta(extra=_RESTART, ge=65536, le=_LARGEST, description="Bytes beyond which a new segment file begins."),
    ] = 67108864
    quota_bytes: Annotated[
        Count,
        Meta(
            description=(
                "Bytes of journal a flavor may keep, at least two segments. Beyond it the oldest segment leaves, and a "
                "backend that had not read it gets a gap."
            )
        ),
    ] = 10737418240


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file backend: a log file for each flavor and day."""

    enabled: Annotated[
        bool, Meta(extra=_RESTART, description="Whether lines go to files. At least one backend must be enabled.")
    ] = True
    path: Annotated[
        Annotated[str, _ruled(syntax.file_template)],
        Meta(
            description=(
                "Path of the files, absolute and without `..`. Fields: `{flavor}` and `{date}` (ISO, in the flavor's "
                "zone) must be there, `{instance}` must be when `instance` is set."
            )
        ),
    ] = "/var/log/scratchd/{flavor}/{date}.log"
    flush_interval_s: Annotated[
        Seconds, Meta(extra=_RESTART, description="Seconds that a line may wait for its file.")
    ] = 0.1


class Kafka(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The Kafka backend: a topic for each flavor."""

    enabled: Annotated[bool, Meta(extra=_RESTART, description="Whether lines go to Kafka.")] = False
    bootstrap_servers: Annotated[
        Annotated[str, _ruled(syntax.bootstrap_servers)],
        Meta(extra=_RESTART, description="Brokers to ask first, `host:port,host:port`. Required when enabled."),
    ] = ""
    topic: Annotated[
        Annotated[str, _ruled(syntax.topic_template)],
        Meta(description="Name of the topics. Field: `{flavor}`."),
    ] = "scratch-{flavor}"
    key_parameter: Annotated[
        str | None,
        Meta(
            extra=_RESTART,
            description=(
                "The parameter whose value in the JSON object (of an array: the last) is the message's key, "
                "partitioner `murmur2_random`. A message whose parameter is absent or empty has no key. "
                "**null: no message has a key.**"
            ),
        ),
    ] = None
    librdkafka: Annotated[
        dict[str, str | int | float | bool | Credential],
        Meta(
            extra={"secret": librdkafka.is_secret, **_RESTART},
            description=(
                "Further properties of librdkafka, passed through (`security.protocol`, `sasl.*`, `ssl.*`, "
                "`compression.type`, `linger.ms`, ...) and validated by librdkafka itself. Some are refused, see "
                'below. A value may be `{"credential": "NAME"}`, for a secret that is not in this file, see below too.'
            ),
        ),
    ] = {}

    def __repr__(self) -> str:
        # Values may be secrets, and a repr ends up in places that nobody thought of.
        return (
            f"Kafka(enabled={self.enabled}, bootstrap_servers={self.bootstrap_servers!r}, topic={self.topic!r}, "
            f"key_parameter={self.key_parameter!r}, librdkafka={sorted(self.librdkafka)})"
        )


class Canary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A beacon of our own every few seconds, through the public address and found again in file and topic."""

    url: Annotated[
        Annotated[str, _ruled(syntax.url)],
        Meta(
            description=(
                "Where beacons are sent, as pages would: `https://canary.example.gr/track`. Its host must be one of "
                "`flavor`'s. **Empty: no canary.**"
            )
        ),
    ] = ""
    flavor: Annotated[
        str,
        Meta(
            description=(
                "The flavor that beacons belong to: one of their own, so that they are not among real events. "
                "Required when `url` is set."
            )
        ),
    ] = "canary"
    interval_s: Annotated[Seconds, Meta(description="Seconds between two beacons.")] = 5
    timeout_s: Annotated[
        Seconds, Meta(description="Seconds after which a beacon that was not answered or not found is a failure.")
    ] = 30


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The log, one line per event to stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least level that is logged.")
    ] = "info"


class Flavor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A tenant, selected by the request's host. No two may share a name, a host, a file or a topic."""

    name: Annotated[
        Annotated[str, _ruled(syntax.flavor_name)],
        Meta(description="Name, of letters, digits, `-` and `_`; stands for `{flavor}` in path and topic."),
    ]
    hosts: Annotated[
        tuple[Annotated[str, _ruled(syntax.host_pattern)], ...],
        Meta(
            min_length=1,
            description=(
                "Hosts whose requests are this flavor's: exact names, `*.example.gr` for any depth below (not "
                "`example.gr` itself), or `*` for any other. Compared without case, port and one trailing dot; exact "
                "goes before the longest wildcard, that before `*`."
            ),
        ),
    ]
    time_zone: Annotated[
        Annotated[str, _ruled(syntax.time_zone)],
        Meta(description="IANA time zone in which a line's day begins and ends."),
    ] = "UTC"
    file_path: Annotated[
        Annotated[str, _ruled(syntax.flavor_file_template)] | None,
        Meta(
            description=(
                "Path in place of `file.path`, written alike, but `{flavor}` need not be there. "
                "**null: as `file.path` says.**"
            )
        ),
    ] = None
    kafka_topic: Annotated[
        Annotated[str, _ruled(syntax.topic_template)] | None,
        Meta(description="Topic in place of `kafka.topic`, written alike. **null: as `kafka.topic` says.**"),
    ] = None
    quota_bytes: Annotated[
        Count | None,
        Meta(description="Bytes in place of `journal.quota_bytes`. **null: as `journal.quota_bytes` says.**"),
    ] = None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration, and what follows from several of its keys."""

    instance: Annotated[
        Annotated[str, _ruled(syntax.instance)],
        Meta(
            extra=_RESTART,
            description=(
                "Name of this instance among several on one machine: letters, digits, `-`. `--instance` replaces it. "
                "**Empty: unnamed.**"
            ),
        ),
    ] = ""
    http: Http = Http()
    query: Query = Query()
    checks: Checks = Checks()
    journal: Journal = Journal()
    file: File = File()
    kafka: Kafka = Kafka()
    canary: Canary = Canary()
    log: Log = Log()
    flavors: Annotated[tuple[Flavor, ...], Meta(min_length=1, description="The flavors, at least one.")]

    @property
    def track_addresses(self) -> tuple[Address, ...]:
        """Where the track listener listens."""
        return tuple(address.parse(text) for text in self.http.listen)

    @property
    def admin_addresses(self) -> tuple[Address, ...]:
        """Where the admin listener listens, `{instance}` replaced."""
        return tuple(address.parse(text.replace("{instance}", self.instance)) for text in self.http.admin_listen)

    @property
    def journal_directory(self) -> Path:
        """The directory that holds this instance's journals, one directory a flavor."""
        return Path(self.journal.directory, self.instance or "_")

    def file_path(self, flavor: Flavor) -> str:
        """The path of the flavor's files, in one form for one file, with only `{date}` left in it."""
        template = self.file.path if flavor.file_path is None else flavor.file_path
        path = template.replace("{flavor}", flavor.name).replace("{instance}", self.instance)
        return "/" + posixpath.normpath(path).lstrip("/")

    def file_pattern(self, flavor: Flavor) -> str:
        """A glob(7) of the flavor's files, those of sibling instances too, with only `{date}` left in it."""
        template = self.file.path if flavor.file_path is None else flavor.file_path
        path = glob.escape(template.replace("{flavor}", flavor.name))
        return "/" + posixpath.normpath(path.replace("{instance}", "*" if self.instance else "")).lstrip("/")

    def kafka_topic(self, flavor: Flavor) -> str:
        """The name of the flavor's topic."""
        return (self.kafka.topic if flavor.kafka_topic is None else flavor.kafka_topic).replace("{flavor}", flavor.name)

    def quota_bytes(self, flavor: Flavor) -> int:
        """The bytes that the flavor's journal may keep."""
        return self.journal.quota_bytes if flavor.quota_bytes is None else flavor.quota_bytes
