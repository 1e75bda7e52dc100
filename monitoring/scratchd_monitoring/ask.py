"""Ask: an instance's `/stats`, within a time limit that holds for all of it.

Owns the addresses, `host:port`, `[v6]:port` and `unix:/path` as in scratchd's configuration, and what an answer must
be. Who asks decides what a silence means: `DownError` is "nobody there, or nobody who answers", `NonsenseError`
everything that says more of the one who asks, of the way, or of what listens there instead.
"""

from __future__ import annotations

import errno
import http.client
import json
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

DEFAULT_ADDRESS = "127.0.0.1:9007"

_MAX_BYTES = 64 << 20
"""Of a document; 10,000 flavors have 10 MB."""

_SECTIONS = ("version", "started_at", "uptime_s", "http", "journal", "backends", "flavors", "ledger", "runtime")


class DownError(Exception):
    """Nobody listens there, or who listens does not answer in time: scratchd is down, or hangs."""


class NonsenseError(Exception):
    """It cannot be known: a name that does not resolve, a socket that one may not open, another's answer."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def split(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`.

    Raises:
        ValueError: it is neither.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f'"{address}" is no address: expected host:port, [v6]:port or unix:/path')
    if (host.startswith("[") != host.endswith("]")) or (":" in host and not host.startswith("[")):
        raise ValueError(f'"{address}" is no address: an IPv6 address is written in brackets')
    return host.strip("[]"), int(port)


def stats(address: str, timeout_s: float) -> dict[str, Any]:
    """The document of the instance whose admin listener is at `address`.

    Raises:
        DownError: nobody answers, within `timeout_s` from now, names and slow answers included.
        NonsenseError: see there.
        ValueError: `address` is none.
    """
    connection: http.client.HTTPConnection
    if address.startswith("unix:/"):
        connection = _Unix(address.removeprefix("unix:"), timeout_s)
    else:
        connection = http.client.HTTPConnection(*split(address), timeout=timeout_s)
    status, body = _within(timeout_s, lambda: _asked(connection), address)
    return _document(address, status, body)


def _asked(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    try:
        # The admin listener answers to addresses and this name only, by whatever name one reaches it.
        connection.request("GET", "/stats", headers={"Host": "localhost", "Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(_MAX_BYTES)
    finally:
        connection.close()


def _within(timeout_s: float, ask: Callable[[], tuple[int, bytes]], address: str) -> tuple[int, bytes]:
    """Asks in a thread that is left behind when time is up: a resolver cannot be interrupted, nor a trickle timed."""
    answers: queue.SimpleQueue[tuple[int, bytes] | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(ask())
        except (OSError, http.client.HTTPException) as error:
            answers.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        answer = TimeoutError()
    if isinstance(answer, Exception):
        raise _meaning(answer, address, timeout_s) from answer
    return answer


def _meaning(error: Exception, address: str, timeout_s: float) -> DownError | NonsenseError:
    if isinstance(error, TimeoutError):
        return DownError(f"{address} does not answer within {timeout_s:g} s")
    if isinstance(error, http.client.RemoteDisconnected | ConnectionError | http.client.IncompleteRead):
        return DownError(f"nobody answers at {address}: {_words(error)}")
    if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.EHOSTUNREACH, errno.EHOSTDOWN):
        return DownError(f"nobody answers at {address}: {_words(error)}")
    return NonsenseError(f"cannot ask {address}: {_words(error)}")


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _document(address: str, status: int, body: bytes) -> dict[str, Any]:
    if status != http.HTTPStatus.OK:
        said = body[:200].decode(errors="replace").strip()
        raise NonsenseError(f"{address} answers {status}: {said}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NonsenseError(f"{address} answers, but no JSON: {error}") from error
    missing = [section for section in _SECTIONS if not isinstance(document, dict) or section not in document]
    if missing:
        raise NonsenseError(f"{address} answers, but not scratchd's figures: {missing[0]} is missing")
    return dict(document)
