"""HAProxy's runtime socket: maps, counters and servers of the running process.

Owns the socket's protocol; knows nothing of rollouts. A command is one connection: what is asked is asked of the worker
that listens now, also after a reload. Workers that a reload has left behind go on answering the connections that they
have, for as long as `hard-stop-after` allows, each with a map of its own: what is set is told to them too, through
the master.
"""

from __future__ import annotations

import contextlib
import csv
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from scratchd_rollout.counts import SIDE_COUNTERS, SIDES, Source

TIMEOUT_S = 2.0


class RuntimeSocketError(Exception):
    """HAProxy did not answer, or not what is expected: it may be down; its next start reads the map's file."""


class Runtime:
    """The socket at `path`, and the master's at `master` (None, or not there: a HAProxy without one)."""

    def __init__(self, path: Path, master: Path | None = None) -> None:
        self._path = path
        self._master = master

    def ask(self, command: str, path: Path | None = None) -> str:
        """One command's answer, without the empty line at its end.

        Raises:
            RuntimeSocketError: nobody answers.
        """
        path = path or self._path
        chunks = []
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(TIMEOUT_S)
                connection.connect(str(path))
                connection.sendall(command.encode() + b"\n")
                connection.shutdown(socket.SHUT_WR)  # the master waits for more commands otherwise
                while chunk := connection.recv(65536):
                    chunks.append(chunk)
        except OSError as error:
            raise RuntimeSocketError(f"haproxy does not answer at {path}: {error}") from error
        return b"".join(chunks).decode(errors="replace").rstrip("\n")

    # The map.

    def map(self, name: Path) -> dict[str, str]:
        """All entries of the map that was read from the file `name`."""
        answer = self.ask(f"show map {name}")
        entries = {}
        for line in answer.splitlines():
            match = re.fullmatch(r"0x[0-9a-f]+ (\S+) (.*)", line)
            if match is None:
                raise RuntimeSocketError(f"map {name}: expected 0x... KEY VALUE of haproxy, got {line!r}")
            entries[match[1]] = match[2]
        return entries

    def set_map(self, name: Path, entries: Mapping[str, int]) -> None:
        """Makes `entries` true in the running process, adding keys that it does not have, and reads each one back.

        Raises:
            RuntimeSocketError: it does not answer, or has something else afterwards.
        """
        present = self.map(name)
        for key, value in entries.items():
            if present.get(key) == str(value):
                continue
            verb = "set" if key in present else "add"
            # The answer is not worth much: 2.6 takes what is no number without a word. What counts is read back.
            said = self.ask(f"{verb} map {name} {key} {value}").strip()
            got = self.map(name).get(key)
            if got != str(value):
                raise RuntimeSocketError(f"map {name}: {key}: expected {value}, got {got} ({said or 'no complaint'})")
        for worker in self._left_behind():
            for key, value in entries.items():
                # One may end at any moment, which is as good.
                with contextlib.suppress(RuntimeSocketError):
                    self.ask(f"@!{worker} set map {name} {key} {value}", self._master)

    def delete_map(self, name: Path, keys: Iterable[str]) -> None:
        """Removes `keys`, so that their tenants follow `all` again."""
        for key in sorted(set(keys) & set(self.map(name))):
            self.ask(f"del map {name} {key}")
            if key in self.map(name):
                raise RuntimeSocketError(f"map {name}: {key} is still there after it was deleted")

    def _left_behind(self) -> list[str]:
        """The process ids of workers from before a reload that still run."""
        if self._master is None or not self._master.exists():
            return []
        try:
            answer = self.ask("show proc", self._master)
        except RuntimeSocketError:
            return []
        _, _, old = answer.partition("# old workers")
        return re.findall(r"^(\d+)\s+worker", old, re.MULTILINE)

    # Counters.

    def run(self) -> str:
        """What changes whenever HAProxy's counters begin anew."""
        fields = dict(line.partition(": ")[::2] for line in self.ask("show info").splitlines())
        if "Pid" not in fields:
            raise RuntimeSocketError("haproxy's `show info` has no Pid")
        return f"{fields['Pid']}/{fields.get('Start_time_sec', '')}"

    def side_counters(self, tenants: Iterable[str]) -> tuple[Source, dict[str, dict[str, str]]]:
        """Counters `TENANT/SIDE/NAME` of counts.SIDE_COUNTERS, and for each tenant its scratchd servers' states.

        Raises:
            RuntimeSocketError: it does not answer, or has no such tenant.
        """
        run = self.run()
        rows = self._rows()
        table = self._table("st_sides")
        if self.run() != run:
            # Each question is a connection of its own: counters that began anew would be taken for the old ones.
            raise RuntimeSocketError("haproxy was started anew or reloaded while it was asked")
        counters: dict[str, int] = {}
        states: dict[str, dict[str, str]] = {}
        for tenant in tenants:
            for side in SIDES:
                backend = rows.get(f"{side}_{tenant}")
                if backend is None or "BACKEND" not in backend:
                    raise RuntimeSocketError(f"haproxy has no backend {side}_{tenant}")
                answered = _answered(backend, others="legacy-" if side == "scratchd" else None)
                timed = table.get(f"{side}/{tenant}", {})
                values = (
                    *(answered[name] for name in ("requests", "errors", "malformed")),
                    *(timed.get(f"gpc{index}", 0) for index in range(len(SIDE_COUNTERS) - 3)),
                )
                for name, value in zip(SIDE_COUNTERS, values, strict=True):
                    counters[f"{tenant}/{side}/{name}"] = value
            states[tenant] = {
                name: row["status"]
                for name, row in rows[f"scratchd_{tenant}"].items()
                if name != "BACKEND" and not name.startswith("legacy-")
            }
        return Source(run, counters), states

    def _rows(self) -> dict[str, dict[str, dict[str, str]]]:
        """Proxy to server (or BACKEND, FRONTEND) to its row of `show stat`."""
        rows: dict[str, dict[str, dict[str, str]]] = {}
        for row in csv.DictReader(self.ask("show stat").removeprefix("# ").splitlines()):
            rows.setdefault(row["pxname"], {})[row["svname"]] = row
        return rows

    def _table(self, name: str) -> dict[str, dict[str, int]]:
        """Key to its counters, of a table whose keys have no white space."""
        entries = {}
        for line in self.ask(f"show table {name}").splitlines():
            match = re.fullmatch(r"0x[0-9a-f]+: key=(\S+) (.*)", line)
            if match:
                entries[match[1]] = {key: int(value) for key, value in re.findall(r"(gpc\d+)=(\d+)", match[2])}
        return entries


def _answered(rows: Mapping[str, Mapping[str, str]], others: str | None) -> dict[str, int]:
    """What clients were answered by a backend, without what servers named `others…` answered in its place.

    The backend's own row counts what left, also what HAProxy answered itself; servers' rows count each attempt.
    """

    def count(codes: tuple[str, ...]) -> int:
        total = sum(int(rows["BACKEND"][f"hrsp_{code}"] or 0) for code in codes)
        if others is not None:
            foreign = (row for name, row in rows.items() if name.startswith(others))
            total -= sum(int(row[f"hrsp_{code}"] or 0) for row in foreign for code in codes)
        return max(0, total)

    return {
        "requests": count(("1xx", "2xx", "3xx", "4xx", "5xx", "other")),
        "errors": count(("5xx",)),
        "malformed": count(("4xx",)),
    }
