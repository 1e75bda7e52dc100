"""Debs: the Debian packages of this work tree, built once for each state of its files, in other versions too.

Owns the built packages below `.cache/`; knows nothing of what is done with them. `scripts/deb` builds them, as
`make deb` does, but for the unit tests and lintian: those have a test of their own.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from daemon import SOURCE

CACHE = SOURCE / ".cache"

NEWER = "99.1.0"
"""A version newer than any that is released."""

_KEPT_S = 24 * 3600

_NOT_PACKAGED = ("tests", "bench", ".ci")


def built(name: str = "scratchd", version: str | None = None) -> Path:
    """The .deb of the binary package `name`; of `version` instead of the one in debian/changelog, where given.

    Raises:
        AssertionError: it does not build; what was printed is in the message.
    """
    made = CACHE / f"deb-{_state()}-{version or 'own'}"
    if not made.exists():
        making = made.with_name(f"deb-making-{os.getpid()}-{made.name}")
        command = [sys.executable, str(SOURCE / "scripts/deb"), "--quick", "--into", str(making)]
        done = subprocess.run(
            [*command, *(["--version", version] if version else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"scripts/deb: exit status {done.returncode}\n{done.stdout[-3000:]}"
        for old in CACHE.glob(f"deb-*-{version or 'own'}"):  # of states that are no more, and of no run that goes on
            if time.time() - old.stat().st_mtime > _KEPT_S:
                shutil.rmtree(old)
        if made.exists():  # by another run meanwhile
            shutil.rmtree(making)
        else:
            making.rename(made)
    (package,) = made.glob(f"{name}_*.deb")
    return package


def _state() -> str:
    """A word for what may go into the packages: every file that git does not ignore, but for tests."""
    ignored = {rule.strip("/") for rule in (SOURCE / ".gitignore").read_text().split()} | {".git"}
    state = hashlib.sha256()
    for directory, names, files in os.walk(SOURCE):
        here = Path(directory).relative_to(SOURCE)
        names[:] = sorted(name for name in names if not _is_left_out(here / name, ignored))
        for name in sorted(files):
            path = SOURCE / here / name
            state.update(f"{here / name}\0{path.stat().st_mode & 0o100}\0".encode() + path.read_bytes())
    return state.hexdigest()[:12]


def _is_left_out(path: Path, ignored: set[str]) -> bool:
    return str(path) in {*_NOT_PACKAGED, *ignored} or any(fnmatch.fnmatch(path.name, rule) for rule in ignored)
