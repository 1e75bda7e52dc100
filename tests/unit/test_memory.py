"""Whether the allocator is told what it is to do, and what becomes of that elsewhere."""

from __future__ import annotations

import ctypes
import gc

import pytest

from scratchd import memory


class _Library:
    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.asked.append((parameter, value))
        return 1


def test_all_threads_share_one_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    library = _Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: library)
    memory.share_one_arena()
    assert library.asked == [(-8, 1)]


def test_a_library_without_the_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    memory.share_one_arena()


def test_what_was_made_until_then_is_not_collected_again() -> None:
    made: list[object] = []
    made.append(made)
    try:
        memory.keep_what_is_there()
        assert not any(known is made for known in gc.get_objects())
    finally:
        gc.unfreeze()
