"""The plan's file: `/etc/scratchd-rollout/plan.json`, which an inventory makes, read and checked.

Owns the format; knows nothing of what is done with it. Every error is found in one reading, and says where, what is
expected and what was got; unknown keys are refused with the nearest known one.

    {"tenants": ["gr", "it"],
     "servers": [{"name": "primary", "stats": ["http://10.0.0.11:9007/stats"]}],
     "steps": [{"name": "headquarters", "headquarters": true, "percent": 0, "bake_s": 600}, {"percent": 1}, …],
     "gates": {"errors": {"max": 0.01, "worse_by": 0.005}, …}}

Everything but `tenants` and `servers` has a default.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from scratchd_rollout.plan import (
    RESERVED,
    SLOW_S,
    Confidence,
    Gates,
    Limit,
    Plan,
    PlanError,
    Proportion,
    Sample,
    Server,
    Step,
    percent,
    share_of,
)


def load(path: Path) -> Plan:
    """The plan in the file `path`.

    Raises:
        PlanError: it cannot be read, is no JSON, or says what cannot be.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError([f"{path}: {getattr(error, 'strerror', None) or error}"]) from error
    return parse(text, path.name)


def parse(text: str, name: str = "plan.json") -> Plan:
    """The plan in `text`; `name` begins each error.

    Raises:
        PlanError: with every error.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise PlanError([f"{name}: no JSON: {error}"]) from error
    reader = _Reader(name)
    plan = reader.plan(document)
    if reader.errors:
        raise PlanError(reader.errors)
    return plan


_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(slots=True)
class _Reader:
    """Takes a document apart and notes what is wrong with it; what it returns counts only without errors."""

    name: str
    errors: list[str] = field(default_factory=list)

    def wrong(self, where: str, expected: str, got: object) -> None:
        shown = json.dumps(got, ensure_ascii=False, default=str)
        self.errors.append(f"{self.name}: {where}: expected {expected}, got {shown[:80]}")

    def mapping(self, where: str, value: object, known: Sequence[str]) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self.wrong(where or "the document", "an object", value)
            return {}
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
                self.errors.append(f"{self.name}: {_join(where, key)}: unknown key{hint}")
        return value

    def entries(self, where: str, value: object) -> Iterator[tuple[str, object]]:
        if not isinstance(value, list) or not value:
            self.wrong(where, "a list with at least one entry", value)
            return
        yield from ((f"{where}[{index}]", entry) for index, entry in enumerate(value))

    def number(self, where: str, value: object, low: float, high: float, default: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.wrong(where, f"a number from {low:g} to {high:g}", value)
            return default
        return float(value)

    def boolean(self, where: str, value: object) -> bool:
        if not isinstance(value, bool):
            self.wrong(where, "true or false", value)
        return value is True

    def path(self, where: str, value: object) -> Path:
        if not isinstance(value, str) or not value.startswith("/"):
            self.wrong(where, "an absolute path", value)
            return Path("/")
        return Path(value)

    def plan(self, document: object) -> Plan:
        known = (
            *("tenants", "servers", "steps", "gates", "confidence", "sample", "heartbeat_s"),
            *("window_s", "slow_s", "stats_timeout_s", "socket", "master_socket", "share_map"),
        )
        given = self.mapping("", document, known)
        optional: dict[str, Callable[[str, Any], object]] = {
            "steps": self.steps,
            "gates": self.gates,
            "confidence": self.confidence,
            "sample": self.sample,
            "heartbeat_s": lambda where, value: self.number(where, value, 1, 86400, 120),
            "window_s": lambda where, value: self.number(where, value, 1, 3600, 30),
            "stats_timeout_s": lambda where, value: self.number(where, value, 0.1, 30, 1),
            "slow_s": self.slow_s,
            "socket": self.path,
            "master_socket": self.path,
            "share_map": self.path,
        }
        return Plan(
            tenants=self.tenants("tenants", given.get("tenants")),
            servers=self.servers("servers", given.get("servers")),
            **{key: read(key, given[key]) for key, read in optional.items() if key in given},  # type: ignore[arg-type]
        )

    def tenants(self, where: str, value: object) -> tuple[str, ...]:
        names: list[str] = []
        for place, entry in self.entries(where, value):
            if not isinstance(entry, str) or not _NAME.fullmatch(entry) or entry in RESERVED:
                self.wrong(place, f"a name of letters, digits, - and _, none of {', '.join(sorted(RESERVED))}", entry)
            elif entry in names:
                self.errors.append(f"{self.name}: {place}: {entry!r} is listed twice")
            else:
                names.append(entry)
        return tuple(names)

    def servers(self, where: str, value: object) -> tuple[Server, ...]:
        servers: list[Server] = []
        for place, entry in self.entries(where, value):
            given = self.mapping(place, entry, ("name", "stats"))
            name = given.get("name")
            if not isinstance(name, str) or not _NAME.fullmatch(name) or name.startswith("legacy-"):
                self.wrong(f"{place}.name", "a server's name in haproxy.cfg, not legacy-…", name)
                continue
            if name in [server.name for server in servers]:
                self.errors.append(f"{self.name}: {place}.name: {name!r} is listed twice")
            addresses = []
            for address_place, address in self.entries(f"{place}.stats", given.get("stats")):
                if isinstance(address, str) and re.fullmatch(r"http://[^\s/?#@]+/[!-~]*", address):
                    addresses.append(address)
                else:
                    self.wrong(address_place, "an address like http://10.0.0.11:9007/stats", address)
            servers.append(Server(name, tuple(addresses)))
        return tuple(servers)

    def steps(self, where: str, value: object) -> tuple[Step, ...]:
        steps: list[Step] = []
        for place, entry in self.entries(where, value):
            given = self.mapping(place, entry, ("name", "percent", "headquarters", "bake_s", "needs_pass", "approve"))
            share = share_of(given.get("percent"))
            if share is None:
                self.wrong(f"{place}.percent", "a number from 0 to 100, in steps of 0.01", given.get("percent"))
                continue
            name = given.get("name", "headquarters" if share == 0 else percent(share))
            if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 40:
                self.wrong(f"{place}.name", "at most 40 printable characters", name)
                continue
            step = Step(
                name=name,
                share=share,
                headquarters=self.boolean(f"{place}.headquarters", given.get("headquarters", True)),
                bake_s=self.number(f"{place}.bake_s", given.get("bake_s", 600), 0, 30 * 86400, 600),
                needs_pass=self.boolean(f"{place}.needs_pass", given.get("needs_pass", share > 0)),
                approve=self.boolean(f"{place}.approve", given.get("approve", False)),
            )
            if steps and share < steps[-1].share:
                self.errors.append(
                    f"{self.name}: {place}.percent: a step may not go back: "
                    f"expected at least {percent(steps[-1].share)}, got {percent(share)}"
                )
            if name in [other.name for other in steps]:
                self.errors.append(f"{self.name}: {place}.name: {name!r} is listed twice")
            if share == 0 and not step.headquarters:
                self.errors.append(f"{self.name}: {place}: 0 % without headquarters sends nobody to scratchd")
            steps.append(step)
        return tuple(steps)

    def gates(self, where: str, value: object) -> Gates:
        default = Gates()
        names = tuple(part.name for part in fields(default))
        read: dict[str, Proportion | Limit] = {}
        for name, entry in self.mapping(where, value, names).items():
            if name not in names:
                continue
            ours = getattr(default, name)
            place = f"{where}.{name}"
            read[name] = (
                self.proportion(place, entry, ours) if isinstance(ours, Proportion) else self.limit(place, entry, ours)
            )
        return Gates(**read)  # type: ignore[arg-type]

    def proportion(self, where: str, value: object, default: Proportion) -> Proportion:
        given = self.mapping(where, value, ("max", "worse_by"))
        worse_by = given.get("worse_by", default.worse_by)
        return Proportion(
            self.number(f"{where}.max", given.get("max", default.max), 0, 1, 0),
            None if worse_by is None else self.number(f"{where}.worse_by", worse_by, 0, 1, 0),
        )

    def limit(self, where: str, value: object, default: Limit) -> Limit:
        given = self.mapping(where, value, ("max", "then"))
        most, then = given.get("max", default.max), given.get("then", default.then)
        if then not in ("fail", "wait"):
            self.wrong(f"{where}.then", '"fail" or "wait"', then)
        return Limit(None if most is None else self.number(f"{where}.max", most, 0, 1e12, 0), then)

    def confidence(self, where: str, value: object) -> Confidence:
        given = self.mapping(where, value, ("pass", "fail"))
        read = {
            key: self.number(f"{where}.{key}", given[key], 0.5, 0.9999999, 0.9)
            for key in ("pass", "fail")
            if key in given
        }
        default = Confidence()
        return Confidence(read.get("pass", default.pass_), read.get("fail", default.fail))

    def sample(self, where: str, value: object) -> Sample:
        given = self.mapping(where, value, ("to_pass", "to_fail"))
        read = {key: given[key] for key in ("to_pass", "to_fail") if key in given}
        for key, count in read.items():
            if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 10**9:
                self.wrong(f"{where}.{key}", "a whole number of answers, at least 1", count)
        return Sample(**read)

    def slow_s(self, where: str, value: object) -> float:
        if isinstance(value, bool) or value not in SLOW_S:
            self.wrong(where, f"one of {', '.join(f'{bound:g}' for bound in SLOW_S)}", value)
        return float(value) if isinstance(value, int | float) else 0.1


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
