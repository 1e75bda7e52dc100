"""The parts of backfill that need no broker: spool, progress, what is recorded, lines by their places."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from scratchd.journal.places import Stretch
from scratchd.tools.backfilled import BusyError, Filled, add, locked, ranges
from scratchd.tools.fill_topic import PlaceError, lines_of
from scratchd.tools.progress import Progress
from scratchd.tools.report import Report
from scratchd.tools.spool import Found, Spool


def test_lines_come_back_in_order_once_and_only_the_wanted_ones(tmp_path: Path) -> None:
    with Spool([(3, 5), (8, 9)], tmp_path) as spool:
        assert spool.left == 5
        for sequence in (9, 4, 7, 3, 4, 100, 0):
            spool.add(sequence, sequence * 10, b"line %d" % sequence)
        assert spool.left == 2
        assert spool.missing() == [(5, 5), (8, 8)]
        assert list(spool.lines(0, 20)) == [
            Found(3, 30, b"line 3"),
            Found(4, 40, b"line 4"),
            Found(9, 90, b"line 9"),
        ]
    assert list(tmp_path.iterdir()) == []


def test_what_was_filled_counts_while_its_file_stands(tmp_path: Path) -> None:
    file = tmp_path / "a.backfill-3-5.log"
    file.write_bytes(b"{}\n" * 3)
    add(tmp_path, Filled(backend="file", ranges=[(3, 5)], lines=3, at="", file=str(file), bytes=9))
    add(tmp_path, Filled(backend="kafka", ranges=[(1, 1), (7, 8)], lines=3, at="", topic="t"))
    with (tmp_path / "backfilled.jsonl").open("ab") as torn:
        torn.write(b'{"back')
    add(tmp_path, Filled(backend="kafka", ranges=[(9, 9)], lines=1, at="", topic="t"))
    assert ranges(tmp_path, "file") == [(3, 5)]
    assert ranges(tmp_path, "kafka") == [(1, 1), (7, 9)]
    file.write_bytes(b"")
    assert ranges(tmp_path, "file") == []
    file.unlink()
    assert ranges(tmp_path, "file") == []


def test_two_backfills_of_a_flavor_do_not_meet(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(BusyError, match="another backfill runs"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


LOG = b'{"n":"0"}\n{"n":"1"}\n{"n":"2"}\nnot ours\n{"n":"4"'


def stretch(path: Path, offset: int, known: int, first: int, last: int) -> Stretch:
    return Stretch(path, offset, known, first, last, "e", 1000)


def test_lines_are_counted_from_a_known_place(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(LOG)
    assert list(lines_of(stretch(path, 0, 50, 51, 52))) == [
        Found(51, 1000, b'{"n":"1"}'),
        Found(52, 1000, b'{"n":"2"}'),
    ]
    assert [found.value for found in lines_of(stretch(path, 10, 51, 51, 51))] == [b'{"n":"1"}']


@pytest.mark.parametrize(
    ("offset", "last", "said"),
    [
        pytest.param(11, 51, "expected the beginning of a line", id="in the middle of a line"),
        pytest.param(20, 53, "expected a JSON object for sequence 52", id="foreign"),
        pytest.param(39, 51, "ends before the line of sequence 51", id="torn"),
        pytest.param(1000, 51, "expected the beginning of a line", id="beyond the end"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, offset: int, last: int, said: str) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(LOG)
    with pytest.raises(PlaceError, match=said):
        list(lines_of(stretch(path, offset, 51, 51, last)))


def test_progress_is_drawn_on_a_terminal_and_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, pipe = io.StringIO(), io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    for stream in (terminal, pipe):
        with Progress("reading", 10, stream) as progress:
            progress.add(5)
    assert terminal.getvalue().startswith("\r\x1b[Kreading [")
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert pipe.getvalue() == ""


def test_a_report_sums_up() -> None:
    out = io.StringIO()
    report = Report(out, io.StringIO())
    report.filled("gr: 5 lines into x", 5)
    report.problem("gr: 2 lines: too large", 2, undone=2)
    report.close()
    assert out.getvalue() == (
        "filling: gr: 5 lines into x\ncannot: gr: 2 lines: too large\n3 lines filled, 2 lines cannot be filled\n"
    )
