"""Beacons: what the canary sends, and how it is recognised. Blocking, and knows no loop."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.parse
from dataclasses import dataclass

from scratchd import __version__

PARAMETER = "scratchd_canary"
"""Whose value is a run of the canary and a number."""

_MOST_BODY_BYTES = 65536


class UnansweredError(Exception):
    """A beacon was not answered 200; the message says what happened instead."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where beacons go.

    Attributes:
        url: `http` or `https`, perhaps with a query.
        run: a word of this run of the canary.
    """

    url: str
    run: str

    def send(self, number: int, timeout_s: float) -> None:
        """Sends a beacon on a connection of its own, and reads its answer.

        Args:
            number: the beacon's.
            timeout_s: for each step: a connection, a handshake, a piece of the answer. Name resolution has its own.

        Raises:
            UnansweredError: it was not answered, or not with 200.
        """
        parts = urllib.parse.urlsplit(self.url)
        query = urllib.parse.urlencode({PARAMETER: f"{self.run}.{number}"})
        target = f"{parts.path or '/'}?{parts.query}&{query}" if parts.query else f"{parts.path or '/'}?{query}"
        host = parts.hostname or ""
        try:
            if parts.scheme == "https":
                context = ssl.create_default_context()
                connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                    host, parts.port, timeout=timeout_s, context=context
                )
            else:
                connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
            try:
                headers = {"User-Agent": f"scratchd-canary/{__version__}", "Connection": "close"}
                connection.request("GET", target, headers=headers)
                answer = connection.getresponse()
                answer.read(_MOST_BODY_BYTES)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise UnansweredError(f"{self.url}: {type(error).__name__}: {error}") from error
        if answer.status != http.client.OK:
            raise UnansweredError(f"{self.url}: answered {answer.status}, expected 200")

    def number(self, line: bytes) -> int | None:
        """The number of the beacon that a line is of; None of any other line, those of other runs too."""
        if self.run.encode() not in line:
            return None
        try:
            value = json.loads(line).get(PARAMETER)
        except (ValueError, AttributeError):
            return None
        run, _, number = value.partition(".") if isinstance(value, str) else ("", "", "")
        return int(number) if run == self.run and number.isascii() and number.isdecimal() else None
