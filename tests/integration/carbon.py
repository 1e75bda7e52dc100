"""Carbon: the real carbon-cache (Debian's package) as a process of one test, and what it has stored.

Owns its configuration and storage below one directory; every metric has an archive of seconds.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from daemon import free_port
from deadline import wait_for

_CONFIGURATION = """\
[cache]
STORAGE_DIR = {place}/
LOCAL_DATA_DIR = {place}/whisper/
CONF_DIR = {place}/
LOG_DIR = {place}/
PID_DIR = {place}/
USER =
MAX_CREATES_PER_MINUTE = inf
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {line}
PICKLE_RECEIVER_INTERFACE = 127.0.0.1
PICKLE_RECEIVER_PORT = {pickle}
CACHE_QUERY_INTERFACE = 127.0.0.1
CACHE_QUERY_PORT = {query}
CARBON_METRIC_INTERVAL = 0
ENABLE_TAGS = False
"""

_SCHEMAS = "[all]\npattern = .*\nretentions = 1s:1h\n"


class Carbon:
    """A running carbon-cache.

    Args:
        place: its directory.
        address: where it takes lines.
    """

    def __init__(self, place: Path, address: str) -> None:
        self._place = place
        self.address = address

    def names(self) -> set[str]:
        """Of all metrics that are stored."""
        stored = self._place / "whisper"
        return {".".join(path.relative_to(stored).with_suffix("").parts) for path in stored.rglob("*.wsp")}

    def values(self, name: str) -> list[float]:
        """What is stored of a metric, oldest first."""
        path = self._place.joinpath("whisper", *name.split(".")).with_suffix(".wsp")
        if not path.exists():
            return []
        fetched = subprocess.run(["whisper-fetch", path], text=True, capture_output=True, timeout=20, check=True)
        found = [line.split("\t")[1] for line in fetched.stdout.splitlines()]
        return [float(value) for value in found if value != "None"]


@contextlib.contextmanager
def carbon(place: Path) -> Iterator[Carbon]:
    """Runs one."""
    place.mkdir()
    line, pickle, query = (free_port() for _ in range(3))
    (place / "carbon.conf").write_text(_CONFIGURATION.format(place=place, line=line, pickle=pickle, query=query))
    (place / "storage-schemas.conf").write_text(_SCHEMAS)
    with (place / "output").open("wb") as out:
        process = subprocess.Popen(
            ["carbon-cache", "--nodaemon", f"--config={place}/carbon.conf", "start"], stdout=out, stderr=out
        )
    try:
        wait_for(lambda: _listens(line), 20, f"carbon listens, see {place}/output")
        yield Carbon(place, f"127.0.0.1:{line}")
    finally:
        process.terminate()
        process.wait(20)
        print((place / "output").read_text())  # noqa: T201 - pytest shows it


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
