"""Whether the log is what journald and operators expect: a component, a message, a priority where it is wanted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from contract import assert_refused
from daemon import Daemon

COMPONENT = r"(http|kafka|file|journal|service)"


def provoke(daemon: Daemon) -> None:
    """Makes the daemon log an event of each kind: its start, a refusal, a failing backend, its end."""
    assert_refused(daemon.get("/track"), "empty_query")
    assert daemon.get("/track?a=1").status == 200
    daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["state"] == "backing_off")
    daemon.stop()


@pytest.fixture
def blocked(tmp_path: Path) -> dict[str, str]:
    """A section `file` whose directory cannot be made."""
    (tmp_path / "blocked").write_text("")
    return {"path": f"{tmp_path}/blocked/{{flavor}}/{{date}}.log"}


def test_lines_to_journald_begin_with_their_priority(
    start_daemon: Callable[..., Daemon], tmp_path: Path, blocked: dict[str, str]
) -> None:
    directory = tmp_path / "journald"
    directory.mkdir()
    (directory / "scratchd.log").touch()
    status = (directory / "scratchd.log").stat()
    daemon = start_daemon(
        directory=directory,
        environment={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
        file=blocked,
        http={"stop_timeout_s": 0.2},
    )
    provoke(daemon)
    lines = daemon.log().splitlines()
    assert [line for line in lines if not re.fullmatch(rf"<[0-7]>{COMPONENT}: [\x20-\x7e]+", line)] == []
    assert {"service", "http", "file"} <= {line[3:].partition(":")[0] for line in lines}
    (failure,) = {line[:3] for line in lines if line[3:].startswith("file: ")}
    assert failure in ("<3>", "<4>")


def test_other_lines_have_no_priority(start_daemon: Callable[..., Daemon], blocked: dict[str, str]) -> None:
    daemon = start_daemon(environment={"JOURNAL_STREAM": "1:2"}, file=blocked, http={"stop_timeout_s": 0.2})
    provoke(daemon)
    lines = daemon.log().splitlines()
    assert [line for line in lines if not re.fullmatch(rf"{COMPONENT}: [\x20-\x7e]+", line)] == []
    assert len(lines) >= 4


def test_the_level_is_the_least_that_is_logged(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(log={"level": "error"})
    assert_refused(daemon.get("/track"), "empty_query")
    assert daemon.get("/track?a=1").status == 200
    daemon.stop()
    assert daemon.log() == ""
