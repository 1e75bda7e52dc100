"""The page on the configuration and the examples say what the sections say."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from scratchd.config import Config, Flavor, load, warnings
from scratchd.tools import reference

ROOT = Path(__file__).parents[2]


def keys(struct: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


def test_page_is_what_the_sections_say() -> None:
    written = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert written == reference.page(), "run: python -m scratchd.tools.reference > docs/configuration.md"


def test_page_has_every_key() -> None:
    page = reference.page()
    config = Config(flavors=())
    for name in keys(Config) - {"instance", "flavors"}:
        for key in keys(type(getattr(config, name))):
            assert f"\n| `{name}.{key}` |" in page
    for key in keys(Flavor):
        assert f"\n| `flavors[].{key}` |" in page


def test_minimal_example_is_a_whole_configuration() -> None:
    config = load(ROOT / "examples/minimal.json")
    assert config == Config(flavors=(Flavor(name="gr", hosts=("www.example.gr",), time_zone="Europe/Athens"),))


def test_complete_example_passes_without_a_warning_on_itself() -> None:
    # How large this machine's disk is says nothing about the example.
    assert [text for text in warnings(load(ROOT / "examples/complete.json")) if "file system" not in text] == []


def test_complete_example_has_every_key() -> None:
    document = json.loads((ROOT / "examples/complete.json").read_text(encoding="utf-8"))
    assert set(document) == keys(Config)
    config = Config(flavors=())
    for name in keys(Config) - {"instance", "flavors"}:
        assert set(document[name]) == keys(type(getattr(config, name))), name
    assert set().union(*document["flavors"]) == keys(Flavor)
