"""A finished day gets its manifest: when, what is in it, and what takes it away again."""

from __future__ import annotations

import datetime
import hashlib
import json
import stat
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import scratchd
from daemon import Daemon
from kafka_client import Broker

BEHIND, AHEAD = "Pacific/Pago_Pago", "Pacific/Kiritimati"
"""25 hours apart: what is today in the one is over in the other."""

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def manifest_of(path: Path) -> Path:
    return path.with_name(path.name + ".manifest.json")


def flavor(time_zone: str) -> dict[str, Any]:
    return {"name": "gr", "hosts": ["gr.test"], "time_zone": time_zone}


def send(daemon: Daemon, *numbers: int) -> None:
    for number in numbers:
        assert daemon.get(f"/track?n={number}", "gr.test").status == 200


def test_a_day_that_ended_while_scratchd_was_down_is_finished_at_the_next_start(
    start_daemon: Callable[..., Daemon],
) -> None:
    daemon = start_daemon(flavors=[flavor(BEHIND)])
    today = datetime.datetime.now(zoneinfo.ZoneInfo(BEHIND)).date().isoformat()
    send(daemon, 1, 2)
    daemon.restart()  # a clean stop keeps the marks of days that are not over
    send(daemon, 3)
    daemon.kill()  # and so does any other
    daemon.start()
    daemon.wait_drained()
    (path,) = daemon.file_paths("gr")
    assert not manifest_of(path).exists()
    daemon.stop()

    daemon.config["flavors"] = [flavor(AHEAD)]  # stands in for a day that passes
    daemon.start()
    send(daemon, 4)
    daemon.wait_for(manifest_of(path).exists, what="the manifest")
    found = json.loads(manifest_of(path).read_bytes())
    content = path.read_bytes()
    assert content == b'{"n":"1"}\n{"n":"2"}\n{"n":"3"}\n'
    runs = found.pop("runs")
    assert [(run["first"], run["last"]) for run in runs] == [(0, 1), (2, 2)]
    assert len({run["epoch"] for run in runs}) == 2
    assert datetime.datetime.fromisoformat(found.pop("finished")).tzinfo is not None
    assert found == {
        "version": 1,
        "flavor": "gr",
        "date": today,
        "time_zone": AHEAD,
        "file": str(path),
        "lines": 3,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "first": 0,
        "last": 2,
        "other_lines": 0,
        "gaps": [],
    }
    assert stat.S_IMODE(manifest_of(path).stat().st_mode) == 0o640
    newer = daemon.file_paths("gr")[-1]
    assert newer != path
    assert not manifest_of(newer).exists()
    daemon.stop()
    page = scratchd(daemon, "audit")
    assert f"{today}      3" in page
    assert "Everything holds" in page


def test_a_line_that_comes_back_takes_the_manifest_away_until_the_day_is_finished_again(
    start_daemon: Callable[..., Daemon],
) -> None:
    daemon = start_daemon(flavors=[flavor(BEHIND)])
    send(daemon, 1, 2)
    daemon.wait_drained()
    (path,) = daemon.file_paths("gr")
    daemon.config["flavors"] = [flavor(AHEAD)]
    daemon.restart()
    daemon.wait_for(manifest_of(path).exists, what="the manifest")

    daemon.config["flavors"] = [flavor(BEHIND)]
    daemon.restart()
    send(daemon, 3)
    daemon.wait_drained()
    assert not manifest_of(path).exists()
    daemon.config["flavors"] = [flavor(AHEAD)]
    daemon.restart()
    daemon.wait_for(manifest_of(path).exists, what="the manifest again")
    found = json.loads(manifest_of(path).read_bytes())
    assert (found["lines"], found["first"], found["last"], found["other_lines"]) == (3, 0, 2, 0)
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    daemon.stop()
    scratchd(daemon, "audit")


def test_a_day_with_a_backlog_is_not_finished(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=[flavor(BEHIND)])
    send(daemon, 1)
    daemon.wait_drained()
    (path,) = daemon.file_paths("gr")
    # In the way of the next lines, as a directory without permission would be for anyone but root.
    daemon.stop()
    kept = path.rename(path.with_suffix(".kept"))
    path.mkdir()
    daemon.start()
    send(daemon, 2)
    daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["errors"], what="the file backend fails")
    daemon.stop()
    daemon.config["flavors"] = [flavor(AHEAD)]
    daemon.start()
    daemon.wait_for(lambda: len(daemon.stats()["backends"]["file"]["errors"]) > 0, what="and fails again")
    assert daemon.stats()["backends"]["file"]["pending_lines"] == 1
    assert not manifest_of(path).exists()
    path.rmdir()
    kept.rename(path)
    daemon.wait_for(manifest_of(path).exists, 30, "the manifest")
    assert path.read_bytes() == b'{"n":"1"}\n{"n":"2"}\n'
    assert json.loads(manifest_of(path).read_bytes())["lines"] == 2


def test_lines_without_a_sequence_are_counted_apart(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=[flavor(BEHIND)])
    send(daemon, 1)
    daemon.wait_drained()
    daemon.stop()
    (path,) = daemon.file_paths("gr")
    with path.open("ab") as file:
        file.write(b'{"n":"by hand"}\n')
    daemon.config["flavors"] = [flavor(AHEAD)]
    daemon.start()
    daemon.wait_for(manifest_of(path).exists, what="the manifest")
    found = json.loads(manifest_of(path).read_bytes())
    assert (found["lines"], found["other_lines"]) == (2, 1)


def test_gaps_are_in_the_manifest(start_daemon: Callable[..., Daemon], kafka: Broker, topic: str) -> None:
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        journal={"segment_bytes": 65536},
        flavors=[{**flavor(BEHIND), "kafka_topic": topic}],
    )
    send(daemon, 1)
    daemon.wait_drained()
    daemon.config["file"]["enabled"] = False
    daemon.restart()
    for number in range(30):
        assert daemon.get(f"/track?n={number}&p={'x' * 7000}", "gr.test").status == 200
    daemon.wait_drained()
    daemon.wait_for(lambda: daemon.stats()["journal"]["segments"] == 1, what="segments have left")
    daemon.config["file"]["enabled"] = True
    daemon.restart()
    send(daemon, 2)
    daemon.wait_drained()
    daemon.config["flavors"][0]["time_zone"] = AHEAD
    daemon.restart()
    (path,) = daemon.file_paths("gr")
    daemon.wait_for(manifest_of(path).exists, what="the manifest")
    found = json.loads(manifest_of(path).read_bytes())
    (gap,) = found["gaps"]
    assert (gap["kind"], gap["first"]) == ("disabled", 1)
    assert found["last"] == 31
    assert found["lines"] == found["last"] - found["first"] + 1 - gap["lines"]
    assert gap["after"] < gap["before"]


@pytest.mark.parametrize("kind", ["quiet", "busy"])
def test_a_day_is_finished_while_scratchd_runs(start_daemon: Callable[..., Daemon], kind: str) -> None:
    daemon = start_daemon(
        flavors=[flavor("UTC")],
        environment={
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME": "@2026-11-23 23:59:54",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "TZ": "UTC",
        },
    )
    send(daemon, 1)
    path = daemon.directory / "log" / "gr" / "2026-11-23.log"
    sent = 1
    while not manifest_of(path).exists():
        if kind == "busy":
            sent += 1
            send(daemon, sent)
        daemon.wait_for(daemon.is_ready)
    daemon.wait_drained()
    lines = [b'{"n":"%d"}' % number for number in range(1, sent + 1)]
    assert daemon.lines("gr") == lines
    found = json.loads(manifest_of(path).read_bytes())
    assert (found["date"], found["first"], found["lines"]) == ("2026-11-23", 0, found["last"] + 1)
    assert found["bytes"] == path.stat().st_size
