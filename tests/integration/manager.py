"""Manager: what systemd hears from a service (sd_notify(3)), on a socket of the test's own.

Owns the socket; what is in the messages is the tests' business.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

from deadline import wait_for


class Manager:
    """Listens where `NOTIFY_SOCKET` points to.

    Attributes:
        environment: for the service.
        heard: every assignment so far, `READY=1` and the like, with its time by the monotonic clock, in order.
    """

    def __init__(self, place: Path, *, watchdog_s: float = 0) -> None:
        path = place / "notify"
        self.heard: list[tuple[float, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0)
        self.environment = {"NOTIFY_SOCKET": str(path)}
        if watchdog_s:
            self.environment["WATCHDOG_USEC"] = str(int(watchdog_s * 1_000_000))

    def close(self) -> None:
        """Hears nothing more."""
        self._socket.close()

    def listen(self) -> list[str]:
        """Every assignment so far."""
        while True:
            try:
                message = self._socket.recv(65536).decode()
            except BlockingIOError:
                return [assignment for _, assignment in self.heard]
            self.heard += [(time.monotonic(), assignment) for assignment in message.split("\n")]

    def wait_heard(self, prefix: str, timeout_s: float = 20, *, times: int = 1) -> str:
        """The latest assignment that begins so, once there are as many."""

        def found() -> list[str]:
            return [assignment for assignment in self.listen() if assignment.startswith(prefix)]

        wait_for(lambda: len(found()) >= times, timeout_s, f"{prefix} from the service; heard: {self.listen()[-20:]}")
        return found()[-1]
