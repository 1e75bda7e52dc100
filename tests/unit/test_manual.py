"""Man pages, completion, examples and the Debian package say what the program says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import manual
from scratchd import __version__, cli
from scratchd.config import Config, load

ROOT = Path(__file__).parents[2]
COMMANDS = manual.commands(cli.command_line())


@pytest.mark.parametrize("path", manual.made(), ids=lambda path: path.name)
def test_what_is_made_is_what_the_program_says(path: Path) -> None:
    written = path.read_text(encoding="utf-8") if path.exists() else None
    assert written == manual.made()[path], "run: .venv/bin/python scripts/manual.py"


@pytest.mark.parametrize("command", COMMANDS)
def test_page_of_a_command_has_every_option(command: str) -> None:
    page = manual.made()[manual.PAGES / f"scratchd-{command}.1"]
    options = re.findall(r"--[a-z-]+", COMMANDS[command].format_help())
    missing = [option for option in set(options) if f"\\fB{option.replace('-', chr(92) + '-')}\\fR" not in page]
    assert missing == []


@pytest.mark.parametrize("page", sorted(path.name for path in manual.PAGES.glob("*.in")))
def test_narrative_belongs_to_a_page(page: str) -> None:
    assert manual.PAGES / page.removesuffix(".in") in manual.made()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["b"], ["backfill"]),
        (["--vers"], ["--version"]),
        (["backfill", "--to", ""], ["file", "kafka"]),
        (["backfill", "--dry"], ["--dry-run"]),
        (["check", "--dry"], []),
        (["--instance", "stats", "che"], ["check"]),
        (["check", "--instance", ""], []),
        (["check", "--config", "a c"], ["a config.json"]),
    ],
    ids=" ".join,
)
def test_completion(tmp_path: Path, words: list[str], expected: list[str]) -> None:
    (tmp_path / "a config.json").touch()
    # compopt speaks to a running completion: here is none.
    script = 'compopt() { :; }; . "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _scratchd; '
    script += 'printf "%s\\n" "${COMPREPLY[@]}"'
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "-euc", script, "bash", str(manual.COMPLETION), "scratchd", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert [line for line in done.stdout.split("\n") if line] == expected


def test_annotated_example_is_a_configuration_once_its_comments_are_gone(tmp_path: Path) -> None:
    lines = manual.ANNOTATED.read_text(encoding="utf-8").splitlines()
    (tmp_path / "config.json").write_text("\n".join(line for line in lines if not re.match(" *//", line)))
    assert load(tmp_path / "config.json") == load(ROOT / "examples/complete.json")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").rglob("*.json")), ids=lambda path: str(path.relative_to(ROOT / "examples"))
)
def test_example_is_a_configuration(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    instance = "gr" if "{instance}" in json.dumps(document.get("file", {})) else None
    assert load(path, instance=instance).flavors


def test_the_packages_configuration_needs_no_server_and_takes_any_host() -> None:
    config = load(ROOT / "debian/config.json")
    defaults = Config(flavors=config.flavors)
    assert config == defaults
    assert [flavor.hosts for flavor in config.flavors] == [("*",)]
    assert (config.file.enabled, config.kafka.enabled) == (True, False)
    assert all(address.is_loopback for address in [*config.track_addresses, *config.admin_addresses])


def test_sockets_listen_where_the_configuration_does() -> None:
    for unit, addresses in (
        ("scratchd.socket", Config(flavors=()).track_addresses),
        ("scratchd.scratchd-admin.socket", Config(flavors=()).admin_addresses),
    ):
        text = (ROOT / "debian" / unit).read_text(encoding="utf-8")
        assert re.findall(r"^ListenStream=(.*)$", text, re.MULTILINE) == [str(address) for address in addresses]


def test_the_package_has_the_programs_version() -> None:
    newest = (ROOT / "debian/changelog").read_text(encoding="utf-8").partition("\n")[0]
    assert newest.startswith(f"scratchd ({__version__}-")


@pytest.mark.parametrize("unit", ["scratchd.service", "scratchd@.service"])
def test_unit_waits_longer_than_the_service_takes_to_stop(unit: str) -> None:
    text = (ROOT / "debian" / unit).read_text(encoding="utf-8")
    found = re.search(r"^TimeoutStopSec=(\d+)s$", text, re.MULTILINE)
    assert found is not None
    assert int(found[1]) > Config(flavors=()).http.stop_timeout_s


def test_both_services_are_confined_alike() -> None:
    """What differs between the one and the several is said once, here."""
    one, several = (
        (ROOT / "debian" / unit).read_text(encoding="utf-8").partition("[Service]\n")[2].splitlines()
        for unit in ("scratchd.service", "scratchd@.service")
    )
    differing = sorted({line.partition("=")[0] for line in {*one} ^ {*several} if line and not line.startswith("#")})
    assert differing == ["Environment", "ExecReload", "ExecStart", "RuntimeDirectory", "Sockets"]
