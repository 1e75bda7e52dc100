"""Where the canary's lines are looked for: files that come, grow, are moved and cut; and which lines are its own."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from scratchd.canary import lookout as lookout_module
from scratchd.canary.beacon import PARAMETER, Target
from scratchd.canary.lookout import FileLookout, Lookout, LookoutError, file_opener, keep_looking, topic_opened
from scratchd.config import Config, File, Flavor, Kafka
from scratchd.config.credentials import Credential, Value

DAY = datetime.date(2026, 11, 23)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout_module, "FILE_PAUSE_S", 0.0)
    monkeypatch.setattr(lookout_module, "PAUSE_S", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{DAY}.log"


def lookout(tmp_path: Path, today: Callable[[], datetime.date] = lambda: DAY) -> FileLookout:
    return FileLookout(f"{tmp_path}/{{date}}.log", today)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_lines_are_seen_once_whole_and_from_now_on(tmp_path: Path, path: Path) -> None:
    append(path, b"before\n")
    looking = lookout(tmp_path)
    assert looking.look() == []
    append(path, b"a\nb\nc")
    assert looking.look() == [b"a", b"b"]
    assert looking.look() == []
    append(path, b"c\n")
    assert looking.look() == [b"cc"]


def test_a_file_that_comes_later_is_seen_from_its_beginning(tmp_path: Path, path: Path) -> None:
    looking = lookout(tmp_path)
    assert looking.look() == []
    append(path, b"a\n")
    assert looking.look() == [b"a"]


def test_a_day_goes_over_into_the_next(tmp_path: Path, path: Path) -> None:
    today = [DAY]
    looking = lookout(tmp_path, lambda: today[0])
    append(path, b"a\n")
    assert looking.look() == [b"a"]
    today[0] += datetime.timedelta(days=1)
    append(path, b"b\n")
    append(tmp_path / f"{today[0]}.log", b"c\n")
    assert looking.look() == [b"b", b"c"]


@pytest.mark.parametrize("change", ["moved", "cut"])
def test_a_file_that_is_begun_anew_is_seen_from_its_beginning(tmp_path: Path, path: Path, change: str) -> None:
    looking = lookout(tmp_path)
    append(path, b"aaaa\n")
    assert looking.look() == [b"aaaa"]
    if change == "moved":
        path.rename(tmp_path / "old")
    else:
        path.write_bytes(b"")
    append(path, b"b\n")
    assert looking.look() == [b"b"]


def test_no_more_than_a_bound_is_read(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout_module, "MOST_BYTES", 6)
    looking = lookout(tmp_path)
    append(path, b"a\n" * 1000)
    assert looking.look() == [b"a"] * 3
    assert looking.look() == []


def test_the_files_of_sibling_instances_are_looked_at(tmp_path: Path) -> None:
    flavor = Flavor(name="canary", hosts=("c.test",))
    template = f"{tmp_path}/[x]/{{instance}}/{{flavor}}-{{date}}.log"
    config = Config(instance="1", file=File(path=template), flavors=(flavor,))
    looking = FileLookout(config.file_pattern(flavor), lambda: DAY)
    for instance in ("1", "2"):
        (tmp_path / "[x]" / instance).mkdir(parents=True)
        append(tmp_path / "[x]" / instance / f"canary-{DAY}.log", b"%b\n" % instance.encode())
    assert sorted(looking.look()) == [b"1", b"2"]
    unnamed = Config(file=File(path=template), flavors=(flavor,))
    assert unnamed.file_pattern(flavor) == f"{tmp_path}/[[]x]/canary-{{date}}.log"


def test_what_cannot_be_read_is_an_error_and_seen_when_it_can(tmp_path: Path, path: Path) -> None:
    looking = lookout(tmp_path)
    path.symlink_to(tmp_path / "elsewhere")
    append(tmp_path / "elsewhere", b"a\n")
    with pytest.raises(LookoutError, match="Too many levels of symbolic links"):
        looking.look()
    path.unlink()
    append(path, b"b\n")
    assert looking.look() == [b"b"]


def test_a_place_that_fails_is_opened_again_until_it_is_over() -> None:
    over = threading.Event()
    told: list[tuple[Sequence[bytes], str]] = []
    openings = iter(range(1, 10))

    class Failing:
        """Works at its third opening."""

        def __init__(self, opening: int) -> None:
            self._opening = opening

        def look(self) -> Sequence[bytes]:
            """Fails, or has a line."""
            if self._opening < 3:
                raise LookoutError(f"opening {self._opening}")
            over.set()
            return [b"a"]

    @contextmanager
    def opener() -> Iterator[Lookout]:
        yield Failing(next(openings))

    keep_looking(opener, over, lambda lines, error: told.append((lines, error)))
    assert told == [((), "opening 1"), ((), "opening 2"), ([b"a"], "")]


def test_nothing_is_looked_at_when_it_is_over_from_the_start(tmp_path: Path) -> None:
    over = threading.Event()
    over.set()
    keep_looking(file_opener(f"{tmp_path}/{{date}}", lambda: DAY), over, lambda _lines, _error: None)


def test_what_comes_while_a_place_fails_is_seen_at_its_next_opening(tmp_path: Path, path: Path) -> None:
    opener = file_opener(f"{tmp_path}/{{date}}.log", lambda: DAY)
    append(path, b"before\n")
    with opener() as looking:
        assert looking.look() == []
    append(path, b"a\n")
    with opener() as looking:
        assert looking.look() == [b"a"]


def test_a_consumer_that_cannot_be_made_is_a_place_that_fails(tmp_path: Path) -> None:
    missing: dict[str, Value | Credential] = {
        "security.protocol": "ssl",
        "ssl.ca.location": str(tmp_path / "missing.pem"),
    }
    kafka = Kafka(enabled=True, bootstrap_servers="127.0.0.1:1", librdkafka=missing)
    with pytest.raises(LookoutError, match=r"^topic t: .*ssl.ca.location"), topic_opened(kafka, "t", 0):
        pass


RUN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (f'{{"{PARAMETER}":"{RUN}.17"}}', 17),
        (f'{{"site":"a","{PARAMETER}":"{RUN}.0"}}', 0),
        (f'{{"{PARAMETER}":"fedcba9876543210.17"}}', None),
        (f'{{"other":"{RUN}.17"}}', None),
        (f'{{"{PARAMETER}":["{RUN}.17","x"]}}', None),
        (f'{{"{PARAMETER}":"{RUN}."}}', None),
        (f'{{"{PARAMETER}":"{RUN}.-1"}}', None),
        (f'{{"{PARAMETER}":"x{RUN}.1"}}', None),
        (f'{{"{PARAMETER}":"{RUN}.17"', None),
        (f'["{RUN}.17"]', None),
        (f'"{RUN}.17"', None),
        ("", None),
    ],
)
def test_only_beacons_of_this_run_have_a_number(line: str, number: int | None) -> None:
    assert Target("http://x/track", RUN).number(line.encode()) == number
