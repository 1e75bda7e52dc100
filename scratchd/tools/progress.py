"""A progress bar on a terminal; nothing where the stream is none, so that logs of scripts stay clean."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TextIO

_WIDTH = 30
_EVERY_S = 0.1


class Progress:
    """Counts up to `total` of something, None where nobody knows; a context that leaves no trace on the terminal."""

    def __init__(self, what: str, total: int | None, stream: TextIO) -> None:
        self._what = what
        self._total = total
        self._stream = stream
        self._shown = stream.isatty()
        self._done = 0
        self._next_at = 0.0

    def __enter__(self) -> Self:
        self.add(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def add(self, count: int = 1) -> None:
        """Counts on; draws at most ten times a second."""
        self._done += count
        if not self._shown or time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + _EVERY_S
        if self._total is None:
            self._stream.write(f"\r\x1b[K{self._what} {self._done:,}")
            self._stream.flush()
            return
        share = min(1.0, self._done / max(self._total, 1))
        bar = "#" * int(share * _WIDTH)
        self._stream.write(f"\r\x1b[K{self._what} [{bar:<{_WIDTH}}] {share:4.0%} {self._done:,}")
        self._stream.flush()
