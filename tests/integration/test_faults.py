"""Whether faults downstream stay there: clients, other backends and other flavors notice nothing, and nothing is lost.

File systems are made full and unmounted as root; a broker is stopped, paused and killed; a topic is forbidden.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import assert_image, assert_refused
from daemon import Daemon
from kafka_client import Broker, first_occurrences
from load import Load, assert_complete
from wire import request

SLOW_S = 3.0
"""No answer takes so long, whatever happens downstream: far above a busy machine's hiccups, far below any time-out."""

PAUSE_S = 0.01
"""Between a client's bursts: enough flows to be missed, and the machine is left to others."""

TWO = [{"name": "gr", "hosts": ["gr.test"]}, {"name": "tr", "hosts": ["tr.test"]}]


class FileSystem:
    """A small file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leaves no byte free."""
        with self._ballast.open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(b"\0" * 4096):
                pass

    def free(self) -> None:
        """Takes `fill` back."""
        self._ballast.unlink()


@pytest.fixture
def file_system(tmp_path: Path) -> Iterator[FileSystem]:
    """A tmpfs of 2 MiB."""
    if os.geteuid() != 0:
        pytest.fail("only root can mount the file system that this test fills", pytrace=False)
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "scratchd-test", path], check=True)
    try:
        yield FileSystem(path)
    finally:
        # Lazily: a daemon that a failed test has left may still be writing there.
        subprocess.run(["umount", "--lazy", path], check=True)


def slowest_s(daemon: Daemon) -> float:
    longest: float = daemon.stats()["http"]["latency_s"]["max"]
    return longest


def kafka_section(kafka: Broker) -> dict[str, Any]:
    return {"enabled": True, "bootstrap_servers": kafka.bootstrap_servers}


# Kafka.


@pytest.mark.parametrize("outage", ["stopped", "paused"])
def test_kafka_is_away_while_requests_flow_and_an_instance_starts(
    start_daemon: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str], outage: str
) -> None:
    topic, late_topic = make_topic(), make_topic()
    daemon = start_daemon(
        kafka=kafka_section(kafka),
        flavors=[{"name": "any", "hosts": ["*"], "kafka_topic": topic}],
        http={"stop_timeout_s": 5},
    )
    load = Load(daemon, outage, connections=3, pause_s=PAUSE_S)
    with load.running():
        daemon.wait_for(lambda: load.answered > 300)
        with getattr(kafka, outage)():
            before = load.answered
            late = start_daemon(
                kafka=kafka_section(kafka),
                flavors=[{"name": "any", "hosts": ["*"], "kafka_topic": late_topic}],
                http={"stop_timeout_s": 1},
            )
            assert_image(late.get("/track?n=1"))
            late.wait_for(lambda: late.lines("any") == [b'{"n":"1"}'])
            began = time.monotonic()
            late.stop()  # in its time, and the line waits in the journal
            assert time.monotonic() - began < 1 + SLOW_S
            late.start()
            assert_image(late.get("/track?n=2"))
            daemon.wait_for(lambda: load.answered > before + 1000, 30)
            daemon.wait_for(lambda: daemon.stats()["backends"]["kafka"]["pending_lines"] > 500)
            assert daemon.admin("/health/ready").status == 200
            # Files go on: what came after the outage had begun is there while it lasts.
            daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["persisted_lines"] > before + 500)
    assert slowest_s(daemon) < SLOW_S
    daemon.wait_drained(60)
    assert not any(one.refused for one in load.sent)
    lines = daemon.lines("any")
    assert_complete(load.sent, lines)
    assert first_occurrences(kafka.messages(topic, len(lines))) == lines
    late.wait_drained(60)
    assert late.lines("any") == [b'{"n":"1"}', b'{"n":"2"}']
    assert first_occurrences(kafka.messages(late_topic, 2)) == late.lines("any")


def test_one_flavors_topic_is_forbidden(
    start_daemon: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str]
) -> None:
    topics = {"gr": make_topic(), "tr": make_topic()}
    daemon = start_daemon(
        kafka=kafka_section(kafka), flavors=[flavor | {"kafka_topic": topics[str(flavor["name"])]} for flavor in TWO]
    )

    def pending(flavor: str) -> int:
        lines: int = daemon.stats()["flavors"][flavor]["kafka"]["pending_lines"]
        return lines

    load = Load(daemon, "load", ("gr.test", "tr.test"), connections=4, pause_s=PAUSE_S)
    with load.running():
        daemon.wait_for(lambda: load.answered > 500)
        kafka.forbid(topics["gr"])
        before = load.answered
        daemon.wait_for(lambda: load.answered > before + 500)
        daemon.wait_for(lambda: daemon.stats()["flavors"]["gr"]["kafka"]["state"] == "backing_off", 30)
        assert daemon.stats()["flavors"]["tr"]["kafka"]["state"] == "running"
        assert daemon.stats()["backends"]["kafka"]["state"] == "backing_off"
        assert daemon.admin("/health/ready").status == 200
    daemon.wait_for(lambda: pending("tr") == 0, 30)
    assert pending("gr") > 0
    assert daemon.stats()["backends"]["kafka"]["last_error"]["flavor"] == "gr"
    assert slowest_s(daemon) < SLOW_S
    kafka.allow(topics["gr"])
    daemon.wait_drained(60)

    assert_complete(load.sent, daemon.lines("gr") + daemon.lines("tr"))
    for flavor, topic in topics.items():
        lines = daemon.lines(flavor)
        assert first_occurrences(kafka.messages(topic, len(lines))) == lines


def test_a_topic_that_is_missing_holds_up_no_other(
    start_daemon: Callable[..., Daemon], kafka: Broker, topic: str
) -> None:
    daemon = start_daemon(
        kafka=kafka_section(kafka),
        http={"stop_timeout_s": 1},
        flavors=[
            {"name": "gr", "hosts": ["gr.test"], "kafka_topic": f"{topic}-missing"},
            {"name": "tr", "hosts": ["tr.test"], "kafka_topic": topic},
        ],
    )
    for number in range(3):
        assert_image(daemon.get(f"/track?n={number}", host="gr.test"))
        assert_image(daemon.get(f"/track?n={number}", host="tr.test"))
    expected = [b'{"n":"%d"}' % number for number in range(3)]
    assert [message.value for message in kafka.messages(topic, 3)] == expected
    daemon.wait_for(lambda: daemon.lines("gr") == expected)
    assert daemon.stats()["flavors"]["gr"]["kafka"]["pending_lines"] == 3
    assert daemon.stats()["ledger"]["residual_lines"] == 0


def test_a_message_too_large_for_kafka_is_set_aside_and_the_rest_goes_on(
    start_daemon: Callable[..., Daemon], kafka: Broker, topic: str
) -> None:
    daemon = start_daemon(
        kafka=kafka_section(kafka) | {"librdkafka": {"message.max.bytes": 1000}},
        flavors=[{"name": "any", "hosts": ["*"], "kafka_topic": topic}],
    )
    large = "x" * 2000
    for value in ("1", large, "2"):
        assert_image(daemon.get(f"/track?n={value}"))
    daemon.wait_drained()
    assert [message.value for message in kafka.messages(topic, 2)] == [b'{"n":"1"}', b'{"n":"2"}']
    stats = daemon.stats()["flavors"]["any"]
    assert (stats["kafka"]["persisted_lines"], stats["kafka"]["set_aside_lines"]) == (2, 1)
    assert (stats["file"]["persisted_lines"], stats["file"]["set_aside_lines"]) == (3, 0)
    aside = [path for path in (daemon.directory / "journal").rglob("*") if path.is_file() and _holds(path, large)]
    assert aside, "the line is in no file below the journal"


def _holds(path: Path, text: str) -> bool:
    return text in path.read_text(errors="replace")


# Files.


def test_the_log_directory_cannot_be_made(start_daemon: Callable[..., Daemon], kafka: Broker, topic: str) -> None:
    daemon = start_daemon(
        wait_ready=False, kafka=kafka_section(kafka), flavors=[{"name": "any", "hosts": ["*"], "kafka_topic": topic}]
    )
    daemon.wait_for(daemon.is_ready)
    blocked = daemon.directory / "log"
    blocked.write_text("a file where a directory should be")
    load = Load(daemon, "load", connections=3, pause_s=PAUSE_S)
    with load.running():
        daemon.wait_for(lambda: load.answered > 1000)
        daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["state"] == "backing_off")
        daemon.wait_for(lambda: daemon.stats()["backends"]["kafka"]["persisted_lines"] > 500)
        assert daemon.admin("/health/ready").status == 200
    assert slowest_s(daemon) < SLOW_S
    assert blocked.read_text() == "a file where a directory should be", "nothing is overwritten"
    blocked.unlink()
    daemon.wait_drained()
    lines = daemon.lines("any")
    assert_complete(load.sent, lines)
    assert first_occurrences(kafka.messages(topic, len(lines))) == lines


def test_the_log_file_system_is_full(
    start_daemon: Callable[..., Daemon], kafka: Broker, topic: str, file_system: FileSystem
) -> None:
    daemon = start_daemon(
        kafka=kafka_section(kafka),
        flavors=[{"name": "any", "hosts": ["*"], "kafka_topic": topic}],
        file={"path": f"{file_system.path}/{{flavor}}/{{date}}.log"},
    )

    def persisted() -> dict[str, int]:
        return {name: backend["persisted_lines"] for name, backend in daemon.stats()["backends"].items()}

    load = Load(daemon, "load", connections=3, pause_s=PAUSE_S)
    with load.running():
        daemon.wait_for(lambda: persisted()["file"] > 0)
        file_system.fill()
        before = load.answered
        daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["state"] == "backing_off")
        daemon.wait_for(lambda: load.answered > before + 500)
        daemon.wait_for(lambda: persisted()["kafka"] > before + 500)
        assert daemon.admin("/health/ready").status == 200
        torn = _content(file_system)
        file_system.free()
        daemon.wait_for(lambda: persisted()["file"] > before + 500)
    assert slowest_s(daemon) < SLOW_S
    daemon.wait_drained()
    content = _content(file_system)
    assert content.startswith(torn), "a reader saw the file shrink or change"
    assert content.endswith(b"\n")
    lines = content.split(b"\n")[:-1]
    assert_complete(load.sent, lines)
    assert first_occurrences(kafka.messages(topic, len(lines))) == lines


def test_a_kill_while_the_log_file_system_is_full(start_daemon: Callable[..., Daemon], file_system: FileSystem) -> None:
    daemon = start_daemon(file={"path": f"{file_system.path}/{{flavor}}/{{date}}.log"})
    load = Load(daemon, "load", connections=3, pause_s=PAUSE_S)
    with load.running():
        daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["persisted_lines"] > 0)
        file_system.fill()
        daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["state"] == "backing_off")
        daemon.kill()
    file_system.free()
    daemon.start()
    daemon.wait_drained()
    content = _content(file_system)
    assert content.endswith(b"\n")
    assert_complete(load.sent, content.split(b"\n")[:-1])


def _content(file_system: FileSystem) -> bytes:
    paths = sorted(path for path in file_system.path.rglob("*.log"))
    return b"".join(path.read_bytes() for path in paths)


def test_one_flavors_directory_is_forbidden(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=TWO)
    blocked = daemon.directory / "log" / "gr"
    blocked.parent.mkdir()
    blocked.write_text("a file where a directory should be")
    load = Load(daemon, "load", ("gr.test", "tr.test"), connections=4, pause_s=PAUSE_S)
    with load.running():
        daemon.wait_for(lambda: load.answered > 1000)
        daemon.wait_for(lambda: daemon.stats()["flavors"]["gr"]["file"]["state"] == "backing_off")
        daemon.wait_for(lambda: daemon.stats()["flavors"]["tr"]["file"]["persisted_lines"] > 300)
        assert daemon.stats()["flavors"]["tr"]["file"]["state"] == "running"
        assert daemon.stats()["flavors"]["gr"]["file"]["persisted_lines"] == 0
    blocked.unlink()
    daemon.wait_drained()
    assert_complete(load.sent, daemon.lines("gr") + daemon.lines("tr"))


def test_what_is_no_file_of_ours_is_never_written_to(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    obstacles: dict[str, Callable[[Path], None]] = {
        "symbolic-link": lambda path: path.symlink_to(victim),
        "fifo": os.mkfifo,
        "hard-link": lambda path: path.hardlink_to(victim),
        "directory": Path.mkdir,
    }
    daemon = start_daemon(flavors=[{"name": name, "hosts": [f"{name}.test"]} for name in obstacles])
    for name in obstacles:
        assert_image(daemon.get("/track?n=1", host=f"{name}.test"))
    daemon.wait_drained()
    daemon.stop()
    paths = {name: daemon.file_paths(name)[0] for name in obstacles}
    for name, obstruct in obstacles.items():
        paths[name].unlink()
        obstruct(paths[name])
    daemon.start()
    for name, path in paths.items():
        assert_image(daemon.get("/track?n=2", host=f"{name}.test"))
        daemon.wait_for(lambda name=name: daemon.stats()["flavors"][name]["file"]["state"] == "backing_off")  # type: ignore[misc]
        assert str(path) in daemon.log()
    assert victim.read_text() == "precious\n"
    for name, path in paths.items():
        if name == "directory":
            path.rmdir()
        else:
            path.unlink()
    daemon.wait_drained()
    assert {name: daemon.lines(name) for name in obstacles} == {name: [b'{"n":"2"}'] for name in obstacles}
    assert victim.read_text() == "precious\n"


def test_a_log_file_that_was_moved_is_begun_anew(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    load = Load(daemon, "load", connections=2, pause_s=PAUSE_S)
    moved: list[Path] = []
    with load.running():
        for number in range(2):
            daemon.wait_for(lambda: daemon.file_paths("any"))
            (path,) = daemon.file_paths("any")
            moved.append(path.rename(daemon.directory / f"moved{number}"))
        daemon.wait_for(lambda: daemon.file_paths("any"))
    daemon.wait_drained()
    content = b"".join(path.read_bytes() for path in moved)
    assert_complete(load.sent, content.split(b"\n")[:-1] + daemon.lines("any"))


# The journal's own disk. The file backend is held up meanwhile: what it has written makes room at once.


def _held_up(daemon: Daemon) -> Path:
    """A file where the log directory should be: the file backend waits until it is removed."""
    place = daemon.directory / "log"
    place.write_text("")
    return place


def test_a_full_journal_is_answered_503_and_heals(start_daemon: Callable[..., Daemon], file_system: FileSystem) -> None:
    daemon = start_daemon(journal={"directory": str(file_system.path)})
    obstacle = _held_up(daemon)
    value = "x" * 4000
    taken = 0
    with daemon.connect() as connection:
        assert_image(connection.get("/track?n=first", "any.test"))
        file_system.fill()
        while (answer := connection.get(f"/track?n={taken}&v={value}", "any.test")).status == 200:
            assert_image(answer)
            taken += 1
            assert taken < 20_000, "the journal is never full"
        assert_refused(answer, "journal_full")
        # It is the last of the reasons, and HEAD has its GET's head.
        assert_refused(connection.get("/track", "any.test"), "empty_query")
        full = connection.get(f"/track?n=head&v={value}", "any.test", method="HEAD")
        assert_refused(full, "journal_full", bodiless=True)
        connection.send(request(f"/track?n=never&v={value}", "any.test") * 5)
        for _ in range(5):
            assert_refused(connection.response(), "journal_full")
        unready = daemon.wait_for(lambda: _when_unready(daemon))
        assert unready == b"journal_full"
        assert daemon.admin("/health/live").status == 200
        stats = daemon.stats()
        assert stats["http"]["refused"]["journal_full"] >= 7
        assert stats["journal"]["append_errors"] >= 1
        assert stats["ledger"]["residual_lines"] == 0

        file_system.free()
        daemon.wait_for(lambda: daemon.admin("/health/ready").status == 200, 30, "ready without any request")
        assert_image(connection.get("/track?n=last", "any.test"))
    obstacle.unlink()
    daemon.wait_drained()
    long = [b'{"n":"%d","v":"%s"}' % (number, value.encode()) for number in range(taken)]
    assert daemon.lines("any") == [b'{"n":"first"}', *long, b'{"n":"last"}']


def _when_unready(daemon: Daemon) -> bytes:
    answer = daemon.admin("/health/ready")
    return answer.body.strip() if answer.status == 503 else b""


def test_duplicates_of_what_was_not_persisted_are_none(
    start_daemon: Callable[..., Daemon], file_system: FileSystem
) -> None:
    daemon = start_daemon(
        journal={"directory": str(file_system.path)},
        checks={"duplicate_window_s": 600, "client_requests_per_min": 19_000},
    )
    obstacle = _held_up(daemon)
    value = "x" * 4000
    number = 0
    with daemon.connect() as connection:
        file_system.fill()
        while connection.get(f"/track?n={number}&v={value}", "any.test").status == 200:
            number += 1
        for _ in range(2):
            assert_refused(connection.get(f"/track?n={number}&v={value}", "any.test"), "journal_full")
        file_system.free()
        daemon.wait_for(lambda: daemon.admin("/health/ready").status == 200, 30)
        for _ in range(2):
            assert_image(connection.get(f"/track?n={number}&v={value}", "any.test"))
    assert daemon.stats()["http"]["duplicates"] == 1
    obstacle.unlink()
    daemon.wait_drained()
    assert len(daemon.lines("any")) == number + 1


def test_a_kill_on_a_full_journal_loses_nothing(start_daemon: Callable[..., Daemon], file_system: FileSystem) -> None:
    daemon = start_daemon(journal={"directory": str(file_system.path)})
    load = Load(daemon, "load", connections=3, padding_bytes=4000)
    with load.running():
        daemon.wait_for(lambda: load.answered > 300)
        file_system.fill()
        daemon.wait_for(lambda: any(one.refused for one in list(load.sent)), 30)
        daemon.kill()
    assert {status for one in load.sent for status in one.refused} == {503}
    file_system.free()
    daemon.start()
    daemon.wait_drained()
    assert_complete(load.sent, daemon.lines("any"))


def test_a_start_on_a_full_journal_waits_for_space(
    start_daemon: Callable[..., Daemon], file_system: FileSystem
) -> None:
    daemon = start_daemon(journal={"directory": str(file_system.path)}, http={"stop_timeout_s": 1})
    obstacle = _held_up(daemon)
    assert_image(daemon.get("/track?n=1"))
    daemon.stop()
    file_system.fill()
    daemon.start(wait_ready=False)
    daemon.wait_for(lambda: _answers(daemon))
    daemon.wait_for(lambda: _when_unready(daemon) == b"journal_full")
    assert_refused(daemon.get("/track?n=2"), "journal_full")
    file_system.free()
    daemon.wait_for(lambda: daemon.admin("/health/ready").status == 200, 30)
    assert_image(daemon.get("/track?n=3"))
    obstacle.unlink()
    daemon.wait_drained()
    assert daemon.lines("any") == [b'{"n":"1"}', b'{"n":"3"}']


def _answers(daemon: Daemon) -> bool:
    try:
        return daemon.admin("/health/live").status == 200
    except OSError:
        return False
