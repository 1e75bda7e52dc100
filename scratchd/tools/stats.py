"""`scratchd stats`: asks the running instance for `/stats` and makes a table that people read.

Knows the address from the configuration and the document's shape, nothing of the service's inside.
"""

from __future__ import annotations

import datetime
import http.client
import json
import socket
from collections.abc import Sequence
from typing import Any

from scratchd.address import Address
from scratchd.config import Config
from scratchd.tools.table import columns, number

TIMEOUT_S = 5


class NotRunningError(Exception):
    """Nobody answers where the configuration says: the instance is not running, or its admin listener is off."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def ask(config: Config) -> bytes:
    """The `/stats` document of the running instance, as JSON.

    Raises:
        NotRunningError: it does not answer, or not with that.
    """
    if not config.admin_addresses:
        raise NotRunningError("the configuration has no http.admin_listen, so there is nobody to ask")
    address = config.admin_addresses[0]
    connection = _connection(address)
    try:
        connection.request("GET", "/stats", headers={"Host": "localhost"})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotRunningError(f"nobody answers at {address} ({error}); is the service running?") from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise NotRunningError(f"{address} answered {response.status}: {body.decode(errors='replace').strip()}")
    return body


def _connection(address: Address) -> http.client.HTTPConnection:
    if address.path:
        return _UnixConnection(address.path)
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where one listens on all, ask the nearest
    return http.client.HTTPConnection(loopback.get(address.host, address.host), address.port, timeout=TIMEOUT_S)


def table(body: bytes) -> str:
    """The document as a page for a terminal, without a newline at its end."""
    document = json.loads(body)
    parts = [
        _heading(document),
        _http(document["http"]),
        _flavors(document["flavors"], sorted(document["backends"])),
        _backends(document["backends"]),
        _journal(document["journal"], document["ledger"], document["flavors"]),
        _canary(document.get("canary")),
        _runtime(document["runtime"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _heading(document: dict[str, Any]) -> str:
    name = f" {document['instance']}" if document["instance"] else ""
    up = datetime.timedelta(seconds=int(document["uptime_s"]))
    return f"scratchd {document['version']}{name}, up {up}, since {document['started_at']}"


def _http(http_: dict[str, Any]) -> str:
    latency = http_["latency_s"]
    rows = [
        ("connections", number(http_["connections"])),
        ("requests, last minute", f"{http_['requests_per_s']:,.1f} a second"),
        *((f"answered {code}", number(count)) for code, count in http_["requests"].items()),
        *((f"refused {word}", number(count)) for word, count in http_["refused"].items()),
        ("duplicates", number(http_["duplicates"])),
        ("connections failed", number(http_["connections_failed"])),
        ("latency, last minute", " ".join(f"{name} {_duration(latency[name])}" for name in ("p50", "p99", "max"))),
    ]
    return "HTTP\n" + columns(rows, "<<")


def _flavors(flavors: dict[str, Any], backends: Sequence[str]) -> str:
    if not flavors:
        return ""
    head = ["FLAVOR", "RECEIVED", "PER S"]
    for backend in backends:
        head += [backend.upper(), "PERSISTED", "PENDING", "GAPS", "SET ASIDE"]
    rows = [head]
    for name, flavor in sorted(flavors.items()):
        row = [name, number(flavor["received_lines"]), f"{flavor['received_lines_per_s']:,.1f}"]
        for backend in backends:
            feed = flavor.get(backend)
            row += _feed(feed) if feed else ["-"] * 5
        rows.append(row)
    return columns(rows, "<>>" + "<>>>>" * len(backends), indent="")


def _feed(feed: dict[str, Any]) -> list[str]:
    lines = [number(feed[f"{what}_lines"]) for what in ("persisted", "pending", "gap", "set_aside")]
    return [feed["state"].replace("_", " "), *lines]


def _backends(backends: dict[str, Any]) -> str:
    rows = []
    for name, backend in sorted(backends.items()):
        errors = ", ".join(f"{kind} {number(count)}" for kind, count in backend["errors"].items())
        rows.append(
            (name, f"{backend['state'].replace('_', ' ')}, oldest pending {_duration(backend['oldest_pending_age_s'])}")
        )
        if errors:
            rows.append(("", f"errors: {errors}"))
        for broker, seen in backend.get("producer", {}).get("brokers", {}).items():
            state = f"answers in {_duration(seen['round_trip_mean_s'])}" if seen["up"] else "not connected"
            rows.append(("", f"broker {broker}: {state}, {number(seen['retries'])} retries"))
        if last := backend["last_error"]:
            where = f" {last['flavor']}" if last["flavor"] else ""
            rows.append(("", f"last: {last['at']}{where}: {last['message']}"))
    return "BACKENDS\n" + columns(rows, "<<")


def _journal(journal: dict[str, Any], ledger: dict[str, Any], flavors: dict[str, Any]) -> str:
    syncs = journal["sync_s"]["last_minute"]
    rows = [
        ("size", f"{_size(journal['bytes'])} in {number(journal['segments'])} segments"),
        ("free", _free(journal)),
        *(
            ("quota", f"{name}: the oldest lines leave unread in {_duration(flavor['quota_full_in_s'])}")
            for name, flavor in sorted(flavors.items())
            if flavor.get("quota_full_in_s") is not None
        ),
        *(
            ("refusing", f"{name}: requests are answered 503")
            for name, flavor in sorted(flavors.items())
            if not flavor.get("takes_lines", True)
        ),
        ("syncs, last minute", " ".join(f"{name} {_duration(syncs[name])}" for name in ("p50", "p99", "max"))),
        *(
            (word.replace("_", " "), number(journal[word]))
            for word in ("append_errors", "sync_errors", "corrupt_lines")
        ),
        (
            "ledger residual",
            f"{number(ledger['residual_lines'])} lines" + (" (must be 0)" if ledger["residual_lines"] else ""),
        ),
    ]
    return "JOURNAL\n" + columns(rows, "<<")


def _free(journal: dict[str, Any]) -> str:
    free_bytes, full_in_s = journal.get("free_bytes"), journal.get("full_in_s")
    if free_bytes is None:
        return "not known"
    if full_in_s is None:
        return _size(free_bytes)
    return f"{_size(free_bytes)}, full" + (f" in {_duration(full_in_s)}" if full_in_s else "")


def _canary(canary: dict[str, Any] | None) -> str:
    if canary is None:
        return ""
    rows = [
        (where, "not yet" if leg["delay_s"] is None else f"after {_duration(leg['delay_s'])}", _failures(leg))
        for where, leg in [("answered", canary["answer"]), *((f"in {n}", x) for n, x in canary["backends"].items())]
    ]
    last = canary["last_error"]
    told = f"\n  last: {last['at']} {last['where']}: {last['message']}" if last else ""
    return "CANARY\n" + columns(rows, "<<<") + told


def _failures(leg: dict[str, Any]) -> str:
    since = f", last success {leg['last_success_at']}" if leg["last_success_at"] else ""
    return f"{number(leg['failures'])} failures{since}"


def _runtime(runtime: dict[str, Any]) -> str:
    pause = runtime["gc_pause_s"]
    rows = [
        ("memory", _size(runtime["rss_bytes"])),
        ("processor", f"{runtime['cpu_s']:.1f} s"),
        ("descriptors, threads", f"{number(runtime['open_fds'])}, {number(runtime['threads'])}"),
        ("loop lag, last minute", _duration(runtime["loop_lag_max_s"])),
        ("gc pauses", f"{number(pause['count'])}, longest {_duration(pause['max'])}"),
    ]
    return "PROCESS\n" + columns(rows, "<<")


def _duration(seconds: float) -> str:
    if seconds >= 120:
        return str(datetime.timedelta(seconds=int(seconds)))
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.2g} ms"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
