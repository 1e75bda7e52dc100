"""The map as a file: what HAProxy reads at its start and at a reload.

Owns the file's format and that it is whole at every moment: written beside, synced, renamed, and the directory
synced. A line is a key and a number; lines that begin with `#` and keys of others stay as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

HEADING = "# Written by scratchd-rollout: TENANT or all: the share, 0 to 10000. See haproxy.cfg.\n"

INITIAL = {"all": 0, "all/headquarters": 0, "kill": 0, "shadow": 0}
"""What HAProxy needs before the first rollout: nobody at scratchd."""


class ShareMapError(Exception):
    """The map's file cannot be read, written or understood: HAProxy's next start would not know the share."""


def read(path: Path) -> dict[str, int]:
    """All entries.

    Raises:
        ShareMapError: it cannot be read, or an entry is no number.
    """
    entries = {}
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ShareMapError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, _, value = line.strip().partition(" ")
        if not value.strip().isdecimal():
            raise ShareMapError(f"{path}:{number}: {key}: expected a number, got {value.strip()!r}")
        entries[key] = int(value)
    return entries


def write(path: Path, entries: Mapping[str, int], deleted: Iterable[str] = ()) -> None:
    """Sets `entries` and removes `deleted`; everything else stays. Durable when it returns, and read back.

    Raises:
        ShareMapError: the file is as it was, or cannot be read any more.
    """
    present = read(path) if path.exists() else dict(INITIAL)
    wanted = {**present, **entries}
    for key in deleted:
        wanted.pop(key, None)
    if path.exists() and wanted == present:
        return
    content = HEADING + "".join(f"{key} {value}\n" for key, value in sorted(wanted.items()))
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        replace_durably(path, content.encode("ascii"), mode=0o644)
    except OSError as error:
        raise ShareMapError(f"{path}: {error.strerror or error}") from error
    if read(path) != wanted:
        raise ShareMapError(f"{path}: reads otherwise than it was written")


def replace_durably(path: Path, content: bytes, mode: int) -> None:
    """Puts `content` in the place of `path`: after a power loss it is the old one or the new one, whole.

    Raises:
        OSError: the old one is still there.
    """
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
