"""What a replay remembers over its end, however that came."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd.tools.replay_state import State, StateError

URLS = ["http://one", "http://two"]


def opened(path: Path | None, *, resend: bool = False, connections: int = 4) -> State:
    return State(path, ["log"], URLS, connections, resend=resend)


def test_a_new_state_has_sent_nothing(tmp_path: Path) -> None:
    state = opened(tmp_path / "state")
    assert (state.begun, state.unknown, state.complete) == ([0, 0], [[], []], False)
    state.close()


def test_what_was_begun_and_not_done_is_in_flight(tmp_path: Path) -> None:
    state = opened(tmp_path / "state")
    for line in (1, 3, 4):
        state.begin(line, 0)
    state.done(3, 0)
    state.begin(1, 1)
    state.done(1, 1)
    state.close()  # nothing is written on closing: a SIGKILL leaves the same
    again = opened(tmp_path / "state")
    assert (again.begun, again.unknown) == ([4, 1], [[1, 4], []])
    again.close()
    third = opened(tmp_path / "state")
    assert (third.begun, third.unknown) == ([4, 1], [[], []])
    third.close()


def test_what_is_to_be_sent_again_stays_in_flight_until_done(tmp_path: Path) -> None:
    state = opened(tmp_path / "state")
    state.begin(1, 0)
    state.begin(2, 0)
    state.close()
    again = opened(tmp_path / "state", resend=True, connections=1)
    again.begin(1, 0)
    again.done(1, 0)
    again.close()
    third = opened(tmp_path / "state")
    assert (third.begun[0], third.unknown[0]) == (2, [2])
    third.close()


@given(steps=st.lists(st.tuples(st.integers(0, 1), st.booleans(), st.integers(0, 3)), max_size=60))
def test_a_state_is_true_after_each_step(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool, int]]
) -> None:
    path = tmp_path_factory.mktemp("state") / "state"
    state = opened(path)
    next_line, in_flight = [1, 1], [list[int](), list[int]()]
    for target, begins, which in steps:
        if begins and len(in_flight[target]) < 4:
            state.begin(next_line[target], target)
            in_flight[target].append(next_line[target])
            next_line[target] += 1
        elif in_flight[target]:
            state.done(in_flight[target].pop(which % len(in_flight[target])), target)
    state.close()
    again = opened(path)
    assert again.unknown == [sorted(lines) for lines in in_flight]
    assert again.begun == [line - 1 for line in next_line]
    again.close()


def test_a_finished_replay_is_complete(tmp_path: Path) -> None:
    state = opened(tmp_path / "state")
    state.finish()
    state.close()
    again = opened(tmp_path / "state")
    assert again.complete
    again.close()


def test_another_log_is_refused(tmp_path: Path) -> None:
    state = opened(tmp_path / "state")
    state.check_first("one")
    state.close()
    again = opened(tmp_path / "state")
    with pytest.raises(StateError, match="begins with another line"):
        again.check_first("two")
    again.close()


def test_a_state_in_use_is_refused(tmp_path: Path) -> None:
    state = opened(tmp_path / "state")
    state.check_first("one")  # written anew: the lock is on what has the name
    with pytest.raises(StateError, match="another replay uses it"):
        opened(tmp_path / "state")
    state.close()


def test_a_state_of_other_targets_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "state").close()
    with pytest.raises(StateError, match="is of a replay with the targets http://one http://two, not http://three"):
        State(tmp_path / "state", ["log"], ["http://three"], 4, resend=False)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(b"hello\n", "not the state of a replay", id="another-file"),
        pytest.param(b'{"inputs":["log"],"targets":["http://one","http://two"],"slots":[4,4]}\n', "0 bytes", id="cut"),
    ],
)
def test_another_file_is_refused_and_stays(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(StateError, match=why):
        opened(path)
    assert path.read_bytes() == content


def test_nothing_is_kept_without_a_path() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    state = opened(None)
    state.begin(1, 0)
    state.done(1, 0)
    state.finish()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    state.close()
