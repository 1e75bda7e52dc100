r"""Rack: a beacon's values brought to a form in which Rack's reading of a query and scratchd's are the same. Pure.

A legacy application on Rack (Ruby on Rails, Sinatra) reads a query by `Rack::Utils.parse_nested_query`, whose object
differs from scratchd's for the same query: `a[b]=c` nests, `a[]=c` collects, `;` separates in Rack 1 and 2, a name
without `=` has nil, a name without a letter is dropped, and malformed escapes or conflicting names refuse the whole
request. docs/replay.md has the table. Given only what each side wrote, both objects are *flattened*: a name becomes the
path of its parts without brackets, `a[b][]` the path `a[b]`, and keeps its last value, since the last one is all that
`query.repeated: last` keeps; `;` separates on both sides; nil is the empty string; a run of what is no text is one
U+FFFD. So for every query that Rack takes, `read(legacy).values == read(scratchd).values`, except where names
contradict each other: what comes of `a[b]=1&a=2` depends on an order that is not there any more. There the *root* of
the path, `a`, is *unsure*, and its values are not compared (`Reading.sure`).

What Rack refuses is in scratchd's output and not in the other one: `Reading.refused_by` says why that may be. Under
`query.repeated: last` a value that another one replaced is gone, and with it what Rack may have found in it: such a
line stays a difference, and `scratchd replay --differing` tells its request.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DEPTH = 32
"""From so many parts on a name may be too deep: Rack's own limit is 32 in Rack 3, and 100 before."""

_BRACKETS = re.compile(r"[\[\]]+")
# The root has no brackets, the parts are in them, `[]` collects. Ruby's `$` is at every line's end, hence no \n.
_WELL_FORMED = re.compile(r"[^\[\]]+|[^\[\]\n]+(?:\[[^\[\]\n]*\])+")
# Rack 2 drops what the third empty pair is to collect.
_ODD = re.compile(r"[\[\]].*[;=]|[;=].*[\[\]]|\[\]\[\]\[\]\Z", re.DOTALL)
_ODD_PIECE = re.compile(r"==|[\[\]].*=\Z|=.*[\[\]]", re.DOTALL)
_PART = re.compile(r"\[([^\[\]]*)\]")
_NO_TEXT = re.compile("[\ufffd\ud800-\udfff]+")
_MALFORMED = "\ufffd"
_TELLING_NAME = re.compile("[][;=\ufffd\ud800-\udfff]")
_TELLING_VALUE = re.compile("[;\ufffd\ud800-\udfff]")
_STRAY_PERCENT_SIGN = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Reading:
    """An object, flattened.

    Attributes:
        values: by path, `a[b]`.
        unsure: roots whose names contradict each other.
        refused_by: why Rack may have refused the query, empty where nothing shows that.
    """

    values: Mapping[str, Any]
    unsure: frozenset[str]
    refused_by: str

    def sure(self, unsure: Collection[str]) -> dict[str, Any]:
        """The values whose roots are not in `unsure`."""
        return {path: value for path, value in self.values.items() if path.partition("[")[0] not in unsure}


def values(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """`read(document).values`, quickly where no name and no value has anything that Rack makes something of."""
    texts = list(document.values())
    if (
        all(type(text) is str for text in texts)
        and _TELLING_NAME.search("\n".join(document)) is None
        and _TELLING_VALUE.search("\n".join(texts)) is None
        and "" not in document
    ):
        return document
    return read(document).values


def read(document: Mapping[str, Any]) -> Reading:
    """Flattens an object of either side; values may be nested, arrays, strings or null."""
    values: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    kinds: dict[tuple[str, ...], str] = {}
    unsure: set[str] = set()
    separated: set[str] = set()
    replaced = False
    refused_by = ""
    for written, written_value in _leaves("", document):
        refused_by = refused_by or _complaint(written, written_value)
        # Rack's versions do not agree on what such a name is, nor on whether `;` in its value begins another one.
        odd = _ODD.search(written) is not None or ("=" in written and ";" in str(written_value))
        for index, (name, value) in enumerate(_separated(written, written_value)):
            parts = _parts(name)
            # Behind a `;` it cannot be told any more whether a `=` was escaped.
            odd = odd or not parts or (index > 0 and _ODD_PIECE.search(f"{name}={value}") is not None)
            if not parts:
                continue
            root = parts[0]
            path = root + "".join(f"[{part}]" for part in parts[1:])
            agrees = _agrees(name, kinds)
            odd = odd or _WELL_FORMED.fullmatch(name) is None
            if odd:
                unsure.update(parts, *(part.split("\n") for part in parts))
            if not agrees or spelled.setdefault(path, name) != name:
                unsure.add(root)
            if not agrees:
                refused_by = refused_by or f"conflicting uses of {root}"
            replaced = replaced or path in values
            values[path] = value
            if index > 0:
                separated.add(root)
    # What is behind an escaped `;` goes with the value that it is in, and nothing says any more that it was escaped.
    if replaced or unsure:
        unsure |= separated
    return Reading(values, frozenset(unsure), refused_by)


def _parts(name: str) -> list[str]:
    return [part for part in _BRACKETS.split(name) if part]


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any JSON value
    """Names as a query has them, with what they stand for; of an array only what says where it is."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _leaves(f"{name}[{key}]" if name else key, child)
    elif isinstance(value, list):
        # scratchd's arrays are of names that repeat, and those have their brackets already.
        bracketed = name if name.endswith("[]") else f"{name}[]"
        for child in value:
            yield from _leaves(name if isinstance(child, str) else bracketed, child)
    else:
        yield name, "" if value is None else value


def _separated(name: str, value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any JSON value
    """The name and value, and what stands behind each `;` in them as a name and a value of its own."""
    name = _NO_TEXT.sub(_MALFORMED, name)
    if not isinstance(value, str):
        yield name, value
        return
    text = f"{name}={_NO_TEXT.sub(_MALFORMED, value)}" if value else name
    for piece in text.split(";"):
        first, _, rest = piece.partition("=")
        yield first, rest


def _complaint(name: str, value: Any) -> str:  # noqa: ANN401 - any JSON value
    text = value if isinstance(value, str) else ""
    if _STRAY_PERCENT_SIGN.search(name) or _STRAY_PERCENT_SIGN.search(text):
        return "a stray %"
    if "\ufffd" in name or "\ufffd" in text:
        return "invalid bytes"
    if name.count("[") >= DEPTH - 1:
        return "a name too deep"
    if any(_WELL_FORMED.fullmatch(piece.partition("=")[0]) is None for piece in f"{name}={text}".split(";") if piece):
        return "brackets that do not match"
    return ""


def _agrees(name: str, kinds: dict[tuple[str, ...], str]) -> bool:
    """Whether each part of a name is used as before: for a value, an array or an object."""
    root, bracket, _ = name.partition("[")
    parts = [root, *(_PART.findall(name[len(root) :]) if bracket else [])]
    agrees = True
    for index in range(len(parts)):
        place = tuple(parts[: index + 1])
        kind = "value" if index + 1 == len(parts) else "array" if parts[index + 1] == "" else "object"
        agrees = kinds.setdefault(place, kind) == kind and agrees
    return agrees
