"""A configuration put into effect by a running service: nobody notices but those whom it concerns."""

from __future__ import annotations

import itertools
import json
import re
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import Client, numbers
from daemon import Daemon
from deadline import wait_for
from disks import Disks
from kafka_client import Broker, first_occurrences
from load import Load, assert_complete
from manager import Manager
from tracing import injected
from wire import request

GR: dict[str, Any] = {"name": "gr", "hosts": ["gr.test"], "time_zone": "Europe/Athens"}
TR: dict[str, Any] = {"name": "tr", "hosts": ["tr.test"], "time_zone": "Europe/Istanbul"}
CY: dict[str, Any] = {"name": "cy", "hosts": ["cy.test"]}


def lines_of(*directories: Path) -> list[bytes]:
    return [
        line
        for directory in directories
        for path in sorted(directory.glob("*.log"))
        for line in path.read_bytes().splitlines()
    ]


def path_in(daemon: Daemon, name: str) -> str:
    return str(daemon.directory / "log" / name / "{date}.log")


# Under load.


def test_twenty_reloads_under_load_fail_no_request_and_lose_no_line(
    start_daemon: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str]
) -> None:
    topics = {name: make_topic() for name in ("gr", "gr-new", "tr", "rest")}
    gr, tr = {**GR, "kafka_topic": topics["gr"]}, {**TR, "kafka_topic": topics["tr"]}
    rest = {"name": "rest", "hosts": ["*"], "kafka_topic": topics["rest"]}
    daemon = start_daemon(kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers}, flavors=[gr, tr, rest])
    load = Load(daemon, "load", ("gr.test", "tr.test", "other.test"), pause_s=0.002)
    moved = {**gr, "file_path": path_in(daemon, "gr-new"), "kafka_topic": topics["gr-new"]}
    with load.running():
        for number in range(20):
            flow_on(daemon, load)
            if number < 7:  # limits, which concern nobody here
                daemon.config["http"]["max_query_bytes"] = 9000 + number
                daemon.config["checks"] = {"client_requests_per_min": 10**9 * (number % 2)}
            elif number < 13:  # another place, by way of none
                daemon.config["flavors"] = [moved, tr, rest]
            else:  # its host goes to another flavor, its lines are brought away
                daemon.config["flavors"] = [moved, rest]
            daemon.reload()
        flow_on(daemon, load)
    assert len(load.sent) == 6, "connections were lost"
    assert [sent.refused for sent in load.sent if sent.refused] == []
    daemon.wait_for(lambda: "tr" not in daemon.stats()["flavors"], 30, "tr drained")
    daemon.wait_drained()
    files = [daemon.directory / "log" / name for name in ("gr", "gr-new", "tr", "rest")]
    assert all(lines_of(directory) for directory in files)
    assert_complete(load.sent, lines_of(*files))
    messages = [first_occurrences(kafka.messages(topics[name])) for name in ("gr", "gr-new", "tr", "rest")]
    assert_complete(load.sent, [line for topic in messages for line in topic])
    for directory, topic in zip(files[2:], messages[2:], strict=True):
        assert lines_of(directory) == topic
    assert lines_of(*files[:2]) == messages[0] + messages[1]


def flow_on(daemon: Daemon, load: Load, count: int = 60) -> None:
    wanted = load.answered + count
    daemon.wait_for(lambda: load.answered >= wanted, 30, f"{count} more lines answered")


# What is wrong.


def test_a_broken_configuration_changes_nothing_and_every_error_is_told(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=[GR])
    before = daemon.config
    daemon.config = {
        **before,
        "flavors": [{**GR, "time_zone": "Europe/Athen"}, {**CY, "hosts": ["gr.test"]}],
        "htp": {},
        "log": {"level": "loud"},
    }
    with daemon.connect() as connection:
        assert connection.get("/track?n=1", "gr.test").status == 200
        daemon.reload(works=False)
        daemon.wait_for(lambda: daemon.log().count("nothing has changed") == 4, what="four errors")
        for error in ("Europe/Athen", "gr.test", "htp", "log.level"):
            assert re.search(f"service: the configuration is wrong, nothing has changed error=.*{error}", daemon.log())
        assert connection.get("/track?n=2", "gr.test").status == 200
        assert daemon.get("/track?n=3", "cy.test").status == 421
        daemon.config_path.unlink()
        daemon.sighup()
        daemon.wait_for(lambda: "cannot be read" in daemon.log(), what="no configuration")
        assert connection.get("/track?n=4", "gr.test").status == 200
    daemon.config = before
    daemon.reload()


def test_a_journal_that_cannot_be_made_changes_nothing(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=[GR])
    journal = Path(daemon.config["journal"]["directory"]) / "_"
    (journal / "tr").write_text("in the way")
    daemon.config["flavors"] = [GR, CY, TR]
    daemon.reload(works=False)
    assert set(daemon.stats()["flavors"]) == {"gr"}
    assert daemon.get("/track?n=1", "cy.test").status == 421
    (journal / "tr").unlink()
    daemon.reload()
    for host in ("gr.test", "cy.test", "tr.test"):
        assert daemon.get("/track?n=1", host).status == 200
    daemon.wait_drained()
    for name in ("gr", "cy", "tr"):
        assert daemon.lines(name) == [b'{"n":"1"}']


def test_what_needs_a_restart_is_named_and_the_rest_applied(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=[GR])
    port = daemon.address.rpartition(":")[2]
    daemon.config["http"] = {**daemon.config["http"], "listen": [f"127.0.0.1:{port}", "[::1]:1"], "track_path": "/t"}
    daemon.config["journal"] = {"directory": str(daemon.directory / "elsewhere"), "sync": "always"}
    daemon.config["kafka"] = {"bootstrap_servers": "kafka:9092", "librdkafka": {"linger.ms": 7}}
    daemon.config["file"] = {**daemon.config["file"], "flush_interval_s": 7}
    daemon.config["flavors"] = [GR, CY]
    daemon.reload()
    waiting = {"http.listen", "journal.directory", "journal.sync", "file.flush_interval_s"}
    waiting |= {"kafka.bootstrap_servers", "kafka.librdkafka"}
    assert set(re.findall(r"this key waits for a restart key=(\S+)", daemon.log())) == waiting
    assert daemon.get("/t?n=1", "cy.test").status == 200
    assert daemon.get("/track?n=1", "cy.test").status == 404
    daemon.wait_drained()
    assert daemon.lines("cy") == [b'{"n":"1"}']
    assert not (daemon.directory / "elsewhere").exists()


# What is applied.


def test_limits_hold_at_once_on_connections_that_are_open(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(http={"trusted_proxies": []}, flavors=[GR, CY])
    with daemon.connect() as connection, daemon.connect() as begun:
        assert connection.get("/track?n=1", "gr.test").status == 200
        begun.send(b"GET /track?begun=" + b"x" * 200)  # its head is complete when the limits are others
        daemon.config["http"] |= {"max_query_bytes": 100, "max_parameters": 2, "track_path": "/t"}
        daemon.config["http"] |= {"trusted_proxies": ["127.0.0.1"], "max_head_bytes": 500}
        daemon.config["query"] = {"repeated": "list"}
        daemon.config["checks"] = {"client_requests_per_min": 2}
        daemon.reload()
        assert connection.get("/track?n=1", "gr.test").status == 404
        assert connection.get("/t?n=" + "x" * 99, "gr.test").status == 414
        assert connection.get("/t?a&b&c", "gr.test").status == 400
        begun.send(b" HTTP/1.1\r\nHost: gr.test\r\n\r\n")
        assert begun.response().status == 404
        # Who is behind the proxy counts, though nobody's address was looked at before.
        for client, status in (("10.0.0.1", 200), ("10.0.0.2", 200), ("10.0.0.1", 200), ("10.0.0.1", 429)):
            answer = connection.get("/t?n=1&n=2", "gr.test", f"X-Forwarded-For: {client}")
            assert answer.status == status
        daemon.config["checks"] = {"client_requests_per_min": 1}
        daemon.reload()  # what was counted is not forgotten
        assert connection.get("/t?n=3", "gr.test", "X-Forwarded-For: 10.0.0.2").status == 429
        assert connection.get("/t?n=3", "gr.test", f"X-Pad: {'x' * 500}").status == 431
    daemon.wait_drained()
    assert daemon.lines("gr") == [b'{"n":"1"}'] + [b'{"n":["1","2"]}'] * 3


def test_the_log_level_and_who_may_ask_for_figures(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=[GR])
    assert daemon.get("/nowhere", "gr.test").status == 404
    daemon.wait_for(lambda: "request refused" in daemon.log(), what="logged")
    daemon.config["http"]["admin_allow"] = ["10.0.0.0/8"]
    daemon.reload()
    assert daemon.admin("/stats").status == 403
    daemon.config["http"]["admin_allow"] = ["127.0.0.0/8"]
    daemon.reload()
    assert daemon.admin("/stats").status == 200
    daemon.config["log"] = {"level": "error"}
    daemon.write_config()
    daemon.sighup()
    daemon.wait_for(lambda: quiet(daemon), what="nothing logged below an error")
    daemon.config["log"] = {"level": "info"}
    daemon.reload()


def quiet(daemon: Daemon) -> bool:
    """Whether a refusal is not logged any more; the sampler lets one through each second."""
    before = daemon.log()
    time.sleep(1.1)
    assert daemon.get("/nowhere", "gr.test").status == 404
    return daemon.log() == before


def test_a_topic_and_a_path_changed_while_nobody_takes_lines(
    start_daemon: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str], disks: Disks
) -> None:
    """What waits goes where the configuration says when it goes; nothing is lost, nothing comes twice."""
    full = disks.tmpfs("logs", "size=64k")
    old, new = make_topic(), make_topic()
    flavor = {**GR, "kafka_topic": old, "file_path": f"{full.path}/{{date}}.log"}
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        flavors=[flavor],
    )
    with Client(daemon.address, "gr.test") as client:
        daemon.wait_for(lambda: client.has_sent(50), what="lines")
        filling = full.fill()
        with kafka.stopped():
            sent = len(client.answered)
            daemon.wait_for(lambda: client.has_sent(sent + 200), what="lines that wait")
            daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["state"] == "backing_off", what="a full disk")
            daemon.config["flavors"] = [{**flavor, "kafka_topic": new, "file_path": path_in(daemon, "new")}]
            daemon.reload()
            sent = len(client.answered)
            daemon.wait_for(lambda: client.has_sent(sent + 50), what="lines behind")
        assert client.slowest_s < 3
        filling.unlink()  # a line that was torn there is completed there
    daemon.wait_drained(60)
    assert numbers(lines_of(full.path, daemon.directory / "log" / "new")) == client.answered
    assert lines_of(daemon.directory / "log" / "new")
    arrived = [first_occurrences(kafka.messages(topic)) for topic in (old, new)]
    assert all(arrived)
    assert numbers(arrived[0] + arrived[1]) == client.answered


def test_two_flavors_that_change_places(start_daemon: Callable[..., Daemon]) -> None:
    gr, cy = GR, {**CY, "time_zone": GR["time_zone"]}  # one zone: a day's file holds lines of both
    daemon = start_daemon(flavors=[gr, cy])
    for number in range(2):
        for host in ("gr.test", "cy.test"):
            assert daemon.get(f"/track?n={number}&h={host}", host).status == 200
        daemon.wait_drained()
        daemon.config["flavors"] = [
            {**gr, "file_path": path_in(daemon, "cy")},
            {**cy, "file_path": path_in(daemon, "gr")},
        ]
        daemon.reload()
    expected = {
        "gr": [b'{"n":"0","h":"gr.test"}', b'{"n":"1","h":"cy.test"}'],
        "cy": [b'{"n":"0","h":"cy.test"}', b'{"n":"1","h":"gr.test"}'],
    }
    assert {name: lines_of(daemon.directory / "log" / name) for name in expected} == expected


# Flavors that leave and come back.


def test_a_removed_flavor_is_drained_as_after_a_restart(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=[GR, CY])
    assert daemon.get("/track?n=1", "cy.test").status == 200
    daemon.config["flavors"] = [GR]
    daemon.reload()
    assert daemon.get("/track?n=2", "cy.test").status == 421
    daemon.wait_for(lambda: "cy" not in daemon.stats()["flavors"], what="cy drained and forgotten")
    (path,) = daemon.file_paths("cy")
    assert path.read_bytes() == b'{"n":"1"}\n'
    manifest = json.loads(path.with_name(path.name + ".manifest.json").read_text())
    assert (manifest["lines"], manifest["flavor"]) == (1, "cy")
    assert daemon.stats()["ledger"]["residual_lines"] == 0
    assert b'flavor="cy"' not in daemon.admin("/metrics").body

    daemon.config["flavors"] = [GR, CY]
    daemon.reload()
    assert daemon.get("/track?n=3", "cy.test").status == 200
    daemon.wait_drained()
    assert daemon.lines("cy") == [b'{"n":"1"}', b'{"n":"3"}']
    assert daemon.stats()["flavors"]["cy"]["received_lines"] == 2


def test_a_flavor_comes_back_before_it_is_drained(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """Its directory hangs meanwhile, so nothing of the drain can have happened."""
    daemon = start_daemon(flavors=[GR, CY])
    with Client(daemon.address, "cy.test") as client, Client(daemon.address, "gr.test") as other:
        daemon.wait_for(lambda: client.has_sent(50), what="lines")
        (path,) = daemon.wait_for(lambda: daemon.file_paths("cy"))
        with injected(daemon.pid, tmp_path, "writev:delay_enter=60s", path=path):
            daemon.wait_for(lambda: daemon.stats()["flavors"]["cy"]["file"]["pending_lines"] > 50, what="it waits")
            hosts = [*GR["hosts"], *CY["hosts"]]
            daemon.config["flavors"] = [{**GR, "hosts": hosts}]
            daemon.reload()
            sent = len(client.answered)
            daemon.wait_for(lambda: client.has_sent(sent + 50), what="its host is another flavor's")
            daemon.config["flavors"] = [GR, CY]
            daemon.reload()
            sent = len(client.answered)
            daemon.wait_for(lambda: client.has_sent(sent + 50), what="it takes lines again")
        assert other.slowest_s < 3
    assert "a flavor that was being drained has come back flavor=cy" in daemon.log()
    daemon.wait_drained()
    # Both clients count from 0 and are told by their hosts' flavors, but for the time in between.
    everything = sorted(numbers(daemon.lines("gr")) + numbers(daemon.lines("cy")))
    assert everything == sorted(client.answered + other.answered)
    assert numbers(daemon.lines("cy")) == sorted(set(numbers(daemon.lines("cy"))))


# When it comes at a bad time.


def test_signals_at_any_time_do_no_harm(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=[GR], wait_ready=False)
    daemon.wait_for(lambda: ignores_sighup(daemon), what="it is past its imports")
    while not daemon.is_ready():
        daemon.sighup()
    with Client(daemon.address, "gr.test") as client:
        for _ in range(200):
            daemon.sighup()
        daemon.wait_for(lambda: "service: reloaded" in daemon.log(), what="a reload")
        daemon.wait_for(lambda: client.has_sent(100), what="lines")
    daemon.sighup()
    daemon.sigterm()
    while daemon.is_running():
        daemon.sighup()
    assert daemon.wait() == 0
    daemon.start()
    daemon.wait_drained()
    assert numbers(daemon.lines("gr")) == client.answered


def ignores_sighup(daemon: Daemon) -> bool:
    """Whether the process ignores or heeds SIGHUP (proc(5)); before that a signal ends any process."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    masks = re.findall(r"Sig(?:Ign|Cgt):\s*([0-9a-f]+)", status)
    return any(int(mask, 16) & 1 for mask in masks)


# What systemd hears.


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path, watchdog_s=2)
    yield made
    made.close()


def test_systemd_hears_of_start_reload_and_stop(start_daemon: Callable[..., Daemon], manager: Manager) -> None:
    daemon = start_daemon(flavors=[GR, CY], environment=manager.environment)
    manager.wait_heard("READY=1")
    heard = manager.listen()
    assert heard.index("STATUS=starting: opening the journal of gr") < heard.index("READY=1")
    assert heard[0].startswith("EXTEND_TIMEOUT_USEC=")
    assert "WATCHDOG=1" not in heard[: heard.index("READY=1")]
    manager.wait_heard("WATCHDOG=1", times=3)

    for config, works in (({**daemon.config, "flavors": [GR]}, True), ({"flavors": []}, False)):
        began_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        count = manager.listen().count("READY=1")
        daemon.config = config
        daemon.reload(works=works)
        manager.wait_heard("READY=1", times=count + 1)
        heard = manager.listen()
        reloading = len(heard) - heard[::-1].index("RELOADING=1") - 1
        assert heard[reloading + 1].startswith("MONOTONIC_USEC=")
        assert int(heard[reloading + 1].partition("=")[2]) >= began_usec
        assert "READY=1" in heard[reloading:]

    assert daemon.get("/track?n=1", "gr.test").status == 200
    told = re.compile(r"STATUS=\d+ lines/s; waiting: file \d+( \(oldest \d+ s\))?")
    wait_for(lambda: told.fullmatch(manager.wait_heard("STATUS=")), 30, "a status with rate and backlog")
    daemon.stop()
    heard = manager.listen()
    assert "STOPPING=1" in heard
    assert int(manager.wait_heard("EXTEND_TIMEOUT_USEC=").partition("=")[2]) >= 10_000_000
    assert "READY=1" not in heard[heard.index("STOPPING=1") :]


def test_the_watchdog_hears_nothing_of_a_loop_that_stands(
    start_daemon: Callable[..., Daemon], manager: Manager, tmp_path: Path
) -> None:
    """A journal's disk that hangs: the loop waits in write(2), and whoever asks waits with it."""
    daemon = start_daemon(flavors=[GR], environment=manager.environment)
    manager.wait_heard("WATCHDOG=1")
    (segment,) = Path(daemon.config["journal"]["directory"]).glob("_/gr/*.segment")
    with injected(daemon.pid, tmp_path, "write:delay_enter=4s", path=segment), daemon.connect() as connection:
        manager.listen()
        connection.send(request("/track?n=1", "gr.test"))
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline and not select.select([connection.socket], [], [], 0.05)[0]:
            manager.listen()
        assert connection.response().status == 200
    manager.wait_heard("WATCHDOG=1", times=manager.listen().count("WATCHDOG=1") + 1)
    times = [at for at, assignment in manager.heard if assignment == "WATCHDOG=1"]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) > 3
