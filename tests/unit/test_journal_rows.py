"""Rows: what was appended is read back, and a crash within a row costs that one alone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from scratchd.journal import rows


class Pair(msgspec.Struct, frozen=True):
    """A row."""

    name: str
    number: int


PAIRS = [Pair("é", 1), Pair('b"\n', 2), Pair("", 3)]


def test_there_are_none_where_there_is_no_file(tmp_path: Path) -> None:
    assert list(rows.load(tmp_path / "rows.jsonl", Pair)) == []


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows.append(path, PAIRS[:2])
    rows.append(path, PAIRS[2:])
    assert path.read_bytes() == rows.encoded(PAIRS)
    assert list(rows.load(path, Pair)) == PAIRS


@pytest.mark.parametrize("torn_bytes", range(1, len(rows.encoded(PAIRS[:1]))))
def test_a_row_torn_anywhere_costs_itself_alone(tmp_path: Path, torn_bytes: int) -> None:
    path = tmp_path / "rows.jsonl"
    torn = rows.encoded(PAIRS[:1])[:torn_bytes]
    path.write_bytes(rows.encoded(PAIRS[:2]) + torn)
    whole = PAIRS[:1] if torn.endswith(b"}") else []
    assert list(rows.load(path, Pair)) == PAIRS[:2] + whole
    rows.append(path, PAIRS[2:])
    assert list(rows.load(path, Pair)) == PAIRS[:2] + whole + PAIRS[2:]


@pytest.mark.parametrize("strange", [b"[1]", b'{"name": 1, "number": 2}', b"\xff", b"", b"{}"])
def test_what_is_no_row_is_passed_over(tmp_path: Path, strange: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(rows.encoded(PAIRS[:1]) + strange + b"\n" + rows.encoded(PAIRS[1:]))
    assert list(rows.load(path, Pair)) == PAIRS
