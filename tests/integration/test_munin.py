"""Whether a real munin-node shows a real service: by munin-run and over its port."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon import Daemon, daemons
from munin import PLUGIN, Munin
from scratchd_monitoring.munin import GRAPHS, main

FLAVORS = [{"name": "gr", "hosts": ["gr.test"]}, {"name": "t-r", "hosts": ["tr.test"]}]


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    """With events of one flavor, a refusal, and a backend that is away."""
    daemon: Daemon = start_daemon(
        flavors=FLAVORS, kafka={"enabled": True, "bootstrap_servers": "127.0.0.1:1"}, http={"stop_timeout_s": 1}
    )
    for _ in range(3):
        daemon.get("/track?a=1", "gr.test")
    daemon.get("/track", "gr.test")
    daemon.wait_for(lambda: daemon.stats()["backends"]["kafka"]["state"] == "backing_off")
    daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["pending_lines"] == 0)
    return daemon


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The admin listener of one that has seen an event and a refusal."""
    with daemons(tmp_path_factory.mktemp("munin")) as start:
        daemon: Daemon = start(flavors=FLAVORS)
        daemon.get("/track?a=1", "gr.test")
        daemon.get("/track", "gr.test")
        assert daemon.admin_address is not None
        yield daemon.admin_address


def values(answer: str) -> dict[str, str]:
    """Field to value."""
    return dict(re.findall(r"^(\w+)\.value (\S+)$", answer, re.MULTILINE))


def test_munin_node_serves_it(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.admin_address is not None
    linked = ["up", "events", "failing", "refused", "age_gr", "age"]
    munin = Munin(tmp_path / "munin", linked, daemon.admin_address)
    with munin.serving():
        (listed,) = munin.ask("list")
        assert set(listed.split()) == {f"scratchd_{graph}" for graph in linked}
        assert munin.ask("config scratchd_age_gr")[0].startswith("graph_title scratchd gr: oldest pending line\n")
        (events,) = munin.ask("fetch scratchd_events")
        assert values(events) == {"gr": "3", "t_2d_r": "0"}
        (failing,) = munin.ask("fetch scratchd_failing")
        assert values(failing)["kafka"] == "2"
        assert values(failing)["file"] == "0"
        assert values(munin.ask("fetch scratchd_refused")[0]) == {"empty_query": "1", "all": "1"}
        daemon.stop()
        assert munin.ask("fetch scratchd_up") == ["up.value 0\n.\n"]
        # Without figures there is none that could be taken for one.
        assert munin.ask("fetch scratchd_age") == ["# Bad exit\n.\n"]
        daemon.start()
        assert munin.ask("fetch scratchd_up") == ["up.value 1\n.\n"]


@pytest.mark.parametrize("graph", ["up", *GRAPHS])
def test_a_graph_has_a_value_for_each_of_its_fields(
    observed: str, graph: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {"address": observed}
    assert main(["config"], f"scratchd_{graph}", environment) == 0
    config = capsys.readouterr().out
    assert main([], f"scratchd_{graph}", environment) == 0
    found = values(capsys.readouterr().out)
    assert found
    assert set(found) == set(re.findall(r"^(\w+)\.label ", config, re.MULTILINE))
    # Munin stores no fraction of a counter.
    derived = re.findall(r"^(\w+)\.type DERIVE$", config, re.MULTILINE)
    assert [found[field] for field in derived if not found[field].isdigit()] == []
    assert re.search(r"^graph_category scratchd$", config, re.MULTILINE)


def test_munin_run_and_configure(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.admin_address is not None
    munin = Munin(tmp_path / "munin", ["pending"], daemon.admin_address)
    done = munin.run("pending")
    assert (done.returncode, values(done.stdout)) == (0, {"file": "0", "kafka": "3"})
    assert "kafka.label kafka\n" in munin.run("pending", "config").stdout
    assert munin.run("pending", "autoconf").stdout == "yes\n"
    # It finds by the marks in the file that it can ask, and what to link.
    links = tmp_path / "links"
    links.mkdir()
    done = subprocess.run(
        [
            "munin-node-configure", "--shell", "--suggest", "--libdir", PLUGIN.parent, "--servicedir", links,
            "--sconfdir", tmp_path / "munin" / "plugin-conf.d", "--config", tmp_path / "munin" / "munin-node.conf",
        ],
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    linked = re.findall(r"ln -s '\S+/scratchd_' '\S+/(scratchd_\w+)'", done.stdout)
    assert linked == sorted(f"scratchd_{graph}" for graph in ("up", *GRAPHS)), done.stdout + done.stderr
