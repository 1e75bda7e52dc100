"""Machine: a booted Debian, systemd as its first process, thrown away when it is closed.

Owns the container, the memory that takes what it writes, and its network; knows nothing of what is installed in it.
systemd-nspawn boots it over images (`image.image`), which are only read: 0.3 s to boot, some 0.3 s to power off,
several side by side. Everything that a machine has, it has in namespaces that end with its processes: a mount namespace
for its root and the cgroup tree, a network of its own (`network.Network`; or one that is passed, or this machine's
own). The one thing to remove is its control group, which `close` does.

    with Machine(image(["python3"]), tmp_path / "one") as machine:
        machine.wait_booted()
        print(machine.run("systemctl", "is-system-running"))

`run` commands are children of this process and hold all of its capabilities, which is what a test needs that looks at
everything; `run_confined` gives them what the machine itself has.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import image as images
from deadline import wait_for
from network import Network

BOOT_TIMEOUT_S = 60
RUN_TIMEOUT_S = 300
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Arguments: the machine's name here and to itself, a directory to mount on, the size of what it may write, its images
# (overlayfs' lowerdir), options of nspawn. Every step execs: the machine's first process is then our process' child.
_BOOT = r"""
set -eu
name=$1 host=$2 place=$3 size=$4 images=$5; shift 5
if [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ]; then  # systemd 257 boots on version 2 only
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
fi
mkdir "/sys/fs/cgroup/$name"  # its own, so that machines run side by side
echo $$ > "/sys/fs/cgroup/$name/cgroup.procs"
mount -t tmpfs -o "size=$size" tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay overlay -o "lowerdir=$images,upperdir=$place/upper,workdir=$place/work" "$place/root"
echo "$host" > "$place/root/etc/hostname"
exec systemd-nspawn --quiet --keep-unit --register=no --resolv-conf=off --link-journal=no --directory="$place/root" \
    --machine="$name" --boot --console=pipe "$@" systemd.unit=multi-user.target systemd.show_status=no
"""

_REMOVE_CGROUP = r"""
if [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
fi
[ ! -e "/sys/fs/cgroup/$1" ] || find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} +
"""


class Machine:
    """A booted Debian 13.

    Args:
        image: a root directory, or several: what lies in a later one hides what lies in an earlier one.
        directory: for the console's log and the mount point; made where it is missing.
        name: its host name, and a part of `self.name`, which is unique on this machine.
        network: the network that it is in, of which it does not dispose; by default one of its own. `HOST` is this
            machine's, where two that want the same port collide.
        binds: what of this machine is seen inside, read-only: path here to path inside.
        options: more of systemd-nspawn's.
        size: how much it may write.

    Attributes:
        pid: of its first process, as seen from here.
        network: where it is (None: this machine's).
    """

    HOST = "host"

    def __init__(
        self,
        image: Path | Sequence[Path],
        directory: Path,
        *,
        name: str = "debian",
        network: Network | str | None = None,
        binds: dict[Path, str] | None = None,
        options: Sequence[str] = (),
        size: str = "2g",
    ) -> None:
        if os.geteuid() != 0:
            raise PermissionError("only root can boot a machine")
        images = [image] if isinstance(image, Path) else list(reversed(image))
        self.name = f"{name}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.log_path = directory / "console.log"
        (directory / "place").mkdir(parents=True, exist_ok=True)
        self._own_network = Network() if network is None else None
        self.network = self._own_network or (network if isinstance(network, Network) else None)
        entering = self.network.entering if self.network else ()
        shown = [f"--bind-ro={here}:{inside}" for here, inside in (binds or {}).items()]
        arguments = (self.name, name, str(directory / "place"), size, ":".join(map(str, images)), *shown, *options)
        with self.log_path.open("wb") as out:
            self._process = subprocess.Popen(
                [*entering, "unshare", "--mount", "--propagation=private", "sh", "-c", _BOOT, "boot", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"},
            )
        try:
            self.pid = wait_for(self._first_process, 20, f"the first process of {self.name}")
        except AssertionError:
            self._dispose()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait_booted(self, *, degraded: bool = False) -> None:
        """Waits until it has come up; a failed unit is an error unless `degraded` is allowed."""

        def state() -> str:
            said = self.attempt("systemctl", "is-system-running").stdout.strip()
            return said if said in {"running", "degraded"} else ""

        if wait_for(state, BOOT_TIMEOUT_S, f"{self.name} booted") == "degraded" and not degraded:
            raise AssertionError(f"{self.name} is degraded\n{self.run('systemctl', '--failed')}\n{self.journal_text()}")

    def close(self) -> None:
        """Ends it and removes what is left of it; twice does no harm."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self.attempt("systemctl", "poweroff", "--force", "--force", timeout_s=10)
        self._dispose()

    # Commands.

    def attempt(
        self, *command: str, stdin: str | None = None, timeout_s: float = RUN_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the machine's namespaces, as root, whatever its exit status."""
        return subprocess.run(
            [*self.entering, *command],
            check=False,
            text=True,
            errors="backslashreplace",
            capture_output=True,
            timeout=timeout_s,
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
        )

    def run(self, *command: str, stdin: str | None = None, timeout_s: float = RUN_TIMEOUT_S) -> str:
        """The same, which must succeed; returns what it printed."""
        done = self.attempt(*command, stdin=stdin, timeout_s=timeout_s)
        if done.returncode != 0:
            said = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}".strip()
            raise AssertionError(f"{self.name}: {shlex.join(command)}: exit status {done.returncode}\n{said}")
        return done.stdout

    def sh(self, script: str) -> str:
        """Runs a shell script, which must succeed to its end."""
        return self.run("sh", "-euc", script)

    def run_confined(self, *command: str, properties: Sequence[str] = ()) -> str:
        """Runs a command as a unit of the machine's systemd, e.g. with `properties=["User=nobody"]`."""
        options = [f"--property={assignment}" for assignment in properties]
        return self.run("systemd-run", "--pipe", "--wait", "--quiet", "--collect", *options, *command)

    @property
    def entering(self) -> tuple[str, ...]:
        """What to put before a command so that it runs inside."""
        environment = ("env", "-i", f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
        return ("nsenter", f"--target={self.pid}", "--all", "--wdns=/", *environment)

    # Files.

    def path(self, inside: str) -> Path:
        """Where a file of the machine lies for us. An absolute symbolic link on the way would lead to our own files."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def write(self, inside: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Writes a file of root's, and makes the directories that it lies in."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)

    # systemd.

    def unit(self, name: str, *properties: str) -> dict[str, str]:
        """What `systemctl show` says of a unit."""
        shown = self.run("systemctl", "show", f"--property={','.join(properties)}", name)
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Entries of the machine's journal, oldest first, e.g. of `_SYSTEMD_UNIT=scratchd.service` or `--unit=…`."""
        return [json.loads(line) for line in self.run("journalctl", "--output=json", *matches).splitlines()]

    def journal_text(self) -> str:
        """The whole journal, for people."""
        return self.attempt("journalctl", "--output=short-precise", "--no-pager").stdout

    def _first_process(self) -> int | None:
        if self._process.poll() is not None:
            raise AssertionError(f"{self.name} did not start: {self.log_path.read_text(errors='replace')[-3000:]}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in children.read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return int(pid)
        return None

    def _dispose(self) -> None:
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        deadline = time.monotonic() + 10
        while subprocess.run(
            ["unshare", "--mount", "--propagation=private", "sh", "-c", _REMOVE_CGROUP, "remove", self.name],
            capture_output=True,
            check=False,
        ).returncode:
            assert time.monotonic() < deadline, f"the control group {self.name} cannot be removed"
            time.sleep(0.05)
        if self._own_network:
            self._own_network.close()
            self._own_network = None


@contextlib.contextmanager
def machines(place: Path) -> Iterator[Callable[..., Machine]]:
    """Gives `boot(installed=[…], at_hand=[…], …)`, further options as `Machine`'s, which returns a booted machine.

    On leaving, each is closed; its journal is printed, which pytest shows where a test failed.

    `image=` takes images instead of packages; `wait=False` returns as soon as there is a first process, so that several
    come up at once (then `wait_booted`).
    """
    started: list[Machine] = []

    def boot(
        *,
        installed: Sequence[str] = (),
        at_hand: Sequence[str] = (),
        image: Path | Sequence[Path] | None = None,
        wait: bool = True,
        **options: Any,  # noqa: ANN401 - as Machine types them
    ) -> Machine:
        directory = place / f"machine{len(started)}"
        machine = Machine(image or images.image(installed, at_hand=at_hand), directory, **options)
        started.append(machine)
        if wait:
            machine.wait_booted()
        return machine

    try:
        yield boot
    finally:
        with contextlib.ExitStack() as closing:  # one that cannot be closed keeps no other from it
            for machine in started:
                closing.callback(machine.close)
            for machine in started:
                print(f"--- journal of {machine.name} ---\n{machine.journal_text()}")  # noqa: T201 - pytest shows it
