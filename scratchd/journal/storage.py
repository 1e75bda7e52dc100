"""System calls that the journal needs and `os` lacks in this form: durable replacement, space ahead of a file.

Blocking, all of them.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_FALLOC_FL_KEEP_SIZE = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def preallocate(fd: int, offset: int, length: int) -> bool:
    """Reserves blocks for `length` bytes from `offset` on without moving the file's end (fallocate(2), KEEP_SIZE).

    `os.posix_fallocate` moves the end, and a reader would see zeros behind the last frame.

    Returns:
        False where the file system cannot do it.

    Raises:
        OSError: no space, or the disk fails.
    """
    while _libc.fallocate(fd, _FALLOC_FL_KEEP_SIZE, offset, length) != 0:
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number in _UNSUPPORTED:
            return False
        raise OSError(number, os.strerror(number))
    return True


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_durably(path: Path, data: bytes) -> None:
    """Puts `data` in the place of the file `path`: after a crash either the old or the new content is there, whole."""
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        os.fchmod(fd, 0o640)  # whatever the umask
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fdatasync(fd)
    finally:
        os.close(fd)
    new.replace(path)
    sync_directory(path.parent)


def write_whole(fd: int, data: bytes) -> None:
    """One write(2) of all of `data`.

    Raises:
        OSError: it failed, or was short; part of `data` may have been written.
    """
    written = os.write(fd, data)
    if written != len(data):
        # Short on a regular file: the disk is full, and writing the rest would say so.
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (wrote {written} of {len(data)} bytes)")
