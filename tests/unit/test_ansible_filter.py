"""The collection's filter: the keys that need a restart are scratchd's own, and differences are found."""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from msgspec import inspect

from scratchd.config import Config
from scratchd.config.takeover import needs_restart

PLUGIN = Path(__file__).parents[2] / "ansible" / "plugins" / "filter" / "waiting_for_restart.py"


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("waiting_for_restart", PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _keys(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    kind = inspect.type_info(struct)
    assert isinstance(kind, inspect.StructType)
    for field in kind.fields:
        described = field.type.type if isinstance(field.type, inspect.Metadata) else field.type
        if isinstance(described, inspect.StructType):
            yield from _keys(described.cls, f"{prefix}{field.name}.")
        elif needs_restart(field):
            yield f"{prefix}{field.name}"


def test_the_keys_are_those_that_scratchd_says_need_a_restart(plugin: ModuleType) -> None:
    assert sorted(_keys(Config)) == sorted(plugin.KEYS)


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ({}, {}, []),
        ({"flavors": [1]}, {"flavors": [2], "log": {"level": "debug"}}, []),
        ({"http": {"keep_alive_s": 1}}, {"http": {"keep_alive_s": 2}}, []),
        ({}, {"kafka": {"enabled": True}}, ["kafka.enabled"]),
        ({"journal": {"sync": "none"}, "instance": "1"}, {"instance": "2"}, ["instance", "journal.sync"]),
        ({"http": None}, {"http": {"listen": []}}, ["http.listen"]),
        ({"http": "nonsense"}, {"http": {}}, []),
    ],
    ids=["nothing", "others", "another of a section", "a section", "several", "from null", "from nonsense"],
)
def test_differences_that_need_a_restart_are_named(
    plugin: ModuleType, old: dict[str, object], new: dict[str, object], keys: list[str]
) -> None:
    assert _waiting(plugin, json.dumps(old).encode(), new) == keys


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"{}"', b"\xff\xfe{", b'{"http": {}} }', b'{"journal": '],
    ids=["empty", "torn", "a list", "null", "a string", "no text", "more than one", "a part"],
)
def test_a_file_that_is_no_configuration_waits_for_a_restart_and_can_be_repaired(
    plugin: ModuleType, content: bytes
) -> None:
    assert _waiting(plugin, content, {}) == list(plugin.KEYS)


def _waiting(plugin: ModuleType, content: bytes, new: dict[str, object]) -> object:
    """What the filter says of a file that the role has slurped."""
    return plugin.FilterModule().filters()["waiting_for_restart"](base64.b64encode(content).decode(), new)
