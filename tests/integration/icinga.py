"""Icinga: the real Icinga 2 (Debian's package) as a process of one test, with the shipped configuration.

Owns its directories below one; everything is checked each second, and results are read from what PerfdataWriter writes.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from deadline import wait_for

ROOT = Path(__file__).parents[2]

_CONFIGURATION = """\
include <itl>
include "{shipped}"
object IcingaApplication "app" {{ enable_notifications = false }}
object CheckerComponent "checker" {{}}
object PerfdataWriter "results" {{
  service_perfdata_path = "{place}/results"
  service_temp_path = "{place}/writing"
  host_perfdata_path = "{place}/hosts"
  host_temp_path = "{place}/hosts-writing"
  service_format_template = "$service.state$\\t$service.output$\\t$service.perfdata$"
  rotation_interval = 1s
}}
object Host "here" {{
  check_command = "dummy"
  vars.scratchd["scratchd"] = {{ {variables} }}
}}
"""


class Icinga:
    """A running Icinga 2 with one service."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._results: list[tuple[str, str, str]] = []

    def results(self) -> list[tuple[str, str, str]]:
        """State, output and performance data of all checks so far."""
        for path in sorted(self._place.glob("results.*")):
            for line in path.read_text().splitlines():
                state, output, data = line.split("\t")
                self._results.append((state, output, data))
            path.unlink()
        return self._results


@contextlib.contextmanager
def icinga(place: Path, variables: Mapping[str, object]) -> Iterator[Icinga]:
    """Runs the shipped command with these variables, e.g. `scratchd_port`, once a second."""
    place.mkdir()
    shipped = (ROOT / "monitoring/nagios/icinga2.conf").read_text()
    # The interval of operators is a minute.
    assert "check_interval = 1m" in shipped
    (place / "shipped.conf").write_text(shipped.replace("= 1m", "= 1s").replace("= 20s", "= 1s"))
    given = "; ".join(f'{name} = "{value}"' for name, value in variables.items())
    configuration = place / "icinga2.conf"
    configuration.write_text(_CONFIGURATION.format(shipped=place / "shipped.conf", place=place, variables=given))
    constants = {
        "PluginDir": ROOT / "monitoring/nagios",
        "RunAsUser": pwd.getpwuid(os.getuid()).pw_name,
        "RunAsGroup": grp.getgrgid(os.getgid()).gr_name,
        **{name: place / name for name in ("DataDir", "LogDir", "CacheDir", "SpoolDir", "InitRunDir")},
    }
    for name in ("DataDir", "LogDir", "CacheDir", "SpoolDir", "InitRunDir"):
        (place / name).mkdir()
    environment = {
        **os.environ,
        "ICINGA2_USER": str(constants["RunAsUser"]),
        "ICINGA2_GROUP": str(constants["RunAsGroup"]),
        "MP_STATE_PATH": str(place / "state"),
    }
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            ["icinga2", "daemon", "-c", str(configuration), *(f"-D{key}={value}" for key, value in constants.items())],
            stdout=log,
            stderr=log,
            env=environment,
        )
    try:
        running = Icinga(place)
        wait_for(running.results, 20, f"a result of Icinga, see {place}/log")
        yield running
    finally:
        process.terminate()
        process.wait(20)
        print((place / "log").read_text())  # noqa: T201 - pytest shows it
