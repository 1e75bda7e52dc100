"""What a counter has grown by within an hour, from run to run."""

from __future__ import annotations

from pathlib import Path

import pytest

from scratchd_monitoring import growth


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MP_STATE_PATH", str(tmp_path / "state"))
    return tmp_path / "state"


def seen(*runs: tuple[float, int]) -> list[int]:
    """What each run at a time with a count says."""
    return [growth.grown("a", {"lines": count}, now_s)["lines"] for now_s, count in runs]


def test_nothing_has_grown_at_the_first_run() -> None:
    assert seen((0, 500)) == [0]


def test_growth_is_told_for_an_hour_and_no_longer() -> None:
    assert seen((0, 5), (60, 7), (3659, 7), (3661, 7), (7000, 7)) == [0, 2, 2, 0, 0]


def test_growth_adds_up() -> None:
    assert seen((0, 0), (60, 1), (120, 3), (180, 3), (240, 10)) == [0, 1, 3, 3, 10]


def test_a_counter_that_began_anew_has_grown_by_what_it_is() -> None:
    assert seen((0, 100), (60, 2), (120, 3)) == [0, 2, 3]


def test_a_long_silence_is_not_forgotten_growth() -> None:
    assert seen((0, 1), (86400, 4), (86460, 4)) == [0, 3, 3]


def test_a_clock_that_was_put_back_begins_anew() -> None:
    assert seen((5000, 1), (100, 9), (160, 9)) == [0, 0, 0]


def test_addresses_are_apart() -> None:
    growth.grown("a", {"lines": 1}, 0)
    assert growth.grown("b", {"lines": 9}, 60) == {"lines": 0}
    assert growth.grown("a", {"lines": 2}, 60) == {"lines": 1}


def test_a_counter_that_is_new_has_not_grown() -> None:
    growth.grown("a", {}, 0)
    assert growth.grown("a", {"lines": 5000}, 60) == {"lines": 0}
    assert growth.grown("a", {"lines": 5003}, 120) == {"lines": 3}


def test_a_counter_that_is_missing_stands_where_it_stood() -> None:
    growth.grown("a", {"lines": 5000}, 0)
    assert growth.grown("a", {}, 60) == {"lines": 0}
    assert growth.grown("a", {"lines": 5003}, 7200) == {"lines": 3}


def test_what_is_kept_does_not_grow_with_quiet_runs(place: Path) -> None:
    seen(*((float(second), second // 100) for second in range(300)))
    (kept,) = place.iterdir()
    assert len(kept.read_text()) < 300


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[[0, "x"]]', b'[["a", {}]]', b"\xff"])
def test_a_file_that_is_damaged_begins_anew(place: Path, content: bytes) -> None:
    seen((0, 1))
    (kept,) = place.iterdir()
    kept.write_bytes(content)
    assert seen((60, 5), (120, 6)) == [0, 1]


def test_a_file_of_an_earlier_version_is_gone_on_with(place: Path) -> None:
    seen((0, 1))
    (kept,) = place.iterdir()
    kept.write_text('[[0, {"lines": 1, "sums": 9}], [30, {"lines": 2}], [60, {"lines": 3, "sums": 9}]]')
    assert growth.grown("a", {"lines": 4, "others": 7}, 90) == {"lines": 3, "sums": 0, "others": 0}


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MP_STATE_PATH")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    growth.grown("a", {}, 0)
    growth.directory().chmod(0o777)
    with pytest.raises(PermissionError, match="set MP_STATE_PATH"):
        growth.grown("a", {}, 1)
