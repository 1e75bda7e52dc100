"""Bodies: where a request's body ends. Pure; keeps nothing of it.

No answer depends on a body, but answering and closing while one is on its way would reset the connection under the
answer. So it is drained for a while, and all there is to know is when it is over.
"""

from __future__ import annotations

import re

MAX_DRAINED_BYTES = 65536
"""As much of a body is drained before the answer, chunk sizes included."""

_MAX_LINE_BYTES = 1024
"""Of a chunk's size with its extensions, or of a trailer field; a longer line is nothing that a client sends."""

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\n]*)?")


class Body:
    """Follows one body.

    Args:
        content_length: its length; 0 where it is chunked.
        chunked: whether it says its length in chunks.
    """

    def __init__(self, content_length: int, *, chunked: bool) -> None:
        self._left = content_length
        self._chunked = chunked
        self._in_trailer = False
        self._line = b""
        self._drained_bytes = 0

    def is_over(self, data: bytes) -> bool:
        """Takes more bytes; whether there is no point in waiting for others.

        That is so when the body is complete, when as much was drained as ever is, and when the framing of a chunked
        one is broken: nobody can tell then where it ends.
        """
        self._drained_bytes += len(data)
        if self._drained_bytes >= MAX_DRAINED_BYTES:
            return True
        if self._chunked:
            return self._is_last_chunk_over(data)
        self._skip(data, 0)
        return not self._left

    def _skip(self, data: bytes, at: int) -> int:
        """Passes by what is left of a length; the offset behind it."""
        count = min(self._left, len(data) - at)
        self._left -= count
        return at + count

    def _is_last_chunk_over(self, data: bytes) -> bool:
        at = self._skip(data, 0)
        while at < len(data):
            end = data.find(b"\n", at) + 1
            self._line += data[at : end or len(data)]
            if len(self._line) > _MAX_LINE_BYTES:
                return True
            if not end:
                return False
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n") or self._ends_with(line[:-2]):
                return True
            at = self._skip(data, end)
        return False

    def _ends_with(self, line: bytes) -> bool:
        """Whether the body ends with this line, rightly or not."""
        if self._in_trailer:
            return not line
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            return True
        self._left = int(size[1], 16)
        if self._left:
            self._left += 2  # the line end behind the data
        else:
            self._in_trailer = True
        return False
