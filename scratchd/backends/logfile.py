"""A log file of one flavor and day: opened with suspicion, appended to, and matched against what is to be written.

Blocking, for a thread. Knows bytes and lines, neither journal nor cursor.

What stands behind the file's mark (the length that the cursor knows) is output from before: lines that come again are
compared with it and not written a second time. So a line is in the file exactly once, however often it comes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from scratchd.backends.contract import BackendError
from scratchd.journal.storage import sync_directory
from scratchd.log import Log
from scratchd.refusal import shown

_MOST_BUFFERS = 1024
"""IOV_MAX on Linux: as many buffers go into one writev(2)."""

_MOST_LEFT_OVER_BYTES = 1 << 28
"""More than this behind the mark was not written in the second between two savings of the cursor."""

_AGAIN_BYTES = 1 << 20

_CHUNK_BYTES = 1 << 16

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_KINDS = {
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EROFS: "read_only",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EIO: "io",
    errno.ENOENT: "missing",
    errno.ENOTDIR: "not_a_directory",
    errno.EMFILE: "too_many_files",
    errno.ENFILE: "too_many_files",
}


def failure(path: Path, error: OSError) -> BackendError:
    """An operating system's error in the contract's terms."""
    kind = _KINDS.get(error.errno or 0, errno.errorcode.get(error.errno or 0, "other").lower())
    return BackendError(kind, f"{error.filename or path}: {os.strerror(error.errno or 0)}")


def make_directories(wanted: Path) -> None:
    """Makes a log file's directory and what is missing above it.

    Raises:
        OSError: one of them cannot be made.
    """
    missing = []
    while not wanted.exists():
        missing.append(wanted)
        wanted = wanted.parent
    for directory in reversed(missing):
        directory.mkdir(mode=0o750, exist_ok=True)
        # mkdir(2) takes no setgid bit, it hands on that of the directory above. With systemd's RestrictSUIDSGID=
        # nobody may set it; the package's log directory has it.
        if stat.S_IMODE(directory.stat().st_mode) != 0o2750:
            with contextlib.suppress(PermissionError):
                directory.chmod(0o2750)
        sync_directory(directory.parent)


class LogFile:
    """An open log file.

    Args:
        path: absolute; directories are made as needed.
        mark: its length as the cursor knows it, None for a file that the cursor does not know: it begins at its end.

    Attributes:
        path: as given.
        length: up to here every byte is accounted for.
        written_lines: how many the last `write` brought in, also when it failed.
        dirty: whether something was written since the last `sync`.

    Raises:
        BackendError: it cannot be opened, is no plain file of one name, or another process writes it.
    """

    def __init__(self, path: Path, mark: int | None, log: Log) -> None:
        self.path = path
        self.dirty = False
        self.written_lines = 0
        self._log = log
        try:
            self._fd = self._open()
        except OSError as error:
            raise failure(path, error) from error
        try:
            size = self._check()
            self.length = self._synced = size if mark is None else min(mark, size)
            self._tail_end = size
            self.dirty = size > self.length  # whoever wrote it may have been killed before syncing it
            self._cut_zeros()
            if mark is None:
                self._sync_names()
            if mark is not None and size < mark:
                log.warning("shorter than it was, going on at its end", path=path, was_bytes=mark, bytes=size)
            if mark is None and size and os.pread(self._fd, 1, size - 1) != b"\n":
                raise self._foreign(size, "a newline at the end of what stands there", "none")
        except OSError as error:
            self.close()
            raise failure(path, error) from error
        except BackendError:
            self.close()
            raise

    def _open(self) -> int:
        try:
            return os.open(self.path, _FLAGS)
        except FileNotFoundError:
            make_directories(self.path.parent)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR}:
                raise BackendError(
                    "not_a_file", f"{self.path}: expected a plain file, got something else; move it away"
                ) from error
            raise
        fd = os.open(self.path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o640)
        os.fchmod(fd, 0o640)  # whatever the umask
        return fd

    def _check(self) -> int:
        """Refuses what is no file of ours; returns the size."""
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise BackendError("not_a_file", f"{self.path}: expected a plain file, got something else; move it away")
        if status.st_nlink != 1:
            raise BackendError(
                "not_a_file",
                f"{self.path}: expected a file of one name, got {status.st_nlink} hard links; move it away",
            )
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackendError(
                "locked", f"{self.path}: another process writes this file; give each instance files of its own"
            ) from None
        except OSError as error:
            if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}:  # a file system without locks
                raise
        return status.st_size

    def _sync_names(self) -> None:
        """Makes the file's name durable, and its directory's: who made them may have been killed before that."""
        sync_directory(self.path.parent)
        with contextlib.suppress(PermissionError):  # where only files may be made, the directory was there before
            sync_directory(self.path.parent.parent)

    def _cut_zeros(self) -> None:
        """Cuts zeros behind the mark: some file systems leave them where a power failure took what was written.

        No line has any, so they are neither a line nor someone else's.
        """
        end = self._tail_end
        while end > self.length:
            start = max(self.length, end - _CHUNK_BYTES)
            rest = os.pread(self._fd, end - start, start).rstrip(b"\0")
            end = start + len(rest)
            if rest:
                break
        if end < self._tail_end:
            os.ftruncate(self._fd, end)
            self._log.warning("zeros at the end cut", path=self.path, bytes=self._tail_end - end)
            self._tail_end = end

    def close(self) -> None:
        """Closes it; nothing is synced."""
        os.close(self._fd)

    def sync(self) -> None:
        """Puts what was written on disk.

        Raises:
            BackendError: the disk fails.
        """
        if self.dirty:
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                self._write_again()
                raise failure(self.path, error) from error
            self.dirty = False
            self._synced = self.length

    def _write_again(self) -> None:
        """Writes what was not synced in its own place: the kernel may take its pages for clean after a failed sync."""
        with contextlib.suppress(OSError):
            fd = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_CLOEXEC)  # not for appending
            try:
                offset = self._synced
                while data := os.pread(self._fd, _AGAIN_BYTES, offset):
                    offset += os.pwrite(fd, data, offset)
            finally:
                os.close(fd)

    def is_in_place(self) -> bool:
        """Whether the path still names this file.

        Raises:
            BackendError: that cannot be found out now.
        """
        try:
            there, ours = self.path.lstat(), os.fstat(self._fd)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise failure(self.path, error) from error
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def write(self, payloads: Sequence[bytes]) -> None:
        """Appends whole lines.

        Raises:
            BackendError: the disk is full or fails, or someone else wrote. What was written up to then stays; `length`
                is behind the last whole line of it.
        """
        self.written_lines = 0
        self.find_end()
        try:
            begin = self.length
            buffers = [memoryview(payload) for payload in payloads]
            while buffers:
                try:
                    written = os.writev(self._fd, buffers[:_MOST_BUFFERS])
                except OSError:
                    self._settle_for_part(b"".join(payloads)[: self.length - begin])
                    raise
                self.dirty = True
                self.length += written
                while buffers and written >= len(buffers[0]):
                    written -= len(buffers.pop(0))
                if written:
                    buffers[0] = buffers[0][written:]
        except OSError as error:
            raise failure(self.path, error) from error
        self._tail_end = self.length
        self.written_lines = sum(payload.count(b"\n") for payload in payloads)

    def _settle_for_part(self, written: bytes) -> None:
        whole = written.rfind(b"\n") + 1
        self.length -= len(written) - whole
        self.written_lines = written.count(b"\n")

    def find_end(self) -> None:
        """Makes sure that what is written next goes where `length` says; where the file was cut short, to its end.

        Raises:
            BackendError: someone else wrote into it.
        """
        try:
            size = os.fstat(self._fd).st_size
            there = os.pread(self._fd, 200, self.length) if size > self.length else b""
        except OSError as error:
            raise failure(self.path, error) from error
        if there:
            raise self._foreign(self.length, "the end of the file", shown(there))
        if size < self.length:
            self._log.warning(
                "shorter than it was, going on at its end", path=self.path, was_bytes=self.length, bytes=size
            )
            self.length = size
            self._synced = min(self._synced, size)

    # Matching what was written before.

    @property
    def matching(self) -> bool:
        """Whether bytes behind the mark wait for the lines that they are."""
        return self.length < self._tail_end

    def match(self, payload: bytes, missing_lines: int) -> bytes:
        """Passes over what of `payload` stands in the file; a torn line at the end is completed.

        Args:
            payload: whole lines, to be written behind everything before them.
            missing_lines: how many lines before them the journal has lost: as many in the file may match nothing.

        Returns:
            Whole lines that are not in the file, empty or with nothing left to match.

        Raises:
            BackendError: the file holds something else.
        """
        try:
            there = os.pread(self._fd, min(len(payload), self._tail_end - self.length), self.length)
            while not payload.startswith(there):
                same = _common_lines(payload, there)
                self.length += same
                payload = payload[same:]
                self._pass_over(payload, missing_lines)
                there = os.pread(self._fd, min(len(payload), self._tail_end - self.length), self.length)
        except OSError as error:
            raise failure(self.path, error) from error
        self.length += len(there)
        if len(there) < len(payload) and there and not there.endswith(b"\n"):
            end = payload.index(b"\n", len(there)) + 1
            self.write([payload[len(there) : end]])
            return payload[end:]
        return payload[len(there) :]

    def _pass_over(self, payload: bytes, missing_lines: int) -> None:
        """Moves behind lines of the file that the journal has lost, to where `payload` begins or the file ends."""
        line = payload[: payload.index(b"\n") + 1]
        tail = os.pread(self._fd, self._tail_end - self.length, self.length)
        at = tail.find(b"\n" + line) + 1
        left = tail[: at or len(tail)]
        if not missing_lines or left.count(b"\n") > missing_lines:
            raise self._foreign(self.length, f"the line {shown(line[:-1])}", shown(tail[:200]))
        self._keep(left)

    def finish_matching(self) -> None:
        """Everything that may stand behind the mark was matched: what is left must be lines that the journal lost.

        Raises:
            BackendError: it is something else.
        """
        if not self.matching:
            return
        left_bytes = self._tail_end - self.length
        try:
            if left_bytes > _MOST_LEFT_OVER_BYTES:
                raise self._foreign(self.length, "the end of the file", f"{left_bytes} bytes")
            self._keep(os.pread(self._fd, left_bytes, self.length))
        except OSError as error:
            raise failure(self.path, error) from error
        self._tail_end = self.length

    def _keep(self, left: bytes) -> None:
        """Moves behind whole lines of ours that the journal does not have; cuts a torn one, which ends the file."""
        whole, newline, torn = left.rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        if not all(_is_object(line) for line in lines) or torn[:1] not in {b"", b"{"}:
            raise self._foreign(self.length, "the end of the file", shown(left[:200]))
        self.length += len(whole) + len(newline)
        if torn:
            os.ftruncate(self._fd, self.length)
            self._tail_end = self.length
            self.dirty = True
        self._log.warning(
            "lines that the journal has lost stay in the file",
            path=self.path,
            lines=len(lines),
            torn_bytes_cut=len(torn),
        )

    def _foreign(self, offset: int, expected: str, got: str) -> BackendError:
        return BackendError(
            "foreign",
            f"{self.path}: byte {offset}: expected {expected}, got {got}; something else wrote into this file: move it "
            "away, scratchd then begins a new one",
        )


def _common_lines(one: bytes, other: bytes) -> int:
    """Length of the whole lines that both begin with."""
    same = len(os.path.commonprefix([one, other]))  # noqa: RUF071 - bytes, no paths
    return one.rfind(b"\n", 0, same) + 1


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except msgspec.MsgspecError:
        return False
