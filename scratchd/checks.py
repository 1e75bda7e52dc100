"""Checks: what is remembered of requests for a while, to find duplicates and clients over their rate.

Owns the in-memory stores. Knows neither requests nor refusals, and has no clock: the time comes with every call, as
seconds of a monotonic clock, and must never go back.

Both checks keep a `Store`, which forgets an entry when its time is over and holds `checks.store_entries` at most. A
full store evicts the oldest entry: the one that was asked for least recently. So a flood of new clients or queries
costs no more memory; it costs accuracy, always in the requests' favour: the repetition of an evicted query is persisted
once more, an evicted client begins a new window. A client that keeps on sending is asked for each time and so stays.

Keys are digests of 16 bytes, which bounds an entry's size whatever a client sends and leaves no address or query in
memory. They are keyed with a secret of this process, so that nobody can make two different requests look alike.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import secrets
from dataclasses import dataclass
from typing import Generic, TypeVar

import cachetools

from scratchd import config

RATE_WINDOW_S = 60.0
"""`checks.client_requests_per_min` counts within as many seconds."""

_Value = TypeVar("_Value")


class Store(Generic[_Value]):
    """Values by key, each for a fixed time, in bounded memory.

    Keys are `str` or `bytes`; any other raises `TypeError`, since what is equal or hashed by identity or by number
    (`1`, `1.0`, `True`) is a bug in a store of what clients sent.

    Args:
        entries: the store's bound, at least 1.
        ttl_s: an entry is gone this many seconds after it was last set; reading does not renew it.
    """

    def __init__(self, entries: int, ttl_s: float) -> None:
        self._now_s = -math.inf
        self._entries: cachetools.TTLCache[str | bytes, _Value] = cachetools.TTLCache(entries, ttl_s, self._time_s)

    def get(self, key: str | bytes, now_s: float) -> _Value | None:
        """The value that was set, None when there is none, its time is over, or it was evicted."""
        self._now_s = now_s
        return self._entries.get(_checked(key))

    def set(self, key: str | bytes, value: _Value, now_s: float) -> None:
        """Keeps `value` until `now_s` plus the store's time, exclusive; a full store evicts an entry."""
        self._now_s = now_s
        self._entries[_checked(key)] = value

    def discard(self, key: str | bytes) -> None:
        """Forgets an entry, if there is one."""
        self._entries.pop(_checked(key), None)

    def __len__(self) -> int:
        return len(self._entries)

    def _time_s(self) -> float:
        return self._now_s


def _checked(key: str | bytes) -> str | bytes:
    if not isinstance(key, (str, bytes)):
        raise TypeError(f"store key: expected str or bytes, got {type(key).__name__}")
    return key


class Duplicates:
    """Remembers requests that were taken, by client, host and query.

    Args:
        window_s: how long one is remembered (`checks.duplicate_window_s`); a repetition does not renew it.
        entries: bound of the store (`checks.store_entries`).
    """

    def __init__(self, window_s: float, entries: int) -> None:
        self._secret = secrets.token_bytes(16)
        self._taken: Store[float] = Store(entries, window_s)

    def digest(self, client: str, host: str | None, query: bytes) -> bytes:
        """The 16 bytes by which a request is remembered."""
        return _digest(self._secret, client, host, query)

    def seen(self, digest: bytes, now_s: float) -> bool:
        """Whether such a request is remembered."""
        return self._taken.get(digest, now_s) is not None

    def remember(self, digest: bytes, now_s: float) -> None:
        """Makes later ones duplicates, for the window."""
        self._taken.set(digest, now_s, now_s)

    def forget(self, digest: bytes) -> None:
        """Takes `remember` back."""
        self._taken.discard(digest)


@dataclass(slots=True)
class _Window:
    begins_s: float
    requests: int


@dataclass(frozen=True, slots=True)
class Counted:
    """Where a client stands in its window.

    Attributes:
        requests: how many it has sent, this one included.
        ends_in_s: whole seconds to the window's end, rounded up, at least 1.
    """

    requests: int
    ends_in_s: int


class Rate:
    """Counts each client's requests in a fixed window that begins with its first one.

    Fixed, not sliding: two numbers a client, and a time to come back that can be told exactly. The price is that a
    client may send twice the limit around a window's end.

    Args:
        entries: bound of the store (`checks.store_entries`).
    """

    def __init__(self, entries: int) -> None:
        self._secret = secrets.token_bytes(16)
        self._windows: Store[_Window] = Store(entries, RATE_WINDOW_S)

    def count(self, client: str, now_s: float) -> Counted:
        """Counts one request.

        Args:
            client: the client's address as text; what is no address counts for itself.
            now_s: the time.
        """
        key = _digest(self._secret, _network(client))
        window = self._windows.get(key, now_s)
        if window is None:
            window = _Window(now_s, 0)
            self._windows.set(key, window, now_s)
        # In place: setting the entry again would renew its time.
        window.requests += 1
        # Subtracted in this order, no rounding of floats makes it 61 in the window's first moment.
        return Counted(window.requests, max(1, math.ceil(RATE_WINDOW_S - (now_s - window.begins_s))))


@dataclass(frozen=True, slots=True)
class Memory:
    """The stores of the checks that are on.

    Attributes:
        section: what they were made for.
        rate: None while that check is off.
        duplicates: the same.
    """

    section: config.Checks
    rate: Rate | None
    duplicates: Duplicates | None


def memory(section: config.Checks, before: Memory | None = None) -> Memory:
    """The stores for a configuration.

    Args:
        section: says which, how large and for how long.
        before: those of the configuration before: what still fits is kept, with all that it remembers.
    """
    window_s, entries = section.duplicate_window_s, section.store_entries
    rate = Rate(entries) if section.client_requests_per_min else None
    duplicates = Duplicates(window_s, entries) if window_s else None
    if before is not None and before.section.store_entries == entries:
        rate = rate and (before.rate or rate)
        if before.section.duplicate_window_s == window_s:
            duplicates = before.duplicates
    return Memory(section, rate, duplicates)


def _network(client: str) -> bytes | str:
    """Whom a client's requests count for: 4 bytes of IPv4, 8 of IPv6, or the text when it is no address.

    An IPv6 subscriber has a /64 at least and may take another address of it for each request.
    """
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return address.packed[:8] if mapped is None else mapped.packed
    return address.packed


def _digest(secret: bytes, *parts: str | bytes | None) -> bytes:
    # The literal of a tuple can be read back, so no two different requests share one, whatever their parts contain.
    return hashlib.blake2b(ascii(parts).encode("ascii"), digest_size=16, key=secret).digest()
