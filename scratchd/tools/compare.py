"""`scratchd compare`: whether two collectors wrote the same JSON values, as multisets, flavor by flavor.

Owns the command: what is read, the report and the verdict. `outputs` reads, `multiset` counts, `differences` sorts what
is left over into kinds, `rack` knows what Rack makes of a query.

Two groups of kinds: those of `DIFFERENT` are differences between JSON values; those of `NOTED` are none (JSON's objects
have no order, and a character may be written in two ways) or are explained by the legacy application. `strict` makes
the order and the spelling count too.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec

from scratchd.config import Config
from scratchd.tools import rack
from scratchd.tools.differences import Differences, Sorter
from scratchd.tools.multiset import NEW, OLD, Multisets, Surplus
from scratchd.tools.outputs import OutputError, Source, read
from scratchd.tools.progress import Progress
from scratchd.tools.table import columns, number

DIFFERENT: Mapping[str, str] = {
    "missing": "only old has it",
    "extra": "only new has it",
    "value": "another value",
    "encoding": "other characters",
}
SPELT: Mapping[str, str] = {
    "order": "of the same: another order of keys",
    "spelling": "of the same: other escapes or white space",
}
NOTED: Mapping[str, str] = {
    "normalised": "of the same: only as Rack reads it",
    "unsure": "contradicting names, their values not compared",
    "refused": "only new has it, Rack may have refused it",
    "empty": "only old has it: no parameters",
}


class CompareError(Exception):
    """Nothing can be compared: what cannot be read, or that there is nothing."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Attributes:
        old: sources of the one side, the legacy application's.
        new: those of the other one.
        legacy: `rack`, or None.
        ignored: top-level names that are left out.
        strict: order of keys and spelling count as differences.
        examples: shown of each kind.
        directory: on whose disk to work.
    """

    old: tuple[Source, ...]
    new: tuple[Source, ...]
    legacy: str | None
    ignored: frozenset[str]
    strict: bool
    examples: int
    directory: Path


@dataclass(slots=True)
class Example:
    """A line of each side, empty where there is none, and where each is."""

    old: str
    old_at: str
    new: str
    new_at: str


@dataclass(slots=True)
class Compared:
    """One flavor; `flavor` is empty where the sides do not tell flavors.

    Attributes:
        same_lines: pairs of lines with the same value.
        differences: by kind.
        refused_by: of `refused`, by what Rack may have found.
        examples: by kind.
    """

    flavor: str
    same_lines: int
    differences: dict[str, int]
    refused_by: dict[str, int]
    examples: dict[str, list[Example]]


def run(config: Config | None, order: Order, out: TextIO, terminal: TextIO, *, as_json: bool) -> bool:
    """Compares and prints.

    Args:
        config: for topics; None where no source is one.
        order: what is asked for.
        out: where the report goes.
        terminal: where progress goes, if it is one.
        as_json: print a JSON document.

    Returns:
        Whether both sides are identical.

    Raises:
        CompareError: a source cannot be read, the disk does not suffice, or neither side has a line.
    """
    normalise = rack.values if order.legacy == "rack" else None
    try:
        with Multisets(order.directory, normalise, order.ignored) as sets:
            with Progress("reading", None, terminal) as progress:
                for side, sources in ((OLD, order.old), (NEW, order.new)):
                    sets.add(side, _lines(sources, config, progress))
            if not any(sets.lines):
                raise CompareError("there is nothing to compare: neither side has a line")
            compared = list(_compared(sets, order))
            counts = sum((Counter(one.differences) for one in compared), Counter[str]())
            different = sum(counts[kind] for kind in (*DIFFERENT, *(SPELT if order.strict else ())))
            document = {
                "identical": not different,
                "different_lines": different,
                "lines": {"old": sets.lines[OLD], "new": sets.lines[NEW]},
                "not_json_lines": {"old": sets.not_json[OLD], "new": sets.not_json[NEW]},
                "repeated_messages": {"old": sets.repeated[OLD], "new": sets.repeated[NEW]},
                "flavors": compared,
            }
    except OutputError as error:
        raise CompareError(str(error)) from error
    except OSError as error:
        raise CompareError(f"{error.filename or order.directory}: {error.strerror}") from error
    except sqlite3.OperationalError as error:
        raise CompareError(f"{order.directory}: {error}") from error
    out.write(msgspec.json.encode(document).decode() + "\n" if as_json else _page(document, compared, order))
    return not different


def _lines(
    sources: tuple[Source, ...], config: Config | None, progress: Progress
) -> Iterator[tuple[str, bytes, str, str]]:
    for output in read(sources, config, progress.add):
        yield output.flavor, output.line, output.identity, output.place


def _compared(sets: Multisets, order: Order) -> Iterator[Compared]:
    sorters: dict[str, Sorter] = {}

    def surplus(found: Surplus) -> None:
        sorter = sorters.setdefault(found.flavor, Sorter(lambda row: sets.line(row)[0], order.examples))
        sorter.add(found)

    for flavor, matched in sets.matched(surplus, order.examples).items():
        sorter = sorters.pop(flavor, None)
        found = sorter.sort(order.ignored, order.legacy) if sorter else Differences()
        counts = {
            **found.counts,
            "order": matched.order,
            "spelling": matched.spelling,
            "normalised": matched.normalised,
        }
        yield Compared(
            flavor,
            matched.lines,
            {kind: counts[kind] for kind in (*DIFFERENT, *SPELT, *NOTED) if counts.get(kind)},
            dict(found.reasons),
            {
                kind: [_example(sets, *pair) for pair in pairs]
                for kind, pairs in {**found.examples, **matched.examples}.items()
            },
        )


def _example(sets: Multisets, old: int, new: int) -> Example:
    (old_line, old_at), (new_line, new_at) = (sets.line(row) if row else (b"", "") for row in (old, new))
    return Example(_shown(old_line), old_at, _shown(new_line), new_at)


def _shown(line: bytes) -> str:
    """A line as text, safe for a terminal: what is no printable character is escaped."""
    text = line.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _page(document: Mapping[str, Any], compared: list[Compared], order: Order) -> str:
    """The report as people read it."""
    kinds = {**DIFFERENT, **SPELT, **NOTED}
    failing = {*DIFFERENT, *(SPELT if order.strict else ())}
    lines = []
    for one in compared:
        rows = [("same", number(one.same_lines), "")]
        for kind, count in one.differences.items():
            why = "".join(f"; {reason}: {number(times)}" for reason, times in one.refused_by.items())
            rows.append((kind, number(count), kinds[kind] + (why if kind == "refused" else "")))
        lines += [*([f"{one.flavor}:"] if one.flavor else []), columns(rows, "<><")]
        for kind in [*failing, *(kind for kind in kinds if kind not in failing)]:
            for example in one.examples.get(kind, []):
                lines.append(f"  {kind}, e.g.")
                lines += [f"    old {example.old_at}: {example.old}"] * bool(example.old_at)
                lines += [f"    new {example.new_at}: {example.new}"] * bool(example.new_at)
    for name, what in (("not_json_lines", "lines that are no JSON"), ("repeated_messages", "messages repeated")):
        counts = document[name]
        if any(counts.values()):
            lines.append(f"{what}: old {number(counts['old'])}, new {number(counts['new'])}")
    totals = document["lines"]
    verdict = "identical" if document["identical"] else f"different: {number(document['different_lines'])}"
    lines.append(f"old {number(totals['old'])}, new {number(totals['new'])} lines: {verdict}")
    return "\n".join(lines) + "\n"
