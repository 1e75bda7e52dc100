"""One change on the edge, in the order that is safe, and written down.

Forward (a share that may grow): state, map file, running HAProxy, audit log. If it breaks off anywhere, the state
says what was meant, and the guard makes it true or takes it back. Back (rolling back): the running HAProxy first,
because that is what visitors feel, then everything else; whatever fails on the way is collected and said at the end,
and stops nothing.

Every change is made under the lock, from the state as it then is.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scratchd_rollout import rollout as states
from scratchd_rollout import sharemap
from scratchd_rollout.clock import Moment
from scratchd_rollout.plan import ALL, FULL_SHARE, Plan, percent
from scratchd_rollout.rollout import NotAllowed, Rollout
from scratchd_rollout.runtime import Runtime, RuntimeSocketError
from scratchd_rollout.sharemap import ShareMapError
from scratchd_rollout.store import Store, StoreError

SWITCHES = {"kill": "the kill switch", "shadow": "the shadow"}


class EdgeError(Exception):
    """A change was made in part, or not at all; `errors` says what failed. The guard tries again."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Edge:
    """This machine's HAProxy, map and state.

    Attributes:
        plan: only its `socket`, `share_map`, `steps` and `tenants` matter here.
        store: state and audit log.
        clock: gives this moment.
        by: who is at work.
    """

    plan: Plan
    store: Store
    clock: Callable[[], Moment]
    by: str

    @property
    def runtime(self) -> Runtime:
        """The running HAProxy."""
        return Runtime(self.plan.socket, self.plan.master_socket)

    def change(
        self,
        tenant: str,
        action: str,
        step: Callable[[Rollout | None], Rollout],
        numbers: Mapping[str, Any] | None = None,
    ) -> Rollout:
        """Makes what `step` makes of a tenant's state true.

        Raises:
            NotAllowed: by `step`, or the tenant is not in the plan; nothing was changed.
            EdgeError: HAProxy, the map or the state is not as it should be.
        """
        if tenant != ALL and tenant not in self.plan.tenants:
            raise NotAllowed(f"{tenant}: no such tenant; the plan has {', '.join(self.plan.tenants)}")
        try:
            with self.store.lock():
                before = self.store.rollout(tenant)
                after = step(before)
                # A HAProxy that does not answer is found out before anything is changed.
                self.runtime.map(self.plan.share_map)
                self.store.save(after)
                self._make_true(after.entries())
                self._audit(tenant, action, before, after, numbers=numbers)
        except (RuntimeSocketError, ShareMapError, StoreError) as error:
            raise EdgeError([str(error)]) from error
        return after

    def beat(self, tenant: str) -> Rollout:
        """Notes that a rollout's driver was heard of; no line in the audit log.

        Raises:
            NotAllowed: there is nothing to drive.
            EdgeError: the state cannot be written.
        """
        try:
            with self.store.lock():
                after = states.beat(self.store.rollout(tenant), self.clock())
                self.store.save(after)
        except StoreError as error:
            raise EdgeError([str(error)]) from error
        return after

    def roll_back(self, tenant: str | None, why: str, numbers: Mapping[str, Any] | None = None) -> list[str]:
        """Sends a tenant's visitors, or everyone (None), to the legacy service; what was at 0 already is no error.

        Returns:
            The tenants that were rolled back.

        Raises:
            EdgeError: something failed; all else was done.
        """
        errors: list[str] = []
        done: list[str] = []
        with contextlib.ExitStack() as held:
            with _collect(errors):
                held.enter_context(self.store.lock())
            entries = {tenant: 0, f"{tenant}/headquarters": 0} if tenant else self._everything(errors)
            with _collect(errors):
                self.runtime.set_map(self.plan.share_map, entries)
            with _collect(errors):
                sharemap.write(self.plan.share_map, entries)
            rollouts, unreadable = self.store.rollouts()
            broken = {name: why_not for name, why_not in unreadable.items() if tenant in (None, name)}
            errors += broken.values()
            for before in [found for name, found in rollouts.items() if tenant in (None, name)]:
                after = states.roll_back(before, self.by, why)
                if after is before:
                    continue
                done.append(before.tenant)
                with _collect(errors):
                    self.store.save(after)
                with _collect(errors):
                    self._audit(before.tenant, "rollback", before, after, numbers=numbers)
            for name in broken if broken or done else [tenant or "everyone"]:
                with _collect(errors):
                    self._audit(name, "rollback", None, None, why=why, numbers=numbers)
        if errors:
            raise EdgeError(errors)
        return done

    def switch(self, name: str, value: int, why: str) -> None:
        """Sets the kill switch or the shadow's share; the map itself is their state.

        Raises:
            EdgeError: it is not so in the running HAProxy, or not in the map's file.
        """
        errors: list[str] = []
        before: int | None = None
        with contextlib.ExitStack() as held:
            with _collect(errors):
                held.enter_context(self.store.lock())
            with _collect(errors):
                before = sharemap.read(self.plan.share_map).get(name)
            with _collect(errors):
                self.runtime.set_map(self.plan.share_map, {name: value})
            with _collect(errors):
                sharemap.write(self.plan.share_map, {name: value})
            with _collect(errors):
                self.store.audit(self._entry("everyone", name, _switch(name, before), _switch(name, value), why=why))
        if errors:
            raise EdgeError(errors)

    def forget(self, tenant: str, why: str) -> None:
        """Removes a tenant's ended rollout, so that it follows `all` again.

        Raises:
            NotAllowed: it has not ended.
            EdgeError: something is still there.
        """
        try:
            with self.store.lock():
                before = None
                with contextlib.suppress(StoreError):  # what cannot be read may be forgotten
                    before = self.store.rollout(tenant)
                if before is not None and before.is_watched:
                    raise NotAllowed(f"{tenant}: {before.status} at {before.stage}; `rollback` ends it")
                keys = [tenant, f"{tenant}/headquarters"]
                # HAProxy needs those of `all`; a state that could not be read may have left them at anything.
                entries, deleted = (dict.fromkeys(keys, 0), []) if tenant == ALL else ({}, keys)
                self.store.forget(tenant)
                self.runtime.set_map(self.plan.share_map, entries)
                self.runtime.delete_map(self.plan.share_map, deleted)
                sharemap.write(self.plan.share_map, entries, deleted)
                self._audit(tenant, "forget", before, None, why=why)
        except (RuntimeSocketError, ShareMapError, StoreError) as error:
            raise EdgeError([str(error)]) from error

    def repair(self) -> list[str]:
        """Makes the running HAProxy and the map's file say what the states say.

        Somebody may have set the map by hand, or HAProxy was reloaded between two lines of a change.

        Returns:
            What was not so.

        Raises:
            EdgeError: it still is not.
        """
        try:
            with self.store.lock():
                wanted: dict[str, int] = {}
                rollouts, _ = self.store.rollouts()
                for rollout in rollouts.values():
                    wanted |= rollout.entries()
                filed = sharemap.read(self.plan.share_map) if self.plan.share_map.exists() else {}
                # The switches have no other state than the file.
                wanted |= {name: filed[name] for name in SWITCHES if name in filed}
                running = self.runtime.map(self.plan.share_map)
                found = [
                    f"{where}: {key} was {has.get(key)}, is to be {value}"
                    for where, has in (
                        ("haproxy", running),
                        ("file", {key: str(value) for key, value in filed.items()}),
                    )
                    for key, value in wanted.items()
                    if has.get(key) != str(value)
                ]
                if found:
                    self._make_true(wanted)
                    self._audit("everyone", "repair", None, None, why="; ".join(found))
        except (RuntimeSocketError, ShareMapError, StoreError) as error:
            raise EdgeError([str(error)]) from error
        return found

    def _make_true(self, entries: Mapping[str, int]) -> None:
        sharemap.write(self.plan.share_map, entries)
        self.runtime.set_map(self.plan.share_map, entries)

    def _everything(self, errors: list[str]) -> dict[str, int]:
        """Every share that anyone knows of, as 0."""
        names = {ALL, f"{ALL}/headquarters"}
        with _collect(errors):
            names |= set(self.runtime.map(self.plan.share_map))
        with _collect(errors):
            names |= set(sharemap.read(self.plan.share_map))
        return dict.fromkeys(sorted(names - set(SWITCHES)), 0)

    def _audit(
        self,
        tenant: str,
        action: str,
        before: Rollout | None,
        after: Rollout | None,
        *,
        why: str | None = None,
        numbers: Mapping[str, Any] | None = None,
    ) -> None:
        said = why if why is not None else after.why if after else ""
        self.store.audit(self._entry(tenant, action, _place(before), _place(after), why=said, numbers=numbers))

    def _entry(
        self,
        tenant: str,
        action: str,
        before: object,
        after: object,
        *,
        why: str,
        numbers: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        return {
            "at": self.clock().iso(),
            "host": socket.gethostname(),
            "who": self.by,
            "tenant": tenant,
            "action": action,
            "from": before,
            "to": after,
            "why": why,
            "numbers": numbers,
        }


def _place(rollout: Rollout | None) -> dict[str, Any] | None:
    if rollout is None:
        return None
    return {
        "status": str(rollout.status),
        "step": rollout.stage,
        "percent": rollout.share / (FULL_SHARE / 100),
        "headquarters": rollout.headquarters,
    }


def _switch(name: str, value: int | None) -> object:
    if value is None:
        return None
    return ("on" if value else "off") if name == "kill" else percent(value)


@contextlib.contextmanager
def _collect(errors: list[str]) -> Iterator[None]:
    """Notes what fails inside, and goes on behind it."""
    try:
        yield
    except (RuntimeSocketError, ShareMapError, StoreError) as error:
        errors.append(str(error))
