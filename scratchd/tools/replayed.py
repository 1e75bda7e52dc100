"""What a replay did: counts, latencies, and what the targets answered differently. Pure; prints nothing.

Latencies go into buckets a fiftieth apart, so a quantile is at most two per cent off and memory does not grow.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scratchd.tools.table import columns, number

_RATIO = 1.02
_SMALLEST_S = 0.00001
_SHOWN = 10
_LATE_S = 0.1


class Latencies:
    """How long answers took."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.longest_s = 0.0

    def add(self, seconds: float) -> None:
        """Counts one."""
        self._buckets[math.ceil(math.log(max(seconds, _SMALLEST_S) / _SMALLEST_S, _RATIO))] += 1
        self.longest_s = max(self.longest_s, seconds)

    def quantile_s(self, share: float) -> float:
        """What `share` of them did not exceed; 0 where there are none."""
        wanted, running = share * self._buckets.total(), 0
        for bucket, count in sorted(self._buckets.items()):
            running += count
            if running >= wanted:
                return min(_SMALLEST_S * _RATIO**bucket, self.longest_s)
        return 0.0


@dataclass(slots=True)
class Tally:
    """One target.

    Attributes:
        url: its.
        sent: requests that were begun.
        statuses: answers.
        failures: requests without one, by why.
        repeated: requests that were sent a second time, on a new connection: see `target`.
        late: requests that began more than a tenth of a second after they were due.
        latencies: from when a request was due to the end of its answer.
    """

    url: str
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    late: int = 0
    latencies: Latencies = field(default_factory=Latencies)

    @property
    def failed(self) -> int:
        """Requests that were not served: no answer, or one that says so (5xx)."""
        return self.failures.total() + sum(count for status, count in self.statuses.items() if status >= 500)

    def began(self, late_s: float) -> None:
        """Counts a request."""
        self.sent += 1
        self.late += late_s > _LATE_S


class Answers:
    """Pairs the answers of several targets to one request, until all have come."""

    def __init__(self, targets: int) -> None:
        self._targets = targets
        self._waiting: dict[int, dict[int, str]] = {}
        self.differing: Counter[tuple[str, ...]] = Counter()

    def add(self, line: int, target: int, answer: str) -> tuple[str, ...] | None:
        """Takes a status or a failure's word; all answers once the last one has come and they differ, else None."""
        if self._targets == 1:
            return None
        answers = self._waiting.setdefault(line, {})
        answers[target] = answer
        if len(answers) < self._targets:
            return None
        del self._waiting[line]
        if len(set(answers.values())) == 1:
            return None
        found = tuple(answers[index] for index in range(self._targets))
        self.differing[found] += 1
        return found

    def is_settled(self, line: int) -> bool:
        """Whether all answers to a request have come."""
        return line not in self._waiting


@dataclass(slots=True)
class Summary:
    """All of a run.

    Attributes:
        tallies: of the targets, in their order.
        lines: of the log that were read.
        malformed: how many of them are no request, of which `malformed_examples` shows the first.
        skipped: requests that were not to be sent, by why.
        behind: lines up to which an earlier run had sent everything.
        in_flight: by target, lines of which nobody knows whether they were taken.
        differing: how often the targets answered differently, by their answers.
        interrupted: whether the log's end was not reached.
        elapsed_s: the run's duration.
    """

    tallies: list[Tally]
    lines: int = 0
    malformed: int = 0
    malformed_examples: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    behind: int = 0
    in_flight: dict[str, list[int]] = field(default_factory=dict)
    differing: Counter[tuple[str, ...]] = field(default_factory=Counter)
    interrupted: bool = False
    elapsed_s: float = 0.0

    @property
    def failed(self) -> int:
        """Requests that were not served, of all targets."""
        return sum(tally.failed for tally in self.tallies)

    def spoil(self, line: int, why: str, text: str) -> None:
        """Counts a malformed line."""
        self.malformed += 1
        if len(self.malformed_examples) < _SHOWN:
            self.malformed_examples.append(f"line {line}: {why}: {text}")

    def document(self) -> Mapping[str, Any]:
        """As JSON has it."""
        return {
            "lines": self.lines,
            "malformed": self.malformed,
            "malformed_examples": self.malformed_examples,
            "skipped": self.skipped,
            "behind_line": self.behind,
            "in_flight": self.in_flight,
            "interrupted": self.interrupted,
            "elapsed_s": round(self.elapsed_s, 3),
            "failed": self.failed,
            "differing": [{"answers": answers, "requests": count} for answers, count in self.differing.most_common()],
            "targets": [
                {
                    "url": tally.url,
                    "sent": tally.sent,
                    "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
                    "failures": tally.failures,
                    "repeated": tally.repeated,
                    "late": tally.late,
                    "latency_s": {
                        "p50": round(tally.latencies.quantile_s(0.5), 6),
                        "p99": round(tally.latencies.quantile_s(0.99), 6),
                        "max": round(tally.latencies.longest_s, 6),
                    },
                }
                for tally in self.tallies
            ],
        }

    def page(self) -> str:
        """As people read it."""
        rows: list[tuple[str, ...]] = [("target", "sent", "answers", "failed", "late", "p50", "p99", "max")]
        for tally in self.tallies:
            answers = " ".join(f"{status}:{number(count)}" for status, count in sorted(tally.statuses.items()))
            times = (tally.latencies.quantile_s(0.5), tally.latencies.quantile_s(0.99), tally.latencies.longest_s)
            shown = (f"{seconds * 1000:.1f} ms" for seconds in times)
            rows.append(
                (tally.url, number(tally.sent), answers or "-", number(tally.failed), number(tally.late), *shown)
            )
        lines = [columns(rows, "<><>>>>>", indent="")]
        for tally in self.tallies:
            lines += [f"{tally.url}: no answer, {why}: {number(count)}" for why, count in tally.failures.most_common()]
            if tally.repeated:
                closed = "the server closed an idle connection; it may have taken them twice"
                lines.append(f"{tally.url}: {number(tally.repeated)} sent again: {closed}")
        for differing, count in self.differing.most_common():
            lines.append(f"answered differently, {' and '.join(differing)}: {number(count)}")
        lines += [f"not sent, {why}: {number(count)}" for why, count in self.skipped.most_common()]
        lines += self.malformed_examples
        if self.malformed > len(self.malformed_examples):
            lines.append(
                f"… and {number(self.malformed - len(self.malformed_examples))} more lines that are no request"
            )
        for url, unknown in self.in_flight.items():
            shown_lines = ", ".join(map(str, unknown[:20])) + (", …" if len(unknown) > 20 else "")
            lines.append(f"{url}: in flight when the earlier run ended, it may have taken them: line {shown_lines}")
        ended = "interrupted" if self.interrupted else "done"
        behind = f" behind line {number(self.behind)}" if self.behind else ""
        what = (
            f"{number(self.lines)} lines read{behind}, {number(self.malformed)} malformed, {number(self.failed)} failed"
        )
        lines.append(f"{ended}: {what}, {self.elapsed_s:.1f} s")
        return "\n".join(lines) + "\n"
