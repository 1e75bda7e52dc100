"""The document: a JSON text read into a struct, with every error in it and not only the first.

Owns JSON's own rules, types, ranges, and keys that are unknown, missing or there twice; knows no key of scratchd's.

The standard library's parser is used for its positions and hooks: msgspec's takes the last of two equal keys in
silence. The values are then walked along the struct's types as `msgspec.inspect` shows them, so a struct's
annotations are the one description of what is right. A rule of a text (`Meta(extra={"rule": …})`) is a function that
raises `ValueError`; `Meta(extra={"secret": …})` on an object says which of its keys have values that are not shown.

Wherever something is wrong the walk goes on with the default, so that rules over several keys can be tested in the
same pass; `Report.is_sound` tells whether a key's value is the document's own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from scratchd.config.syntax import nearest

Struct = TypeVar("Struct", bound=msgspec.Struct)

SHOWN_CHARACTERS = 100
"""At most this much of a value is repeated in an error."""


class Report:
    """The errors found so far, each with the path of its key."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._paths: list[str] = []

    def add(self, path: str, message: str) -> None:
        """Adds an error on the key at `path`, empty for the whole document."""
        self.errors.append(printable(f"{path}: {message}" if path else message))
        self._paths.append(path)

    def is_sound(self, *paths: str) -> bool:
        """Whether nothing was found at these keys, above or below them."""
        return not any(_contains(bad, path) or _contains(path, bad) for bad in self._paths for path in paths)


class NotAnObjectError(Exception):
    """The text is no JSON object: there is nothing to walk, and the message, what and where, is all to report."""


def parse(text: str) -> dict[str, object]:
    """Parses one JSON object.

    Raises:
        NotAnObjectError: it is none.
    """
    try:
        document = json.loads(text, object_pairs_hook=_Object, parse_constant=_refuse_constant, parse_int=_read_int)
    except json.JSONDecodeError as error:
        message = error.msg[:1].lower() + error.msg[1:]
        if text.startswith("\ufeff"):
            message = "begins with a byte order mark: remove it"
        elif not text.strip():
            message = "expected a JSON object, the file is empty"
        elif re.match(r"#|//|/\*", text[error.pos :]):
            message += " (JSON knows no comments)"
        raise NotAnObjectError(f"line {error.lineno}, column {error.colno}: {message}") from None
    except RecursionError:
        raise NotAnObjectError("is nested too deeply") from None
    except ValueError as error:
        raise NotAnObjectError(str(error)) from None
    if not isinstance(document, dict):
        raise NotAnObjectError(f"expected a JSON object, got {_kind(document)}")
    return document


def read(document: Mapping[str, object], struct: type[Struct], report: Report) -> Struct:
    """Reads a parsed object into `struct` and adds everything that is wrong to `report`.

    The struct has the defaults where the document is wrong, and empty values where there is no default.
    """
    result = _Walk(report, _paths_of(inspect.type_info(struct))).value("", inspect.type_info(struct), document)
    assert isinstance(result, struct)  # noqa: S101 - for a struct the walk always makes one
    return result


def printable(text: str) -> str:
    """The text with everything escaped that could begin a line of its own or be taken for something else."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(value: object) -> str:
    """A value as an error shows it: as JSON in printable characters, of limited length; objects and arrays as such."""
    if isinstance(value, dict | list):
        return _kind(value)
    if isinstance(value, str):
        cut = value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "..."
        return json.dumps(cut, ensure_ascii=not cut.isprintable())
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def join(path: str, key: str) -> str:
    """The path of a key below another's, the key quoted where it is no plain word."""
    if re.fullmatch(r"[A-Za-z0-9_.*-]{1,100}", key) is None:
        return f"{path}[{shown(key)}]"
    return f"{path}.{key}" if path else key


class _Object(dict[str, object]):
    """A parsed object that remembers which keys came more than once."""

    def __init__(self, pairs: Iterable[tuple[str, object]]) -> None:
        super().__init__()
        self.repeated: dict[str, None] = {}
        for key, value in pairs:
            if key in self:
                self.repeated[key] = None
            self[key] = value


class _Invalid:
    """Stands for a value that was reported and is replaced by the default."""


_INVALID = _Invalid()


class _Walk:
    """Walks one document; `known` are the paths of every key, to point at one that stands in the wrong section."""

    def __init__(self, report: Report, known: Iterable[str]) -> None:
        self._report = report
        self._known = tuple(known)

    def value(self, path: str, kind: inspect.Type, value: object, *, masked: bool = False) -> object:
        """The value as `kind` has it, or `_INVALID` once it was reported. Of structs there is always one."""
        extra: Mapping[str, Any] = {}
        if isinstance(kind, inspect.Metadata):
            extra, kind = kind.extra or {}, kind.type
        if isinstance(kind, inspect.StructType):
            return self._struct(path, kind, value, masked=masked)
        try:
            if isinstance(kind, inspect.VarTupleType):
                return self._tuple(path, kind, value)
            if isinstance(kind, inspect.DictType):
                return self._dict(path, kind, value, extra.get("secret"))
            if isinstance(kind, inspect.UnionType):
                return self._union(path, kind, value, masked=masked)
            leaf = _leaf(kind, value)
            if "rule" in extra:
                extra["rule"](leaf)
        except ValueError as error:
            self._report.add(path, f"{json.dumps('...') if masked else shown(value)} {error}")
            return _INVALID
        return leaf

    def _struct(self, path: str, kind: inspect.StructType, value: object, *, masked: bool) -> object:
        fields = {field.encode_name: field for field in kind.fields}
        entries = self._entries(path, value)
        for key in () if entries is None else entries:
            if key not in fields:
                self._report.add(join(path, key), f"is not a known key{self._hint(key, fields)}")
        values = {}
        for key, field in fields.items():
            result: object = _INVALID
            if entries is not None and key in entries:
                result = self.value(join(path, key), field.type, entries[key], masked=masked)
            elif entries is not None and field.required:
                self._report.add(join(path, key), "is required, but missing")
            if result is _INVALID and field.required:
                result = _empty(field.type)
            if result is not _INVALID:
                values[field.name] = result
        return kind.cls(**values)

    def _tuple(self, path: str, kind: inspect.VarTupleType, value: object) -> object:
        if not isinstance(value, list):
            raise ValueError("is not an array")  # noqa: TRY004 - a rule is broken, not a contract
        if len(value) < (kind.min_length or 0):
            self._report.add(path, "is empty: at least one entry is required")
        entries = (self.value(f"{path}[{index}]", kind.item_type, entry) for index, entry in enumerate(value))
        return tuple(entry for entry in entries if entry is not _INVALID)

    def _dict(self, path: str, kind: inspect.DictType, value: object, secret: Callable[[str], bool] | None) -> object:
        entries = self._entries(path, value)
        if entries is None:
            return _INVALID
        results = {}
        for key, entry in entries.items():
            try:
                _text(key)
            except ValueError as error:
                self._report.add(join(path, key), f"the key {error}")
                continue
            masked = secret is not None and secret(key)
            results[key] = self.value(join(path, key), kind.value_type, entry, masked=masked)
        return {key: result for key, result in results.items() if result is not _INVALID}

    def _union(self, path: str, kind: inspect.UnionType, value: object, *, masked: bool) -> object:
        if value is None and kind.includes_none:
            return None
        members = [member for member in kind.types if not isinstance(member, inspect.NoneType)]
        if len(members) == 1:
            return self.value(path, members[0], value, masked=masked)
        if isinstance(value, str | bool | int | float):
            return _leaf(
                inspect.StrType() if isinstance(value, str) else _NUMBERS.get(type(value), inspect.AnyType()), value
            )
        structs = [member for member in members if isinstance(member, inspect.StructType)]
        if structs and isinstance(value, dict):
            return self._struct(path, structs[0], value, masked=masked)
        keys = "".join(f', {{"{field.encode_name}": ...}}' for struct in structs for field in struct.fields)
        raise ValueError(f"is none of a string, a number{keys}, true and false")

    def _entries(self, path: str, value: object) -> dict[str, object] | None:
        """The object's entries, None once it was reported that it is none. Its text may be a secret: not shown."""
        if not isinstance(value, dict):
            self._report.add(path, f"expected an object, got {_kind(value)}")
            return None
        for key in value.repeated if isinstance(value, _Object) else ():
            self._report.add(join(path, key), "is there more than once")
        return value

    def _hint(self, key: str, siblings: Iterable[str]) -> str:
        near = nearest(key, siblings)
        elsewhere = [path for path in self._known if path.rpartition(".")[2] == key]
        return f'; did you mean "{elsewhere[0]}"?' if elsewhere and not near else near


_NUMBERS: Mapping[type, inspect.Type] = {
    int: inspect.IntType(ge=-(2**63), le=2**63 - 1),
    float: inspect.FloatType(),
}


def _leaf(kind: inspect.Type, value: object) -> object:
    """The value as the simple type has it.

    Raises:
        ValueError: it is none of that type, or out of its range; the message completes the sentence it begins.
    """
    match kind:
        case inspect.BoolType() if not isinstance(value, bool):
            raise ValueError("is neither true nor false")
        case inspect.StrType():
            return _text(value)
        case inspect.LiteralType():
            if value not in kind.values or isinstance(value, bool):
                choices = ", ".join(f'"{choice}"' for choice in kind.values)
                hint = nearest(value, map(str, kind.values)) if isinstance(value, str) else ""
                raise ValueError(f"is none of {choices}{hint}")
        case inspect.IntType() | inspect.FloatType():
            return _number(kind, value)
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a string")  # noqa: TRY004 - a rule is broken, not a contract
    if "\0" in value:
        raise ValueError("contains a NUL character")
    if re.search("[\ud800-\udfff]", value):
        raise ValueError("is no Unicode text: it contains half of a surrogate pair")
    return value


def _number(kind: inspect.IntType | inspect.FloatType, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is not a number")  # noqa: TRY004 - a rule is broken, not a contract
    if not math.isfinite(value):
        raise ValueError("is too large a number")
    if isinstance(kind, inspect.IntType) and value != int(value):
        raise ValueError("is not a whole number")
    if kind.gt is not None and value <= kind.gt:
        raise ValueError(f"is too small: it must be greater than {kind.gt:g}")
    if kind.ge is not None and value < kind.ge:
        raise ValueError(f"is too small: it must be at least {kind.ge}")
    if kind.le is not None and value > kind.le:
        raise ValueError(f"is too large: it must be at most {kind.le}")
    return int(value) if isinstance(kind, inspect.IntType) else float(value)


def _empty(kind: inspect.Type) -> object:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return () if isinstance(kind, inspect.VarTupleType) else ""


def _paths_of(kind: inspect.Type, path: str = "") -> list[str]:
    """The paths of all keys below a struct, `[]` standing for any index."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.VarTupleType):
        return _paths_of(kind.item_type, f"{path}[]")
    if not isinstance(kind, inspect.StructType):
        return []
    paths = []
    for field in kind.fields:
        below = join(path, field.encode_name)
        paths += [below, *_paths_of(field.type, below)]
    return paths


def _contains(outer: str, inner: str) -> bool:
    return outer in (inner, "") or inner.startswith((f"{outer}.", f"{outer}["))


def _kind(value: object) -> str:
    match value:
        case dict():
            return "an object"
        case list():
            return "an array"
        case str():
            return "a string"
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
    return "a number"


def _refuse_constant(name: str) -> object:
    raise ValueError(f"contains {name}, which is no JSON: a number must be finite")


def _read_int(digits: str) -> int | float:
    # Python itself refuses to convert thousands of digits; as a float it is reported with its key.
    if len(digits) > SHOWN_CHARACTERS:
        return -math.inf if digits.startswith("-") else math.inf
    return int(digits)
