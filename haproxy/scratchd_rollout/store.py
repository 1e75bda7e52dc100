"""What outlives a command: each tenant's state, the samples, the audit log; and the lock that changes are made under.

    /var/lib/scratchd-rollout/TENANT.json     state; replaced whole, durably
    /var/log/scratchd-rollout/audit.jsonl     a JSON object for each change; appended to, synced, never rewritten
    /run/scratchd-rollout/lock                held while something changes, never while somebody waits for a network
    /run/scratchd-rollout/samples.json        what the guard has counted; worth nothing after a reboot

Knows nothing of what the states mean.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchd_rollout.rollout import Rollout
from scratchd_rollout.sharemap import replace_durably

LOCK_TIMEOUT_S = 10.0
"""Whoever holds the lock talks to HAProxy's socket, which answers in milliseconds or gives up after seconds."""


class StoreError(Exception):
    """State, lock or audit log cannot be read or written; the message has the path and the reason."""


@dataclass(frozen=True, slots=True)
class Store:
    """Where everything lies."""

    state: Path = Path("/var/lib/scratchd-rollout")
    log: Path = Path("/var/log/scratchd-rollout")
    run: Path = Path("/run/scratchd-rollout")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held by one process at a time, released when it ends, however it ends.

        Raises:
            StoreError: somebody holds it for longer than anything takes.
        """
        try:
            self.run.mkdir(mode=0o755, exist_ok=True)
            descriptor = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{self.run / 'lock'}: {error.strerror or error}") from error
        try:
            deadline = time.monotonic() + LOCK_TIMEOUT_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise StoreError(f"{self.run / 'lock'}: held for {LOCK_TIMEOUT_S:.0f} s") from None
                    time.sleep(0.01)
            yield
        finally:
            os.close(descriptor)

    def rollout(self, tenant: str) -> Rollout | None:
        """A tenant's; None: none was started.

        Raises:
            StoreError: it cannot be read.
        """
        path = self._path(tenant)
        try:
            rollout = Rollout.read(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: no state of a rollout: {error!r}; `forget` removes it") from error
        if rollout.tenant != tenant:
            raise StoreError(f"{path}: no state of a rollout: expected that of {tenant}, got that of {rollout.tenant}")
        return rollout

    def rollouts(self) -> tuple[dict[str, Rollout], dict[str, str]]:
        """Every tenant's that can be read, and why another one cannot, both by tenant: a broken one hides no other."""
        found, broken = {}, {}
        for tenant in sorted(path.stem for path in self.state.glob("*.json")):
            try:
                rollout = self.rollout(tenant)
            except StoreError as error:
                broken[tenant] = str(error)
                continue
            if rollout is not None:
                found[tenant] = rollout
        return found, broken

    def save(self, rollout: Rollout) -> None:
        """Durable when it returns.

        Raises:
            StoreError: the old state is still there.
        """
        path = self._path(rollout.tenant)
        try:
            path.parent.mkdir(mode=0o755, exist_ok=True)
            replace_durably(path, (json.dumps(rollout.document(), indent=1) + "\n").encode(), mode=0o644)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or error}") from error

    def forget(self, tenant: str) -> None:
        """Removes a tenant's state; none is no error.

        Raises:
            StoreError: it is still there.
        """
        try:
            self._path(tenant).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self._path(tenant)}: {error.strerror or error}") from error

    def _path(self, tenant: str) -> Path:
        return self.state / f"{tenant}.json"

    # The audit log.

    @property
    def audit_path(self) -> Path:
        """The log's file."""
        return self.log / "audit.jsonl"

    def audit(self, entry: Mapping[str, Any]) -> None:
        """Appends one line; durable when it returns.

        Raises:
            StoreError: it may not be there.
        """
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        try:
            self.log.mkdir(mode=0o750, exist_ok=True)
            descriptor = os.open(self.audit_path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            try:
                # Behind a torn line (a full disk, a power loss) the next one begins at a line's begin.
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    line = b"\n" + line
                if os.write(descriptor, line) != len(line):
                    raise StoreError(f"{self.audit_path}: the line was not written whole")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreError(f"{self.audit_path}: {error.strerror or error}") from error

    def audited(self, last: int = 20) -> list[dict[str, Any]]:
        """The last entries, oldest first; torn lines are passed by."""
        entries = []
        with contextlib.suppress(FileNotFoundError), self.audit_path.open(encoding="utf-8", errors="replace") as log:
            for line in log:
                with contextlib.suppress(ValueError):
                    entries.append(json.loads(line))
        return entries[-last:]

    # Samples.

    def load_samples(self) -> dict[str, Any] | None:
        """What `save_samples` was given; None: nothing, or nothing that can be used."""
        try:
            document = json.loads((self.run / "samples.json").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def save_samples(self, document: Mapping[str, Any]) -> None:
        """Whole, but not synced: the directory is memory.

        Raises:
            StoreError: the old ones are still there.
        """
        beside = self.run / f".samples.{os.getpid()}"
        try:
            self.run.mkdir(mode=0o755, exist_ok=True)
            beside.write_text(json.dumps(document), encoding="ascii")
            beside.replace(self.run / "samples.json")
        except OSError as error:
            raise StoreError(f"{self.run}: {error.strerror or error}") from error
