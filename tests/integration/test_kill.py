"""Whether what was answered survives the end of the process, asked for or not, while requests flow."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contract import assert_image
from daemon import Daemon
from kafka_client import Broker, first_occurrences
from load import Load, Sent, assert_complete
from wire import request

ROUNDS = 5


def test_kill_9_under_load_five_times(start_daemon: Callable[..., Daemon], kafka: Broker, topic: str) -> None:
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        flavors=[{"name": "any", "hosts": ["*"], "kafka_topic": topic}],
        journal={"segment_bytes": 65536},
    )
    sent: list[Sent] = []
    epochs = set()
    for number in range(ROUNDS):
        load = Load(daemon, f"round{number}")
        with load.running():
            least = 500 * (number + 1)
            daemon.wait_for(lambda load=load, least=least: load.answered > least)  # type: ignore[misc]
            epochs.add(daemon.stats()["flavors"]["any"]["epoch"])
            daemon.kill()
        sent += load.sent
        daemon.start()
        assert daemon.stats()["ledger"]["residual_lines"] == 0
        assert daemon.stats()["journal"]["corrupt_lines"] == 0
    daemon.wait_drained(60)

    lines = daemon.lines("any")
    assert_complete(sent, lines)
    assert len(epochs) == ROUNDS
    stats = daemon.stats()
    assert stats["flavors"]["any"]["received_lines"] == len(lines)
    assert {name: backend["persisted_lines"] for name, backend in stats["backends"].items()} == {
        "file": len(lines),
        "kafka": len(lines),
    }
    assert {backend["gap_lines"] for backend in stats["backends"].values()} == {0}
    # One partition: first occurrences are in the journal's order, as the files are.
    assert first_occurrences(kafka.messages(topic, len(lines))) == lines


def test_sigterm_under_load(start_daemon: Callable[..., Daemon], kafka: Broker, topic: str) -> None:
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        flavors=[{"name": "any", "hosts": ["*"], "kafka_topic": topic}],
        http={"stop_timeout_s": 10},
    )
    load = Load(daemon, "load")
    with daemon.connect() as idle, daemon.connect() as begun, load.running():
        assert_image(idle.get("/track?c=idle&n=0", "any.test"))
        half = request("/track?c=begun&n=0", "any.test")
        begun.send(half[:30])
        daemon.wait_for(lambda: load.answered > 2000)
        daemon.sigterm()
        daemon.wait_for(lambda: daemon.admin("/health/ready").status == 503)
        begun.send(half[30:])
        assert_image(begun.response(), closes=True)
        assert begun.is_closed()
        assert_image(idle.get("/track?c=idle&n=1", "any.test"), closes=True)
        assert idle.is_closed()
        assert daemon.wait(11) == 0
    assert any(sent.last for sent in load.sent), "nobody was told that its connection is closed"
    unanswered = [(one.name, one.sent - one.answered) for one in load.sent if not one.last and one.sent > one.answered]
    assert unanswered == [], "requests that were taken and not answered"

    others = [Sent("idle", 2, 2), Sent("begun", 1, 1)]
    lines = daemon.lines("any")
    assert_complete([*load.sent, *others], lines)
    assert first_occurrences(kafka.messages(topic, len(lines))) == lines


@pytest.mark.parametrize("sync", ["none", "always"])
def test_every_sync_mode_works_under_load_and_survives_kill_9(start_daemon: Callable[..., Daemon], sync: str) -> None:
    daemon = start_daemon(journal={"sync": sync, "segment_bytes": 65536})
    load = Load(daemon, sync)
    with load.running():
        daemon.wait_for(lambda: load.answered > 1000, 30)
        daemon.kill()
    daemon.start()
    daemon.wait_drained()
    assert not any(one.refused for one in load.sent)
    assert_complete(load.sent, daemon.lines("any"))


def test_a_kill_in_the_middle_of_an_outage_of_files(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(journal={"segment_bytes": 65536}, http={"stop_timeout_s": 1})
    blocked = daemon.directory / "log"
    sent: list[Sent] = []
    load = Load(daemon, "before")
    with load.running():
        daemon.wait_for(lambda: load.answered > 300)
        # A file's place is taken while it is open, and the directory cannot be made anew.
        daemon.wait_for(lambda: any(blocked.rglob("*.log")))
        blocked.rename(daemon.directory / "moved")
        blocked.write_text("a file where a directory should be")
        daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["state"] == "backing_off")
        daemon.kill()
    sent += load.sent
    daemon.start()
    load = Load(daemon, "between")
    with load.running():
        daemon.wait_for(lambda: load.answered > 300)
        daemon.kill()
    sent += load.sent
    blocked.unlink()
    daemon.start()
    daemon.wait_drained()
    moved = b"".join(path.read_bytes() for path in sorted((daemon.directory / "moved" / "any").iterdir()))
    assert_complete(sent, moved.split(b"\n")[:-1] + daemon.lines("any"))
