"""The file backend from a real journal into real files, over days, crashes and power failures."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import trio

from file_bench import MONDAY, TUESDAY, House, OpenJournal, crashed, impatient_house, line, text, until
from scratchd.backends import file as file_module
from scratchd.backends import supervisor as supervisor_module
from scratchd.journal.gaps import Gap


@pytest.fixture
def house(tmp_path: Path, open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch) -> House:
    return impatient_house(tmp_path, open_journal, monkeypatch)


@pytest.fixture
def settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor is saved all the time."""
    monkeypatch.setattr(supervisor_module, "SETTLE_S", 0.002)


# The plain way.


async def test_lines_arrive_byte_for_byte(house: House) -> None:
    lines = [b"{}", '{"ω":"😀","b":"\\u0000"}'.encode(), b'{"long":"%s"}' % (b"x" * 5000), line(1)]
    async with house.life() as life:
        for one in lines:
            life.append([one])
        life.append(lines)
        await life.stop()
    assert house.content() == b"".join(one + b"\n" for one in lines * 2)
    assert life.stats.feeds["file"].persisted_lines == 8
    assert life.stats.residual_lines("file") == 0


async def test_more_than_one_read_and_one_writev_arrive(house: House) -> None:
    async with house.life() as life:
        for number in range(3000):
            life.append([b'{"n":"%d","pad":"%s"}' % (number, b"x" * 500)])
        await life.stop()
    assert [one[6:].partition(b'"')[0] for one in house.content().splitlines()] == [b"%d" % n for n in range(3000)]


async def test_lines_arrive_without_anyone_stopping(house: House) -> None:
    async with house.life() as life:
        for number in range(3):
            life.append([line(number)])
            await until(lambda number=number: house.content() == text(*range(number + 1)))  # type: ignore[misc]


async def test_each_date_has_its_file(house: House) -> None:
    async with house.life() as life:
        life.append([line(0), line(1)], MONDAY)
        life.append([line(2)], TUESDAY)
        life.append([line(3)], TUESDAY)
        life.append([line(4)], MONDAY)
        await life.stop()
    assert house.content(MONDAY) == text(0, 1, 4)
    assert house.content(TUESDAY) == text(2, 3)


async def test_a_day_that_is_over_closes_and_comes_back(
    house: House, monkeypatch: pytest.MonkeyPatch, settling: None
) -> None:
    monkeypatch.setattr(file_module, "_IDLE_S", 0.0)
    async with house.life() as life:
        life.append([line(0)], MONDAY)
        await until(lambda: "2026-11-23" in life.journal.cursor("file").replay.get("files", {}))
        house.today = TUESDAY
        await until(lambda: life.journal.cursor("file").replay["files"] == {})
        life.append([line(1)], TUESDAY)
        life.append([line(2)], MONDAY)
        await life.stop()
    assert house.content(MONDAY) == text(0, 2)
    assert house.content(TUESDAY) == text(1)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777], ids=oct)
async def test_modes_are_the_contracts_whatever_the_umask(house: House, umask: int) -> None:
    house.template = str(house.directory / "log" / "deep" / "gr" / "{date}.log")
    before = os.umask(0)
    try:
        async with house.life() as life:
            os.umask(umask)
            life.append([line(0)])
            await life.stop()
    finally:
        os.umask(before)
    assert house.content() == text(0)
    assert stat.S_IMODE(house.path().stat().st_mode) == 0o640
    for directory in (house.path().parent, house.path().parent.parent, house.directory / "log"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o2750


async def test_a_file_that_is_there_is_appended_to(house: House) -> None:
    house.path().parent.mkdir(parents=True)
    house.path().write_bytes(b'{"before":"us"}\n')
    async with house.life() as life:
        life.append([line(0)])
        await life.stop()
    assert house.content() == b'{"before":"us"}\n' + text(0)


async def test_the_ledger_closes_over_lives(house: House) -> None:
    for number in range(3):
        async with house.life() as life:
            life.append([line(number)])
            await life.stop()
    assert house.content() == text(0, 1, 2)
    assert life.stats.received_lines == 3
    assert life.stats.feeds["file"].persisted_lines == 3


# Crashes.


async def test_a_crash_doubles_no_line(house: House) -> None:
    expected = await crashed(house)
    life = await house.drained()
    assert house.content() == expected
    assert life.stats.feeds["file"].persisted_lines == 6


async def test_crash_upon_crash_doubles_no_line(house: House) -> None:
    expected = await crashed(house)
    for number in range(10, 15):
        async with house.life() as life:
            life.append([line(number)])
            expected += text(number)
            await until(lambda expected=expected: len(house.content()) >= len(expected))  # type: ignore[misc]
        assert house.content() == expected
    await house.drained()
    assert house.content() == expected


async def test_a_line_torn_anywhere_is_completed(house: House) -> None:
    expected = await crashed(house)
    back = house.snapshot()
    for length in range(len(expected) + 1):
        back()
        os.truncate(house.path(), length)
        async with house.life() as life:
            life.append([b'{"after":"it"}'])
            await life.stop()
        assert house.content() == expected + b'{"after":"it"}\n'
        assert life.stats.residual_lines("file") == 0
        assert life.stats.feeds["file"].persisted_lines == 7


async def test_a_line_torn_anywhere_is_completed_without_another_one(house: House) -> None:
    expected = await crashed(house)
    back = house.snapshot()
    for length in range(len(expected) + 1):
        back()
        os.truncate(house.path(), length)
        await house.drained()
        assert house.content() == expected


async def test_a_crash_behind_a_saved_cursor_doubles_no_line(
    house: House, monkeypatch: pytest.MonkeyPatch, settling: None
) -> None:
    async with house.life() as life:
        life.append([line(0), line(1)])
        await until(lambda: life.journal.cursor("file").next_sequence == 2)
    monkeypatch.setattr(supervisor_module, "SETTLE_S", 1.0)
    back = house.snapshot()
    for length in range(len(text(2)) + 1):
        back()
        async with house.life() as life:
            life.append([line(2)])
            await until(lambda: house.content() == text(0, 1, 2))
        os.truncate(house.path(), len(text(0, 1)) + length)
        async with house.life() as life:
            await life.stop()
        assert house.content() == text(0, 1, 2)


async def test_two_dates_interleaved_are_replayed_each_into_its_own(house: House) -> None:
    await crashed(house, (MONDAY, TUESDAY), frames=6)
    monday, tuesday = house.content(MONDAY), house.content(TUESDAY)
    assert monday == text(0, 1, 4, 5, 8, 9)
    back = house.snapshot()
    # The first frame is behind a mark: it was saved when the second file was begun.
    for lengths in [(len(monday), 0), (20, len(tuesday)), (25, len(tuesday) - 3), (len(monday) - 1, 1), (32, 21)]:
        back()
        os.truncate(house.path(MONDAY), lengths[0])
        os.truncate(house.path(TUESDAY), lengths[1])
        await house.drained()
        assert (house.content(MONDAY), house.content(TUESDAY)) == (monday, tuesday)


@pytest.mark.parametrize("length", [0, 5, 10, 15, 20, 34, 59, 60])
async def test_a_path_changed_meanwhile_gets_only_what_the_old_one_has_not(house: House, length: int) -> None:
    expected = await crashed(house)
    assert len(expected) == 60
    old = house.path()
    os.truncate(old, length)
    house.template = str(house.directory / "elsewhere" / "{date}.log")
    async with house.life() as life:
        life.append([line(9)])
        await life.stop()
    # A torn line is completed where it began; whole lines behind it go to the new path.
    in_old = -(-length // 10) * 10
    assert old.read_bytes() == expected[:in_old]
    assert house.content() == expected[in_old:] + text(9)
    assert life.stats.residual_lines("file") == 0
    assert life.stats.feeds["file"].persisted_lines == 7


async def test_a_removed_flavor_is_drained_to_the_path_saved(house: House) -> None:
    expected = await crashed(house)
    os.truncate(house.path(), 25)
    house.configured = False
    await house.drained()
    assert house.content() == expected


async def test_a_flavor_removed_before_its_first_line_was_written_has_its_path(house: House) -> None:
    house.directory.joinpath("log").write_text("a file where a directory should be")
    async with house.life() as life:
        life.append([line(1)])
        await life.fails("not_a_directory")
    house.directory.joinpath("log").unlink()
    house.configured = False
    await house.drained()
    assert house.content() == text(1)


async def test_a_flavor_without_a_path_is_an_error(house: House) -> None:
    house.configured = False
    async with house.life() as life:
        life.append([line(0)])
        assert await life.fails("removed") == "flavor gr is not configured and its cursor has no path"


# Power failures: the journal has lost what the file still has.


async def torn_journal(house: House, survivors: int, extra_bytes: int) -> bytes:
    """Six lines reached the file; of three frames, `survivors` and some bytes of the next are in the journal."""
    expected = await crashed(house)
    (segment,) = (house.directory / "gr").glob("*.segment")
    os.truncate(segment, 40 + survivors * (40 + 20) + extra_bytes)
    return expected


@pytest.mark.parametrize("survivors", [0, 1, 2])
@pytest.mark.parametrize("extra_bytes", [0, 1, 50])
@pytest.mark.parametrize("length", [60, 59, 51, 50, 45])
async def test_lines_that_the_journal_lost_stay_and_a_torn_one_is_cut(
    house: House, caplog: pytest.LogCaptureFixture, survivors: int, extra_bytes: int, length: int
) -> None:
    expected = await torn_journal(house, survivors, extra_bytes)
    os.truncate(house.path(), length)
    async with house.life() as life:
        assert life.journal.writer.next_sequence == 2 * survivors
        life.append([line(9)])
        await life.stop()
    assert house.content() == expected[: length // 10 * 10] + text(9)
    assert not life.errors.errors
    assert life.stats.residual_lines("file") == 0
    assert "lines that the journal has lost stay in the file" in caplog.text
    await house.drained()
    assert house.content() == expected[: length // 10 * 10] + text(9)


async def test_sequences_go_on_behind_what_a_backend_has_passed(house: House, settling: None) -> None:
    async with house.life(fake=True) as life:
        house.fake.mischief.hangs = trio.Event()
        for number in range(6):
            life.append([line(number)])
        await until(lambda: life.journal.cursor("file").next_sequence == 6)
    (segment,) = (house.directory / "gr").glob("*.segment")
    os.truncate(segment, 40 + 2 * 50 + 7)
    house.fake.mischief.hangs = None
    async with house.life(fake=True) as life:
        assert life.journal.writer.next_sequence == 6
        life.append([line(6)])
        await life.stop()
    assert house.content() == text(*range(7))
    assert house.fake.received["gr"].lines == [(0, line(0)), (1, line(1)), (6, line(6))]
    assert life.journal.cursor("fake").gaps == (Gap("lost", 2, 5, after_ms=0, before_ms=0, noticed_ms=0),)
    assert life.journal.cursor("file").gaps == ()
    assert [life.stats.residual_lines(name) for name in ("file", "fake")] == [0, 0]
    assert life.stats.feeds["file"].persisted_lines == 7


async def test_lines_lost_in_the_middle_stay_in_the_file(house: House) -> None:
    expected = await crashed(house)
    (segment,) = (house.directory / "gr").glob("*.segment")
    data = bytearray(segment.read_bytes())
    data[40 + 60 + 45] ^= 1
    segment.write_bytes(data)
    async with house.life() as life:
        life.append([line(9)])
        await life.stop()
    assert house.content() == expected + text(9)
    assert life.journal.cursor("file").gaps == (Gap("corrupt", 2, 3, after_ms=0, before_ms=0, noticed_ms=0),)
    assert life.stats.residual_lines("file") == 0


async def test_foreign_bytes_are_not_taken_for_lost_lines(house: House) -> None:
    expected = await torn_journal(house, 1, 0)
    with house.path().open("ab") as other:
        other.write(b"stranger\n")
    async with house.life() as life:
        message = await life.fails("foreign")
        assert "move it away" in message
    assert house.content() == expected + b"stranger\n"


async def test_lines_that_stay_are_behind_the_mark_before_others_follow_them(house: House) -> None:
    await torn_journal(house, 1, 0)
    async with house.life() as life:
        life.append([line(100)])
        await until(lambda: house.content().endswith(text(100)))
    content = house.content()
    await house.drained()
    assert house.content() == content
