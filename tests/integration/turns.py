"""Turns: what only one test process of this machine may do at a time, since all would do the same.

Tests run in several processes; the Docker engine, an image and a root directory are made by the first that needs them,
and found by the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def turn(name: str) -> Iterator[None]:
    """Waits until nobody else of this user is at `name`, and is at it."""
    with (Path(tempfile.gettempdir()) / f"scratchd-tests-{os.geteuid()}-{name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
