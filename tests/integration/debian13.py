"""Debian 13: a root directory with that release's Python and libraries, and running programs in it.

Owns the trees below `.cache/`, one for each list of packages, made once by mmdebstrap and only ever read, and the
command that enters one; knows nothing of what is run there. Root enters by a mount namespace of its own; anyone else by
a user namespace in which he is root (which Debian allows). What is written inside lands in memory and is gone with the
program.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from turns import turn

SUITE = "trixie"
PACKAGES = (
    "python3",
    "tzdata",
    "haproxy",  # the edge, as Debian 13 has it
    # What scratchd runs with.
    "python3-trio",
    "python3-hypercorn",
    "python3-confluent-kafka",
    "python3-msgspec",
    "python3-prometheus-client",
    "python3-sdnotify",
    "python3-cachetools",
    # What its unit tests run with.
    "python3-pytest",
    "python3-pytest-trio",
    "python3-hypothesis",
    "python3-h11",
    "python3-h2",
    "python3-httpx",
)
PYTHON = "/usr/bin/python3"

# Arguments: the tree, directories (read-only those before "rw", writable those behind it), "--", the command. The
# directories lie inside where they lie outside. Every step execs: the command keeps the process' id and its signals.
_ENTER = r"""
set -eu
tree=$1; shift
mount -t tmpfs tmpfs "$tree/mnt"
mkdir "$tree/mnt/upper" "$tree/mnt/work" "$tree/mnt/root"
inside=$tree/mnt/root
mount -t overlay overlay -o "lowerdir=$tree/root,upperdir=$tree/mnt/upper,workdir=$tree/mnt/work" "$inside"
mode=ro
while [ "$1" != -- ]; do
    if [ "$1" = rw ]; then
        mode=rw
    else
        mkdir -p "$inside$1"
        mount --bind "$1" "$inside$1"
        [ $mode = rw ] || mount -o remount,bind,ro "$inside$1"
    fi
    shift
done
shift
mount --rbind /dev "$inside/dev"
mount --rbind /proc "$inside/proc"
exec chroot "$inside" env --chdir="$PWD" "$@"
"""


class NoTree(Exception):  # noqa: N818 - it says what there is none of
    """The tree cannot be made here: the tests that need it fail with this message."""


def tree(cache: Path, packages: Sequence[str] = PACKAGES) -> Path:
    """The tree with `packages` below `cache`, made where it is not there yet (half a minute, 230 MB).

    Raises:
        NoTree: what made it says why.
    """
    with turn("debian13"):
        return _tree(cache, packages)


def _tree(cache: Path, packages: Sequence[str]) -> Path:
    key = hashlib.sha256(" ".join((SUITE, *packages)).encode()).hexdigest()[:12]
    made = cache / f"debian13-{key}"
    if made.exists():
        return made
    cache.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix="debian13-making-", dir=cache))
    try:
        for name in ("root", "mnt"):
            (making / name).mkdir()
        archive = making / "root.tar"
        _run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", SUITE, str(archive))
        # All of it belongs to whoever runs this, who is root inside; device nodes are the machine's own there.
        into = f"--directory={making / 'root'}"
        _run("tar", "--extract", "--no-same-owner", f"--file={archive}", into, "--exclude=./dev/*")
        archive.unlink()
        making.chmod(0o755)
        making.rename(made)
    finally:
        if making.exists():
            shutil.rmtree(making)
    return made


def entering(made: Path, *, read_only: tuple[Path, ...] = (), writable: tuple[Path, ...] = ()) -> tuple[str, ...]:
    """What to put before a command so that it runs inside the tree, in the present working directory.

    That directory must be in one of `read_only` and `writable`, which lie inside where they lie outside.
    """
    directories = [*map(str, read_only), "rw", *map(str, writable)]
    namespace = ("unshare", "--mount", "--propagation=private", *([] if os.geteuid() == 0 else ["--map-root-user"]))
    return (*namespace, "sh", "-c", _ENTER, "enter", str(made), *directories, "--")


def _run(*command: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise NoTree(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-3000:]}")
