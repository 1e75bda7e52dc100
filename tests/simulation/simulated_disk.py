"""A disk that forgets what was not synced: the real system calls on a real directory, with what each made durable.

Owns the patched functions of `os`, and what a kill and a power failure leave behind; knows nothing of what is stored.

While `running`, every call that changes something below `root` goes through here. The calls are counted, so that the
process can be killed at any of them: that call and all later ones raise `Killed`, a write after having written a part.
`fdatasync` and `fsync` reach no disk; they note what is durable from now on: of a file its bytes, of a directory its
entries (a name and the file behind it, nothing deeper). `lose_power` then rebuilds `root`. Of what was written to a
file since its last sync nothing is left, or all, or a part torn at any byte, with zeros behind it as file systems with
delayed allocation leave them. Changes of one directory's entries survive up to any one of them, in their order, as
journaling file systems have it, but deletions are durable at once. Files and directories do so independently of each
other.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Inode = tuple[int, int]


class Killed(BaseException):
    """The process ends here; nothing may catch it."""


class SimulatedDisk:
    """The directory `root`; what stands in it at first is durable.

    Attributes:
        faulty: below this path writing fails halfway, and so does opening for writing; None: nothing fails.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faulty: Path | None = None
        self._content: dict[Inode, bytes] = {}
        self._entries: dict[Path, list[dict[str, Inode | None]]] = {}
        self._handles: dict[Inode, int] = {}
        self._open: dict[int, Path] = {}
        self._calls_left = -1
        self._dead = False
        self._real: dict[str, Callable[..., Any]] = {"open": os.open}
        self._note_all()

    def close(self) -> None:
        """Releases every descriptor."""
        for fd in [*self._handles.values(), *self._open]:
            os.close(fd)
        self._handles.clear()
        self._open.clear()

    @contextmanager
    def running(self, kill_at: int | None) -> Iterator[None]:
        """A process' life; it is killed at its call numbered `kill_at`, if it comes so far.

        Whatever it left open is closed at its end, as the kernel does it.
        """
        self._calls_left, self._dead, self.faulty = -1 if kill_at is None else kill_at, False, None
        self._real = {name: getattr(os, name) for name in ("open", "close", "write", "writev", "ftruncate")}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", self._opened)
            patch.setattr(os, "close", self._closed)
            patch.setattr(os, "write", self._write)
            patch.setattr(os, "writev", self._writev)
            patch.setattr(os, "ftruncate", self._ftruncate)
            patch.setattr(os, "fdatasync", self._sync)
            patch.setattr(os, "fsync", self._sync)
            for name in ("unlink", "replace", "mkdir"):
                patch.setattr(os, name, self._counted(getattr(os, name)))
            yield
        for fd in list(self._open):
            self._open.pop(fd)
            os.close(fd)

    def kill(self) -> None:
        """Ends the life at once."""
        self._dead = True
        raise Killed

    # System calls.

    def _call(self) -> bool:
        """Counts a call; returns whether the process is killed while it is made."""
        if self._dead:
            raise Killed
        self._calls_left -= 1
        return self._calls_left == 0

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - as the one it stands for
            ours = self.root in Path(path).parents
            if ours and self._call():
                self.kill()
            returned = real(path, *rest, **more)
            if ours and real.__name__ == "unlink":
                for entries in self._entries.get(Path(path).parent, []):
                    entries.pop(Path(path).name, None)
            elif ours:
                self._changed(Path(path).parent)
            return returned

        return call

    def _opened(self, path: Any, flags: int, *rest: Any, **more: Any) -> int:  # noqa: ANN401 - as os.open
        ours = isinstance(path, str | Path) and (Path(path) == self.root or self.root in Path(path).parents)
        if ours and flags & os.O_CREAT and self._call():
            self.kill()
        if ours and flags & (os.O_WRONLY | os.O_RDWR) and self._fails(Path(path)):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        fd: int = self._real["open"](path, flags, *rest, **more)
        if ours:
            self._open[fd] = Path(path)
            if flags & os.O_CREAT:
                self._changed(Path(path).parent)
        return fd

    def _closed(self, fd: int) -> None:
        self._open.pop(fd, None)
        self._real["close"](fd)

    def _fails(self, path: Path) -> bool:
        return self.faulty is not None and self.faulty in path.parents

    def _write(self, fd: int, data: bytes) -> int:
        written: int = self._written(fd, "write", data, data)
        return written

    def _writev(self, fd: int, buffers: Sequence[bytes]) -> int:
        written: int = self._written(fd, "writev", buffers, b"".join(buffers))
        return written

    def _written(self, fd: int, name: str, argument: object, data: bytes) -> Any:  # noqa: ANN401 - a count
        if fd in self._open:
            killed = self._call()
            if killed or self._fails(self._open[fd]):
                self._real["write"](fd, data[: len(data) // 2])
                if killed:
                    self.kill()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._real[name](fd, argument)

    def _ftruncate(self, fd: int, length: int) -> None:
        if fd in self._open and self._call():
            self.kill()
        self._real["ftruncate"](fd, length)

    def _sync(self, fd: int) -> None:
        if self._call():
            self.kill()
        path = self._open[fd]
        if path.is_dir():
            self._entries[path] = [self._listed(path)]
        else:
            inode = self._inode(path, fd)
            self._content[inode] = self._read(inode)

    # What is there.

    def _inode(self, path: Path, fd: int | None = None) -> Inode:
        """The file's identity; a descriptor of ours keeps it, and its number, alive."""
        status = path.stat() if fd is None else os.fstat(fd)
        inode = (status.st_dev, status.st_ino)
        if inode not in self._handles:
            real = self._real["open"]
            self._handles[inode] = real(path if fd is None else f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        return inode

    def _read(self, inode: Inode) -> bytes:
        fd = self._handles[inode]
        return os.pread(fd, os.fstat(fd).st_size, 0)

    def _changed(self, directory: Path) -> None:
        """Notes what an entry of a directory has become."""
        self._entries.setdefault(directory, [{}]).append(self._listed(directory))

    def _listed(self, directory: Path) -> dict[str, Inode | None]:
        """Entries of a directory; None for a directory in it."""
        return {path.name: None if path.is_dir() else self._inode(path) for path in directory.iterdir()}

    # Power failure.

    def lose_power(self, source: random.Random) -> None:
        """Leaves in `root` what may be there after a power failure; all of that is durable."""
        survivors: dict[Path, bytes] = {}
        directories: list[Path] = []
        self._survive(self.root, source, directories, survivors)
        self.close()
        self._content.clear()
        self._entries.clear()
        shutil.rmtree(self.root)
        for directory in directories:
            directory.mkdir()
        for path, content in survivors.items():
            path.write_bytes(content)
        self._note_all()

    def _note_all(self) -> None:
        """Everything that is there is durable."""
        for path in (self.root, *self.root.rglob("*")):
            if path.is_dir():
                self._entries[path] = [self._listed(path)]
            else:
                inode = self._inode(path)
                self._content[inode] = self._read(inode)

    def _survive(
        self, directory: Path, source: random.Random, directories: list[Path], survivors: dict[Path, bytes]
    ) -> None:
        directories.append(directory)
        entries = source.choice(self._entries.get(directory, [{}]))
        for name, inode in sorted(entries.items()):
            if inode is None:
                self._survive(directory / name, source, directories, survivors)
            else:
                survivors[directory / name] = self._remains(inode, source)

    def _remains(self, inode: Inode, source: random.Random) -> bytes:
        """What is left of a file's bytes."""
        synced, now = self._content.get(inode, b""), self._read(inode)
        if synced == now:
            return now
        same = len(os.path.commonprefix([synced, now]))  # noqa: RUF071 - bytes, no paths
        at = source.choice([same, len(now), source.randint(same, len(now))])
        torn = now[:at] + synced[at:]
        return torn + bytes(len(now) - len(torn)) if source.randint(0, 3) == 0 else torn
