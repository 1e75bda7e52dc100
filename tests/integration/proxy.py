"""Proxy: the real HAProxy, with the edge's own configuration, in front of what a test puts behind it.

Owns the rendering of the role's template, the process, its runtime socket and its log; knows nothing of rollouts.
HAProxy is this machine's (Debian 12: 2.6), or that of the Debian 13 tree (3.0).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daemon import SOURCE, free_port
from deadline import wait_for
from debian13 import entering
from render import render
from wire import Connection


class Proxy:
    """One HAProxy below `directory`.

    Args:
        directory: everything it has goes there.
        variables: the role's; those that name places on this machine are set here.
        tree: of Debian 13, None for this machine's HAProxy.

    Attributes:
        address: plain HTTP.
        tls_address: HTTPS; None where the test gave no certificate.
        share_map: the map's file.
        socket: the runtime socket.
        master_socket: the master's.
        log: lines as HAProxy sent them, without syslog's head.
    """

    def __init__(
        self,
        directory: Path,
        variables: Mapping[str, Any],
        *,
        tree: Path | None = None,
        certificate: Path | None = None,
    ) -> None:
        self.directory = directory
        self.address = f"127.0.0.1:{free_port()}"
        self.metrics_address = f"127.0.0.1:{free_port()}"
        self.tls_address = f"127.0.0.1:{free_port()}" if certificate else None
        self.share_map = directory / "share.map"
        self.socket = directory / "s"
        self.master_socket = directory / "m"
        self.log: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._log_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._log_socket.bind(("127.0.0.1", 0))
        self._log_port = self._log_socket.getsockname()[1]
        binds = [self.address]
        if certificate:
            binds.append(f"{self.tls_address} ssl crt {certificate} alpn h2,http/1.1")
        self.variables: dict[str, Any] = {
            "edge_binds": binds,
            "edge_metrics_bind": self.metrics_address,
            "edge_stats_socket": str(self.socket),
            "edge_share_map": str(self.share_map),
            "edge_list_directory": str(directory),
            "edge_log": f"127.0.0.1:{self._log_port} len 16384 local0",
            "edge_shadow_script": str(SOURCE / "haproxy" / "shadow.lua"),
            "edge_user": "",
            "edge_max_connections": 2000,
            "edge_client_requests_per_10s": 0,
            **variables,
        }
        inside = entering(tree, read_only=(SOURCE,), writable=(directory,)) if tree else ()
        self._command = (*inside, "/usr/sbin/haproxy")
        self._file = directory / "haproxy.cfg"
        threading.Thread(target=self._collect, daemon=True).start()

    def write(self) -> None:
        """Writes configuration and lists as the role would, and the map where there is none."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._file.write_text(render(self.variables))
        for name in ("headquarters", "testers"):
            networks = self.variables.get(f"edge_{name}", [])
            (self.directory / f"{name}.lst").write_text("".join(f"{network}\n" for network in networks))
        if not self.share_map.exists():
            self.share_map.write_text("all 0\nall/headquarters 0\nkill 0\nshadow 0\n")

    def check(self) -> str:
        """What `haproxy -c` has to say about it; fails where it does not like it."""
        self.write()
        done = subprocess.run(
            [*self._command, "-c", "-f", str(self._file)],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self) -> None:
        """Starts it as Debian's unit does, with a master and a worker; returns when its socket answers."""
        self.write()
        with (self.directory / "haproxy.out").open("ab") as out:
            self.process = subprocess.Popen(
                [*self._command, "-W", "-S", str(self.master_socket), "-f", str(self._file)],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        wait_for(self._answers, 30, "HAProxy answers on its socket")
        self._wait_settled()

    def reload(self) -> None:
        """As `systemctl reload haproxy`; returns when a new worker answers."""
        before = self.worker()
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: self._answers() and self.worker() != before, 30, "a new worker")
        self._wait_settled()

    def stop(self) -> None:
        """Ends it at once, with what it was doing."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def close(self) -> None:
        """Releases everything."""
        self.stop()
        self._log_socket.close()

    def output(self) -> str:
        """What it wrote, not by syslog."""
        path = self.directory / "haproxy.out"
        return path.read_text() if path.exists() else ""

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"HAProxy ended with {self.process.returncode}\n{self.output()}"
        try:
            return bool(self.ask("show info"))
        except OSError:
            return False

    def _wait_settled(self) -> None:
        """A master that is still about to begin would not hear of the next reload."""
        worker = self.worker().partition(":")[2].strip()
        wait_for(lambda: worker in self._processes(), 30, "a master that knows its worker")

    def _processes(self) -> str:
        with contextlib.suppress(OSError):
            return self.ask("show proc", self.master_socket)
        return ""

    def ask(self, command: str, path: Path | None = None) -> str:
        """One command on the runtime socket, or on another one."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(path or self.socket))
            connection.sendall(command.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)  # the master waits for more commands otherwise
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def worker(self) -> str:
        """The worker's process id."""
        return next(line for line in self.ask("show info").splitlines() if line.startswith("Pid:"))

    def set(self, **entries: int) -> None:
        """Sets entries of the map by hand, in the running process only."""
        for key, value in entries.items():
            name = key.replace("__", "/")
            verb = "set" if f" {name} " in self.ask(f"show map {self.share_map}") else "add"
            self.ask(f"{verb} map {self.share_map} {name} {value}")

    def wait_up(self, *servers: str, state: str = "UP") -> None:
        """Waits until HAProxy sees each `BACKEND/SERVER` in that state."""

        def seen() -> bool:
            rows = [line.split(",") for line in self.ask("show stat").splitlines() if line]
            states = {f"{row[0]}/{row[1]}": row[17] for row in rows}
            return all(states[server].startswith(state) for server in servers)

        wait_for(seen, 10, f"{servers} {state}")

    def _collect(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.log.append(self._log_socket.recv(65536).decode(errors="replace").partition("]: ")[2].rstrip("\n"))

    # What a visitor sees.

    def origin(self, target: str = "/track?a=1", host: str = "gr.test", *fields: str, source: str = "127.0.0.1") -> str:
        """Who answered one request that came from `source`."""
        with Connection(self.address, source=source) as connection:
            answer = connection.get(target, host, *fields)
            return answer.field("x-origin") or f"haproxy {answer.status}"

    def visit(self, cookies: Sequence[str], host: str = "gr.test", target: str = "/track?a=1") -> list[str]:
        """Who answered each of many visitors, who come one after another on a few connections, by their cookies."""
        answers: list[str] = []
        with Connection(self.address) as connection:
            for begin in range(0, len(cookies), 200):
                some = cookies[begin : begin + 200]
                connection.send(
                    b"".join(
                        f"GET {target} HTTP/1.1\r\nHost: {host}\r\nCookie: visitor={cookie}\r\n\r\n".encode()
                        for cookie in some
                    )
                )
                answers += [connection.response().field("x-origin") or "haproxy" for _ in some]
        return answers


def sides(answers: Sequence[str]) -> Counter[str]:
    """How many were answered by whom."""
    return Counter(answers)


def certificate(directory: Path, host: str) -> Path:
    """A self-signed certificate and its key in one file."""
    both = directory / "site.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout key.pem -out cert.pem"
    )
    names = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    subprocess.run([*command.split(), *names], cwd=directory, check=True, capture_output=True, env={**os.environ})
    both.write_bytes((directory / "cert.pem").read_bytes() + (directory / "key.pem").read_bytes())
    return both
