"""A cursor: where one backend stands in one flavor's journal, saved atomically with what its replay needs.

Knows files and numbers, no backend: `replay` is the backend's own, opaque here.

Two files, `{backend}.cursor.a` and `.b`, are written in turn and in place: on a full disk that needs no new block, so
the cursor moves on and the segments that it has passed can leave, which is what makes space. Each holds a line: the
CRC-32 of the rest as eight hexadecimal digits, a space, a JSON object, and spaces up to a multiple of 4096 bytes. The
valid one with the higher `serial` counts.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import msgspec

from scratchd.journal.gaps import Gap
from scratchd.journal.storage import sync_directory, write_whole

_TURNS = ("a", "b")
_BLOCK_BYTES = 4096


class CursorError(Exception):
    """A cursor's file is unreadable: leave the backend stopped, the journal keeps its lines."""


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """What a cursor's file holds.

    Attributes:
        serial: counts the savings.
        next_sequence: the next unread one; everything below is persisted, a gap or set aside.
        persisted_lines: over the journal's lifetime.
        set_aside_lines: over the journal's lifetime.
        gaps: in order of their sequences.
        replay: what the backend needs to go on here, a JSON object.
        enabled: False once a start found the backend switched off.
        disabled_until: what is gone below it left while the backend was switched off, or before it was first on.
        unfinished: whether the backend has something left to do when nothing is pending.
        time_ms: arrival of the last line below `next_sequence`, None where it is not known.
    """

    serial: int = 0
    next_sequence: int = 0
    persisted_lines: int = 0
    set_aside_lines: int = 0
    gaps: tuple[Gap, ...] = ()
    replay: dict[str, Any] = {}
    enabled: bool = True
    disabled_until: int = 0
    unfinished: bool = False
    time_ms: int | None = None

    @property
    def gap_lines(self) -> int:
        """Lines in gaps."""
        return sum(gap.lines for gap in self.gaps)

    def save(self, directory: Path, backend: str) -> None:
        """Writes the cursor durably; `serial` must be one more than that of the last one saved.

        Raises:
            OSError: the disk fails; the earlier cursor counts then.
        """
        body = msgspec.json.encode(self)
        body = body.ljust(-(-(len(body) + 10) // _BLOCK_BYTES) * _BLOCK_BYTES - 10) + b"\n"
        path = _path(directory, backend, _TURNS[self.serial % 2])
        created = not path.exists()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            write_whole(fd, b"%08x %s" % (zlib.crc32(body), body))
            os.fdatasync(fd)
        finally:
            os.close(fd)
        if created:
            sync_directory(directory)


def load(directory: Path, backend: str) -> Cursor | None:
    """The backend's saved cursor, None where it has none.

    Raises:
        CursorError: its files are there and none is readable.
    """
    # An empty file was made and never written (the disk was full, the power failed): it held no cursor yet.
    paths = [_path(directory, backend, turn) for turn in _TURNS]
    written = [path for path in paths if path.exists() and path.stat().st_size]
    bodies = [body for path in written if (body := _body(path)) is not None]
    saved = [cursor for body in bodies if (cursor := _cursor(body)) is not None]
    if saved:
        return max(saved, key=lambda cursor: cursor.serial)
    # One alone that is torn was the very first: the power failed before anything could count on it.
    if bodies or len(written) > 1:
        raise CursorError(
            f"{paths[0]}: no readable cursor there or beside it; restore it, or move both away: the {backend} backend "
            "then begins again at the oldest segment"
        )
    return None


def backends(directory: Path) -> list[str]:
    """Names of the backends that have a cursor in a flavor's directory."""
    return sorted({path.name.partition(".")[0] for path in directory.glob("*.cursor.[ab]")})


def _path(directory: Path, backend: str, turn: str) -> Path:
    return directory / f"{backend}.cursor.{turn}"


def _body(path: Path) -> bytes | None:
    """What a file holds behind its checksum, None where it was torn."""
    line, newline, _ = path.read_bytes().partition(b"\n")
    checksum, _, body = (line + newline).partition(b" ")
    return body if checksum == b"%08x" % zlib.crc32(body) else None


def _cursor(body: bytes) -> Cursor | None:
    try:
        return msgspec.json.decode(body, type=Cursor)
    except msgspec.MsgspecError:
        return None
