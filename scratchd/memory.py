"""Memory: how the C library's allocator and Python's collector are to behave. Knows no part of the service."""

from __future__ import annotations

import ctypes
import gc

_M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Lets all threads allocate from one arena; to be called before there are any.

    By default each thread gets one of its own (librdkafka's, and trio's for what may block), and what one frees no
    other can use. One core runs them all, so there is nothing to be gained from that. Where the C library has no such
    setting nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def keep_what_is_there() -> None:
    """Takes everything that has been made so far out of the collector's sight; to be called when all is built.

    A full collection looks at each of the 40,000 objects that modules are made of: 10 ms and more in which nobody is
    answered. They stay until the end anyway.
    """
    gc.freeze()
