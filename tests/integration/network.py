"""Networks: network namespaces of the tests' own, without a name and with nothing to clean up.

Owns descriptors: a namespace lives as long as one of them, or a process in it, does. Knows nothing of machines. Each
has a loopback of its own, so that a port in one is not a port in another, and no way out. `Lan` is a switch that joins
several, with an address for each; `Relay` lets one of this machine's own ports be reached inside.

A thread that has entered a namespace makes its sockets there, and they stay there whoever uses them: `call` does that
for one function.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class Network:
    """A network namespace; `close` gives it up."""

    def __init__(self) -> None:
        self.fd = _in_thread(_new_namespace)
        self.run("ip", "link", "set", "lo", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> str:
        """A path that stands for the namespace while this process holds it."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @property
    def entering(self) -> tuple[str, ...]:
        """What to put before a command so that it runs in the namespace."""
        return ("nsenter", f"--net={self.path}")

    def run(self, *command: str) -> str:
        """Runs a command of this machine in the namespace and returns what it prints; its message is in the error."""
        done = subprocess.run(
            [*self.entering, *command], capture_output=True, text=True, check=False, env={**os.environ, "PATH": _PATH}
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
        return done.stdout

    def call(self, function: Callable[[], T]) -> T:
        """Calls `function` in a thread that is in the namespace: what sockets it makes belong there."""

        def entered() -> T:
            self.enter()
            return function()

        return _in_thread(entered)

    def enter(self) -> None:
        """Brings the calling thread into the namespace, for good."""
        _checked(_LIBC.setns(self.fd, _CLONE_NEWNET))

    def close(self) -> None:
        """Gives it up; what still runs in it keeps it."""
        os.close(self.fd)


class Lan:
    """A switch, itself in a namespace of its own, with machines plugged in: each has one address and reaches all."""

    def __init__(self) -> None:
        self.network = Network()
        self._ports = itertools.count()
        self.network.run("ip", "link", "add", "switch", "type", "bridge")
        self.network.run("ip", "link", "set", "switch", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.network.close()

    def join(self, network: Network, address: str) -> None:
        """Plugs `network` in with `address`, e.g. `10.0.0.2/24`."""
        port = f"port{next(self._ports)}"
        self.network.run("ip", "link", "add", port, "type", "veth", "peer", "name", "lan0", "netns", network.path)
        self.network.run("ip", "link", "set", port, "master", "switch", "up")
        network.run("ip", "address", "add", address, "dev", "lan0")
        network.run("ip", "link", "set", "lan0", "up")


class Relay:
    """Takes connections at `127.0.0.1:port` inside a network, and hands them on to the same place outside of it.

    For what runs on this machine's own loopback, such as Kafka in Docker, and tells its clients that address.
    """

    def __init__(self, network: Network, port: int) -> None:
        self._port = port
        self._listener = network.call(lambda: socket.create_server(("127.0.0.1", port)))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every connection and takes no further one."""
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                inside, _ = self._listener.accept()
            except OSError:
                return
            try:
                outside = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                inside.close()  # as refused as it can be
                continue
            self._open += [inside, outside]
            for source, sink in ((inside, outside), (outside, inside)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _in_thread(function: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function).result()


def _new_namespace() -> int:
    _checked(_LIBC.unshare(_CLONE_NEWNET))
    return os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_LIBC = ctypes.CDLL(None, use_errno=True)
