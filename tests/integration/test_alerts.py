"""Whether the shipped rules are right: promtool's checks and cases, names that exist, runbooks that are there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from prometheus import MONITORING
from promql import OTHERS, ROOT, RULES, documented, metrics, rules

PROMETHEUS = MONITORING / "prometheus"
RUNBOOKS = "file:///usr/share/doc/scratchd/"
CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))


def promtool(*arguments: str | Path) -> None:
    """Runs it, and shows what it says where it fails."""
    done = subprocess.run(["promtool", *arguments], text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_configuration_are_valid() -> None:
    promtool("check", "rules", *RULES)
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("cases", CASES, ids=[path.stem for path in CASES])
def test_alerts_fire_when_they_must_and_not_otherwise(cases: Path) -> None:
    promtool("test", "rules", cases)


def _asked_for(expression: str, recorded: Mapping[str, str]) -> set[str]:
    """The metrics behind an expression, those of recording rules too."""
    names = metrics(expression)
    behind = [_asked_for(recorded[name], recorded) for name in names if name in recorded]
    return {name for name in names if name not in recorded}.union(*behind)


@pytest.mark.parametrize("rule", rules("alert"), ids=[rule["alert"] for rule in rules("alert")])
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_the_same_metrics_wake_nobody(
    rule: dict[str, Any],
) -> None:
    documents = [yaml.safe_load(path.read_text()) for path in CASES]
    cases = [case for document in documents for case in document["tests"]]
    label = f'alertname="{rule["alert"]}",severity="{rule["labels"]["severity"]}"'
    fires = [case["name"] for case in cases if label in str(case["promql_expr_test"])]
    names = _asked_for(rule["expr"], {each["record"]: each["expr"] for each in rules("record")})
    alike = [
        case["name"]
        for case in cases
        if case["name"] not in fires and names & {series["series"].partition("{")[0] for series in case["input_series"]}
    ]
    assert fires
    assert alike


def test_a_name_in_an_expression_is_found() -> None:
    expression = 'sum by (job, le) (rate(a_total{x="b_c"}[5m])) / on (job) r:a_b:c or {__name__=~"d_e|f_g"} > up'
    assert metrics(expression) == {"a_total", "r:a_b:c", "d_e", "f_g", "up"}


def test_every_metric_of_the_rules_is_documented() -> None:
    recorded = {rule["record"] for rule in rules("record")}
    for rule in rules("expr"):
        names = metrics(rule["expr"])
        assert names, rule
        assert names - documented() - recorded - OTHERS == set(), rule


def test_every_alert_says_who_is_needed_and_has_a_runbook() -> None:
    page = (ROOT / "docs" / "monitor.md").read_text()
    anchors = {heading.lower() for heading in re.findall(r"^### (\w+)$", page, re.MULTILINE)}
    alerts = {rule["alert"]: rule for rule in rules("alert")}
    assert {f"{RUNBOOKS}monitor.md#{name.lower()}" for name in alerts} == {
        rule["annotations"]["runbook_url"] for rule in alerts.values()
    }
    assert {name.lower() for name in alerts} == anchors
    for name, rule in alerts.items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name
