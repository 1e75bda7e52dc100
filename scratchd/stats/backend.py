"""A backend's figures, over all flavors: what went wrong, and what librdkafka tells of its brokers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BrokerStats:
    """What the producer sees of one broker.

    Attributes:
        up: whether it is connected and ready.
        round_trip_mean_s: from a request's sending to its response, over the last interval of the statistics.
        round_trip_p99_s: the same, 99 of 100 were as quick.
        queue_mean_s: how long requests waited to be sent, over the same interval.
        queued_requests: waiting to be sent now.
        awaited_requests: sent, and not answered yet.
        requests: sent so far, by this producer.
        sent_bytes: the same in bytes.
        retries: requests that were sent again.
        errors: requests that could not be sent.
        timeouts: requests that were not answered in time.
        disconnects: connections that ended.
        throttle_mean_s: how long the broker makes the producer wait (quotas).
    """

    up: bool
    round_trip_mean_s: float
    round_trip_p99_s: float
    queue_mean_s: float
    queued_requests: int
    awaited_requests: int
    requests: int
    sent_bytes: int
    retries: int
    errors: int
    timeouts: int
    disconnects: int
    throttle_mean_s: float


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """librdkafka's statistics, as of its last report.

    Attributes:
        at_ms: when it came.
        queue_messages: in the producer: waiting for room in a request, or in one that is not answered.
        queue_bytes: their size.
        brokers: those of the cluster that are known now, by `host:port`.
    """

    at_ms: int
    queue_messages: int
    queue_bytes: int
    brokers: dict[str, BrokerStats]


@dataclass(slots=True)
class BackendStats:
    """What went wrong in one backend, over all flavors.

    Attributes:
        errors: by kind.
        last_error: `at`, `flavor`, `kind`, `message`.
        producer: what librdkafka tells, None before its first report and where there is no librdkafka.
    """

    errors: Counter[str] = field(default_factory=Counter)
    last_error: dict[str, object] | None = None
    producer: ProducerStats | None = None

    def failed(self, at: str, flavor: str, kind: str, message: str) -> None:
        """Counts an error of `kind`; `at` is an ISO 8601 time."""
        self.errors[kind] += 1
        self.last_error = {"at": at, "flavor": flavor, "kind": kind, "message": message}
