"""Disks: small real file systems that a test fills, makes read-only, breaks and takes away. Root only.

Owns mounts and what lies behind them; knows nothing of scratchd. A test gets `Disks` by a fixture that is asked for
before the daemon's, so that the daemon has ended when they are unmounted; `close` leaves no mount and no loop device.
They are mounted in a mount namespace that the tests have for themselves: in a common one, whoever makes a namespace of
his own meanwhile (a container) would get a copy of each mount and keep its file system alive.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

from deadline import wait_for

_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_CLONE_NEWNS = 0x00020000


class Disk:
    """A mounted file system.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def free_bytes(self) -> int:
        """What is free for everyone."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self, leave_bytes: int = 0, name: str = "filling") -> Path:
        """Puts a file of zeros there that leaves about `leave_bytes`; removing it makes room again."""
        filling = self.path / name
        with filling.open("ab", buffering=0) as out:
            step = 1 << 20
            while step:
                try:
                    room = self.free_bytes - leave_bytes
                    while room > 0 and out.write(bytes(min(step, room))):
                        room = self.free_bytes - leave_bytes
                    break
                except OSError:
                    step //= 2
        return filling

    def remount(self, options: str) -> None:
        """Mounts it again with other options, e.g. `size=16m`."""
        _run("mount", "-o", f"remount,{options}", str(self.path))

    def unmount(self) -> None:
        """Takes it away; whatever still uses it keeps it."""
        _run("umount", "--lazy", str(self.path))


class Image(Disk):
    """An ext4 in a file, on a loop device."""

    def __init__(self, path: Path, image: Path) -> None:
        super().__init__(path)
        self._image = image

    def mount(self) -> None:
        """Mounts it, again after `unmount`; replays its journal as after a power failure."""
        _run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.path))

    def power_up(self) -> None:
        """Unmounts it, and mounts what the disk has, as a machine does that gets its power back behind `shut_down`.

        Nothing may use it any more. The loop device is waited for: it caches the image.
        """
        _run("umount", str(self.path))
        wait_for(lambda: not self._device(), what=f"{self._image} behind no loop device")
        self.mount()

    def shut_down(self) -> None:
        """Makes every further write and sync an error until it is unmounted; what was not synced is lost."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def turn_read_only(self) -> None:
        """What ext4 does by itself when it finds an error, also while files are open for writing."""
        Path("/sys/fs/ext4", Path(self._device()).name, "trigger_fs_error").write_text("test")

    def _device(self) -> str:
        """The loop device, empty where there is none."""
        return subprocess.run(
            ["losetup", "--noheadings", "--output", "NAME", "--associated", str(self._image)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": _PATH},
        ).stdout.strip()

    def check(self) -> None:
        """Repairs it, while it is unmounted."""
        status = subprocess.run(["e2fsck", "-fp", str(self._image)], capture_output=True, check=False).returncode
        assert status in {0, 1}, f"e2fsck: {status}"


def enter_namespace() -> None:
    """Gives this thread, and whatever it starts from now on, mounts that nobody else sees.

    Raises:
        OSError: only root may.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _run("mount", "--make-rprivate", "/")


class Disks:
    """The disks of one test, below a directory."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._mounted = contextlib.ExitStack()

    def tmpfs(self, name: str, options: str) -> Disk:
        """A file system in memory, e.g. of `size=4m` or `nr_inodes=8`."""
        path = self._directory(name)
        _run("mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "tmpfs", str(path))
        self._mounted.callback(_unmounted, path)
        return Disk(path)

    def ext4(self, name: str, size_bytes: int) -> Image:
        """An ext4 without space kept for root."""
        path = self._directory(name)
        image = self._place / f"{name}.img"
        with image.open("wb") as out:
            out.truncate(size_bytes)
        _run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", str(image))
        self._mounted.callback(_unmounted, path)
        disk = Image(path, image)
        disk.mount()
        return disk

    def bind(self, name: str, target: Path) -> Disk:
        """`target` once more, at a place of its own with options of its own."""
        path = self._directory(name)
        _run("mount", "--bind", str(target), str(path))
        self._mounted.callback(_unmounted, path)
        return Disk(path)

    def close(self) -> None:
        """Unmounts everything, latest first."""
        self._mounted.close()

    def _directory(self, name: str) -> Path:
        self._place.mkdir(exist_ok=True)
        path = self._place / name
        path.mkdir(mode=0)  # who obeys modes writes nothing below the mount point
        return path


def _unmounted(path: Path) -> None:
    while path.is_mount():
        if subprocess.run(["umount", str(path)], capture_output=True, check=False).returncode:
            _run("umount", "--lazy", str(path))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": _PATH})
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"


_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

LOGROTATE = shutil.which("logrotate", path=_PATH)
