"""How a tool reads what it is given."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest

from scratchd.tools.inputs import InputError, batches


def lines(*names: str, stdin: bytes = b"") -> list[bytes]:
    return [line for batch in batches(names, io.BytesIO(stdin)) for line in batch]


def test_inputs_follow_one_another_and_the_last_line_may_lack_its_end(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"1\n2")
    (tmp_path / "packed").write_bytes(gzip.compress(b"3\n") + gzip.compress(b"4\n\n5"))
    found = lines(str(tmp_path / "plain"), str(tmp_path / "packed"), "-", stdin=b"6\n")
    assert found == [b"1", b"2", b"3", b"4", b"", b"5", b"6"]


def test_standard_input_may_be_packed() -> None:
    assert lines("-", stdin=gzip.compress(b"1\n2\n")) == [b"1", b"2"]


def test_a_line_longer_than_a_read_is_whole() -> None:
    assert lines("-", stdin=b"x" * 600_000 + b"\ny") == [b"x" * 600_000, b"y"]


def test_nothing_has_no_lines() -> None:
    assert lines("-") == []


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: No such file"):
        lines(str(tmp_path / "gone"))
    (tmp_path / "cut").write_bytes(gzip.compress(b"1\n" * 1000)[:-12])
    with pytest.raises(InputError, match="cut: the gzip data is cut off or damaged"):
        lines(str(tmp_path / "cut"))
