"""docs/operate.md, done step by step as a new operator would: its own commands run in order, as they stand in it."""

from __future__ import annotations

import re

from daemon import SOURCE
from deadline import wait_for
from installed import Installed

PAGE = SOURCE / "docs" / "operate.md"


def steps() -> list[tuple[str, str]]:
    """The blocks of shell commands in order, each with the heading above it."""
    found: list[tuple[str, str]] = []
    heading = ""
    for part in re.findall(r"^## [^\n]*$|^```sh\n.*?^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        if part.startswith("## "):
            heading = part.removeprefix("## ")
        else:
            found.append((heading, part.removeprefix("```sh\n").removesuffix("```")))
    return found


def test_every_step_does_what_the_page_says(installed: Installed) -> None:
    machine = installed.machine
    said: dict[str, str] = {}
    for number, (heading, script) in enumerate(steps()):
        # One block is meant to fail in the middle, and says so with ||.
        printed = machine.sh(f"exec 2>&1\n{script}")
        said[heading] = said.get(heading, "") + printed
        if heading != "Several instances":
            wait_for(lambda: installed.get(f"/track?step={number}").status == 200, 10, f"an answer after: {script}")  # noqa: B023
    installed.wait_persisted()

    assert said["Start, stop, restart"].endswith("active\nactive\nactive\n")
    assert "lines/s; waiting: file" in said["Start, stop, restart"] or "ready" in said["Start, stop, restart"]
    reload = said["Reload: flavors, limits, log level"]
    assert "OK\n" in reload
    assert "refused, and it goes on" in reload
    assert "at least one" in reload or "flavors" in reload
    assert "127.0.0.1:9008" in said["Another address"]
    several = said["Several instances"]
    assert re.search(r"^scratchd \S+ 1, up .*^scratchd \S+ 2, up ", several, re.MULTILINE | re.DOTALL)
    assert "scratchd@2.service" in several
    assert "CPUWeight=200" in several
    assert "a password" not in "".join(said.values()) + machine.journal_text()
    assert "etc/scratchd/config.json" in said["Backup"]

    # Nothing of what was done on the way is left, and every line is there.
    assert machine.run("systemctl", "--failed", "--plain", "--no-legend") == ""
    assert [installed.is_active(unit) for unit in ("scratchd.service", "scratchd@1.service")] == [True, False]
    steps_persisted = {line for line in installed.lines() if line.startswith(b'{"step"')}
    assert len(steps_persisted) == sum(heading != "Several instances" for heading, _ in steps())
