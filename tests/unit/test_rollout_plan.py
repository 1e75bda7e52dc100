"""A rollout's plan: what is read, and how what is wrong is said."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd_rollout.plan import STEPS, Gates, Limit, PlanError, Proportion, Server, percent, share_of
from scratchd_rollout.planfile import load, parse

SHIPPED = Path(__file__).parents[2] / "haproxy" / "plan.json"
MINIMAL: dict[str, Any] = {
    "tenants": ["gr"],
    "servers": [{"name": "primary", "stats": ["http://10.0.0.11:9007/stats"]}],
}


def errors_of(**changes: object) -> list[str]:
    with pytest.raises(PlanError) as caught:
        parse(json.dumps({**MINIMAL, **changes}))
    return list(caught.value.errors)


def test_the_smallest_plan_has_the_documented_defaults() -> None:
    plan = parse(json.dumps(MINIMAL))
    assert plan.tenants == ("gr",)
    assert plan.servers == (Server("primary", ("http://10.0.0.11:9007/stats",)),)
    assert plan.steps == STEPS
    assert plan.gates == Gates()
    assert [step.share for step in plan.steps] == [0, 100, 1000, 5000, 10_000]


def test_the_plan_that_is_shipped_has_every_key_and_its_default() -> None:
    shipped = json.loads(SHIPPED.read_text())
    plan = load(SHIPPED)
    without = parse(json.dumps({name: shipped[name] for name in ("tenants", "servers", "steps")}))
    assert plan == without
    assert set(shipped) == {
        *("tenants", "servers", "steps", "gates", "confidence", "sample", "heartbeat_s", "window_s", "slow_s"),
        *("stats_timeout_s", "socket", "master_socket", "share_map"),
    }
    assert set(shipped["gates"]) == set(Gates.__dataclass_fields__)


def test_steps_have_names_and_demands_of_their_own() -> None:
    plan = parse(json.dumps({**MINIMAL, "steps": [{"percent": 0}, {"percent": 0.01, "approve": True}]}))
    first, second = plan.steps
    assert (first.name, first.share, first.headquarters, first.needs_pass) == ("headquarters", 0, True, False)
    assert (second.name, second.share, second.needs_pass, second.approve) == ("0.01 %", 1, True, True)


def test_gates_keep_what_is_not_given() -> None:
    plan = parse(json.dumps({**MINIMAL, "gates": {"errors": {"max": 0.5}, "pending_age_s": {"max": None}}}))
    assert plan.gates.errors == Proportion(0.5, 0.005)
    assert plan.gates.pending_age_s == Limit(None, "wait")
    assert plan.gates.slow == Gates().slow


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"tenant": ["gr"]}, "plan.json: tenant: unknown key; did you mean 'tenants'?", id="mistyped"),
        pytest.param(
            {"tenants": []}, "plan.json: tenants: expected a list with at least one entry, got []", id="empty"
        ),
        pytest.param({"tenants": ["gr", "gr"]}, "plan.json: tenants[1]: 'gr' is listed twice", id="twice"),
        pytest.param(
            {"tenants": ["all"]},
            'plan.json: tenants[0]: expected a name of letters, digits, - and _, none of all, kill, shadow, got "all"',
            id="reserved",
        ),
        pytest.param(
            {"servers": [{"name": "primary", "stats": ["10.0.0.11:9007"]}]},
            "plan.json: servers[0].stats[0]: expected an address like http://10.0.0.11:9007/stats, "
            'got "10.0.0.11:9007"',
            id="no address",
        ),
        pytest.param(
            {"steps": [{"percent": 0.001}]},
            "plan.json: steps[0].percent: expected a number from 0 to 100, in steps of 0.01, got 0.001",
            id="too fine",
        ),
        pytest.param(
            {"steps": [{"percent": 10}, {"percent": 1}]},
            "plan.json: steps[1].percent: a step may not go back: expected at least 10 %, got 1 %",
            id="backwards",
        ),
        pytest.param(
            {"steps": [{"percent": 0, "headquarters": False}]},
            "plan.json: steps[0]: 0 % without headquarters sends nobody to scratchd",
            id="nobody",
        ),
        pytest.param(
            {"gates": {"errors": {"max": 2}}},
            "plan.json: gates.errors.max: expected a number from 0 to 1, got 2",
            id="no part",
        ),
        pytest.param(
            {"gates": {"residual_lines": {"then": "shrug"}}},
            'plan.json: gates.residual_lines.then: expected "fail" or "wait", got "shrug"',
            id="no consequence",
        ),
        pytest.param(
            {"slow_s": 0.2},
            "plan.json: slow_s: expected one of 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, got 0.2",
            id="no bound",
        ),
        pytest.param(
            {"sample": {"to_pass": 0}},
            "plan.json: sample.to_pass: expected a whole number of answers, at least 1, got 0",
            id="no sample",
        ),
        pytest.param({"socket": "run"}, 'plan.json: socket: expected an absolute path, got "run"', id="relative"),
        pytest.param(
            {"heartbeat_s": True}, "plan.json: heartbeat_s: expected a number from 1 to 86400, got true", id="boolean"
        ),
    ],
)
def test_what_is_wrong_is_said_with_place_rule_and_value(changes: dict[str, object], error: str) -> None:
    assert errors_of(**changes) == [error]


def test_every_error_is_found_in_one_reading() -> None:
    errors = errors_of(heartbeat_s=0, gates={"erors": {}}, steps=[{"percent": 101}], confidence={"pass": 2})
    assert len(errors) == 4


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"tenants": 1}'])
def test_what_is_no_plan_is_an_error_and_no_crash(text: str) -> None:
    with pytest.raises(PlanError):
        parse(text)


documents = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "stats", "percent", "max", "then", "errors", "pass", "to_pass"]), inner
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*json.loads(SHIPPED.read_text())]), documents))
def test_anything_is_read_or_refused(changes: dict[str, object]) -> None:
    with contextlib.suppress(PlanError):
        parse(json.dumps({**MINIMAL, **changes}))


@given(st.integers(0, 10_000))
def test_each_hundredth_of_a_percent_is_a_share(share: int) -> None:
    assert share_of(share / 100) == share
    assert share_of(percent(share).removesuffix(" %")) == share


@pytest.mark.parametrize("given_", [-0.01, 100.01, 0.001, "x", None, True, [], float("inf"), float("nan")])
def test_nothing_else_is(given_: object) -> None:
    assert share_of(given_) is None


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="No such file"):
        load(tmp_path / "plan.json")
