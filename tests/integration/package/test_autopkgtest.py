"""The package's own tests, debian/tests, run for real by autopkgtest in a machine that is thrown away."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from daemon import SOURCE
from machine import Machine


def test_the_packages_own_tests_pass(
    boot: Callable[..., Machine], package: Path, dependencies: tuple[str, ...]
) -> None:
    control = (SOURCE / "debian/tests/control").read_text(encoding="utf-8")
    wanted = {name for names in re.findall(r"^Depends: (.*)$", control, re.MULTILINE) for name in names.split(", ")}
    machine = boot(installed=[*dependencies, "autopkgtest", "dpkg-dev", *wanted - {"scratchd"}], name="tested")
    machine.run("mkdir", "/root/built")
    for path in package.parent.iterdir():
        machine.write(f"/root/built/{path.name}", path.read_bytes())
    (source,) = package.parent.glob("*.dsc")

    # The machine is what the tests ask to be isolated in.
    tested = (f"/root/built/{package.name}", f"/root/built/{source.name}")
    said = machine.attempt("autopkgtest", "--ignore-restrictions=isolation-machine", *tested, "--", "null")
    results = dict(re.findall(r"^(\S+) +(PASS|FAIL|SKIP|FLAKY)", said.stdout + said.stderr, re.MULTILINE))
    passed = (said.returncode, results) == (0, {"service": "PASS", "commands": "PASS"})
    assert passed, f"ended with {said.returncode}: {results}\n{_told(said.stdout + said.stderr)}"


def _told(output: str) -> str:
    """What the tests said, without what apt did before them."""
    lines = [line for line in output.splitlines() if "(Reading database" not in line]
    return "\n".join(lines[-80:])
