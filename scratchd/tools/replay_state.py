r"""The state of a replay, in a file: what was sent to each target, so that a replay that was killed can go on.

A request is *begun* before its first byte leaves and *done* when its answer came or never will. Both are stores to a
mapped file, which cost nothing and are the kernel's as soon as they are made: a SIGKILL at any moment leaves a file
that is true (a power failure need not). A target takes requests in the log's order, so its state is the number of the
last line that was begun and the few that were not done by then. Of those nobody knows whether they were taken: they are
*in flight*, and are told, and sent again only if asked.

| bytes | what |
|---|---|
| to the first `\n` | `Head` as a JSON object, padded with spaces to a multiple of 4096 |
| 8 for each slot | the number of a line that is in flight, 0 for none; little-endian |
| 8 for each target | the number of the last line that was begun |

A target's slots stand together, `Head.slots` of them, and its last line behind them. The slot is written first: what
was killed in between was not begun, and is taken for it. The file is made under another name and renamed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

_PAGE_BYTES = 4096
_WORD_BYTES = 8


class StateError(Exception):
    """The state cannot be used: of another replay, of a running one, unreadable, or its disk fails."""


class Head(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The first line.

    Attributes:
        scratchd_replay: the format's version.
        inputs: whose lines are counted.
        targets: their URLs.
        slots: how many each target has.
        first_line: a digest of the log's first line, so that a rotated log is seen; empty before it was read.
        complete: everything was sent.
    """

    scratchd_replay: int = 1
    inputs: list[str]
    targets: list[str]
    slots: list[int]
    first_line: str = ""
    complete: bool = False


class State:
    """An open state.

    Args:
        path: the file; None keeps nothing.
        inputs: names of what is replayed.
        targets: their URLs.
        connections: how many requests are in flight at most, to each target.
        resend: what was in flight is sent again, so it stays in flight until that is done.

    Attributes:
        begun: by target, the last line that an earlier run had begun.
        unknown: by target, what was in flight when that run ended.
        complete: whether an earlier run had sent everything.

    Raises:
        StateError: see there.
    """

    def __init__(
        self, path: Path | None, inputs: Sequence[str], targets: Sequence[str], connections: int, *, resend: bool
    ) -> None:
        self._path = path
        self._head = Head(inputs=list(inputs), targets=list(targets), slots=[])
        self._descriptor = -1
        self.begun = [0] * len(targets)
        self.unknown: list[list[int]] = [[] for _ in targets]
        if path is not None:
            self._load(path)
        self.complete = self._head.complete
        again = self.unknown if resend else [[] for _ in targets]
        self._words = [[*lines, *[0] * connections, begun] for lines, begun in zip(again, self.begun, strict=True)]
        self._head.slots = [len(words) - 1 for words in self._words]
        self._free = [[index for index, line in enumerate(words[:-1]) if not line] for words in self._words]
        self._slots = [{line: index for index, line in enumerate(lines)} for lines in again]
        self._map: memoryview | None = None
        self._write()

    def check_first(self, digest: str) -> None:
        """Compares the digest of the log's first line with that of the earlier run.

        Raises:
            StateError: it is another log.
        """
        if self._head.first_line not in {"", digest}:
            raise StateError(f"{self._path}: the log begins with another line than when this replay was begun")
        if not self._head.first_line:
            self._head.first_line = digest
            self._write()

    def begin(self, line: int, target: int) -> None:
        """A request is about to be sent."""
        slot = self._slots[target].get(line)
        if slot is None:
            slot = self._slots[target][line] = self._free[target].pop()
        self._set(target, slot, line)
        if line > self._words[target][-1]:
            self._set(target, len(self._words[target]) - 1, line)

    def done(self, line: int, target: int) -> None:
        """It was answered, or never will be."""
        slot = self._slots[target].pop(line)
        self._set(target, slot, 0)
        self._free[target].append(slot)

    def finish(self) -> None:
        """Everything was sent.

        Raises:
            StateError: it cannot be kept.
        """
        self._head.complete = True
        self._write()

    def close(self) -> None:
        """Closes the file."""
        self._map = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _set(self, target: int, index: int, line: int) -> None:
        self._words[target][index] = line
        if self._map is not None:
            self._map[sum(map(len, self._words[:target])) + index] = line

    def _write(self) -> None:
        """Writes the state anew and maps it; the lock is on the file that has the name."""
        if self._path is None:
            return
        new = self._path.with_name(self._path.name + ".new")
        head = msgspec.json.encode(self._head)
        head = head.ljust(-(-(len(head) + 1) // _PAGE_BYTES) * _PAGE_BYTES - 1) + b"\n"
        words = [line for words in self._words for line in words]
        try:
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            # Written, not truncated to its length: a full disk is to be seen now, not as a SIGBUS.
            os.write(descriptor, head + b"".join(line.to_bytes(_WORD_BYTES, "little") for line in words))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mapped = mmap.mmap(descriptor, len(head) + len(words) * _WORD_BYTES)
            new.rename(self._path)
        except (OSError, ValueError) as error:
            raise StateError(f"{self._path}: {error}") from error
        self.close()
        self._descriptor = descriptor
        self._map = memoryview(mapped)[len(head) :].cast("Q")

    def _load(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = path.read_bytes()
        except BlockingIOError as error:
            raise StateError(f"{path}: another replay uses it") from error
        except OSError as error:
            raise StateError(f"{path}: {error.strerror}") from error
        if not data:
            return  # new, or killed before anything was sent
        first, _, rest = data.partition(b"\n")
        try:
            head = msgspec.json.decode(first, type=Head)
        except msgspec.DecodeError as error:
            raise StateError(f"{path}: not the state of a replay: {error}") from error
        for name in ("inputs", "targets"):
            if getattr(head, name) != getattr(self._head, name):
                was, now = " ".join(getattr(head, name)), " ".join(getattr(self._head, name))
                raise StateError(f"{path}: is of a replay with the {name} {was}, not {now}")
        if len(rest) != sum(slots + 1 for slots in head.slots) * _WORD_BYTES:
            raise StateError(f"{path}: {len(rest)} bytes behind the first line, not what its slots need")
        words = iter(memoryview(rest).cast("Q"))
        for target, slots in enumerate(head.slots):
            in_flight = {next(words) for _ in range(slots)} - {0}
            self.unknown[target] = sorted(in_flight)
            self.begun[target] = max(next(words), *in_flight, 0)
        self._head = head
