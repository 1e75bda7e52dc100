"""What Munin's plugin says beyond figures: names, wrong links, what is down."""

from __future__ import annotations

import re
from typing import Any

import pytest

from scratchd_monitoring import munin
from scratchd_monitoring.ask import DownError, NonsenseError

NAMES = ["gr", "a-b", "a_b", "a_2d_b", "a__2d_b", "1st", "_1st", "root", "_root", "A", "a.b:9092", "_2d_", "-"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_munins_and_another_for_each(name: str) -> None:
    others = {*NAMES} - {name}
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", munin.munin_name(name))
    assert munin.munin_name(name) != "root"
    assert munin.munin_name(name) not in {munin.munin_name(other) for other in others}


def test_suggestions_are_links_that_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert munin.main(["suggest"], "scratchd_") == 0
    assert capsys.readouterr().out.split() == ["up", *munin.GRAPHS]


@pytest.mark.parametrize(
    ("program", "command", "words"),
    [
        ("scratchd_", "fetch", 'link me as scratchd_GRAPH: "" is none of up, events'),
        ("scratchd_nothing", "config", '"nothing" is none of up'),
        ("scratchd_age", "confg", '"confg" is none of autoconf'),
    ],
)
def test_wrong_use_fails_with_words(capsys: pytest.CaptureFixture[str], program: str, command: str, words: str) -> None:
    assert munin.main([command], program) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


def test_lines_lost_are_each_flavors_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A flavor that is not there has no value, and Munin a hole: no count that falls and comes back as a loss."""
    feed = {"gap_lines": 5000, "set_aside_lines": 2}
    document = {
        "backends": {"kafka": feed},
        "flavors": {"gr": {"received_lines": 9000, "kafka": feed}, "tr": {"received_lines": 10}},
        "ledger": {"residual_lines": 0},
    }
    monkeypatch.setattr(munin, "stats", lambda _address, _timeout_s: document)
    assert munin.main(["fetch"], "scratchd_lost") == 0
    lost = dict(line.split(".value ") for line in capsys.readouterr().out.splitlines())
    names = [munin.munin_name(f"gr kafka {what}") for what in ("gaps", "set aside")]
    assert lost == {names[0]: "5000", names[1]: "2", "ledger_residual": "0"}
    document["flavors"] = {}
    assert munin.main(["fetch"], "scratchd_lost") == 0
    assert capsys.readouterr().out == "ledger_residual.value 0\n"


@pytest.mark.parametrize(
    ("error", "answers"), [(DownError("down"), "up.value 0\n"), (NonsenseError("odd"), "")], ids=["down", "unknown"]
)
def test_what_is_down_is_said_by_one_graph(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, answers: str
) -> None:
    def fail(_address: str, _timeout_s: float) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(munin, "stats", fail)
    assert munin.main(["fetch"], "scratchd_up") == (0 if answers else 1)
    assert capsys.readouterr().out == answers
    assert munin.main(["fetch"], "scratchd_age") == 1
    assert munin.main(["config"], "scratchd_age") == 1
    assert munin.main(["autoconf"], "scratchd_") == 0
    assert capsys.readouterr().out == f"no ({error})\n"
