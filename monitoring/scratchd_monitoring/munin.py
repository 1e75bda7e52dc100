"""scratchd_: Munin's wildcard plugin, a graph for each name it is linked to: `scratchd_GRAPH`, `scratchd_GRAPH_NAME`.

Owns the graphs. NAME sets instances of one machine apart: Munin gives each link the environment of its own section.
Munin stores rates of counters by itself (DERIVE), so counters are sent as they are and the service's own rates are not.

What is down has no figures, so a graph fails then (Munin shows a hole, and its state is unknown), but for `up`: it says
0, which is critical.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchd_monitoring.ask import DEFAULT_ADDRESS, DownError, NonsenseError, stats

TIMEOUT_S = 10.0
"""Of munin-node's own minute."""


@dataclass(frozen=True, slots=True)
class Field:
    """One line of a graph.

    Attributes:
        name: for people; Munin's name is made of it.
        value: None: unknown.
        kind: `GAUGE`, or `DERIVE` of a counter, which is an integer.
        settings: of Munin, e.g. `warning`.
    """

    name: str
    value: float | None
    kind: str = "GAUGE"
    settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """What a link shows.

    Attributes:
        title: of the graph.
        label: of its axis.
        info: what to do, in a sentence.
        fields: from `/stats`.
        base: 1024 for bytes.
    """

    title: str
    label: str
    info: str
    fields: Callable[[dict[str, Any]], Iterator[Field]]
    base: int = 1000


def _events(found: dict[str, Any]) -> Iterator[Field]:
    for flavor, figures in found["flavors"].items():
        yield Field(flavor, figures["received_lines"], "DERIVE")


def _persisted(found: dict[str, Any]) -> Iterator[Field]:
    yield Field("received", found["journal"]["appended_lines"], "DERIVE")
    for backend, figures in found["backends"].items():
        yield Field(backend, figures["persisted_lines"], "DERIVE")


def _refused(found: dict[str, Any]) -> Iterator[Field]:
    for reason, count in found["http"]["refused"].items():
        yield Field(reason, count, "DERIVE")
    # A reason comes with its first refusal, and a graph without fields is an error.
    yield Field("all", sum(found["http"]["refused"].values()), "DERIVE")


def _latency(found: dict[str, Any]) -> Iterator[Field]:
    for name in ("p50", "p99", "max"):
        yield Field(name, found["http"]["latency_s"][name])


def _age(found: dict[str, Any]) -> Iterator[Field]:
    for backend, figures in found["backends"].items():
        yield Field(backend, figures["oldest_pending_age_s"], settings=(("warning", "900"),))


def _pending(found: dict[str, Any]) -> Iterator[Field]:
    for backend, figures in found["backends"].items():
        yield Field(backend, figures["pending_lines"])


def _failing(found: dict[str, Any]) -> Iterator[Field]:
    for backend in found["backends"]:
        states = [flavor[backend]["state"] for flavor in found["flavors"].values() if backend in flavor]
        yield Field(backend, sum(state != "running" for state in states), settings=(("warning", "0"),))
    refused = sum(not flavor["takes_lines"] for flavor in found["flavors"].values())
    yield Field("journal", refused, settings=(("critical", "0"),))


def _errors(found: dict[str, Any]) -> Iterator[Field]:
    for backend, figures in found["backends"].items():
        yield Field(backend, sum(figures["errors"].values()), "DERIVE")
    for name in ("append_errors", "sync_errors"):
        yield Field(name, found["journal"][name], "DERIVE", (("warning", "0"),))


def _journal(found: dict[str, Any]) -> Iterator[Field]:
    yield Field("size", found["journal"]["bytes"])
    yield Field("free", found["journal"]["free_bytes"])


FULL = (("warning", "86400:"), ("critical", "7200:"))


def _full(found: dict[str, Any]) -> Iterator[Field]:
    """No end in sight is a week: further than scratchd looks, and a level that is worth a line."""
    quotas = [flavor["quota_full_in_s"] for flavor in found["flavors"].values()]
    ends = [end for end in quotas if end is not None]
    yield Field("disk", _week(found["journal"]["full_in_s"]), settings=FULL)
    yield Field("quota", _week(min(ends, default=None)), settings=FULL)


def _week(end_s: float | None) -> float:
    return 7 * 86400 if end_s is None else end_s


def _lost(found: dict[str, Any]) -> Iterator[Field]:
    # As a rate: what was lost once stays in the count for ever. By flavor: a sum would grow by all of that when one
    # comes back, or is there again behind a start.
    for flavor, figures in found["flavors"].items():
        for backend in (name for name in found["backends"] if name in figures):
            yield Field(f"{flavor} {backend} gaps", figures[backend]["gap_lines"], "DERIVE", (("critical", "0"),))
            aside = figures[backend]["set_aside_lines"]
            yield Field(f"{flavor} {backend} set aside", aside, "DERIVE", (("warning", "0"),))
    yield Field("ledger_residual", found["ledger"]["residual_lines"], settings=(("critical", "0:0"),))


def _process(found: dict[str, Any]) -> Iterator[Field]:
    yield Field("rss", found["runtime"]["rss_bytes"])


def _cpu(found: dict[str, Any]) -> Iterator[Field]:
    yield Field("cpu", int(found["runtime"]["cpu_s"] * 1000), "DERIVE", (("cdef", "cpu,10,/"),))


GRAPHS = {
    "events": Graph("events", "events / ${graph_period}", "Events taken, by flavor.", _events),
    "persisted": Graph("lines persisted", "lines / ${graph_period}", "Below received, a backlog grows.", _persisted),
    "refused": Graph("requests refused", "requests / ${graph_period}", "By reason; the log has samples.", _refused),
    "latency": Graph("latency", "seconds", "Of answers, over the last minute.", _latency),
    "age": Graph("oldest pending line", "seconds", "How late files and Kafka are.", _age),
    "pending": Graph("pending lines", "lines", "What waits in the journal.", _pending),
    "failing": Graph("flavors not taken", "flavors", "By a backend: lines wait. By the journal: lost.", _failing),
    "errors": Graph("errors", "errors / ${graph_period}", "Of backends and of the journal.", _errors),
    "journal": Graph("journal", "bytes", "Its size, and what is free on its disk.", _journal, base=1024),
    "full": Graph("until it is full", "seconds", "Disk and quota at this rate; a week: no end in sight.", _full),
    "lost": Graph("lost lines", "lines", "Gaps, set aside, not accounted for: all must be 0.", _lost),
    "memory": Graph("memory", "bytes", "Resident.", _process, base=1024),
    "cpu": Graph("processor", "% of a core", "100 is one core.", _cpu),
}

UP = Graph("answers", "1 or 0", "0: it is down.", lambda _: iter(()))


def main(
    arguments: Sequence[str] | None = None, program: str | None = None, environment: Mapping[str, str] = os.environ
) -> int:
    """Does what munin-node asks for, and returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    command = given[0] if given else "fetch"
    name, _, instance = Path(program or sys.argv[0]).name.removeprefix("scratchd_").partition("_")
    address = environment.get("address", DEFAULT_ADDRESS)
    about: dict[str, Callable[[], list[str]]] = {
        "suggest": lambda: ["up", *GRAPHS],
        "autoconf": lambda: [_autoconf(address)],
    }
    if command in about:
        return _say(about[command]())
    if command not in ("config", "fetch"):
        return _fail(f'"{command}" is none of autoconf, suggest, config, fetch')
    return _show(command, name, instance, address)


def _show(command: str, name: str, instance: str, address: str) -> int:
    graph = UP if name == "up" else GRAPHS.get(name)
    if graph is None:
        return _fail(f'link me as scratchd_GRAPH: "{name}" is none of up, {", ".join(GRAPHS)}')
    try:
        fields = list(_fields(name, graph, address))
    except (DownError, NonsenseError, ValueError) as error:
        return _fail(str(error))
    except (KeyError, TypeError, AttributeError) as error:
        return _fail(f"{address} answers figures of another shape: {error!r}")
    return _say(_config(graph, instance, fields) if command == "config" else _values(fields))


def _say(lines: Sequence[str]) -> int:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def _fail(words: str) -> int:
    sys.stderr.write(f"scratchd_: {words}\n")
    return 1


def _autoconf(address: str) -> str:
    try:
        stats(address, TIMEOUT_S)
    except (DownError, NonsenseError, ValueError) as error:
        return f"no ({' '.join(str(error).split())})"
    return "yes"


def _fields(name: str, graph: Graph, address: str) -> Iterator[Field]:
    if name != "up":
        yield from graph.fields(stats(address, TIMEOUT_S))
        return
    try:
        stats(address, TIMEOUT_S)
        answers = 1
    except DownError:
        answers = 0
    yield Field("up", answers, settings=(("critical", "1:"), ("min", "0"), ("max", "1")))


def _config(graph: Graph, instance: str, fields: Sequence[Field]) -> list[str]:
    of = f" {instance}" if instance else ""
    lines = [
        f"graph_title scratchd{of}: {graph.title}",
        f"graph_vlabel {graph.label}",
        f"graph_info {graph.info}",
        "graph_category scratchd",
        f"graph_args --base {graph.base} -l 0",
    ]
    for field in fields:
        key = munin_name(field.name)
        lines += [f"{key}.label {field.name}", f"{key}.type {field.kind}"]
        if field.kind == "DERIVE":
            lines.append(f"{key}.min 0")
        lines += [f"{key}.{setting} {value}" for setting, value in field.settings]
    return lines


def _values(fields: Sequence[Field]) -> list[str]:
    return [f"{munin_name(field.name)}.value {_number(field.value)}" for field in fields]


def _number(value: float | None) -> str:
    return "U" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)


def munin_name(name: str) -> str:
    """A name as Munin takes it, another one for every other name: letters, digits, `_`, no digit first, not `root`."""
    # A dash is _2d_, so what looks like that gets another _.
    text = re.sub(r"_(?=[0-9a-f]+_)|[^A-Za-z0-9_]", lambda c: "__" if c[0] == "_" else f"_{ord(c[0]):x}_", name)
    return f"_{text}" if re.match(r"\d|root$|_", text) else text
