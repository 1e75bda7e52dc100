"""Track: from a request to the line that is persisted, or to the refusal that its client is told.

Owns the rules from `not_found` to `rate_limited` and their order. Knows neither HTTP's framing nor the journal, does no
input or output, and has no clock: whoever calls brings the time.

The order is the contract's, and it is also that of cost: what is refused by its path, method or host is never split at
its `&`, and what has too many parameters is never converted. The rate is tested last, so only requests that could be
taken count for it. A duplicate is looked for behind the rate: it is answered like any other, so it counts too.

What is made for every request is one of msgspec's structs: to make one takes a quarter of a frozen dataclass's time.
"""

from __future__ import annotations

import dataclasses

import msgspec

from scratchd.checks import RATE_WINDOW_S, Memory, memory
from scratchd.config import Config
from scratchd.flavors import Flavor, Flavors
from scratchd.line import Line
from scratchd.query import Limits, to_json
from scratchd.refusal import Reason, Refusal, shown


class Request(msgspec.Struct, frozen=True):
    """A request whose head is well-formed.

    Attributes:
        method: as it came; methods know upper from lower case.
        path: raw, what stands before the first `?`.
        query: raw, what stands behind the first `?`; None where there is none.
        host: lower case, without port and trailing dot; None only for HTTP/1.0 without Host.
        client: the client's address as text; may be empty where `Track.wants_client` is False.
    """

    method: bytes
    path: bytes
    query: bytes | None
    host: str | None
    client: str


class Accepted(msgspec.Struct, frozen=True):
    """A GET to be answered once its line is appended.

    Attributes:
        line: what is to be persisted.
        digest: by which later duplicates are found, None when that check is off.
    """

    line: Line
    digest: bytes | None


class Duplicate(msgspec.Struct, frozen=True):
    """A GET that is answered like an accepted one and not persisted."""

    flavor: str


class HeadOnly(msgspec.Struct, frozen=True):
    """A HEAD that is answered with an accepted GET's head; nothing is persisted."""

    flavor: str


Outcome = Accepted | Duplicate | HeadOnly | Refusal


class Track:
    """Judges requests by a configuration.

    Args:
        config: the configuration.
        flavors: its flavors.
        before: what the checks of the configuration before remember.

    Attributes:
        memory: what the checks remember.
        wants_client: whether a request's `client` is looked at; finding it out costs its parser some work.
    """

    def __init__(self, config: Config, flavors: Flavors, before: Memory | None = None) -> None:
        self.memory = memory(config.checks, before)
        self._flavors = flavors
        self._path = config.http.track_path.encode()
        self._limits = Limits(config.http.max_query_bytes, config.http.max_parameters)
        self._repeated = config.query.repeated
        self._requests_per_min = config.checks.client_requests_per_min
        self._rate, self._duplicates = self.memory.rate, self.memory.duplicates
        self.wants_client = self._rate is not None or self._duplicates is not None

    def receive(self, request: Request, time_ms: int, monotonic_s: float) -> Outcome:
        """Judges one request, and remembers it for the checks.

        An accepted request makes identical ones behind it duplicates at once, before it was appended; whoever fails to
        append it calls `forget`.

        Args:
            request: what came.
            time_ms: its arrival, milliseconds since 1970 in UTC.
            monotonic_s: its arrival by a monotonic clock, for the checks; must never go back.
        """
        if request.path != self._path:
            sentence = f'the path "{shown(request.path)}" is not known, expected "{shown(self._path)}"'
            return Refusal(Reason.NOT_FOUND, sentence, flavor=self._flavor_name(request))
        if request.method not in (b"GET", b"HEAD"):
            sentence = f'the method "{shown(request.method)}" is not allowed, expected GET or HEAD'
            return Refusal(Reason.METHOD_NOT_ALLOWED, sentence, flavor=self._flavor_name(request))
        flavor = self._flavors.match(request.host)
        if flavor is None:
            return Refusal(Reason.UNKNOWN_HOST, _unknown_host(request.host))
        query = b"" if request.query is None else request.query
        refusal = self._limits.refusal(query) or self._rate_limited(request.client, monotonic_s)
        if refusal is not None:
            return dataclasses.replace(refusal, flavor=flavor.name)
        if request.method == b"HEAD":
            return HeadOnly(flavor.name)
        return self._accept_once(request, query, flavor, time_ms, monotonic_s)

    def forget(self, accepted: Accepted) -> None:
        """Makes no later request a duplicate of this one: its line was not appended."""
        if self._duplicates is not None and accepted.digest is not None:
            self._duplicates.forget(accepted.digest)

    def _flavor_name(self, request: Request) -> str | None:
        """Whose a request is that is refused before that matters: for the figures."""
        flavor = self._flavors.match(request.host)
        return None if flavor is None else flavor.name

    def _rate_limited(self, client: str, monotonic_s: float) -> Refusal | None:
        if self._rate is None:
            return None
        counted = self._rate.count(client, monotonic_s)
        if counted.requests <= self._requests_per_min:
            return None
        sentence = (
            f"the client has sent {counted.requests} requests within {RATE_WINDOW_S:.0f} seconds, "
            f"at most {self._requests_per_min} are allowed, the next in {counted.ends_in_s} seconds"
        )
        return Refusal(Reason.RATE_LIMITED, sentence, retry_after_s=counted.ends_in_s)

    def _accept_once(
        self, request: Request, query: bytes, flavor: Flavor, time_ms: int, monotonic_s: float
    ) -> Accepted | Duplicate:
        digest = None
        if self._duplicates is not None:
            digest = self._duplicates.digest(request.client, request.host, query)
            if self._duplicates.seen(digest, monotonic_s):
                return Duplicate(flavor.name)
            self._duplicates.remember(digest, monotonic_s)
        return Accepted(Line(flavor.name, to_json(query, self._repeated), flavor.time(time_ms)), digest)


def _unknown_host(host: str | None) -> str:
    if host is None:
        return "the request names no host, and no flavor takes any"
    return f'the host "{shown(host.encode("utf-8", "backslashreplace"))}" belongs to no flavor'
