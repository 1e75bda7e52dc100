"""Gaps, and whether they are filled from the other store: into files from topics, into topics from files."""

from __future__ import annotations

import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import scratchd
from daemon import SOURCE, Daemon, free_port
from deadline import wait_for
from kafka_client import Broker, Message

SMALL: dict[str, Any] = {"segment_bytes": 65536, "quota_bytes": 131072}
ROOMY: dict[str, Any] = {"segment_bytes": 65536}
PADDING = "x" * 7000
"""Nine lines of it fill a segment."""


def send(daemon: Daemon, numbers: range, host: str = "gr.test") -> list[bytes]:
    """Sends a long line for each number, a pass each, and returns them."""
    with daemon.connect() as connection:
        for number in numbers:
            assert connection.get(f"/track?n={number}&p={PADDING}", host).status == 200
    return [b'{"n":"%d","p":"%s"}' % (number, PADDING.encode()) for number in numbers]


def gaps(daemon: Daemon, flavor: str = "gr") -> list[dict[str, Any]]:
    path = Path(daemon.config["journal"]["directory"]) / "_" / flavor / "gaps.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def lines_of(daemon: Daemon) -> dict[str, int]:
    """The counts of lines of gr and Kafka; rates and ages go on while nothing happens."""
    feed = daemon.stats()["flavors"]["gr"]["kafka"]
    return {name: value for name, value in feed.items() if name.endswith("_lines")}


def iso_ms(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).timestamp() * 1000)


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon], kafka: Broker, topic: str) -> Daemon:
    return start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers, "key_parameter": "n"},
        journal=dict(ROOMY),
        flavors=[{"name": "gr", "hosts": ["gr.test"], "time_zone": "Europe/Athens", "kafka_topic": topic}],
    )


def switch_off(daemon: Daemon, backend: str, numbers: range) -> list[bytes]:
    """Sends lines while a backend is off, with lines before and behind; all that it misses has left the journal."""
    lines = send(daemon, range(numbers.start - 3, numbers.start))
    daemon.wait_drained()
    daemon.config[backend]["enabled"] = False
    daemon.restart()
    lines += send(daemon, numbers)
    daemon.wait_drained()
    daemon.wait_for(lambda: daemon.stats()["journal"]["segments"] == 1, what="segments have left")
    daemon.config[backend]["enabled"] = True
    daemon.restart()
    lines += send(daemon, range(numbers.stop, numbers.stop + 3))
    daemon.wait_drained()
    return lines


def ids(messages: list[Message]) -> list[str]:
    return [message.scratchd_id for message in messages]


def by_sequence(messages: list[Message]) -> list[bytes]:
    first = {int(message.scratchd_id.partition("/")[2]): message.value for message in messages}
    return [first[sequence] for sequence in sorted(first)]


# Into Kafka.


def test_what_kafka_missed_is_sent_from_the_files(daemon: Daemon, kafka: Broker, topic: str) -> None:
    before_ms = time.time_ns() // 1_000_000
    lines = switch_off(daemon, "kafka", range(3, 33))
    (gap,) = gaps(daemon)
    assert (gap["backend"], gap["kind"], gap["first"]) == ("kafka", "disabled", 3)
    missed = gap["last"] - 2
    assert 18 <= missed <= 30
    assert before_ms <= iso_ms(gap["after"]) <= iso_ms(gap["before"]) <= iso_ms(gap["noticed"])
    assert gap["lines"] == missed
    assert len(kafka.messages(topic, len(lines) - missed)) == len(lines) - missed
    stats = lines_of(daemon)
    assert stats["gap_lines"] == missed

    planned = scratchd(daemon, "backfill", "--to", "kafka", "--dry-run")
    assert f"would fill: gr: {missed} lines into topic {topic}" in planned
    assert len(kafka.messages(topic)) == len(lines) - missed

    assert f"{missed} lines filled" in scratchd(daemon, "backfill", "--to", "kafka")  # while the daemon runs
    messages = kafka.messages(topic, len(lines))
    assert by_sequence(messages) == lines
    assert len(ids(messages)) == len(set(ids(messages))) == len(lines)
    filled = [message for message in messages if len(message.headers) == 3]
    assert [name for name, _ in filled[0].headers] == ["scratchd-id", "scratchd-flavor", "scratchd-backfill"]
    assert len({message.headers[2] for message in filled}) == 1
    assert abs(iso_ms(filled[0].headers[2][1].decode()) - time.time() * 1000) < 60_000
    assert [message.key for message in filled] == [b"%d" % number for number in range(3, 3 + missed)]
    assert {message.headers[1][1] for message in filled} == {b"gr"}
    assert all(iso_ms(gap["after"]) <= message.timestamp_ms <= iso_ms(gap["before"]) for message in filled)
    assert gap["epochs"] == [{"epoch": filled[0].scratchd_id.partition("/")[0], "first": 3}]

    assert "0 lines filled" in scratchd(daemon, "backfill", "--to", "kafka")
    record = Path(daemon.config["journal"]["directory"]) / "_" / "gr" / "backfilled.jsonl"
    record.unlink()  # even without it nothing is sent twice
    assert "0 lines filled" in scratchd(daemon, "backfill", "--to", "kafka")
    assert len(kafka.messages(topic)) == len(lines)
    assert lines_of(daemon) == stats
    daemon.stop()
    scratchd(daemon, "audit")


def test_quota_while_kafka_is_away_costs_kafka_alone(
    start_daemon: Callable[..., Daemon], kafka: Broker, topic: str
) -> None:
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": f"127.0.0.1:{free_port()}"},
        journal=dict(SMALL),
        flavors=[{"name": "gr", "hosts": ["gr.test"], "kafka_topic": topic}],
    )
    lines = []
    for start in range(0, 60, 6):
        lines += send(daemon, range(start, start + 6))
        daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["pending_lines"] == 0, what="files are written")
    assert daemon.lines("gr") == lines
    daemon.config["kafka"]["bootstrap_servers"] = kafka.bootstrap_servers
    daemon.restart()
    daemon.wait_drained()
    assert daemon.lines("gr") == lines
    (gap,) = gaps(daemon)
    assert (gap["backend"], gap["kind"], gap["first"], gap["after"]) == ("kafka", "quota", 0, None)
    assert gap["before"] is not None

    scratchd(daemon, "backfill", "--to", "kafka")
    assert by_sequence(kafka.messages(topic, len(lines))) == lines
    daemon.stop()
    assert "Everything holds" in scratchd(daemon, "audit")


def test_a_gap_whose_log_file_is_gone_says_so(daemon: Daemon, kafka: Broker, topic: str) -> None:
    lines = switch_off(daemon, "kafka", range(3, 33))
    missed = gaps(daemon)[0]["lines"]
    (path,) = daemon.file_paths("gr")
    moved = path.rename(path.with_suffix(".moved"))
    send(daemon, range(90, 91))
    daemon.wait_drained()  # the path is begun anew, and it is recorded where
    said = scratchd(daemon, "backfill", "--to", "kafka", status=1)
    assert f"{missed} lines cannot be filled" in said
    assert "no log file that scratchd knows" in said
    assert len(kafka.messages(topic)) == len(lines) - missed + 1
    moved.unlink()


# Into files.


def test_what_the_files_missed_is_written_from_the_topic(daemon: Daemon, make_topic: Callable[..., str]) -> None:
    daemon.config["flavors"][0]["kafka_topic"] = make_topic(3)
    daemon.restart()
    lines = switch_off(daemon, "file", range(3, 33))
    (gap,) = gaps(daemon)
    missed = gap["lines"]
    assert (gap["backend"], gap["kind"], gap["first"]) == ("file", "disabled", 3)
    (day,) = daemon.file_paths("gr")
    own = day.read_bytes()
    assert own.count(b"\n") == len(lines) - missed
    path = day.with_name(f"{day.stem}.backfill-3-{gap['last']}.log")

    assert str(path) in scratchd(daemon, "backfill", "--to", "file", "--dry-run")
    assert not path.exists()
    assert f"{missed} lines filled" in scratchd(daemon, "backfill", "--to", "file")
    assert path.read_bytes() == b"".join(line + b"\n" for line in lines[3 : 3 + missed])
    assert path.stat().st_mode & 0o777 == 0o640
    assert day.read_bytes() == own

    written = path.stat().st_mtime_ns
    assert "0 lines filled" in scratchd(daemon, "backfill", "--to", "file")
    (Path(daemon.config["journal"]["directory"]) / "_" / "gr" / "backfilled.jsonl").unlink()
    scratchd(daemon, "backfill", "--to", "file")
    content = path.read_bytes()
    path.unlink()
    scratchd(daemon, "backfill", "--to", "file")
    assert path.read_bytes() == content
    assert path.stat().st_mtime_ns > written
    path.write_bytes(b'{"something":"else"}\n')
    assert "move it away" in scratchd(daemon, "backfill", "--to", "file", status=1)
    assert path.read_bytes() == b'{"something":"else"}\n'
    path.write_bytes(content)
    daemon.stop()
    audited = json.loads(scratchd(daemon, "audit", "--json"))
    assert audited["holds"] is True
    assert audited["flavors"]["gr"]["ledgers"]["file"]["backfilled_lines"] == missed


def test_a_backfill_that_is_killed_is_done_again(daemon: Daemon, kafka: Broker, topic: str) -> None:
    lines = switch_off(daemon, "kafka", range(3, 33))
    missed = gaps(daemon)[0]["lines"]
    command = [sys.executable, "-m", "scratchd", "backfill", "--to", "kafka", "--config", str(daemon.config_path)]
    for delay_s in (0.3, 0.45, 0.6, 0.75):
        with subprocess.Popen(
            command, cwd=SOURCE, env={**os.environ, "PYTHONPATH": str(SOURCE)}, stdout=subprocess.DEVNULL
        ) as process:
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
    scratchd(daemon, "backfill", "--to", "kafka")
    messages = kafka.messages(topic, len(lines))
    assert by_sequence(messages) == lines
    assert len([message for message in messages if len(message.headers) == 3]) >= missed


@pytest.fixture
def lost_day(daemon: Daemon) -> tuple[Daemon, Path, bytes]:
    """A day's file, and what it held; it spans a kill -9, with repeats in Kafka."""
    send(daemon, range(20))
    daemon.kill()
    daemon.start()
    send(daemon, range(20, 30))
    daemon.wait_drained()
    daemon.stop()
    (path,) = daemon.file_paths("gr")
    return daemon, path, path.read_bytes()


def test_a_lost_file_is_rebuilt_byte_for_byte(lost_day: tuple[Daemon, Path, bytes]) -> None:
    daemon, path, content = lost_day
    day = path.stem
    assert "nothing to do" in scratchd(daemon, "backfill", "--to", "file", "--day", day)
    path.unlink()
    assert str(path) in scratchd(daemon, "backfill", "--to", "file", "--day", day, "--dry-run")
    assert not path.exists()
    scratchd(daemon, "backfill", "--to", "file", "--day", day)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_nlink == 1
    assert sorted(path.parent.iterdir()) == [path]
    scratchd(daemon, "audit")
    daemon.start()
    send(daemon, range(50, 51))
    daemon.wait_drained()
    assert path.read_bytes().startswith(content)
    assert len(daemon.lines("gr")) == 31


def test_a_lost_file_is_rebuilt_without_any_record(lost_day: tuple[Daemon, Path, bytes]) -> None:
    """As when cursors were moved away: then the topic alone says what the day had."""
    daemon, path, content = lost_day
    for cursor in (Path(daemon.config["journal"]["directory"]) / "_" / "gr").glob("file.cursor.*"):
        cursor.unlink()
    path.unlink()
    assert "no record" in scratchd(daemon, "backfill", "--to", "file", "--day", path.stem)
    assert path.read_bytes() == content


def test_a_lost_file_that_the_topic_lacks_too_stays_lost(
    lost_day: tuple[Daemon, Path, bytes], make_topic: Callable[..., str]
) -> None:
    daemon, path, _ = lost_day
    daemon.config["flavors"][0]["kafka_topic"] = make_topic()
    daemon.start()
    daemon.wait_drained()
    daemon.stop()
    path.unlink()
    cursor = Path(daemon.config["journal"]["directory"]) / "_" / "gr"
    for name in cursor.glob("kafka.cursor.*"):
        name.unlink()  # nobody knows the earlier topic any more
    said = scratchd(daemon, "backfill", "--to", "file", "--day", path.stem, status=1)
    assert "30 lines in no topic any more: 0-29" in said
    assert not path.exists()


# Changes of the configuration.


def test_a_flavor_that_is_removed_is_drained_and_goes_on_when_it_is_added_again(
    start_daemon: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": f"127.0.0.1:{free_port()}"},
        flavors=[
            {"name": "gr", "hosts": ["gr.test"], "kafka_topic": topic},
            {"name": "any", "hosts": ["*"], "kafka_topic": make_topic()},
        ],
    )
    lines = send(daemon, range(5))
    daemon.kill()
    flavor = daemon.config["flavors"].pop(0)
    daemon.config["kafka"]["bootstrap_servers"] = kafka.bootstrap_servers
    daemon.start()
    assert [message.value for message in kafka.messages(topic, 5)] == lines
    daemon.wait_for(lambda: len(daemon.lines("gr")) == 5, what="files are written")
    (path,) = daemon.file_paths("gr")
    manifest = path.with_name(path.name + ".manifest.json")
    daemon.wait_for(manifest.exists, what="the drained flavor's day is finished")
    assert json.loads(manifest.read_bytes())["last"] == 4
    assert daemon.get("/track?x=1", host="gr.test").status == 200  # flavor `any` now
    daemon.stop()

    daemon.config["flavors"].insert(0, flavor)
    daemon.start()
    lines += send(daemon, range(5, 8))
    daemon.wait_drained()
    assert not manifest.exists()
    assert daemon.lines("gr") == lines
    messages = kafka.messages(topic, 8)
    assert by_sequence(messages) == lines
    assert [int(name.partition("/")[2]) for name in dict.fromkeys(ids(messages))] == list(range(8))
    assert gaps(daemon) == []
    daemon.stop()
    scratchd(daemon, "audit", "--flavor", "gr")


def test_a_removed_flavor_with_nothing_pending_gets_its_last_manifest(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=[{"name": "gr", "hosts": ["gr.test"]}, {"name": "any", "hosts": ["*"]}])
    send(daemon, range(5))
    daemon.wait_drained()
    daemon.stop()
    (path,) = daemon.file_paths("gr")
    daemon.config["flavors"].pop(0)
    daemon.start()
    manifest = path.with_name(path.name + ".manifest.json")
    daemon.wait_for(manifest.exists, what="the removed flavor's day is finished")
    assert json.loads(manifest.read_bytes())["lines"] == 5


def test_an_instance_that_is_renamed_has_a_journal_of_its_own(
    start_daemon: Callable[..., Daemon], kafka: Broker, topic: str
) -> None:
    path = "{directory}/log/{instance}/{flavor}/{date}.log"
    started = start_daemon(flavors=[{"name": "gr", "hosts": ["gr.test"], "kafka_topic": topic}])
    started.config["instance"] = "one"
    started.config["file"]["path"] = path.replace("{directory}", str(started.directory))
    started.config["kafka"] = {"enabled": True, "bootstrap_servers": f"127.0.0.1:{free_port()}"}
    started.restart()
    first = send(started, range(5))
    started.kill()
    started.config["instance"] = "two"
    started.config["kafka"]["bootstrap_servers"] = kafka.bootstrap_servers
    started.start()
    second = send(started, range(5, 8))
    started.wait_drained()
    assert [message.value for message in kafka.messages(topic, 3)] == second
    started.stop()

    started.config["instance"] = "one"  # the old name drains the old journal
    started.start()
    started.wait_drained()
    messages = kafka.messages(topic, 8)
    assert sorted(message.value for message in messages) == sorted(first + second)
    assert len(set(ids(messages))) == 8
    started.stop()
    scratchd(started, "audit", "--instance", "one")
    scratchd(started, "audit", "--instance", "two")


# The command.


def test_a_configuration_without_brokers_is_refused(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    assert "bootstrap_servers" in scratchd(daemon, "backfill", "--to", "file", status=78)
    daemon.config_path.write_text("{}")
    scratchd(daemon, "backfill", "--to", "file", status=78)


def test_an_unreachable_broker_is_said(daemon: Daemon) -> None:
    switch_off(daemon, "kafka", range(3, 33))
    daemon.stop()
    text = daemon.config_path.read_text()
    daemon.config_path.write_text(re.sub(r'("bootstrap_servers": )"[^"]*"', rf'\1"127.0.0.1:{free_port()}"', text))
    assert "cannot: gr: topic" in scratchd(daemon, "backfill", "--to", "kafka", status=1)


def test_progress_is_shown_on_a_terminal_only(daemon: Daemon) -> None:
    switch_off(daemon, "kafka", range(3, 33))
    assert "\r" not in scratchd(daemon, "backfill", "--to", "kafka", "--dry-run")
    terminal, end = os.openpty()
    command = [sys.executable, "-m", "scratchd", "backfill", "--to", "kafka", "--config", str(daemon.config_path)]
    with subprocess.Popen(
        command, cwd=SOURCE, env={**os.environ, "PYTHONPATH": str(SOURCE)}, stdout=subprocess.DEVNULL, stderr=end
    ) as process:
        wait_for(lambda: process.poll() is not None, 30)
        assert process.returncode == 0
    os.close(end)
    shown = os.read(terminal, 65536)
    os.close(terminal)
    assert b"sending to " in shown
    assert shown.endswith(b"\r\x1b[K")
