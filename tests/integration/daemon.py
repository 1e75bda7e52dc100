"""Daemon: the real scratchd as a process, with its ports, configuration, files and log.

Owns everything that one instance has on this machine, below one directory; knows nothing of Kafka but the address that
a test puts into its configuration. A test gets one by the fixture `start_daemon` of conftest.py:

    def test_something(start_daemon):
        daemon = start_daemon(flavors=[{"name": "gr", "hosts": ["gr.test"], "time_zone": "Europe/Athens"}])
        assert daemon.get("/track?a=1", host="gr.test").status == 200
        daemon.wait_drained()
        assert daemon.lines("gr") == [b'{"a":"1"}']

Sections that are not given are the daemon's defaults, but for the addresses (free ports on loopback), the journal's
directory, the files' path (`directory/log/{flavor}/{date}.log`) and, when no flavor is given, one named `any` for
any host. `config` is a plain dict that may be changed before `restart`. The fixture stops the daemon at the test's end,
prints its log (shown by pytest when the test failed) and asserts that no traceback is in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from deadline import wait_for
from wire import Connection, Response

T = TypeVar("T")

SOURCE = Path(__file__).parents[2]
"""The work tree whose scratchd is run."""

READY_TIMEOUT_S = 20


class Daemon:
    """One instance of scratchd.

    Args:
        directory: everything the instance makes goes below it.
        sections: the configuration's sections as INTERFACE.md names them, `flavors` among them.
        python: the command that runs Python, e.g. one inside another root directory.
        environment: variables in addition to this process' own.
        passed: name to address of sockets that are made here and handed over as systemd would; they outlive the
            process, so connections made while it is down wait in their backlog.

    Attributes:
        config: what `start` writes to `config_path`.
        process: the running (or last) process.
        address: where `get` and `connect` go: the first of `http.listen`, or the passed socket `track`.
        admin_address: likewise for `admin`, None where there is none.
    """

    def __init__(
        self,
        directory: Path,
        sections: Mapping[str, Any],
        *,
        python: Sequence[str] = (sys.executable,),
        environment: Mapping[str, str] | None = None,
        passed: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.config_path = directory / "config.json"
        self.log_path = directory / "scratchd.log"
        self.config: dict[str, Any] = {**sections}
        defaults: dict[str, dict[str, Any]] = {
            "http": {"listen": [f"127.0.0.1:{free_port()}"], "admin_listen": [f"127.0.0.1:{free_port()}"]},
            "journal": {"directory": str(directory / "journal")},
            "file": {"path": str(directory / "log" / "{flavor}" / "{date}.log")},
        }
        for section, values in defaults.items():
            self.config[section] = {**values, **sections.get(section, {})}
        self.config.setdefault("flavors", [{"name": "any", "hosts": ["*"]}])
        self.python = tuple(python)
        self.environment = dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self._passed = {name: _listening(address) for name, address in (passed or {}).items()}
        http = self.config["http"]
        self.address: str = (passed or {}).get("track") or http["listen"][0]
        self.admin_address: str | None = (passed or {}).get("admin") or next(iter(http["admin_listen"]), None)

    # The process.

    def start(self, *, wait_ready: bool = True) -> None:
        """Writes the configuration and starts the process; waits for `/health/ready` unless told not to.

        Raises:
            AssertionError: it ended or was not ready in time; its log is in the message.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self.write_config()
        command = [*self.python, "-m", "scratchd", "serve", "--config", str(self.config_path)]
        if self._passed:
            descriptors = [f"{name}={passed.fileno()}" for name, passed in self._passed.items()]
            command = [sys.executable, str(Path(__file__).with_name("listen_fds.py")), *descriptors, "--", *command]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=SOURCE,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(SOURCE), **self.environment},
                pass_fds=[passed.fileno() for passed in self._passed.values()],
            )
        if wait_ready:
            self.wait_for(self.is_ready, READY_TIMEOUT_S, "ready")

    def write_config(self) -> None:
        """Puts `config` where the process reads it, at its start or at a reload."""
        self.config_path.write_text(json.dumps(self.config, indent=2))

    def sighup(self) -> None:
        """Asks the process to read its configuration again and does not wait for it."""
        self._started().send_signal(signal.SIGHUP)

    def reload(self, *, works: bool = True) -> None:
        """Has the process put `config` into effect, or, where it cannot, say so."""
        told = "service: reloaded" if works else ", nothing has changed error="
        before = self.log().count(told)
        self.write_config()
        self.sighup()
        self.wait_for(lambda: self.log().count(told) > before, what=told)

    @property
    def pid(self) -> int:
        """The process' id."""
        return self._started().pid

    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def is_ready(self) -> bool:
        """Whether `/health/ready` answers 200; with no admin listener, whether the track listener takes connections."""
        try:
            if self.admin_address is not None:
                return self.admin("/health/ready").status == 200
            self.connect().close()
        except (OSError, EOFError):
            return False
        return True

    def sigterm(self) -> None:
        """Asks the process to stop and does not wait for it."""
        self._started().send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = 20) -> int:
        """Waits for the process' end and returns its exit status (negative: killed by that signal)."""
        return self._started().wait(timeout_s)

    def stop(self) -> None:
        """Stops the process as an operator would, and asserts that it ended with 0."""
        self.sigterm()
        status = self.wait()
        assert status == 0, f"exit status {status} after SIGTERM\n{self.log()}"

    def kill(self) -> None:
        """Ends the process at once (SIGKILL) and waits until it is gone."""
        self._started().kill()
        self.wait()

    def restart(self) -> None:
        """Stops the process (unless it has ended) and starts it with `config` as it now is."""
        if self.is_running():
            self.stop()
        self.start()

    def close(self) -> None:
        """Releases everything, kills what still runs. The fixture calls it."""
        if self.is_running():
            self.kill()
        for passed in self._passed.values():
            passed.close()

    def _started(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "the daemon was not started"
        return self.process

    # What a client sees.

    def connect(self, address: str | None = None) -> Connection:
        """A new connection to the track listener, or to another of its addresses."""
        return Connection(address or self.address)

    def get(self, target: str, host: str = "any.test", *fields: str, method: str = "GET") -> Response:
        """One request on a connection of its own."""
        with self.connect() as connection:
            return connection.get(target, host, *fields, method=method)

    # What an operator sees.

    def admin(self, path: str, host: str = "localhost") -> Response:
        """One request to the admin listener."""
        assert self.admin_address is not None, "the daemon has no admin listener"
        with Connection(self.admin_address) as connection:
            return connection.get(path, host, "Connection: close")

    def stats(self) -> dict[str, Any]:
        """The document of `/stats`."""
        answer = self.admin("/stats")
        assert answer.status == 200, answer
        document: dict[str, Any] = json.loads(answer.body)
        return document

    def log(self) -> str:
        """What the process has logged so far, over all its starts."""
        return self.log_path.read_text(errors="backslashreplace") if self.log_path.exists() else ""

    def files(self, flavor: str) -> dict[str, bytes]:
        """The flavor's log files, day (`2026-12-31`) to content, oldest first."""
        return {path.stem: path.read_bytes() for path in self.file_paths(flavor)}

    def file_paths(self, flavor: str) -> list[Path]:
        """The flavor's log files, oldest first."""
        return sorted((self.directory / "log" / flavor).glob("*.log"))

    def lines(self, flavor: str) -> list[bytes]:
        """The lines of all the flavor's files, oldest day first, without newlines; a torn last one is an error."""
        content = b"".join(self.files(flavor).values())
        assert not content or content.endswith(b"\n"), f"torn last line: {content[-200:]!r}"
        return content.split(b"\n")[:-1]

    # Waiting.

    def wait_for(self, condition: Callable[[], T], timeout_s: float = 30, what: str = "") -> T:
        """Like `deadline.wait_for`, but fails at once when the process ends meanwhile; the log is in the message."""

        def checked() -> T:
            assert self.is_running(), f"the daemon ended with {self.process and self.process.returncode}"
            return condition()

        try:
            return wait_for(checked, timeout_s, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- log of the daemon ---\n{self.log()[-8000:]}") from None

    def wait_drained(self, timeout_s: float = 30) -> None:
        """Waits until no enabled backend has a pending line, and asserts that the ledger closes."""

        def drained() -> bool:
            return all(backend["pending_lines"] == 0 for backend in self.stats()["backends"].values())

        self.wait_for(drained, timeout_s, "every backend drained")
        assert self.stats()["ledger"]["residual_lines"] == 0, self.stats()


@contextlib.contextmanager
def daemons(place: Path) -> Iterator[Callable[..., Daemon]]:
    """Gives `start(flavors=[…], kafka={…}, …)`, options as `Daemon`'s, `wait_ready=False`, `directory=`.

    Several may be started; each gets a directory of its own below `place`. On leaving, each is stopped (killed where it
    does not stop within its deadline: that is an error), its log printed and searched for tracebacks.
    """
    started: list[Daemon] = []
    options = ("python", "environment", "passed")

    def start(*, wait_ready: bool = True, directory: Path | None = None, **sections: Any) -> Daemon:  # noqa: ANN401
        given = {option: sections.pop(option) for option in options if option in sections}
        daemon = Daemon(directory or place / f"daemon{len(started)}", sections, **given)
        started.append(daemon)
        daemon.start(wait_ready=wait_ready)
        return daemon

    yield start
    statuses = []
    for daemon in started:
        try:
            if daemon.is_running():
                daemon.sigterm()
                statuses.append(daemon.wait())
        finally:
            daemon.close()
            print(f"--- log of the daemon in {daemon.directory} ---\n{daemon.log()}")  # noqa: T201 - pytest shows it
    assert not [daemon.log() for daemon in started if "Traceback" in daemon.log()], "a traceback in a daemon's log"
    assert not any(statuses), f"exit statuses after SIGTERM: {statuses}"


def free_port() -> int:
    """A loopback port that nobody listens on.

    Taken from below the range in which the kernel picks ports for outgoing connections, so that none of those takes it
    before the daemon does; at random, so that two test runs on one machine seldom meet.
    """
    source = random.SystemRandom()
    while True:
        port = source.randrange(10000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _listening(address: str) -> socket.socket:
    """A listening socket at `address` as systemd would pass it: blocking, with its large backlog."""
    if address.startswith("unix:"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address.removeprefix("unix:"))
        listener.listen(4096)
        return listener
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=4096)
