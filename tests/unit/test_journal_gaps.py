"""Gaps become one where they follow on, and get the times of the lines around them."""

from __future__ import annotations

import json

from scratchd.journal.epochs import Epoch
from scratchd.journal.gaps import Gap, add, closed, rendered


def test_a_gap_that_continues_the_last_of_its_kind_lengthens_it() -> None:
    gaps = add((Gap("quota", 1, 2, after_ms=10, before_ms=None, noticed_ms=30),), Gap("quota", 3, 5, 10, 20, 40))
    assert gaps == (Gap("quota", 1, 5, after_ms=10, before_ms=20, noticed_ms=30),)
    assert add(gaps, Gap("lost", 6, 6)) == (*gaps, Gap("lost", 6, 6))


def test_the_line_behind_a_gap_may_come_later() -> None:
    gaps = (Gap("quota", 1, 2, before_ms=5), Gap("lost", 7, 8), Gap("corrupt", 9, 9))
    assert closed(gaps, {}) == gaps
    assert closed(gaps, {3: 99}) == gaps
    assert [gap.before_ms for gap in closed(gaps, {10: 50})] == [5, 50, 50]


def test_a_gap_is_rendered_with_times_and_epochs() -> None:
    (row,) = rendered({"kafka": [Gap("quota", 1, 5, 1000, None, 3000)]}, [Epoch("a", 0), Epoch("b", 4)]).splitlines()
    assert json.loads(row) == {
        "backend": "kafka",
        "kind": "quota",
        "first": 1,
        "last": 5,
        "lines": 5,
        "after": "1970-01-01T00:00:01.000Z",
        "before": None,
        "noticed": "1970-01-01T00:00:03.000Z",
        "epochs": [{"epoch": "a", "first": 1}, {"epoch": "b", "first": 4}],
    }
