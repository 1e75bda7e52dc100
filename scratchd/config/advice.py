"""Advice: what is allowed in a configuration and yet hardly meant.

Owns the warnings that `check` and the start print; none of them keeps the service from starting. It looks at the
journal's file system and changes nothing on it.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path

from scratchd.config import librdkafka
from scratchd.config.credentials import Credential, resolve
from scratchd.config.document import shown
from scratchd.config.sections import Config, Http


def warnings(config: Config) -> list[str]:
    """What an operator should think over, each one key and a sentence; empty when there is nothing."""
    return [
        *_on_quotas(config),
        *_on_proxies(config),
        *_on_limits(config),
        *_on_paths(config),
        *_on_kafka(config),
        *_on_canary(config),
    ]


def _on_quotas(config: Config) -> Iterator[str]:
    place = Path(config.journal.directory).absolute()
    quota_bytes = sum(config.quota_bytes(flavor) for flavor in config.flavors)
    for directory in (place, *place.parents):
        try:
            system = os.statvfs(directory)
        except OSError:
            continue  # not there yet, or not to be seen: the nearest parent is most likely on the same file system
        size_bytes = system.f_blocks * system.f_frsize
        if quota_bytes > size_bytes:
            yield (
                f"journal.quota_bytes: the flavors' quotas add up to {quota_bytes} bytes, but the file system of "
                f"{directory} has {size_bytes}: the disk is full before any quota is reached"
            )
        return


def _on_proxies(config: Config) -> Iterator[str]:
    open_at = [at for at in config.track_addresses if not at.is_loopback]
    if open_at and config.http.trusted_proxies == Http().trusted_proxies:
        if config.checks.client_requests_per_min:
            yield (
                f"checks.client_requests_per_min: limits clients while http.listen has {open_at[0]} and only proxies "
                "on this machine are trusted: behind another proxy all visitors count as one client; "
                "set http.trusted_proxies"
            )
        if config.checks.duplicate_window_s:
            yield (
                f"checks.duplicate_window_s: compares clients while http.listen has {open_at[0]} and only proxies on "
                "this machine are trusted: behind another proxy all visitors are one client, and their identical "
                "requests one event; set http.trusted_proxies"
            )
    for key, networks, may in (
        ("trusted_proxies", config.http.trusted_proxies, "name any client it likes in X-Forwarded-For"),
        ("admin_allow", config.http.admin_allow, "use the admin endpoints"),
    ):
        for network in networks:
            if ipaddress.ip_network(network).prefixlen == 0:
                yield f"http.{key}: {shown(network)} is every address: who reaches the listener may {may}"


def _on_limits(config: Config) -> Iterator[str]:
    http = config.http
    if http.max_query_bytes >= http.max_head_bytes:
        yield (
            f"http.max_query_bytes: {http.max_query_bytes} is never reached: a head of more than http.max_head_bytes "
            f"({http.max_head_bytes}), the query included, is answered 431 before"
        )


def _on_paths(config: Config) -> Iterator[str]:
    directory = config.journal.directory
    if not directory.startswith("/"):
        yield (
            f"journal.directory: {shown(directory)} is relative to wherever the service is started: another start may "
            "find another journal"
        )
    if config.file.enabled:
        for flavor in config.flavors:
            if Path(directory).absolute() in Path(config.file_path(flavor)).parents:
                yield f"journal.directory: {shown(directory)} also holds the log files of flavor {flavor.name}"


def _on_kafka(config: Config) -> Iterator[str]:
    kafka = config.kafka
    for name, why in resolve(kafka.librdkafka).missing.items():
        yield f"kafka.librdkafka.{name}: {why}"
    if not kafka.enabled:
        if kafka.bootstrap_servers:
            yield "kafka.bootstrap_servers: is set, but kafka.enabled is false: nothing goes to Kafka"
        return
    properties = kafka.librdkafka
    given = properties.get("security.protocol", "plaintext")
    protocol = str(given).lower()
    for prefix in () if isinstance(given, Credential) else ("sasl", "ssl"):
        unused = [name for name in properties if name.startswith(f"{prefix}.")]
        if unused and prefix not in protocol:
            yield (
                f"kafka.librdkafka.{unused[0]}: does nothing, as security.protocol is {shown(protocol)}: "
                "brokers are reached unprotected"
            )
    seen: dict[str, str] = {}
    for flavor in config.flavors:
        topic = config.kafka_topic(flavor)
        other = seen.setdefault(topic.replace(".", "_"), topic)
        if other != topic:
            yield (
                f"flavors: the topics {shown(other)} and {shown(topic)} differ only in . and _: "
                "a Kafka broker refuses to create the second one"
            )
    for text in librdkafka.examine(properties).warnings if properties else ():
        yield f"kafka.librdkafka: librdkafka warns: {text}"


def _on_canary(config: Config) -> Iterator[str]:
    if config.canary.url:
        for flavor in config.flavors:
            if flavor.name == config.canary.flavor and any("*" in host for host in flavor.hosts):
                yield (
                    f"canary.flavor: flavor {flavor.name} takes more than one host, so real events may be among its "
                    "beacons: give the canary a host and a flavor of its own"
                )
