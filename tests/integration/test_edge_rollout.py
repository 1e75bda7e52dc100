"""`scratchd-rollout` with the real HAProxy: steps, rolling back, the guard, what survives what."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import Daemon
from deadline import wait_for
from edge import Edge
from origin import Origin
from proxy import Proxy
from wire import Connection


class Bed:
    """A proxy, an edge, both sides, and visitors who keep coming when asked to."""

    def __init__(self, directory: Path, scratchd: Origin | Daemon, **plan: Any) -> None:  # noqa: ANN401
        self.legacy = Origin("old")
        check = scratchd.address if isinstance(scratchd, Origin) else scratchd.admin_address
        tenant = {
            "name": "gr",
            "hosts": ["gr.test"],
            "legacy": [{"name": "old", "address": self.legacy.address}],
        }
        self.proxy = Proxy(
            directory / "proxy",
            {
                "edge_tenants": [tenant, {**tenant, "name": "it", "hosts": ["it.test"]}],
                "edge_servers": [{"name": "primary", "address": scratchd.address, "check": check}],
                "edge_headquarters": ["127.9.0.0/24"],
                "edge_visitor_cookie": "visitor",
                "edge_scratchd_timeout": "1s",
            },
        )
        self.edge = Edge(directory / "edge", self.proxy, {"primary": f"http://{check}/stats"}, **plan)
        self._stop = threading.Event()
        self._visitors: list[threading.Thread] = []
        self.failed: list[str] = []

    def start(self) -> None:
        """HAProxy, and a server that it sees."""
        self.proxy.start()
        self.proxy.wait_up("scratchd_gr/primary", "scratchd_it/primary")

    def load(self, host: str = "gr.test", count: int = 2) -> None:
        """Visitors who come one after another, on so many connections, until the end."""

        def come(number: int) -> None:
            with contextlib.ExitStack() as connections:
                connection = connections.enter_context(Connection(self.proxy.address))
                for visitor in itertools.count():
                    if self._stop.is_set():
                        return
                    try:
                        answer = connection.get("/track?a=1", host, f"Cookie: visitor={number}-{visitor}")
                    except (OSError, EOFError) as error:
                        self.failed.append(repr(error))
                        return
                    if answer.status != 200:
                        self.failed.append(str(answer.status))

        for number in range(count):
            self._visitors.append(threading.Thread(target=come, args=(number,), daemon=True))
            self._visitors[-1].start()

    def share(self, tenant: str = "all") -> str | None:
        """What the running HAProxy has."""
        found = re.search(rf" {tenant} (\d+)$", self.proxy.ask(f"show map {self.proxy.share_map}"), re.MULTILINE)
        return found[1] if found else None

    def filed(self) -> dict[str, str]:
        """What the map's file has."""
        lines = self.proxy.share_map.read_text().splitlines()
        return dict(line.split(" ") for line in lines if line and not line.startswith("#"))

    def close(self) -> None:
        """Ends everything."""
        self._stop.set()
        for visitor in self._visitors:
            visitor.join(10)
        self.edge.stop_guard()
        self.proxy.close()
        self.legacy.kill()


@pytest.fixture
def canary() -> Iterator[Origin]:
    """A scratchd that misbehaves at will."""
    origin = Origin("new")
    yield origin
    origin.kill()


@pytest.fixture
def make_bed(tmp_path: Path) -> Iterator[Callable[..., Bed]]:
    """Makes and starts a bed."""
    with contextlib.ExitStack() as made:

        def make(scratchd: Origin | Daemon, **plan: Any) -> Bed:  # noqa: ANN401
            bed = Bed(tmp_path, scratchd, **plan)
            made.callback(bed.close)
            bed.start()
            return bed

        yield make


def test_a_rollout_goes_step_by_step_to_its_end_with_the_real_scratchd(
    make_bed: Callable[..., Bed], start_daemon: Callable[..., Daemon]
) -> None:
    flavors = [{"name": "gr", "hosts": ["gr.test"]}, {"name": "it", "hosts": ["it.test"]}]
    daemon = start_daemon(flavors=flavors)
    steps = [{"percent": 0, "bake_s": 0}, {"percent": 10, "bake_s": 0}, {"percent": 100, "bake_s": 1}]
    bed = make_bed(
        daemon, steps=steps, gates={"lost": {"max": 0.05}, "slow": {"max": 1, "worse_by": None}}, sample={"to_pass": 50}
    )
    edge = bed.edge
    edge.run("start", "--reason", "the day has come")
    edge.start_guard()
    assert (bed.share(), bed.filed()["all/headquarters"]) == ("0", "1")

    edge.run("advance")
    assert (bed.share(), bed.filed()["all"]) == ("1000", "1000")
    refused = edge.run("advance", status=75)
    assert "not yet: not enough is known: " in refused
    bed.load()
    wait_for(lambda: edge.status()["verdict"] == "pass", 30, "enough answers")
    edge.run("advance")
    assert (bed.share(), bed.filed()["all"]) == ("10000", "10000")
    wait_for(lambda: not edge.status()["missing"], 30, "baked and passed")
    edge.run("advance")

    status = edge.status()
    assert (status["status"], status["percent"]) == ("done", 100)
    assert status["numbers"]["gates"]["lost"]["scratchd"] == 0
    page = edge.run("status")
    assert "ALL  DONE  100 % + headquarters" in page
    assert "VERDICT  PASS" in page
    assert not bed.failed
    entries = edge.audit()
    assert [(entry["action"], entry["to"]["step"]) for entry in entries] == [
        ("start", "headquarters"),
        ("advance", "10 %"),
        ("advance", "100 %"),
        ("advance", "100 %"),
    ]
    assert entries[0]["why"] == "the day has come"
    assert all(entry["who"] and entry["at"].endswith("Z") for entry in entries)
    assert entries[2]["numbers"]["gates"]["errors"]["verdict"] == "pass"


def break_errors(canary: Origin) -> None:
    """Every third answer is an error: never so many in a row that HAProxy passes it by."""
    canary.fail_each = 3


def break_slowness(canary: Origin) -> None:
    """Every answer takes longer than a visitor should wait."""
    canary.delay_s = 0.3


def break_lines(canary: Origin) -> None:
    """Every tenth line is answered and gone."""
    canary.forget_each = 10


def break_ledger(canary: Origin) -> None:
    """It cannot account for a line."""
    canary.residual_lines = 1


@pytest.mark.parametrize(
    ("break_it", "gate"),
    [
        pytest.param(break_errors, "errors", id="errors"),
        pytest.param(break_slowness, "slow", id="slowness"),
        pytest.param(break_lines, "lost", id="lost lines"),
        pytest.param(break_ledger, "residual_lines", id="ledger"),
        pytest.param(Origin.kill, "down_s", id="death"),
    ],
)
def test_the_guard_goes_back_by_itself_and_names_the_number(
    make_bed: Callable[..., Bed], canary: Origin, break_it: Callable[[Origin], None], gate: str
) -> None:
    bed = make_bed(canary, gates={"down_s": {"max": 1}})
    bed.load(count=4)
    edge = bed.edge
    edge.run("start")
    edge.start_guard()
    edge.run("skip", "--reason", "test")
    edge.run("skip", "--reason", "test")
    wait_for(canary.requests, 30, "visitors at the canary")
    assert bed.share() == "1000"

    began = time.monotonic()
    break_it(canary)
    wait_for(lambda: bed.share() == "0", 30, "the guard goes back")
    took_s = time.monotonic() - began

    print(f"{gate}: {took_s:.2f} s from the fault to a share of 0")  # noqa: T201 - docs/rollout.md has it
    wait_for(lambda: edge.audit()[-1]["action"] == "rollback", 30)
    assert edge.state()["status"] == "rolled back"
    assert (bed.filed()["all"], bed.filed()["all/headquarters"]) == ("0", "0")
    last = edge.audit()[-1]
    assert (last["who"], last["action"], last["from"]["step"], last["to"]["percent"]) == (
        "guard",
        "rollback",
        "10 %",
        0,
    )
    assert f"{gate}: " in last["why"]
    assert last["numbers"]["verdict"] == "fail"
    assert "ROLLED BACK" in edge.run("status")
    # Whoever drives it learns it at once.
    assert "rolled back; because: " in edge.run("advance", status=1)
    assert "rolled back; because: " in edge.run("heartbeat", status=1)


def test_a_rollout_that_is_done_stays_watched(make_bed: Callable[..., Bed], canary: Origin) -> None:
    bed = make_bed(canary, steps=[{"percent": 100, "bake_s": 0, "needs_pass": False}])
    bed.load()
    edge = bed.edge
    edge.run("start")
    edge.start_guard()
    edge.run("advance")
    assert edge.state()["status"] == "done"
    canary.residual_lines = 3
    wait_for(lambda: bed.share() == "0", 30, "the guard goes back")
    wait_for(lambda: edge.state()["status"] == "rolled back", 30)


def test_the_guard_goes_back_when_nobody_drives_and_not_while_paused(
    make_bed: Callable[..., Bed], canary: Origin
) -> None:
    bed = make_bed(canary, heartbeat_s=4)
    edge = bed.edge
    edge.run("start")
    edge.run("pause", "--reason", "lunch")
    edge.start_guard()
    wait_for(lambda: edge.age_s("heartbeat") > 5, 30)
    assert edge.state()["status"] == "paused"
    edge.run("resume")
    edge.run("heartbeat")
    assert edge.state()["status"] == "under way"
    wait_for(lambda: edge.state()["status"] == "rolled back", 30, "nobody drives it")
    wait_for(lambda: edge.audit()[-1]["action"] == "rollback", 30)
    assert edge.audit()[-1]["why"].startswith("heartbeat: nobody has driven this rollout for ")


def test_the_guard_drives_a_rollout_by_itself_and_asks_where_it_should(
    make_bed: Callable[..., Bed], canary: Origin
) -> None:
    steps = [{"percent": 0, "bake_s": 0.5}, {"percent": 10, "bake_s": 0.5, "approve": True, "needs_pass": False}]
    bed = make_bed(canary, steps=steps, heartbeat_s=1)
    edge = bed.edge
    edge.run("start", "--auto")
    edge.start_guard()
    wait_for(lambda: edge.state()["step"] == 1, 30, "the guard goes on")
    wait_for(lambda: edge.age_s("step_since") > 1.5, 30)
    assert edge.state()["status"] == "under way", "neither on, without a word, nor back, without a heartbeat"
    edge.run("advance")
    assert edge.state()["status"] == "done"


def test_a_rollback_reaches_the_edge_within_half_a_second(make_bed: Callable[..., Bed], canary: Origin) -> None:
    """From the command's begin to no visitor at scratchd, as often as a median wants."""
    bed = make_bed(canary)
    edge = bed.edge
    took = []
    for _ in range(5):
        edge.run("start")
        edge.run("skip", "--reason", "test")
        assert bed.share() == "100"
        began = time.monotonic()
        command = subprocess.Popen(
            edge.arguments("rollback", "--reason", "test"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        wait_for(lambda: bed.share() == "0", 30, "the share is 0")
        took.append(time.monotonic() - began)
        assert command.wait(10) == 0
        assert command.stdout is not None
        command.stdout.close()
    print(f"rollback: {sorted(took)[2]:.3f} s, at most {max(took):.3f} s")  # noqa: T201 - docs/rollout.md has it
    # The best one: what others do on this machine meanwhile is no matter of the rollback.
    assert min(took) < 0.5, took


def test_connections_that_a_reload_left_behind_are_rolled_back_too(
    make_bed: Callable[..., Bed], canary: Origin
) -> None:
    bed = make_bed(canary, steps=[{"percent": 100}])
    bed.edge.run("start")
    with Connection(bed.proxy.address) as kept:
        canary.delay_s = 0.5
        kept.send(b"GET /track?n=1 HTTP/1.1\r\nHost: gr.test\r\n\r\nGET /track?n=2 HTTP/1.1\r\nHost: gr.test\r\n\r\n")
        wait_for(canary.requests, 30, "the first one is under way")
        bed.proxy.reload()
        bed.edge.run("rollback", "--reason", "test")
        answers = [kept.response().field("x-origin")]
        with contextlib.suppress(EOFError):
            answers.append(kept.response().field("x-origin"))
    assert answers[0] == "new"
    assert answers[1:] in ([], ["old"])


def test_what_survives_a_reload_a_restart_and_hands(make_bed: Callable[..., Bed], canary: Origin) -> None:
    bed = make_bed(canary)
    edge = bed.edge
    edge.run("start")
    edge.run("skip", "--reason", "test")
    bed.proxy.reload()
    assert bed.share() == "100"
    bed.proxy.stop()
    bed.proxy.start()
    assert bed.share() == "100"
    # Somebody's hands, in the running process and in the file: the guard makes it true again, and says so.
    bed.proxy.set(all=9999)
    edge.run("guard")
    assert bed.share() == "100"
    bed.proxy.share_map.write_text("all 5000\n")
    edge.run("guard")
    assert bed.filed()["all"] == "100"
    repairs = [entry for entry in edge.audit() if entry["action"] == "repair"]
    assert [entry["why"] for entry in repairs] == [
        "haproxy: all was 9999, is to be 100",
        "file: all was 5000, is to be 100; file: all/headquarters was None, is to be 1",
    ]


def test_tenants_go_by_themselves_and_all_takes_the_rest(make_bed: Callable[..., Bed], canary: Origin) -> None:
    bed = make_bed(canary)
    edge = bed.edge
    edge.run("start", "--tenant", "gr")
    edge.run("skip", "--tenant", "gr", "--reason", "test")
    edge.run("start")
    assert (bed.share("gr"), bed.share("all"), bed.share("it")) == ("100", "0", None)
    edge.run("rollback", "--tenant", "gr", "--reason", "test")
    assert (edge.state("gr")["status"], edge.state("all")["status"]) == ("rolled back", "under way")
    edge.run("skip", "--reason", "test")
    assert (bed.share("gr"), bed.share("all")) == ("0", "100")
    edge.run("forget", "--tenant", "gr", "--reason", "with the others from now on")
    assert bed.share("gr") is None
    assert "gr" not in bed.filed()
    edge.run("rollback", "--reason", "everyone")
    assert bed.share("all") == "0"
    assert "no such tenant" in edge.run("start", "--tenant", "uk", status=1)


def test_the_kill_switch_and_the_shadow_are_set_and_written_down(make_bed: Callable[..., Bed], canary: Origin) -> None:
    bed = make_bed(canary)
    edge = bed.edge
    edge.run("kill", "--reason", "smoke")
    assert (bed.share("kill"), bed.filed()["kill"]) == ("1", "1")
    assert "THE KILL SWITCH IS ON" in edge.run("status")
    edge.run("kill", "--off", "--reason", "no fire")
    edge.run("shadow", "0.5", "--reason", "a look")
    assert (bed.share("kill"), bed.share("shadow"), bed.filed()["shadow"]) == ("0", "50", "50")
    assert [(entry["action"], entry["from"], entry["to"]) for entry in edge.audit()] == [
        ("kill", "off", "on"),
        ("kill", "on", "off"),
        ("shadow", "0 %", "0.5 %"),
    ]


def test_a_dry_run_changes_nothing(make_bed: Callable[..., Bed], canary: Origin) -> None:
    bed = make_bed(canary)
    before = bed.proxy.ask(f"show map {bed.proxy.share_map}"), bed.filed()
    page = bed.edge.run("dry-run")
    assert "10 %" in page
    assert "gr: 1 of 1 servers up" in page
    assert (bed.proxy.ask(f"show map {bed.proxy.share_map}"), bed.filed()) == before
    assert not (bed.edge.directory / "state").exists()
    bed.edge.run("start")
    assert "would go from headquarters to under way, 1 %" in bed.edge.run("advance", "--dry-run")
    assert bed.edge.state()["step"] == 0


def test_no_rollout_starts_without_a_server(make_bed: Callable[..., Bed], canary: Origin) -> None:
    bed = make_bed(canary)
    canary.ready = False
    bed.proxy.wait_up("scratchd_gr/primary", "scratchd_it/primary", state="DOWN")
    assert "no server of scratchd is up for gr, it" in bed.edge.run("start", status=1)
    assert not (bed.edge.directory / "state").exists()


def test_without_haproxy_everything_says_so_and_a_rollback_is_still_written_down(
    make_bed: Callable[..., Bed], canary: Origin
) -> None:
    bed = make_bed(canary)
    bed.edge.run("start")
    bed.edge.run("skip", "--reason", "test")
    bed.proxy.stop()
    assert "does not answer" in bed.edge.run("skip", "--reason", "test", status=69)
    assert "does not answer" in bed.edge.run("rollback", "--reason", "test", status=69)
    assert bed.filed()["all"] == "0"
    bed.proxy.start()
    assert bed.share() == "0"
    assert bed.edge.state()["status"] == "rolled back"


def test_a_rollback_works_with_a_plan_and_a_state_that_are_broken(make_bed: Callable[..., Bed], canary: Origin) -> None:
    bed = make_bed(canary)
    bed.edge.run("start")
    bed.edge.run("skip", "--reason", "test")
    (bed.edge.directory / "state" / "all.json").write_text("{")
    assert "no state of a rollout" in bed.edge.run("rollback", "--reason", "test", status=1)
    assert (bed.share(), bed.filed()["all"]) == ("0", "0")


def test_the_guard_goes_on_by_the_last_plan_when_that_is_broken(make_bed: Callable[..., Bed], canary: Origin) -> None:
    bed = make_bed(canary)
    edge = bed.edge
    edge.run("start")
    edge.start_guard()
    edge.run("skip", "--reason", "test")
    wait_for((edge.directory / "run" / "samples.json").exists, 30, "the guard has looked")
    (edge.directory / "plan.json").write_text("{")
    (edge.directory / "state" / "it.json").write_text("{")
    bed.proxy.set(all=9999)
    wait_for(lambda: bed.share() == "100", 30, "it repairs the map")
    canary.residual_lines = 3
    wait_for(lambda: bed.share() == "0", 30, "it goes back")
    wait_for(lambda: edge.state()["status"] == "rolled back", 30)
    said = edge.stop_guard()
    assert "the plan is wrong: the one that was read last counts" in said
    assert "it.json: no state of a rollout" in said


def test_a_share_that_no_state_explains_any_more_is_forgotten_too(make_bed: Callable[..., Bed], canary: Origin) -> None:
    bed = make_bed(canary)
    bed.edge.run("start")
    bed.edge.run("skip", "--reason", "test")
    (bed.edge.directory / "state" / "all.json").write_text("{")
    assert "PROBLEM: " in bed.edge.run("status")
    assert "no state of a rollout" in bed.edge.run("advance", status=1)
    bed.edge.run("forget", "--tenant", "all", "--reason", "test")
    assert (bed.share(), bed.filed()["all"], bed.filed()["all/headquarters"]) == ("0", "0", "0")
    assert not (bed.edge.directory / "state" / "all.json").exists()
    bed.edge.run("start")


def test_two_at_once_are_one_after_another(make_bed: Callable[..., Bed], canary: Origin) -> None:
    bed = make_bed(canary)
    bed.edge.run("start")
    running = [
        subprocess.Popen(
            bed.edge.arguments("pause", "--reason", str(number)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for number in range(4)
    ]
    statuses = []
    for command in running:
        command.communicate(timeout=30)
        statuses.append(command.returncode)
    assert sorted(statuses) == [0, 1, 1, 1]
    assert [entry["action"] for entry in bed.edge.audit()] == ["start", "pause"]


def test_a_guard_that_is_killed_is_no_matter_to_the_next_one(make_bed: Callable[..., Bed], canary: Origin) -> None:
    bed = make_bed(canary)
    bed.load()
    edge = bed.edge
    edge.run("start")
    edge.start_guard()
    edge.run("skip", "--reason", "test")
    wait_for(lambda: edge.status()["numbers"]["answers"]["scratchd"] > 0, 30, "numbers")
    assert edge.guard is not None
    edge.guard.kill()
    edge.guard.communicate(timeout=10)
    counted = edge.status()["numbers"]["answers"]["legacy"]
    edge.start_guard()
    wait_for(lambda: edge.status()["numbers"]["answers"]["legacy"] > counted, 30, "the same step's numbers go on")


def test_who_is_at_work_is_written_down(
    make_bed: Callable[..., Bed], canary: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = make_bed(canary)
    monkeypatch.setenv("SUDO_USER", "anna")
    bed.edge.run("start", "--by", "berta")
    bed.edge.run("rollback", "--reason", "test")
    assert [entry["who"] for entry in bed.edge.audit()] == ["berta (as anna)", "anna"]


def test_a_wrong_plan_is_said_and_changes_nothing(make_bed: Callable[..., Bed], canary: Origin) -> None:
    bed = make_bed(canary)
    bed.edge.plan["steps"] = [{"percent": 200}]
    for command in ("check", "start", "status", "heartbeat"):
        assert "plan.json: steps[0].percent: expected a number" in bed.edge.run(command, status=78)
    assert json.dumps(bed.filed()) == json.dumps({"all": "0", "all/headquarters": "0", "kill": "0", "shadow": "0"})
