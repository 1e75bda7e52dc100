"""What scratchd says of itself: `/stats` of each instance, as counters.

Owns the reading of that document; knows nothing of what is made of it. All instances are asked at the same time, each
for at most the plan's `stats_timeout_s`: one that hangs costs that and no more.

An instance that starts answers before its journals are open, and its `/stats` then lacks flavors, or has none:
whoever took that for its figures would miss every line since the look before. So it is first asked whether it is still
starting, over the same connection, which no other process can answer.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_BYTES = 16 << 20

STARTING = b"starting"
"""What `/health/ready` says while journals are being opened."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance's figures.

    Attributes:
        version: of its package.
        started_at: changes with each start.
        received: flavor to lines, for the journal's lifetime.
        gaps: flavor and backend to lines that this backend will never get, likewise.
        duplicates: requests answered 200 on purpose without a line, since its start.
        backend_errors: since its start.
        residual_lines: must be 0.
        pending_age_s: of the oldest line that a backend has yet to persist.
    """

    version: str
    started_at: str
    received: Mapping[str, int]
    gaps: Mapping[tuple[str, str], int]
    duplicates: int
    backend_errors: int
    residual_lines: int
    pending_age_s: float


def ask(addresses: Iterable[str], timeout_s: float) -> dict[str, Instance | None]:
    """Each address' figures, None where nobody answers, or not with them, or not yet."""
    wanted = tuple(addresses)
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(wanted))) as threads:
        return dict(zip(wanted, threads.map(lambda address: _one(address, timeout_s), wanted), strict=True))


def _one(address: str, timeout_s: float) -> Instance | None:
    parts = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
    try:
        connection.request("GET", urllib.parse.urljoin(parts.path, "health/ready"), headers={"Host": "localhost"})
        if connection.getresponse().read(MOST_BYTES).strip() == STARTING:
            return None
        connection.request("GET", parts.path, headers={"Host": "localhost", "Connection": "close"})
        response = connection.getresponse()
        body = response.read(MOST_BYTES)
        return read(json.loads(body)) if response.status == http.client.OK else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
        # Whatever it was, its figures are not known; HAProxy's checks and counters tell whether it still answers.
        return None
    finally:
        connection.close()


def read(document: Mapping[str, Any]) -> Instance:
    """The figures in a `/stats` document.

    Raises:
        KeyError: it is none.
    """
    backends = document["backends"]
    flavors = document["flavors"]
    return Instance(
        version=str(document["version"]),
        started_at=str(document["started_at"]),
        received={name: int(flavor["received_lines"]) for name, flavor in flavors.items()},
        gaps={
            (name, backend): int(flavor[backend]["gap_lines"])
            for name, flavor in flavors.items()
            for backend in backends
            if backend in flavor
        },
        duplicates=int(document["http"]["duplicates"]),
        backend_errors=sum(int(count) for backend in backends.values() for count in backend["errors"].values()),
        residual_lines=int(document["ledger"]["residual_lines"]),
        pending_age_s=max((float(backend["oldest_pending_age_s"]) for backend in backends.values()), default=0.0),
    )
