"""A log file by itself: what may stand in its place, and matching bytes that were written before."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd.backends.contract import BackendError
from scratchd.backends.logfile import LogFile, failure
from scratchd.log import Log

LOG = Log("file")
ONE, TWO, THREE = b'{"n":"1"}\n', b'{"n":"2"}\n', b'{"n":"3"}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


def refused(kind: str, message: str, do: Callable[[], object]) -> None:
    with pytest.raises(BackendError, match=message) as caught:
        do()
    assert caught.value.kind == kind


def test_a_new_file_begins_empty(path: Path) -> None:
    file = LogFile(path, None, LOG)
    assert (file.length, file.matching, file.dirty) == (0, False, False)
    file.write([ONE, TWO])
    assert (file.length, file.dirty) == (20, True)
    file.sync()
    assert not file.dirty
    assert path.read_bytes() == ONE + TWO
    file.close()


def test_a_file_that_the_cursor_does_not_know_begins_at_its_end(path: Path) -> None:
    path.write_bytes(ONE)
    file = LogFile(path, None, LOG)
    assert (file.length, file.matching) == (10, False)
    file.close()


def test_bytes_behind_the_mark_wait_to_be_matched(path: Path) -> None:
    path.write_bytes(ONE + TWO)
    file = LogFile(path, 10, LOG)
    assert (file.length, file.matching) == (10, True)
    assert file.match(TWO, 0) == b""
    assert not file.matching
    file.close()


def test_directories_are_made_where_nobody_may_set_the_setgid_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under systemd's RestrictSUIDSGID=: the bit comes from the directory above."""
    tmp_path.chmod(0o2750)

    def forbidden(self: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(self))

    monkeypatch.setattr(Path, "chmod", forbidden)
    before = os.umask(0o027)
    try:
        LogFile(tmp_path / "gr" / "deep" / "a.log", None, LOG).close()
        monkeypatch.undo()
        (tmp_path / "plain").mkdir()
        (tmp_path / "plain").chmod(0o0750)
        monkeypatch.setattr(Path, "chmod", forbidden)
        LogFile(tmp_path / "plain" / "gr" / "a.log", None, LOG).close()
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("gr", "gr/deep", "plain/gr")]
    assert modes == [0o2750, 0o2750, 0o0750]


def test_more_buffers_than_one_writev_takes(path: Path) -> None:
    file = LogFile(path, None, LOG)
    file.write([ONE] * 2500)
    assert path.read_bytes() == ONE * 2500
    assert file.length == 25000
    file.close()


def test_payloads_are_matched_as_they_come(path: Path) -> None:
    path.write_bytes(ONE + TWO + THREE[:4])
    file = LogFile(path, 0, LOG)
    assert file.match(ONE, 0) == b""
    assert file.matching
    assert file.match(TWO + THREE + ONE, 0) == ONE
    assert not file.matching
    assert path.read_bytes() == ONE + TWO + THREE
    assert file.match(ONE, 0) == ONE
    file.close()


lines = st.lists(st.binary(max_size=4).map(lambda data: b'{"' + data.hex().encode() + b'":""}\n'), min_size=1)


@given(lines, st.data())
def test_whatever_was_written_is_written_once(
    tmp_path_factory: pytest.TempPathFactory, written: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("once") / "a.log"
    whole = b"".join(written)
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    file = LogFile(path, 0, LOG)
    while written:
        count = data.draw(st.integers(1, len(written)))
        payload, written = b"".join(written[:count]), written[count:]
        rest = file.match(payload, 0) if file.matching else payload
        if rest:
            file.write([rest])
    file.finish_matching()
    file.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(b"stranger\n", id="instead"),
        pytest.param(ONE + b"stranger\n", id="behind"),
        pytest.param(ONE + TWO[:5] + b"stranger", id="in the middle"),
        pytest.param(TWO, id="another of ours"),
        pytest.param(b"\n", id="empty line"),
    ],
)
def test_what_does_not_match_is_foreign(path: Path, there: bytes) -> None:
    path.write_bytes(there)
    file = LogFile(path, 0, LOG)
    refused("foreign", "byte (0|10): expected the line .* move it away", lambda: file.match(ONE + TWO, 0))
    assert path.read_bytes() == there
    file.close()


@pytest.mark.parametrize("missing_lines", [1, 2, 5])
def test_lines_that_the_journal_lost_are_passed_over(path: Path, missing_lines: int) -> None:
    path.write_bytes(ONE + TWO + THREE)
    file = LogFile(path, 0, LOG)
    assert file.match(ONE, 0) == b""
    assert file.match(THREE, missing_lines) == b""
    assert not file.matching
    assert path.read_bytes() == ONE + TWO + THREE
    file.close()


def test_more_lines_than_the_journal_lost_are_foreign(path: Path) -> None:
    path.write_bytes(ONE + TWO + ONE + THREE)
    file = LogFile(path, 0, LOG)
    refused("foreign", "byte 0: expected the line", lambda: file.match(THREE, 2))
    file.close()


def test_a_torn_line_behind_lost_ones_is_written_anew(path: Path) -> None:
    path.write_bytes(ONE + TWO + THREE[:5])
    file = LogFile(path, 0, LOG)
    rest = file.match(THREE, 2)
    assert rest == THREE
    file.write([rest])
    assert path.read_bytes() == ONE + TWO + THREE
    file.close()


def test_lost_lines_at_the_end_stay_and_a_torn_one_is_cut(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(ONE + TWO + THREE[:5])
    file = LogFile(path, 0, LOG)
    file.finish_matching()
    assert (file.length, file.matching, file.dirty) == (20, False, True)
    assert path.read_bytes() == ONE + TWO
    assert "lines=2 torn_bytes_cut=5" in caplog.text
    file.close()


@pytest.mark.parametrize("left", [b"stranger\n", ONE + b"1\n", b"[]\n", b"torn", ONE + b"torn", b"\xff\n"])
def test_what_is_left_and_is_no_line_of_ours_is_foreign(path: Path, left: bytes) -> None:
    path.write_bytes(left)
    file = LogFile(path, 0, LOG)
    refused("foreign", "byte 0: expected the end of the file", file.finish_matching)
    assert path.read_bytes() == left
    file.close()


def test_more_than_can_be_left_is_foreign(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 28)
    with path.open("ab") as end:
        end.write(b"\n")
    file = LogFile(path, 0, LOG)
    refused("foreign", "expected the end of the file, got 268435457 bytes", file.finish_matching)
    file.close()


@pytest.mark.parametrize("zeros", [1, 100, 1 << 17])
@pytest.mark.parametrize("there", [b"", TWO, TWO + THREE[:4]], ids=["nothing", "a line", "a torn line"])
def test_zeros_behind_the_mark_are_cut(path: Path, there: bytes, zeros: int) -> None:
    path.write_bytes(ONE + there + bytes(zeros))
    file = LogFile(path, len(ONE), LOG)
    rest = file.match(TWO + THREE, 0)
    if rest:
        file.write([rest])
    assert path.read_bytes() == ONE + TWO + THREE
    file.close()


def test_zeros_before_the_mark_or_in_a_file_that_the_cursor_does_not_know_are_not_ours_to_cut(path: Path) -> None:
    path.write_bytes(ONE + bytes(8))
    LogFile(path, len(ONE) + 8, LOG).close()
    refused("foreign", "expected a newline at the end", lambda: LogFile(path, None, LOG))
    assert path.read_bytes() == ONE + bytes(8)


def test_lines_that_another_process_wrote_are_synced_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(ONE + TWO)
    synced = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_ino))
    file = LogFile(path, 0, LOG)
    assert file.match(ONE + TWO, 0) == b""
    file.sync()
    assert synced == [path.stat().st_ino]
    file.close()


@pytest.mark.parametrize("made_before", [False, True], ids=["made now", "made by a process that was killed"])
def test_the_names_of_a_file_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, made_before: bool) -> None:
    path = tmp_path / "made" / "meanwhile" / "a.log"
    if made_before:
        path.parent.mkdir(parents=True)
        path.touch()
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    LogFile(path, None, LOG).close()
    assert {path.parent.stat().st_ino, path.parent.parent.stat().st_ino} <= set(synced)
    assert made_before or tmp_path.stat().st_ino in synced


def test_a_shorter_file_goes_on_at_its_end(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(ONE)
    file = LogFile(path, 50, LOG)
    assert (file.length, file.matching) == (10, False)
    os.truncate(path, 0)
    file.write([TWO])
    assert (path.read_bytes(), file.length) == (TWO, 10)
    assert caplog.text.count("shorter than it was") == 2
    file.close()


def test_bytes_of_someone_else_are_seen_before_a_write(path: Path) -> None:
    file = LogFile(path, None, LOG)
    file.write([ONE])
    path.write_bytes(ONE + b"\xffevil\n<1>")
    refused("foreign", r"byte 10: expected the end of the file, got \\xffevil\\x0a<1>;", lambda: file.write([TWO]))
    file.close()


def test_a_file_without_a_last_newline_is_foreign(path: Path) -> None:
    path.write_bytes(b"torn")
    refused("foreign", "byte 4: expected a newline", lambda: LogFile(path, None, LOG))


def test_a_file_of_two_names_is_refused(path: Path) -> None:
    path.touch()
    path.with_name("other").hardlink_to(path)
    refused("not_a_file", "expected a file of one name, got 2 hard links; move it away", lambda: LogFile(path, 0, LOG))


def test_a_device_is_refused(path: Path) -> None:
    refused("not_a_file", "expected a plain file", lambda: LogFile(Path("/dev/null"), 0, LOG))


def test_a_refused_file_is_not_held_open(path: Path) -> None:
    path.write_bytes(b"torn")
    before = len(list(Path("/proc/self/fd").iterdir()))
    refused("foreign", "newline", lambda: LogFile(path, None, LOG))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    path.write_bytes(ONE)
    LogFile(path, None, LOG).close()


def test_one_file_has_one_writer(path: Path) -> None:
    file = LogFile(path, None, LOG)
    refused("locked", "another process writes this file; give each instance", lambda: LogFile(path, 0, LOG))
    file.close()
    LogFile(path, 0, LOG).close()


def test_a_file_system_without_locks_is_written_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    file = LogFile(path, None, LOG)
    file.write([ONE])
    file.close()
    assert path.read_bytes() == ONE


def test_a_name_too_long_is_an_error_of_the_backend(tmp_path: Path) -> None:
    refused("enametoolong", "File name too long", lambda: LogFile(tmp_path / ("x" * 300), None, LOG))


def test_a_file_is_in_place_until_it_is_moved(path: Path) -> None:
    file = LogFile(path, None, LOG)
    assert file.is_in_place()
    path.rename(path.with_name("moved"))
    assert not file.is_in_place()
    path.touch()
    assert not file.is_in_place()
    file.close()


def test_a_failed_sync_is_an_error_and_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = LogFile(path, None, LOG)
    file.write([ONE])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        refused("io", "a.log: Input/output error", file.sync)
    assert file.dirty
    file.sync()
    assert not file.dirty
    file.close()


def test_after_a_failed_sync_the_same_bytes_are_written_in_the_same_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = []
    pwrite = os.pwrite

    def noted(fd: int, data: bytes, offset: int) -> int:
        again.append((data, offset))
        return pwrite(fd, data, offset)

    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = LogFile(path, None, LOG)
    file.write([ONE])
    file.sync()
    file.write([TWO])
    monkeypatch.setattr(os, "fdatasync", broken)
    monkeypatch.setattr(os, "pwrite", noted)
    refused("io", "a.log", file.sync)
    assert again == [(TWO, len(ONE))]
    assert path.read_bytes() == ONE + TWO
    file.close()


def test_what_was_matched_is_synced_too(path: Path) -> None:
    path.write_bytes(ONE + TWO)
    file = LogFile(path, len(ONE), LOG)
    assert file.dirty, "a process that was killed may not have synced it"
    file.close()


@pytest.mark.parametrize(
    ("room", "lines"),
    [(0, 0), (5, 0), (10, 1), (19, 1), (20, 2), (25, 2)],
)
def test_of_a_write_that_failed_whole_lines_are_known(
    path: Path, monkeypatch: pytest.MonkeyPatch, room: int, lines: int
) -> None:
    left = room

    def full(fd: int, buffers: Sequence[bytes]) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = os.write(fd, b"".join(buffers)[:left])
        left -= written
        return written

    file = LogFile(path, None, LOG)
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        refused("no_space", "a.log: No space left on device", lambda: file.write([ONE + TWO, THREE]))
    assert (file.written_lines, file.length) == (lines, lines * len(ONE))
    assert path.read_bytes() == (ONE + TWO + THREE)[:room]
    file.close()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, "no_space"),
        (errno.EDQUOT, "no_space"),
        (errno.EROFS, "read_only"),
        (errno.EACCES, "permission"),
        (errno.EIO, "io"),
        (errno.ENOENT, "missing"),
        (errno.EMFILE, "too_many_files"),
        (errno.ESTALE, "estale"),
        (99999, "other"),
    ],
)
def test_errors_have_few_kinds(number: int, kind: str) -> None:
    failed = failure(Path("/log"), OSError(number, "text"))
    assert failed.kind == kind
    assert failed.message.startswith("/log: ")
