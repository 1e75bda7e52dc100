"""Whether the real Rack reads queries as `compare --legacy rack` and the legacy stand-in say it does.

Two of them: the one of the system's ruby-rack (2.2 on Debian 12, where `;` separates) and the one of Debian 13 (3.1).
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import debian13
import legacy
from daemon import SOURCE
from scratchd import query
from scratchd.tools import rack

SCRIPT = Path(__file__).parent / "rollout" / "rack.rb"

PIECES = (
    *("a", "b", "c", "[", "]", "[]", "[a]", "[b]", "a[b]", "a[]", "a[][b]", "=", "=1", "=2", "&", "&", ";", "+", "%5B"),
    *("%5D", "%", "%zz", "%FF", "%C3", "%CE%BA", "%3B", "%3D", "%26", "%0A", "%00", "%ED%A0%80", "%EF%BB%BF"),
)
QUERIES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=14).map("".join)
REFUSED = st.tuples(QUERIES, st.sampled_from(["a=%zz", "b=%", "x=1&x[y]=2", "x[]=1&x[y]=2", "x[y]=1&x[]=2"]), QUERIES)
"""What Rack refuses by the piece in the middle, if no other piece makes it something else."""
SEPARATORS = st.sampled_from(["-", "&;"])
SETTINGS = hypothesis.settings(
    max_examples=500,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)


class Rack:
    """A real Rack, asked through pipes.

    Args:
        before: what to put before the command, to run it in another root directory.

    Attributes:
        release: its version.
    """

    def __init__(self, before: tuple[str, ...] = ()) -> None:
        command = [*before, "ruby", "-W0", str(SCRIPT)]
        self._process = subprocess.Popen(command, cwd=SOURCE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.release = self._answer().decode().strip()

    def __call__(self, text: str, separators: str = "-") -> dict[str, Any] | None:
        """The parameters of a query, None where Rack refuses it; `-`: Rack's own separators."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{separators} {text.encode().hex()}\n".encode())
        parsed = json.loads(self._answer())
        return None if isinstance(parsed, str) else _text(parsed)

    def _answer(self) -> bytes:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        assert answer, f"ruby ended with {self._process.wait()}"
        return answer

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def _text(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Strings in place of their bytes in hexadecimal."""
    if isinstance(value, dict):
        return {_text(name): _text(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_text(child) for child in value]
    return bytes.fromhex(value).decode("utf-8", "surrogateescape") if isinstance(value, str) else value


@pytest.fixture(scope="module")
def rack_of() -> Iterator[Callable[[str], Rack]]:
    """Starts the Rack of `system` or of `debian13`, once."""
    started: dict[str, Rack] = {}
    with ExitStack() as stack:

        def start(name: str) -> Rack:
            if name not in started:
                before: tuple[str, ...] = ()
                if name == "debian13":
                    try:
                        made = debian13.tree(SOURCE / ".cache", ("ruby-rack",))
                    except debian13.NoTree as error:
                        pytest.fail(str(error), pytrace=False)
                    before = debian13.entering(made, read_only=(SOURCE,))
                started[name] = Rack(before)
                stack.callback(started[name].close)
            return started[name]

        yield start


@pytest.fixture(params=["system", "debian13"])
def real(request: pytest.FixtureRequest, rack_of: Callable[[str], Rack]) -> Rack:
    return rack_of(request.param)


@pytest.fixture
def rack3(rack_of: Callable[[str], Rack]) -> Rack:
    return rack_of("debian13")


def names(text: str) -> list[str]:
    return [urllib.parse.unquote_plus(piece.partition("=")[0]) for piece in text.split("&") if piece]


def test_both_generations_are_asked(rack_of: Callable[[str], Rack]) -> None:
    assert rack_of("system").release.startswith(("2.", "3."))
    assert rack_of("debian13").release.startswith("3.")


@SETTINGS
@hypothesis.given(text=QUERIES, separators=SEPARATORS)
def test_what_rack_takes_is_the_same_once_normalised(real: Rack, text: str, separators: str) -> None:
    """With `last` too, unless `;` hid another parameter in a value that was replaced."""
    parsed = real(text, separators)
    hypothesis.assume(parsed is not None)
    assert parsed is not None
    lossy = ";" in text and len(set(names(text))) < len(names(text))
    for repeated in ("list",) if lossy else ("list", "last"):
        ours = rack.read(json.loads(query.to_json(text.encode(), repeated)))  # type: ignore[arg-type]
        theirs = rack.read(parsed)
        assert ours.sure(ours.unsure) == theirs.sure(ours.unsure)


@SETTINGS
@hypothesis.given(text=QUERIES | REFUSED.map("&".join), separators=SEPARATORS)
def test_what_rack_refuses_is_seen(real: Rack, text: str, separators: str) -> None:
    hypothesis.assume(real(text, separators) is None)
    assert rack.read(json.loads(query.to_json(text.encode(), "list"))).refused_by


@SETTINGS
@hypothesis.given(text=QUERIES, separators=SEPARATORS)
def test_the_stand_in_reads_as_rack_3_does(rack3: Rack, text: str, separators: str) -> None:
    try:
        parsed: dict[str, Any] | None = legacy.parse_nested_query(text, "&" if separators == "-" else separators)
    except legacy.ParameterError:
        parsed = None
    assert parsed == rack3(text, separators)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a[b]=c", {"a": {"b": "c"}}),
        ("a[]=1&a[]=2", {"a": ["1", "2"]}),
        ("a[][b]=1&a[][c]=2&a[][b]=3", {"a": [{"b": "1", "c": "2"}, {"b": "3"}]}),
        ("a=1&a=2", {"a": "2"}),
        ("a&b=", {"a": None, "b": ""}),
        ("a[b]=1&a=2", {"a": "2"}),
        ("a=1&a[b]=2", None),
        ("a=%zz", None),
        ("a=%FF", {"a": "\udcff"}),
        ("=1", {}),
        ("a" + "[b]" * 101 + "=1", None),
    ],
)
def test_the_table_of_the_documentation_is_true(real: Rack, text: str, expected: dict[str, Any] | None) -> None:
    """docs/replay.md has these rows."""
    assert real(text) == expected


def test_semicolons_separate_where_they_are_told_to(real: Rack) -> None:
    assert real("a=1;b=2", "&;") == {"a": "1", "b": "2"}
    assert real("a=1;b=2", "&") == {"a": "1;b=2"}
