"""Deadline: waiting for a condition, never for a time.

Owns the one loop with which integration tests wait for what happens in other processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 0.02
"""Between two looks: short against what is waited for, long enough to leave a small machine to it."""


def wait_for(condition: Callable[[], T], timeout_s: float = 30, what: str = "") -> T:
    """Calls `condition` until it returns something true, and returns that.

    Raises:
        AssertionError: not within `timeout_s`; says `what` and the last value.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}; last value: {value!r}")
        time.sleep(PAUSE_S)
