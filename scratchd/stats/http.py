"""The track listener's figures, every answer included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from scratchd.stats.durations import Durations


class HttpStats:
    """What the track listener did.

    Attributes:
        connections: open now.
        connections_failed: ended by an error that the boundary around Hypercorn caught.
        duplicates: answered like an event and not persisted.
        requests: answers by status code.
        refusals: refusals by the reason's word.
        flavor_refusals: those of them whose host is a flavor's, by its name and the reason's word.
        latency: of answers.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.connections = 0
        self.connections_failed = 0
        self.duplicates = 0
        self.requests: Counter[int] = Counter()
        self.refusals: Counter[str] = Counter()
        self.flavor_refusals: dict[str, Counter[str]] = {}
        self.latency = Durations(monotonic)

    def answered(self, status: int, seconds: float, count: int = 1) -> None:
        """Counts answers; `seconds` is from the end of the head to the answer being handed to the kernel."""
        self.requests[status] += count
        self.latency.add(seconds, count)

    def refused(self, word: str, flavor: str | None = None) -> None:
        """Counts a refusal; `flavor` is a configured one, None where the request is no flavor's."""
        self.refusals[word] += 1
        if flavor is not None:
            self.flavor_refusals.setdefault(flavor, Counter())[word] += 1

    def document(self, requests_per_s: float, refused_per_s: float) -> dict[str, object]:
        """The `http` part of `/stats`."""
        return {
            "connections": self.connections,
            "requests": {str(status): self.requests[status] for status in sorted(self.requests)},
            "requests_per_s": requests_per_s,
            "refused": {word: self.refusals[word] for word in sorted(self.refusals)},
            "refused_per_s": refused_per_s,
            "duplicates": self.duplicates,
            "connections_failed": self.connections_failed,
            "latency_s": self.latency.last_minute(),
            "latency_histogram_s": self.latency.histogram(),
        }
