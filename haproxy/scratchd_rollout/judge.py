"""The judge: what both sides did, and what is allowed, in; pass, fail or inconclusive out, gate by gate.

Pure: no clock, no file, no network; the same counts always give the same verdict.

A gate on a part of the requests (errors, slow answers, malformed requests, lost lines) is an exact one-sided binomial
test against a limit, with the plan's confidence:

- the limit is `max`, or what the legacy side shows plus `worse_by`, whichever is lower. The legacy side's part is
  itself known only within a bound (Wilson's interval): its upper end counts for *fail*, its lower end for *pass*;
- *fail*: were the true part within the limit, so many or more would be seen with a probability of at most 1 -
  confidence;
- *pass*: were it beyond the limit, so few or fewer would be;
- *inconclusive*: anything else, and whatever is below the minimum sample. A rollout waits on it; it is no verdict.

No number of answers proves that none ever happens. Where nothing is allowed (`max` or `worse_by` 0), none among the
minimum sample passes; against a `max` of 0 a single one fails.

Exact, because what counts is small: by Wilson's lower bound 2 errors of 20 already prove more than 1 % with a
confidence of 99.99 %; their true probability is 1.7 %, and the guard asks every second. A side that has too few
answers to be compared with (all visitors are at scratchd) leaves `max` alone to judge. A gate on a number needs no
bound: it is within its limit or not; unknown numbers are inconclusive.

The verdict of all gates is the worst one. Failing beats everything; one inconclusive gate is enough for no pass.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import statistics
from dataclasses import dataclass

from scratchd_rollout.counts import Counts
from scratchd_rollout.plan import Confidence, Gates, Limit, Proportion, Sample


class Verdict(enum.StrEnum):
    """What the numbers say."""

    PASS = "pass"  # noqa: S105 - no password
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One gate's verdict, with the numbers that made it.

    Attributes:
        gate: its name in the plan.
        scratchd: the part or number on scratchd's side; None: not known.
        legacy: likewise on the legacy side.
        why: a sentence with numbers.
    """

    gate: str
    verdict: Verdict
    scratchd: float | None
    legacy: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """All gates' findings, in the plan's order."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst one."""
        verdicts = {finding.verdict for finding in self.findings}
        return next((v for v in (Verdict.FAIL, Verdict.INCONCLUSIVE) if v in verdicts), Verdict.PASS)

    @property
    def why(self) -> str:
        """The findings that made the verdict, in one line."""
        verdict = self.verdict
        made = [f"{finding.gate}: {finding.why}" for finding in self.findings if finding.verdict is verdict]
        return "every gate passes" if verdict is Verdict.PASS else "; ".join(made)


def judge(counts: Counts, gates: Gates, confidence: Confidence, sample: Sample) -> Judgement:
    """What `counts` prove about a rollout under `gates`."""
    scratchd, legacy = counts.scratchd, counts.legacy
    rule = _Rule(confidence, sample)
    return Judgement(
        (
            _availability(counts, gates.down_s),
            rule.proportion(
                "errors", gates.errors, _part(scratchd.errors, scratchd.requests), _part(legacy.errors, legacy.requests)
            ),
            rule.proportion("slow", gates.slow, _part(scratchd.slow, scratchd.timed), _part(legacy.slow, legacy.timed)),
            rule.proportion(
                "malformed",
                gates.malformed,
                _part(scratchd.malformed, scratchd.requests),
                _part(legacy.malformed, legacy.requests),
            ),
            rule.proportion("lost", gates.lost, _part(counts.lost_lines, counts.ledger_events), None),
            _limit("backend_errors", gates.backend_errors, counts.backend_errors, "errors of scratchd's backends"),
            _limit(
                "residual_lines",
                gates.residual_lines,
                counts.residual_lines,
                "lines that the ledger cannot account for",
            ),
            _limit(
                "pending_age_s",
                gates.pending_age_s,
                counts.pending_age_s,
                "seconds that the oldest line waits for its backend",
            ),
        )
    )


@dataclass(frozen=True, slots=True)
class Part:
    """`hits` of `total`."""

    hits: int
    total: int

    @property
    def rate(self) -> float:
        """0 to 1; 0 of nothing is 0."""
        return self.hits / self.total if self.total else 0.0


def at_least(hits: int, total: int, rate: float) -> float:
    """The probability of `hits` or more of `total`, each with probability `rate`."""
    if hits <= 0:
        return 1.0
    if hits > total or rate <= 0:
        return 0.0
    if rate >= 1:
        return 1.0
    if hits <= total * rate:
        # The other tail is the short one; its terms fall from the middle outwards.
        return max(0.0, 1.0 - _tail(total - hits + 1, total, 1 - rate))
    return _tail(hits, total, rate)


def at_most(hits: int, total: int, rate: float) -> float:
    """The probability of `hits` or fewer."""
    return at_least(total - hits, total, 1 - rate)


def _tail(first: int, total: int, rate: float) -> float:
    """The sum of the binomial distribution's terms from `first` on, which is above its mean."""
    log_term = (
        math.lgamma(total + 1)
        - math.lgamma(first + 1)
        - math.lgamma(total - first + 1)
        + first * math.log(rate)
        + (total - first) * math.log1p(-rate)
    )
    term, added = math.exp(log_term), 0.0
    for hits in range(first, total + 1):
        added += term
        term *= (total - hits) / (hits + 1) * rate / (1 - rate)
        if term <= added * 1e-17:
            break
    return min(1.0, added)


def wilson(part: Part, confidence: float) -> tuple[float, float]:
    """Wilson's bounds of the true proportion, each of them one-sided with `confidence`; (0, 1) for an empty sample."""
    if part.total == 0:
        return 0.0, 1.0
    z = statistics.NormalDist().inv_cdf(confidence)
    n, rate = part.total, part.rate
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _part(hits: int | None, total: int) -> Part | None:
    # More hits than requests can only come from counters that were read a moment apart.
    return None if hits is None else Part(min(max(hits, 0), total), total)


@dataclass(frozen=True, slots=True)
class _Rule:
    confidence: Confidence
    sample: Sample

    def proportion(self, gate: str, allowed: Proportion, part: Part | None, baseline: Part | None) -> Finding:
        if part is None:
            return Finding(gate, Verdict.INCONCLUSIVE, None, None, "not known: no server told its figures")
        compared = (
            baseline
            if baseline is not None and allowed.worse_by is not None and baseline.total >= self.sample.to_pass
            else None
        )
        legacy_rate = baseline.rate if baseline is not None and baseline.total else None
        verdict, why = self._verdict(allowed, part, compared)
        return Finding(gate, verdict, part.rate if part.total else None, legacy_rate, why)

    def _verdict(self, allowed: Proportion, part: Part, baseline: Part | None) -> tuple[Verdict, str]:
        said = f"{part.hits:,} of {part.total:,} ({_percent(part.rate)})"
        if part.total < self.sample.to_fail:
            return Verdict.INCONCLUSIVE, f"{said}: a verdict needs {self.sample.to_fail:,} answers"
        limit, _, name = _limit_of(allowed, baseline, self.confidence.fail, upper=True)
        if part.rate > limit and at_least(part.hits, part.total, limit) <= 1 - self.confidence.fail:
            return Verdict.FAIL, f"{said}: surely more than {name}"
        if part.total < self.sample.to_pass:
            return Verdict.INCONCLUSIVE, f"{said}: a pass needs {self.sample.to_pass:,} answers"
        limit, more, name = _limit_of(allowed, baseline, self.confidence.pass_, upper=False)
        if part.hits == 0 and more == 0:
            return Verdict.PASS, said
        if limit < 1 and at_most(part.hits, part.total, limit) > 1 - self.confidence.pass_:
            return Verdict.INCONCLUSIVE, f"{said}: may yet be more than {name}"
        return Verdict.PASS, said


def _limit_of(
    allowed: Proportion, baseline: Part | None, confidence: float, *, upper: bool
) -> tuple[float, float, str]:
    """What a part is held against, how much of that the plan grants, and its name.

    `upper`: as favourable as the legacy side's own bound allows.
    """
    if baseline is not None and allowed.worse_by is not None:
        relative = wilson(baseline, confidence)[1 if upper else 0] + allowed.worse_by
        if relative < allowed.max:
            name = f"{_percent(allowed.worse_by)} above the legacy side's {_percent(baseline.rate)}"
            return relative, allowed.worse_by, name
    return allowed.max, allowed.max, _percent(allowed.max)


def _availability(counts: Counts, limit: Limit) -> Finding:
    up, known = counts.servers_up, counts.servers
    if up is None:
        return Finding("down_s", Verdict.INCONCLUSIVE, None, None, "not known: haproxy does not answer")
    if up:
        return Finding("down_s", Verdict.PASS, 0.0, None, f"{up} of {known} servers up")
    limited = _limit("down_s", limit, counts.down_s, f"seconds with none of {known} servers up")
    # One moment without a server is not yet a failure, and never a pass.
    return dataclasses.replace(limited, verdict=Verdict.INCONCLUSIVE) if limited.verdict is Verdict.PASS else limited


def _limit(gate: str, limit: Limit, value: float | None, what: str) -> Finding:
    if limit.max is None:
        return Finding(gate, Verdict.PASS, value, None, "not judged")
    if value is None:
        return Finding(gate, Verdict.INCONCLUSIVE, None, None, "not known: a server did not tell its figures")
    said = f"{value:,.6g} {what}, {limit.max:,.6g} allowed"
    if value <= limit.max:
        return Finding(gate, Verdict.PASS, value, None, said)
    return Finding(gate, Verdict.FAIL if limit.then == "fail" else Verdict.INCONCLUSIVE, value, None, said)


def _percent(rate: float) -> str:
    return f"{rate * 100:.3g} %"
