"""Memory: how the C library's allocator is to behave. Knows no part of the service; called before there are threads."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Lets all threads allocate from one arena.

    By default each thread gets one of its own (librdkafka's, and trio's for what may block), and what one frees no
    other can use. One core runs them all, so there is nothing to be gained from that. Where the C library has no such
    setting nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
