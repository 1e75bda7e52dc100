"""Whether the house's arrows point one way: which module may import what, read from the sources.

Imports at a module's top count, those of the modules that it imports too. An import inside a function is one that its
author made lazy for a reason (configuration asks librdkafka only while it validates) and does not bind the module.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "scratchd"


def _modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _imports(module: str) -> set[str]:
    """What `module` imports at its top: modules of scratchd by their full names, others by their first part."""
    found: set[str] = set()
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute, so that they can be read here"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in MODULES else str(node.module))
    return {name if name in MODULES else name.partition(".")[0] for name in found}


def _with_parents(module: str) -> list[str]:
    """The packages around `module`, outermost first, and itself: importing it imports them all."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _reached(module: str) -> dict[str, str]:
    """Everything that importing `module` imports, with the way to it."""
    ways = {module: module}
    waiting = [module]
    while waiting:
        importer = waiting.pop()
        for imported in {name for found in _imports(importer) for name in _with_parents(found)}:
            if imported not in ways:
                ways[imported] = f"{ways[importer]} -> {imported}"
                if imported in MODULES:
                    waiting.append(imported)
    return ways


def _below(*packages: str) -> list[str]:
    """The modules in `packages`, themselves included."""
    names = [f"scratchd.{package}." for package in packages]
    return sorted(module for module in MODULES if f"{module}.".startswith(tuple(names)))


PURE = ["track", "query", "flavors", "checks", "line", "refusal", "http.head", "http.host"]
BACKENDS = ["file", "kafka", "fake"]
IMPURE = ["trio", "confluent_kafka", "hypercorn", "socket", "time"]


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_know_no_event_loop_no_network_and_no_clock(module: str) -> None:
    reached = _reached(f"scratchd.{module}")
    assert [reached[name] for name in IMPURE if name in reached] == []


@pytest.mark.parametrize("module", _below("backends"))
def test_backends_know_no_http(module: str) -> None:
    reached = _reached(module)
    assert [reached[name] for name in _below("http", "service", "track", "tools", "cli") if name in reached] == []


@pytest.mark.parametrize("module", BACKENDS)
def test_backends_know_not_each_other(module: str) -> None:
    reached = _reached(f"scratchd.backends.{module}")
    others = [f"scratchd.backends.{other}" for other in BACKENDS if other != module]
    assert [reached[name] for name in others if name in reached] == []


@pytest.mark.parametrize("module", _below("tools"))
def test_tools_know_neither_service_nor_http(module: str) -> None:
    reached = _reached(module)
    assert [reached[name] for name in _below("service", "http", "cli") if name in reached] == []


@pytest.mark.parametrize("module", _below("journal"))
def test_journal_knows_neither_http_nor_backends(module: str) -> None:
    reached = _reached(module)
    assert [reached[name] for name in _below("http", "backends", "service", "tools", "cli") if name in reached] == []


@pytest.mark.parametrize("package", ["stats", "figures"])
def test_figures_read_nobody(package: str) -> None:
    reached = _reached(f"scratchd.{package}")
    everyone = set(MODULES) - {"scratchd", *_below(package)}
    assert [reached[name] for name in sorted(everyone) if name in reached] == []


@pytest.mark.parametrize("module", _below("http"))
def test_http_knows_of_the_journal_only_how_to_write_it(module: str) -> None:
    reached = _reached(module)
    assert [reached[name] for name in _below("backends", "service", "tools", "cli") if name in reached] == []
    assert _imports(module).intersection(_below("journal")) <= {"scratchd.journal.writer"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - set(_below("service", "cli"))))
def test_only_the_command_line_knows_the_service(module: str) -> None:
    assert "scratchd.service" not in _reached(module)


# Private names: what a library keeps to itself may be gone in its next version.

_PRIVATE = re.compile(r"_[a-z]\w*")


def _foreign_private_names(module: str) -> Iterator[str]:
    """Private modules that are imported, and private attributes of what is not the object itself."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            path = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            names = [f"{path}.{alias.name}".lstrip(".") for alias in node.names]
            yield from (name for name in names if any(_PRIVATE.fullmatch(part) for part in name.split(".")))
        elif isinstance(node, ast.Attribute) and _PRIVATE.fullmatch(node.attr):
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls"):
                yield f"{owner}.{node.attr}"


def _inherited_private_names(owner: type) -> set[str]:
    """The private names that a class has from, or shares with, a library's class that it is derived from."""
    own = {match[1] for match in re.finditer(r"(?:self\.|cls\.|def )(_[a-z]\w*)", inspect.getsource(owner))}
    theirs: set[str] = set()
    for base in owner.__mro__[1:]:
        if base.__module__.partition(".")[0] not in ("scratchd", "builtins"):
            theirs.update(dir(base))
            try:
                theirs.update(_PRIVATE.findall(inspect.getsource(base)))
            except (TypeError, OSError):
                continue  # written in C
    return own & theirs


@pytest.mark.parametrize("module", sorted(MODULES))
def test_private_names_are_used_by_their_owners_alone(module: str) -> None:
    assert list(_foreign_private_names(module)) == []


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"scratchd.__main__"}))
def test_nothing_private_is_inherited_from_a_library(module: str) -> None:
    found = {
        f"{name}.{private}"
        for name, owner in inspect.getmembers(importlib.import_module(module), inspect.isclass)
        if owner.__module__ == module
        for private in _inherited_private_names(owner)
    }
    assert found == set()
