"""The judge of a rollout: what counts prove, and what they do not."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scratchd_rollout.counts import Counts, Side
from scratchd_rollout.judge import Judgement, Part, Verdict, at_least, at_most, judge, wilson
from scratchd_rollout.plan import Confidence, Gates, Limit, Proportion, Sample

SAMPLE = Sample(to_pass=300, to_fail=20)
ONLY_MAX = Gates(errors=Proportion(0.01), slow=Proportion(0.05), malformed=Proportion(0.05), lost=Proportion(0.002))
ORDER = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]


def counts(
    *,
    answers: int = 100_000,
    legacy: int = 100_000,
    errors: int = 0,
    legacy_errors: int = 0,
    slow: int = 0,
    malformed: int = 0,
    lost: int | None = 0,
) -> Counts:
    """A healthy rollout but for what is given."""
    side = Side(requests=answers, errors=errors, malformed=malformed, events=answers, timed=answers, slow=slow)
    other = Side(requests=legacy, errors=legacy_errors, events=legacy, timed=legacy)
    return Counts(
        seconds=60,
        scratchd=side,
        legacy=other,
        lost_lines=lost,
        ledger_events=answers,
        backend_errors=0,
        residual_lines=0,
        pending_age_s=0,
        servers_up=2,
        servers=2,
    )


def judged(given_: Counts, gates: Gates | None = None) -> Judgement:
    return judge(given_, gates or Gates(), Confidence(), SAMPLE)


def verdict_of(gate: str, judgement: Judgement) -> Verdict:
    return next(finding.verdict for finding in judgement.findings if finding.gate == gate)


def test_a_healthy_side_passes() -> None:
    judgement = judged(counts())
    assert judgement.verdict is Verdict.PASS
    assert judgement.why == "every gate passes"


@pytest.mark.parametrize(
    ("given_", "gate"),
    [
        pytest.param(counts(errors=2000), "errors", id="errors"),
        pytest.param(counts(slow=10_000), "slow", id="slow"),
        pytest.param(counts(malformed=10_000), "malformed", id="malformed"),
        pytest.param(counts(lost=1000), "lost", id="lost"),
        pytest.param(replace(counts(), backend_errors=11), "backend_errors", id="backend errors"),
        pytest.param(replace(counts(), residual_lines=1), "residual_lines", id="residual"),
        pytest.param(replace(counts(), servers_up=0, down_s=6), "down_s", id="no server"),
        pytest.param(counts(answers=20, errors=20), "errors", id="all of a small sample"),
        pytest.param(counts(errors=900), "errors", id="within max, but worse than the legacy side"),
    ],
)
def test_each_gate_fails_by_itself_and_is_named(given_: Counts, gate: str) -> None:
    judgement = judged(given_)
    assert judgement.verdict is Verdict.FAIL
    assert [finding.gate for finding in judgement.findings if finding.verdict is Verdict.FAIL] == [gate]
    assert judgement.why.startswith(f"{gate}: ")


@pytest.mark.parametrize(
    "given_",
    [
        pytest.param(Counts(), id="nothing known"),
        pytest.param(counts(answers=0), id="no answers"),
        pytest.param(counts(answers=19, errors=19), id="all of too small a sample"),
        pytest.param(counts(answers=299), id="too few for a pass"),
        pytest.param(counts(lost=None), id="figures missing"),
        pytest.param(replace(counts(), residual_lines=None), id="no ledger"),
        pytest.param(replace(counts(), pending_age_s=61), id="a backlog"),
        pytest.param(replace(counts(), servers_up=0, down_s=1), id="no server for a moment"),
        pytest.param(replace(counts(), servers_up=None), id="no HAProxy"),
        pytest.param(counts(answers=1000, errors=8), id="as many errors as may be"),
    ],
)
def test_what_is_not_known_is_no_verdict(given_: Counts) -> None:
    assert judged(given_).verdict is Verdict.INCONCLUSIVE


def test_a_limit_that_is_off_does_not_judge() -> None:
    gates = Gates(backend_errors=Limit(None), pending_age_s=Limit(None))
    assert judged(replace(counts(), backend_errors=10**6, pending_age_s=10**6), gates).verdict is Verdict.PASS


def test_what_the_legacy_side_does_as_badly_is_no_failure() -> None:
    gates = Gates(errors=Proportion(0.1, 0.005))
    assert verdict_of("errors", judged(counts(errors=3000, legacy_errors=3000), gates)) is Verdict.PASS
    assert verdict_of("errors", judged(counts(errors=3000), gates)) is Verdict.FAIL


def test_a_legacy_side_without_answers_leaves_the_maximum_alone() -> None:
    gates = Gates(errors=Proportion(0.1, 0.005))
    assert verdict_of("errors", judged(counts(errors=3000, legacy=299), gates)) is Verdict.PASS


NONE = Gates(errors=Proportion(0), slow=Proportion(0), malformed=Proportion(0), lost=Proportion(0))


@pytest.mark.parametrize(
    ("given_", "verdict"),
    [
        pytest.param(counts(), Verdict.PASS, id="none of many"),
        pytest.param(counts(answers=300), Verdict.PASS, id="none of the smallest sample"),
        pytest.param(counts(answers=299), Verdict.INCONCLUSIVE, id="none of too few"),
        pytest.param(counts(lost=1), Verdict.FAIL, id="one of many"),
        pytest.param(counts(answers=20, lost=1), Verdict.FAIL, id="one of few"),
        pytest.param(counts(answers=19, lost=1), Verdict.INCONCLUSIVE, id="one of too few"),
    ],
)
def test_a_limit_of_zero_means_none(given_: Counts, verdict: Verdict) -> None:
    assert judged(given_, NONE).verdict is verdict


@pytest.mark.parametrize("legacy", [300, 301, 1000, 99_999, 1_000_000])
@pytest.mark.parametrize("legacy_errors", [0, 1])
def test_none_is_no_worse_than_the_legacy_side(legacy: int, legacy_errors: int) -> None:
    gates = Gates(errors=Proportion(1, 0))
    given_ = counts(answers=300, legacy=legacy, legacy_errors=legacy_errors)
    assert verdict_of("errors", judged(given_, gates)) is Verdict.PASS


def test_some_are_yet_to_be_proven_no_worse_than_the_legacy_side() -> None:
    gates = Gates(errors=Proportion(1, 0))
    assert verdict_of("errors", judged(counts(errors=10, legacy_errors=10), gates)) is Verdict.INCONCLUSIVE


answers_ = st.integers(0, 3000)


@given(answers_, answers_, st.data())
def test_one_error_more_never_makes_it_better(answers: int, legacy: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, max(0, answers - 1)))
    legacy_errors = data.draw(st.integers(0, legacy))
    assume(answers > 0)
    before = judged(counts(answers=answers, legacy=legacy, errors=errors, legacy_errors=legacy_errors))
    after = judged(counts(answers=answers, legacy=legacy, errors=errors + 1, legacy_errors=legacy_errors))
    assert ORDER.index(verdict_of("errors", after)) >= ORDER.index(verdict_of("errors", before))


@given(answers_, st.integers(300, 3000), st.data())
def test_one_error_more_on_the_legacy_side_never_makes_it_worse(answers: int, legacy: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, answers))
    legacy_errors = data.draw(st.integers(0, legacy - 1))
    before = judged(counts(answers=answers, legacy=legacy, errors=errors, legacy_errors=legacy_errors))
    after = judged(counts(answers=answers, legacy=legacy, errors=errors, legacy_errors=legacy_errors + 1))
    assert ORDER.index(verdict_of("errors", after)) <= ORDER.index(verdict_of("errors", before))


@given(st.integers(0, 299), answers_, st.data())
def test_too_small_a_sample_never_passes(answers: int, legacy: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, answers))
    assert judged(counts(answers=answers, legacy=legacy, errors=errors)).verdict is not Verdict.PASS


@given(st.integers(0, 19), st.data())
def test_too_small_a_sample_never_fails(answers: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, answers))
    given_ = counts(answers=answers, errors=bad, slow=bad, malformed=bad, lost=bad)
    assert judged(given_).verdict is not Verdict.FAIL


@given(st.integers(0, 3000), st.data())
def test_two_sides_alike_never_fail_by_comparison(answers: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, answers))
    gates = Gates(errors=Proportion(1.0, 0.0))
    given_ = counts(answers=answers, legacy=answers, errors=errors, legacy_errors=errors)
    assert verdict_of("errors", judged(given_, gates)) is not Verdict.FAIL


@given(st.integers(1, 60), st.data())
def test_probabilities_are_the_binomial_distributions(total: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, total))
    rate = data.draw(st.fractions(0, 1, max_denominator=1000))
    exact = sum(
        (math.comb(total, k) * rate**k * (1 - rate) ** (total - k) for k in range(hits, total + 1)), start=Fraction(0)
    )
    assert at_least(hits, total, float(rate)) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)
    assert at_most(hits - 1, total, float(rate)) == pytest.approx(float(1 - exact), rel=1e-9, abs=1e-12)


@given(st.integers(0, 10**7), st.data())
def test_wilsons_bounds_hold_the_observed_part(total: int, data: st.DataObject) -> None:
    part = Part(data.draw(st.integers(0, total)), total)
    low, high = wilson(part, 0.95)
    assert 0 <= low <= part.rate + 1e-12
    assert part.rate - 1e-12 <= high <= 1


def test_millions_of_answers_are_judged_as_fast() -> None:
    assert judged(counts(answers=50_000_000, errors=500_000)).verdict is Verdict.FAIL
    assert judged(counts(answers=50_000_000, errors=0)).verdict is Verdict.PASS


def test_a_limit_that_is_kept_is_seldom_taken_for_broken() -> None:
    """With a true part at the limit itself, whatever the sample: at most as often as the confidence allows."""
    for total in (20, 50, 200, 1000, 5000):
        fails = next(
            hits
            for hits in range(total + 2)
            if hits > total
            or verdict_of("errors", judged(counts(answers=total, errors=hits), ONLY_MAX)) is Verdict.FAIL
        )
        assert at_least(fails, total, 0.01) <= 0.0001
