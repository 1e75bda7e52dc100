"""Whether what runs on the edge needs nothing but Python, and its judge nothing but numbers; and what its pages say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scratchd_rollout import report
from scratchd_rollout.audit import page as audit_page
from scratchd_rollout.cli import COMMANDS
from scratchd_rollout.clock import Moment
from scratchd_rollout.counts import Counts, Side
from scratchd_rollout.judge import judge
from scratchd_rollout.plan import Confidence, Gates, Plan, Sample, Server, Step
from scratchd_rollout.rollout import Rollout, roll_back, start
from scratchd_rollout.table import duration
from scratchd_rollout.watch import Opinion

HAPROXY = Path(__file__).parents[2] / "haproxy"
PACKAGE = HAPROXY / "scratchd_rollout"
MODULES = {path.stem: ast.parse(path.read_text()) for path in PACKAGE.glob("*.py")}
PURE = ("audit", "counts", "judge", "plan", "report", "rollout", "table")


def _imports(module: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "scratchd_rollout":
            found.update(f"scratchd_rollout.{alias.name}" for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_edge_needs_nothing_but_python(module: str) -> None:
    foreign = {name.partition(".")[0] for name in _imports(module)} - set(sys.stdlib_module_names)
    assert foreign <= {"scratchd_rollout"}


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_know_no_network_no_file_and_no_clock(module: str) -> None:
    impure = {"socket", "os", "time", "http", "subprocess", "scratchd_rollout.runtime", "scratchd_rollout.store"}
    assert _imports(module) & impure == set()
    assert not re.search(r"\bopen\(|read_text|write_text|datetime\.now", ast.unparse(MODULES[module]))


def test_the_command_starts_from_where_it_lies() -> None:
    done = subprocess.run(
        [sys.executable, str(HAPROXY / "scratchd-rollout"), "--help"], capture_output=True, text=True, check=True
    )
    assert all(name in done.stdout for name, *_ in COMMANDS)


# What the pages say.

PLAN = Plan(
    ("gr",),
    (Server("primary", ("http://a/stats",)),),
    (Step("headquarters", 0), Step("10 %", 1000), Step("100 %", 10_000)),
)


def moment(seconds: float) -> Moment:
    return Moment(1_700_000_000 + seconds, "a", seconds)


def picture(rollout: Rollout, counts: Counts, *, kill: str = "0") -> report.Picture:
    judged = judge(counts, Gates(), Confidence(), Sample())
    opinion = Opinion(judged.verdict, judged.why, counts, judged, None)
    return report.Picture(
        plan=PLAN,
        now=moment(250),
        host="edge",
        rollouts={rollout.tenant: (rollout, opinion)},
        running={"all": "1000", "all/headquarters": "1", "kill": kill, "shadow": "50"},
        guarded_s=0.4,
    )


def test_the_status_page_has_stage_share_numbers_and_verdict() -> None:
    rollout = start(None, PLAN, "all", moment(0), "anna", auto=False, why="go")
    counts = Counts(
        seconds=250,
        scratchd=Side(requests=1000, errors=30, events=970, timed=1000, within=(500, 990, *[1000] * 6)),
        legacy=Side(requests=9000, timed=9000, within=(0, 4500, *[9000] * 6)),
        servers_up=1,
        servers=1,
    )
    page = report.page(picture(rollout, counts))
    for said in (
        "scratchd-rollout on edge, 2023-11-14T22:17:30.000Z",
        "ALL  UNDER WAY  0 % + headquarters   (every tenant without a rollout of its own)",
        "[headquarters] ─ 10 % ─ 100 %",
        "at headquarters for 4 min 10 s, bakes for another 5 min 50 s",
        "driven by anna, last heard of 4 min 10 s ago, 2 min allowed",
        "VERDICT  FAIL: errors: 30 of 1,000 (3 %): surely more than ",
        "haproxy's map: all 1000, all/headquarters 1; shadow 0.5 %",
        "the guard looked 0.4 s ago",
    ):
        assert said in page
    assert re.search(r"answers +1,000 +9,000", page)
    assert re.search(r"measured share +10 % +90 %", page)
    assert re.search(r"half within +5 ms +10 ms", page)
    assert all(line == line.rstrip() and len(line) < 200 for line in page.splitlines())


def test_the_status_page_says_first_what_matters_most() -> None:
    rollout = roll_back(start(None, PLAN, "gr", moment(0), "anna", auto=False, why="go"), "guard", "errors: 3 %")
    page = report.page(picture(rollout, Counts(), kill="1"))
    assert "THE KILL SWITCH IS ON" in page.split("\n\n")[1]
    assert "GR  ROLLED BACK  0 %" in page
    assert "rolled back by guard, at headquarters: errors: 3 %" in page
    assert "VERDICT" not in page


def test_the_audit_page_is_a_line_for_each_change() -> None:
    entry = {
        "at": "2026-11-23T12:00:00.000Z",
        "who": "anna",
        "tenant": "all",
        "action": "advance",
        "from": {"step": "1 %", "percent": 1},
        "to": {"step": "10 %", "percent": 10},
        "why": "every gate passes",
    }
    page = audit_page([entry, {**entry, "from": None, "to": "off"}])
    assert re.split("  +", page.splitlines()[1]) == [
        *("2026-11-23 12:00:00", "anna", "all", "advance", "1 % (1 %)", "10 % (10 %)", "every gate passes")
    ]
    assert audit_page([]) == "nothing was changed yet"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (250, "4 min 10 s"), (3600, "1 h"), (90061, "1 d 1 h")]
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
