"""Frames: which of HTTP/2's frames are under way, so that a head that does not come to its end is noticed.

Knows RFC 9113's frame layout (section 4.1) and nothing of what is in a frame. Hypercorn knows only how long a
connection has been idle, and a head that comes byte by byte leaves it idle for as long as that may be.
"""

from __future__ import annotations

HEAD_BYTES = 9
"""Of a frame: length (3), type, flags, stream (4)."""

_DATA, _HEADERS, _CONTINUATION = 0x0, 0x1, 0x9
_END_HEADERS = 0x4


class Frames:
    """What a peer has begun to send, byte by byte.

    Attributes:
        since_s: when a frame, or a list of header fields over several, was begun that is not complete; None where there
            is no such. Of a body, which is waited for otherwise, only the frame's own head counts.
    """

    def __init__(self) -> None:
        self.since_s: float | None = None
        self._head = b""
        self._left = 0
        self._fields_go_on = False

    def take(self, data: bytes, now_s: float) -> None:
        """Notes what came, at `now_s`."""
        at = 0
        while at < len(data):
            if self._left:
                passed = min(self._left, len(data) - at)
                self._left -= passed
                at += passed
            else:
                passed = min(HEAD_BYTES - len(self._head), len(data) - at)
                self._head += data[at : at + passed]
                at += passed
                if len(self._head) < HEAD_BYTES:
                    break
                self._left = int.from_bytes(self._head[:3])
            if not self._left:
                self._end()
        if not (self._fields_go_on or self._head) or (self._left and self._head[3] == _DATA):
            self.since_s = None
        elif self.since_s is None:
            self.since_s = now_s

    def _end(self) -> None:
        kind, flags = self._head[3], self._head[4]
        if kind in (_HEADERS, _CONTINUATION):
            self._fields_go_on = not flags & _END_HEADERS
        self._head = b""
        if not self._fields_go_on:
            self.since_s = None
