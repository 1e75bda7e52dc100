"""Whether two sets of lines are the same, and how they differ."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchd.tools import compare
from scratchd.tools.compare import CompareError, Order
from scratchd.tools.outputs import Source, flavor_of, parse


def compared(tmp_path: Path, old: bytes, new: bytes, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    return of(tmp_path, [str(tmp_path / "old")], [str(tmp_path / "new")], **options)


def of(tmp_path: Path, old: list[str], new: list[str], **options: Any) -> dict[str, Any]:  # noqa: ANN401
    chosen = {"legacy": None, "ignored": frozenset[str](), "strict": False, "examples": 3, **options}
    order = Order(tuple(map(parse, old)), tuple(map(parse, new)), directory=tmp_path, **chosen)
    out = io.StringIO()
    identical = compare.run(None, order, out, io.StringIO(), as_json=True)
    document: dict[str, Any] = json.loads(out.getvalue())
    assert document["identical"] is identical
    compare.run(None, order, out := io.StringIO(), io.StringIO(), as_json=False)
    assert out.getvalue().splitlines()[-1].endswith("lines: identical") is identical
    return document


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(b'{"a":"1"}\n{"a":"2"}\n', b'{"a":"2"}\n{"a":"1"}\n', {}, id="another-order-of-lines"),
        pytest.param(b'{"a":"1"}\n{"a":"2"}\n', b'{"a":"1"}\n', {"missing": 1}, id="missing"),
        pytest.param(b'{"a":"1"}\n', b'{"a":"1"}\n{"b":"2"}\n', {"extra": 1}, id="extra"),
        pytest.param(b'{"a":"1"}\n' * 3, b'{"a":"1"}\n', {"missing": 2}, id="too-seldom"),
        pytest.param(b'{"a":"1","b":"2"}\n', b'{"a":"1","b":"3"}\n', {"value": 1}, id="one-value"),
        pytest.param(b'{"a":"1"}\n', b'{"a":null}\n', {"value": 1}, id="null"),
        pytest.param(b'{"a":1,"b":2,"c":3,"d":4}\n', b'{"a":1,"b":2,"c":0,"d":0}\n', {"value": 1}, id="two-values"),
        pytest.param(b'{"a":1,"b":2,"c":3}\n', b'{"a":1,"b":0,"c":0}\n', {"missing": 1, "extra": 1}, id="most-values"),
        pytest.param(b'{"a":"1"}\n', b'{"b":"1"}\n', {"missing": 1, "extra": 1}, id="name"),
        pytest.param(b'{"a":"\xff"}\n', '{"a":"\ufffd"}\n'.encode(), {"encoding": 1}, id="invalid-bytes"),
        pytest.param('{"a":"é"}\n'.encode("latin-1"), '{"a":"é"}\n'.encode(), {"encoding": 1}, id="latin-1"),
        pytest.param('{"a":"Ã©"}\n'.encode(), '{"a":"é"}\n'.encode(), {"encoding": 1}, id="encoded-twice"),
        pytest.param(b'{"a":1,"b":2}\n', b'{"b":2,"a":1}\n', {"order": 1}, id="order"),
        pytest.param(b'{"a": "\\u00e9"}\n', '{"a":"é"}\n'.encode(), {"spelling": 1}, id="spelling"),
        pytest.param(b'{"a": 1,"b":2}\n', b'{"b":2,"a":1}\n', {"order": 1}, id="order-and-spelling"),
        pytest.param(b"{\n{\n", b"{\n", {"missing": 1}, id="no-json"),
        pytest.param(b"{\n", b"[\n", {"missing": 1, "extra": 1}, id="no-json-either"),
        pytest.param(b"[" * 100_000, b"[]\n", {"missing": 1, "extra": 1}, id="nested-without-end"),
    ],
)
def test_differences_have_kinds(tmp_path: Path, old: bytes, new: bytes, expected: dict[str, int]) -> None:
    document = compared(tmp_path, old, new)
    (flavor,) = document["flavors"]
    assert flavor["differences"] == expected
    assert document["identical"] is (not set(expected) - {"order", "spelling"})
    assert set(flavor["examples"]) == set(expected)


@pytest.mark.parametrize("kind", ["order", "spelling"])
def test_strict_counts_what_is_no_difference_of_values(tmp_path: Path, kind: str) -> None:
    old, new = {"order": (b'{"a":1,"b":2}\n', b'{"b":2,"a":1}\n'), "spelling": (b'{"a": 1}\n', b'{"a":1}\n')}[kind]
    assert compared(tmp_path, old, new)["identical"]
    assert not compared(tmp_path, old, new, strict=True)["identical"]


def test_an_ignored_key_is_not_compared(tmp_path: Path) -> None:
    old, new = b'{"a":"1","at":"9"}\n', b'{"a":"1"}\n'
    assert not compared(tmp_path, old, new)["identical"]
    assert compared(tmp_path, old, new, ignored=frozenset({"at"}))["identical"]


_LINES = st.lists(st.sampled_from([b'{"a":"1"}', b'{"a":"2"}', b'{"b":"1","a":"1"}', b'{"c":"1"}', b"!"]), max_size=12)


@settings(max_examples=30)  # each makes files and databases
@given(old=_LINES, new=_LINES)
def test_counts_agree_with_those_of_multisets(
    tmp_path_factory: pytest.TempPathFactory, old: list[bytes], new: list[bytes]
) -> None:
    if not old and not new:
        return
    document = compared(tmp_path_factory.mktemp("compare"), b"\n".join(old), b"\n".join(new))
    (flavor,) = document["flavors"]
    counts = flavor["differences"]
    pairs = counts.get("value", 0) + counts.get("encoding", 0)
    assert flavor["same_lines"] == (Counter(old) & Counter(new)).total()
    assert counts.get("missing", 0) + pairs == (Counter(old) - Counter(new)).total()
    assert counts.get("extra", 0) + pairs == (Counter(new) - Counter(old)).total()


def test_examples_say_where_each_line_is(tmp_path: Path) -> None:
    document = compared(tmp_path, b'{"a":"1"}\n{"a":"\x1b"}\n{"a":"2"}\n', b'{"a":"1"}\n')
    examples = document["flavors"][0]["examples"]["missing"]
    assert [example["old_at"] for example in examples] == [f"{tmp_path}/old:2", f"{tmp_path}/old:3"]
    assert examples[0]["old"] == r'{"a":"\x1b"}'


def test_rack_explains_its_differences_and_no_others(tmp_path: Path) -> None:
    old = b'{"a":{"b":"1"}}\n{"c":null}\n{"d":"2","e":"3"}\n{}\n{"l":["1","2"]}\n'
    new = b'{"a[b]":"1"}\n{"c":""}\n{"d[x]":"1","d":"2","e":"3"}\n{"l[]":"2"}\n{"p":"100%"}\n'
    assert not compared(tmp_path, old, new)["identical"]
    document = compared(tmp_path, old, new, legacy="rack")
    (flavor,) = document["flavors"]
    assert flavor["differences"] == {"normalised": 3, "unsure": 1, "refused": 1, "empty": 1}
    assert flavor["refused_by"] == {"a stray %": 1}
    assert document["identical"]
    worse = compared(tmp_path, old + b'{"f":"1"}\n', new.replace(b'"3"', b'"4"') + b'{"g":"1"}\n', legacy="rack")
    assert worse["flavors"][0]["differences"]["missing"] == 2
    assert not worse["identical"]


def test_flavors_are_compared_apart(tmp_path: Path) -> None:
    for path, line in (("old/gr.log", b"1"), ("new/gr/2026-12-31.log", b"1"), ("old/de.log", b"2")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(line + b"\n")
    (tmp_path / "new/gr/2026-12-31.log.manifest.json").write_text("{}")
    (tmp_path / "new/fr").mkdir()
    (tmp_path / "new/fr/2026-12-31.log.gz").write_bytes(gzip.compress(b"2\n"))
    document = of(tmp_path, [str(tmp_path / "old")], [str(tmp_path / "new")])
    found = {flavor["flavor"]: flavor["differences"] for flavor in document["flavors"]}
    assert found == {"de": {"missing": 1}, "fr": {"extra": 1}, "gr": {}}
    # A side that does not tell flavors is compared with all of the other one.
    assert of(tmp_path, [f"{tmp_path}/old/gr.log", f"{tmp_path}/old/de.log"], [str(tmp_path / "new")])["identical"]
    named = [f"gr={tmp_path}/old/gr.log", f"fr={tmp_path}/old/de.log"]
    assert of(tmp_path, named, [str(tmp_path / "new")])["identical"]


@pytest.mark.parametrize(
    ("path", "flavor"),
    [
        ("gr/2026-12-31.log", "gr"),
        ("gr/a/b.log", "gr"),
        ("gr.log", "gr"),
        ("gr-2026-12-31.log.gz", "gr"),
        ("gr.2026-12-31.log", "gr"),
        ("2026-12-31.log", ""),
        ("20261231", ""),
    ],
)
def test_a_files_path_tells_its_flavor(path: str, flavor: str) -> None:
    assert flavor_of(Path(path)) == flavor


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("log/a", Source(None, "log/a", is_topic=False)),
        ("topic:a", Source(None, "a", is_topic=True)),
        ("gr=topic:a", Source("gr", "a", is_topic=True)),
        ("gr=log", Source("gr", "log", is_topic=False)),
        ("/a=b/c", Source(None, "/a=b/c", is_topic=False)),
    ],
)
def test_sources_are_read_as_written(text: str, source: Source) -> None:
    assert parse(text) == source


def test_nothing_to_compare_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(CompareError, match="neither side has a line"):
        compared(tmp_path, b"", b"")


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompareError, match="gone: No such file"):
        of(tmp_path, [str(tmp_path / "gone")], [str(tmp_path / "gone")])


def test_nothing_is_left_on_the_disk(tmp_path: Path) -> None:
    compared(tmp_path, b"1\n", b"2\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
