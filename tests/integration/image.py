"""Images: root directories of Debian 13 that a machine boots from, made once for each list of packages.

Owns the directories below `.cache/`; knows nothing of what is booted. An image is only ever read: a machine puts its
own layer over it, and several may boot from one at once. Besides what is installed in it, an image may have packages at
hand: apt's lists and their archives lie in apt's own cache, so that `apt-get install` finds them, and everything that
they depend on, in a machine without any network.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SUITE = "trixie"

MINIMAL = ("systemd", "systemd-sysv", "dbus", "iproute2")
"""What it takes to boot (on top of Debian's essential packages and apt), and to set up a network interface."""

CACHE = Path(__file__).parents[2] / ".cache"

_KEPT = 'Binary::apt-get::APT::Keep-Downloaded-Packages "true";'
# What a machine must not have of the one that made the image, and what keeps it from booting fast and quietly.
_FINISH = r"""
set -eu
rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1/etc/machine-id"
touch "$1/etc/machine-id"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    e2scrub_reap.service systemd-firstboot.service systemd-networkd-wait-online.service getty@.service \
    console-getty.service; do
    ln -sf /dev/null "$1/etc/systemd/system/$unit"
done
"""


class NoImage(Exception):  # noqa: N818 - it says what there is none of
    """The image cannot be made here: the tests that need it fail with this message."""


def image(
    installed: Sequence[str] = (), *, at_hand: Sequence[str] = (), cache: Path = CACHE, suite: str = SUITE
) -> Path:
    """The root directory with `MINIMAL` and `installed`, and with `at_hand` in apt's cache; made where it is not there.

    Some 20 s and 230 MB for the first machine with a list; nothing from then on.

    Args:
        installed: names of packages.
        at_hand: names of packages that `apt-get install` is to find without network.
        cache: where images are kept.
        suite: Debian's release.

    Raises:
        NoImage: what made it says why.
    """
    packages, archives = sorted({*MINIMAL, *installed}), sorted(set(at_hand))
    recipe = "\n".join((suite, *packages, "at hand", *archives, _FINISH))
    made = cache / f"image-{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if made.exists():
        return made
    if os.geteuid() != 0:
        raise NoImage("only root can make the image of a machine that boots")
    cache.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix="image-making-", dir=cache))
    try:
        _make(making / "root", suite, packages, archives)
        if not made.exists():  # by another run meanwhile
            (making / "root").rename(made)
    finally:
        shutil.rmtree(making)
    return made


def depended_on(package: Path) -> tuple[str, ...]:
    """The names of what a .deb depends on, of alternatives the first: for `at_hand`."""
    shown = subprocess.run(
        ["dpkg-deb", "--show", "--showformat=${Pre-Depends},${Depends}", str(package)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = (re.split(r"[\s(:|]", clause.strip(), maxsplit=1)[0] for clause in shown.split(","))
    return tuple(sorted({name for name in names if name}))


def _make(root: Path, suite: str, packages: Sequence[str], archives: Sequence[str]) -> None:
    finish = root.parent / "finish"
    finish.write_text(_FINISH)
    hooks = []
    if archives:
        download = f'chroot "$1" apt-get --quiet --yes --download-only install {" ".join(archives)} > /dev/null'
        hooks = [f"--aptopt={_KEPT}", "--skip=cleanup/apt", f"--customize-hook={download}"]
    command = (
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        *hooks,
        f'--customize-hook=sh {finish} "$1"',
        suite,
        str(root),
    )
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"},
    )
    if done.returncode != 0:
        raise NoImage(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-3000:]}")
