"""What check_scratchd says of figures: state, words and performance data."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scratchd_monitoring import check
from scratchd_monitoring.ask import DownError, NonsenseError


def backend() -> dict[str, Any]:
    """One that is well."""
    return {"state": "running", "pending_lines": 0, "oldest_pending_age_s": 0.0, "gap_lines": 7, "last_error": None}


WELL: dict[str, Any] = {
    "version": "1.2.3",
    "instance": "",
    "started_at": "2026-11-23T12:00:00.000Z",
    "uptime_s": 7200.0,
    "http": {"refused": {"empty_query": 3, "not_found": 4}, "refused_per_s": 0.5, "requests_per_s": 12.0},
    "journal": {
        "appended_lines": 1000,
        "appended_lines_per_s": 12.34,
        "bytes": 4096,
        "full_in_s": None,
        "sync_errors": 0,
        "corrupt_lines": 0,
        "append_errors": 0,
    },
    "backends": {"file": backend(), "kafka": backend()},
    "flavors": {
        name: {
            "takes_lines": True,
            "quota_full_in_s": None,
            "file": {"state": "running", "gap_lines": 0},
            "kafka": {"state": "running", "gap_lines": 5 if name == "gr" else 2},
        }
        for name in ("gr", "tr")
    },
    "ledger": {"residual_lines": 0},
    "runtime": {},
}

Checked = Callable[..., tuple[int, str, dict[str, str]]]


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Checked:
    """Runs the check on figures that differ from `WELL` as `changes` (path to value) say."""
    monkeypatch.setenv("MP_STATE_PATH", str(tmp_path))

    def run(changes: dict[str, Any], *arguments: str) -> tuple[int, str, dict[str, str]]:
        document = copy.deepcopy(WELL)
        for path, value in changes.items():
            *way, last = path.split(".")
            place = document
            for step in way:
                place = place[step]
            place[last] = value
        monkeypatch.setattr(check, "stats", lambda _address, _timeout_s: document)
        status = check.main(arguments)
        first = capsys.readouterr().out.splitlines()[0]
        words, _, data = first.partition(" | ")
        return status, words, dict(each.split("=", 1) for each in data.split())

    return run


FAILED = {"at": "2026-11-23T13:59:30.000Z", "flavor": "gr", "kind": "x", "message": "no | way\nout"}


def test_all_is_well(checked: Checked) -> None:
    status, words, data = checked({})
    assert (status, words) == (
        0,
        "SCRATCHD OK - scratchd 1.2.3: 12.3 events a second, file 0 waiting, kafka 0 waiting",
    )
    assert data["refused"] == "7c;;;0"
    assert data["file_age"] == "0s;900;;0"
    assert data["disk_full_in"] == "U"
    assert data["kafka_gap_lines"] == "7c;;;0"


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"flavors.gr.takes_lines": False}, 2, "the journal takes no lines of gr, answered 503"),
        ({"ledger.residual_lines": -3}, 2, "-3 lines are not accounted for, run scratchd audit"),
        ({"ledger.residual_lines": 3}, 2, "3 lines are not accounted for, run scratchd audit"),
        ({"journal.full_in_s": 7199}, 2, "the journal's disk is full in 120 min"),
        ({"journal.full_in_s": 0}, 2, "the journal's disk is full in 0 s"),
        ({"journal.full_in_s": 86399}, 1, "the journal's disk is full in 24 h"),
        ({"journal.full_in_s": 86400}, 0, "scratchd 1.2.3: 12.3 events a second, file 0 waiting, kafka 0 waiting"),
        (
            {"flavors.gr.quota_full_in_s": 90000, "flavors.tr.quota_full_in_s": 60},
            2,
            "tr reaches its quota in 60 s, then lines leave unread",
        ),
        ({"backends.kafka.oldest_pending_age_s": 901.5}, 1, "kafka is 15 min late, 0 lines wait"),
        ({"backends.file.last_error": FAILED}, 1, "file had an error 30 s ago: no / way out"),
        (
            {"backends.kafka.state": "backing_off", "flavors.tr.kafka.state": "backing_off"},
            1,
            "kafka is backing off for tr",
        ),
        (
            {
                "backends.kafka.state": "backing_off",
                "flavors.tr.kafka.state": "backing_off",
                "backends.kafka.last_error": FAILED,
            },
            1,
            "kafka is backing off for tr: no / way out",
        ),
        (
            {"http.refused_per_s": 3.0},
            1,
            "25 % of 12.0 requests a second are refused, since the start most not_found",
        ),
        (
            {"http.refused_per_s": 0.1, "http.requests_per_s": 0.1},
            0,
            "scratchd 1.2.3: 12.3 events a second, file 0 waiting, kafka 0 waiting",
        ),
    ],
)
def test_a_state_and_its_words(checked: Checked, changes: dict[str, Any], status: int, words: str) -> None:
    assert checked(changes)[:2] == (status, f"SCRATCHD {('OK', 'WARNING', 'CRITICAL')[status]} - {words}")


CANARY: dict[str, Any] = {
    "beacons": 9,
    "answer": {"delay_s": 0.1, "failures": 0, "last_success_at": "2026-11-23T13:59:58.000Z"},
    "backends": {
        name: {"delay_s": 0.3, "failures": 0, "last_success_at": "2026-11-23T13:59:58.000Z"}
        for name in ("file", "kafka")
    },
    "last_error": None,
}
UNANSWERED = {"at": "2026-11-23T13:59:30.000Z", "where": "answer", "message": "connection refused"}
NOT_FOUND = {**UNANSWERED, "where": "kafka", "message": "not found"}


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, 0, "scratchd 1.2.3: .*"),
        ({"answer.last_success_at": "2026-11-23T13:58:59.000Z"}, 1, "no beacon of the canary was answered for 61 s"),
        (
            {"answer.last_success_at": "2026-11-23T13:50:00.000Z", "last_error": UNANSWERED},
            2,
            "no beacon of the canary was answered for 10 min: connection refused",
        ),
        ({"answer.last_success_at": None, "answer.failures": 1}, 2, "no beacon of the canary was answered for 2 h"),
        ({"answer.last_success_at": None, "answer.delay_s": None, "backends.file.delay_s": None}, 0, "scratchd .*"),
        ({"backends.kafka.delay_s": 301.5, "last_error": NOT_FOUND}, 1, "the canary is found in kafka after 5 min"),
    ],
    ids=["well", "missed", "unanswered", "never answered", "not sent yet", "late"],
)
def test_a_canary_and_its_words(checked: Checked, changes: dict[str, Any], status: int, words: str) -> None:
    canary = {"canary": copy.deepcopy(CANARY)}
    found, said, data = checked(canary | {f"canary.{path}": value for path, value in changes.items()})
    assert found == status
    assert re.fullmatch(f"SCRATCHD [A-Z]+ - {words}", said)
    assert {"canary_since_answer", "canary_file_delay", "canary_kafka_delay"} <= set(data)


def test_the_worst_is_told_first(checked: Checked) -> None:
    status, words, _ = checked({"ledger.residual_lines": 1, "journal.full_in_s": 80000})
    assert status == 2
    assert re.match("SCRATCHD CRITICAL - 1 lines .*; the journal's disk", words)


def test_gaps_warn_when_they_are_new(checked: Checked) -> None:
    assert checked({})[0] == 0
    status, words, data = checked({"backends.kafka.gap_lines": 1207, "flavors.gr.kafka.gap_lines": 1205})
    assert (status, words) == (1, "SCRATCHD WARNING - kafka has lost 1,200 lines within the hour (1,207 in all)")
    assert data["kafka_new_gap_lines"] == "1200;0;;0"


@pytest.mark.parametrize(
    "passing",
    [
        {"flavors": {"gr": WELL["flavors"]["gr"]}, "backends.kafka.gap_lines": 5},
        {"flavors": {}, "backends.kafka.gap_lines": 0},
        {"flavors": {}, "backends": {}},
    ],
    ids=["a removed flavor is forgotten and comes back", "a start, no journal opened yet", "a start, no backend yet"],
)
def test_flavors_that_go_and_come_are_no_gap(checked: Checked, passing: dict[str, Any]) -> None:
    assert [checked(changes)[0] for changes in ({}, passing, {}, {})] == [0, 0, 0, 0]
    assert checked({"flavors.tr.kafka.gap_lines": 3})[1].startswith("SCRATCHD WARNING - kafka has lost 1 lines")


def test_a_failed_sync_warns(checked: Checked) -> None:
    checked({})
    assert checked({"journal.sync_errors": 1})[:2] == (1, "SCRATCHD WARNING - 1 new sync errors")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("-C", "age", "-w", "10", "-c", "100"), 1),
        (("-C", "age", "-w", "10", "-c", "40"), 2),
        (("-C", "age", "-w", "60"), 0),
        (("-C", "ledger"), 0),
        (("-w", "age=10", "-w", "events=20:"), 1),
        (("-c", "events=20:"), 2),
    ],
)
def test_thresholds_are_ones_own(checked: Checked, arguments: tuple[str, ...], status: int) -> None:
    assert checked({"backends.file.oldest_pending_age_s": 50.0}, *arguments)[0] == status


@pytest.mark.parametrize(
    "arguments",
    [
        ("-w", "10"),
        ("-C", "age", "-C", "full", "-w", "10"),
        ("-w", "nobody=1"),
        ("-C", "age", "-w", "x"),
        ("-x",),
        ("-t", "0"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_unknown(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check.main(arguments)
    assert ended.value.code == 3
    assert capsys.readouterr().out.startswith("SCRATCHD UNKNOWN - ")


@pytest.mark.parametrize(
    ("error", "status"), [(DownError("x"), 2), (NonsenseError("x"), 3), (KeyError("x"), 3), (TypeError("x"), 3)]
)
def test_who_does_not_answer_is_down_and_nonsense_is_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, status: int
) -> None:
    def fail(_address: str, _timeout_s: float) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(check, "stats", fail)
    assert check.main([]) == status
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_figures_of_another_shape_are_unknown(checked: Checked) -> None:
    assert checked({"backends.file": {"gap_lines": 0}})[0] == 3
    assert checked({"journal": []})[0] == 3
