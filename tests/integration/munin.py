"""Munin: the real munin-node (Debian's package) as a process of one test, with a configuration of its own.

Owns its directories below one; the plugins are links to the shipped one, as munin-node-configure makes them.
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from daemon import free_port
from deadline import wait_for

PLUGIN = Path(__file__).parents[2] / "monitoring" / "munin" / "scratchd_"

_CONFIGURATION = """\
log_level 4
log_file {place}/log
pid_file {place}/pid
background 0
setsid 0
user {user}
group {group}
host 127.0.0.1
port {port}
host_name here.test
allow ^127\\.0\\.0\\.1$
"""

_ELSEWHERE = """\
use Munin::Common::Defaults;
$Munin::Common::Defaults::MUNIN_CONFDIR = shift;
do "/usr/sbin/munin-node" or die $@;
exit main();
"""
"""munin-node has no option for where its plugins are, only for its configuration."""


class Munin:
    """A place for munin-node: its configuration and its plugins.

    Args:
        place: a directory to be made.
        graphs: what to link.
        address: of scratchd's admin listener.
    """

    def __init__(self, place: Path, graphs: Sequence[str], address: str) -> None:
        self._place = place
        self._port = free_port()
        (place / "plugins").mkdir(parents=True)
        (place / "plugin-conf.d").mkdir()
        group = grp.getgrgid(os.getgid()).gr_name
        self._configuration = place / "munin-node.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(place=place, user=getpass.getuser(), group=group, port=self._port)
        )
        (place / "plugin-conf.d" / "scratchd").write_text(
            f"[scratchd_*]\nuser {getpass.getuser()}\nenv.address {address}\n"
        )
        for graph in graphs:
            (place / "plugins" / f"scratchd_{graph}").symlink_to(PLUGIN)

    def run(self, graph: str, command: str = "fetch") -> subprocess.CompletedProcess[str]:
        """`munin-run`."""
        return subprocess.run(
            ["munin-run", *self._options(), "--servicedir", self._place / "plugins", f"scratchd_{graph}", command],
            text=True,
            capture_output=True,
            timeout=30,
            check=False,
        )

    def _options(self) -> list[str | Path]:
        return ["--config", self._configuration, "--sconfdir", self._place / "plugin-conf.d"]

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """munin-node listens."""
        with (self._place / "output").open("wb") as out:
            process = subprocess.Popen(["perl", "-e", _ELSEWHERE, self._place], stdout=out, stderr=out)
        try:
            wait_for(self._listens, 30, "munin-node listens")
            yield
        finally:
            process.terminate()
            process.wait(20)
            for path in (self._place / "output", self._place / "log"):
                print(path.read_text() if path.exists() else "")  # noqa: T201 - pytest shows it

    def _listens(self) -> bool:
        try:
            return bool(self.ask())
        except OSError:
            return False

    def ask(self, *commands: str) -> list[str]:
        """What munin-node says to each of the commands, as Munin's server asks."""
        with socket.create_connection(("127.0.0.1", self._port), 20) as connection, connection.makefile("rw") as peer:
            banner = peer.readline()
            assert banner == "# munin node at here.test\n"
            answers = []
            for command in commands:
                peer.write(f"{command}\n")
                peer.flush()
                lines = [peer.readline()]
                while command.partition(" ")[0] in ("config", "fetch") and lines[-1] not in (".\n", ""):
                    lines.append(peer.readline())
                answers.append("".join(lines))
            return answers or [banner]
