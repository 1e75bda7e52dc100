"""The collection as Ansible's own tools see it, and its example inventory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import render
from daemon import SOURCE

COLLECTION = SOURCE / "ansible"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as `ansible-galaxy collection install` puts it there."""
    target = tmp_path_factory.mktemp("collections")
    _run(
        target,
        "ansible-galaxy",
        "collection",
        "install",
        str(COLLECTION),
        "--collections-path",
        str(target),
        "--offline",
    )
    return target


def _run(target: Path, *command: str, cwd: Path | None = None, status: int = 0) -> str:
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=cwd,
        env={
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "ANSIBLE_HOME": str(target / "home"),
            "ANSIBLE_COLLECTIONS_PATH": str(target),
            "ANSIBLE_NOCOLOR": "1",
            "NO_COLOR": "1",
        },
    )
    assert done.returncode == status, f"{command}: exit status {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


def test_ansible_lint_finds_it_ready_for_production(place: Path) -> None:
    installed = place / "ansible_collections" / "scratchd" / "scratchd"
    # Not MANIFEST.json and FILES.json, which installing adds.
    _run(place, "ansible-lint", "--offline", "--profile", "production", "--strict", cwd=installed)


def test_roles_and_modules_are_documented(place: Path) -> None:
    for kind, names in (
        ("role", ["scratchd", "edge"]),
        ("module", ["haproxy_server", "ready"]),
        ("filter", ["waiting_for_restart"]),
    ):
        for name in names:
            said = json.loads(_run(place, "ansible-doc", "--json", "--type", kind, f"scratchd.scratchd.{name}"))
            assert list(said) == [f"scratchd.scratchd.{name}"]
    for role in ("scratchd", "edge"):
        specs = yaml.safe_load((COLLECTION / "roles" / role / "meta" / "argument_specs.yml").read_text())
        defaults = yaml.safe_load((COLLECTION / "roles" / role / "defaults" / "main.yml").read_text())
        options = specs["argument_specs"]["main"]["options"]
        assert {name: option.get("default") for name, option in options.items()} == defaults


@pytest.mark.parametrize(
    ("content", "waiting"),
    [
        pytest.param(b'{"http": {"listen": []}, "flavors": []}', [], id="nothing to restart for"),
        pytest.param(b'{"http": {}}', ["http.listen"], id="another listener"),
        pytest.param(b'{"http": {"lis', None, id="torn"),
        pytest.param(b"\xff\xfe\x00", None, id="no text"),
    ],
)
def test_the_role_can_repair_a_configuration_whatever_it_is_now(
    place: Path, tmp_path: Path, content: bytes, waiting: list[str] | None
) -> None:
    """The role's own first tasks, with another path: a play that stopped here would leave the server drained."""
    present = tmp_path / "config.json"
    present.write_bytes(content)
    read, sort_out, *_ = yaml.safe_load((COLLECTION / "roles" / "scratchd" / "tasks" / "configure.yml").read_text())
    assert read["ansible.builtin.slurp"] == {"src": "/etc/scratchd/config.json"}
    read["ansible.builtin.slurp"]["src"] = str(present)
    result = tmp_path / "waiting.json"
    keep = {"ansible.builtin.copy": {"content": "{{ scratchd_waiting | to_json }}", "dest": str(result)}}
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"scratchd_config": {"http": {"listen": []}}, "ansible_python_interpreter": sys.executable},
        "tasks": [read, sort_out, {"name": "Keep it", **keep}],
    }
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump([{"name": "Sort out", **play}]))
    _run(place, "ansible-playbook", "--inventory", "localhost,", str(playbook))
    found = json.loads(result.read_text())
    if waiting is None:
        assert {"http.listen", "journal.directory"} <= set(found)
    else:
        assert found == waiting


@pytest.mark.parametrize("lacking", ["name", "address", "check"])
@pytest.mark.parametrize("of", ["edge_servers", "edge_tenants"])
def test_a_server_that_lacks_what_the_templates_need_is_refused_first(
    place: Path, tmp_path: Path, of: str, lacking: str
) -> None:
    server = {"name": "primary", "address": "10.0.0.11:9006", "check": "10.0.0.11:9007"}
    tenant = {"name": "gr", "hosts": ["gr.test"], "legacy": [{"name": "old", "address": "10.0.0.1:80"}]}
    refused = {key: value for key, value in server.items() if key != lacking}
    given = {
        "edge_servers": {"edge_servers": [refused], "edge_tenants": [tenant]},
        "edge_tenants": {"edge_servers": [server], "edge_tenants": [{**tenant, "servers": [refused]}]},
    }
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "roles": ["scratchd.scratchd.edge"]}
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump([{"name": "Try it", **play, "vars": given[of]}]))
    # Of the role's tasks only the check of its arguments is tagged `always`.
    only = ("--check", "--tags", "nothing-else")
    said = _run(place, "ansible-playbook", "--inventory", "localhost,", *only, str(playbook), status=2)
    assert f"missing required arguments: {lacking} found in {of}" in said


def test_the_example_inventory_is_the_example_of_the_edge(place: Path) -> None:
    group_vars = COLLECTION / "inventories" / "example" / "group_vars"
    edge = yaml.safe_load((group_vars / "edge.yml").read_text())
    assert render.render(edge) == render.example()
    for playbook in ("deploy", "edge", "rollout", "rollback", "status"):
        inventory = str(COLLECTION / "inventories" / "example")
        _run(place, "ansible-playbook", "--inventory", inventory, "--syntax-check", f"scratchd.scratchd.{playbook}")
