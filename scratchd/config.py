"""Skeleton, to be completed: the structs' fields are the contract."""

from __future__ import annotations

from typing import Literal

import msgspec


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    listen: tuple[str, ...] = ("127.0.0.1:9006",)
    admin_listen: tuple[str, ...] = ("127.0.0.1:9007",)
    admin_allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    track_path: str = "/track"
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    max_head_bytes: int = 16384
    max_query_bytes: int = 8192
    max_parameters: int = 256
    head_timeout_s: float = 10
    write_timeout_s: float = 10
    keep_alive_s: float = 75
    max_connections: int = 10000
    stop_timeout_s: float = 10


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    repeated: Literal["last", "first", "list"] = "last"


class Checks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    duplicate_window_s: float = 0
    client_requests_per_min: int = 0
    store_entries: int = 100000


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    directory: str = "/var/lib/scratchd"
    sync: Literal["none", "interval", "always"] = "interval"
    sync_interval_s: float = 1
    segment_bytes: int = 67108864
    quota_bytes: int = 10737418240


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    enabled: bool = True
    path: str = "/var/log/scratchd/{flavor}/{date}.log"
    flush_interval_s: float = 0.1


class Kafka(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    enabled: bool = False
    bootstrap_servers: str = ""
    topic: str = "scratch-{flavor}"
    key_parameter: str | None = None
    librdkafka: dict[str, str | int | float | bool] = {}


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"


class Flavor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    hosts: tuple[str, ...]
    time_zone: str = "UTC"
    file_path: str | None = None
    kafka_topic: str | None = None
    quota_bytes: int | None = None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    instance: str = ""
    http: Http = Http()
    query: Query = Query()
    checks: Checks = Checks()
    journal: Journal = Journal()
    file: File = File()
    kafka: Kafka = Kafka()
    log: Log = Log()
    flavors: tuple[Flavor, ...]
