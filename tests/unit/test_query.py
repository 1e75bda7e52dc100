"""What a query becomes, and which ones are refused."""

from __future__ import annotations

import itertools
import json
import urllib.parse
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from claims import serialised, url_decoded
from scratchd.query import Limits, Repeated, count_parameters, to_json
from scratchd.refusal import Reason

BEACONS = [
    block.strip("\n").split("\n")
    for block in Path(__file__).with_name("beacons.txt").read_text("utf-8").split("\n\n")[1:]
]

REPEATED: tuple[Repeated, ...] = get_args(Repeated)

# Where bytes alone would hardly ever meet: separators, halves of escapes, characters raw, escaped and cut short, and
# what means something to quoted-printable or stands for a separator meanwhile.
FRAGMENTS = [
    *(bytes([byte]) for byte in b"&=+%;abAB01z\xe9\x00\n"),
    *(b"%26", b"%3D", b"%2B", b"%25", b"%00", b"%0a", b"%0A", b"%22", b"%5C", b"%7F", b"%zz", b"%4", b"%u0394"),
    *("κ".encode(), "😀".encode(), "\ufeff".encode(), b"\xf0"),
    *(b"%CE%BA", b"\xce%BA", b"%CE", b"%F0%9F%98", b"%ED%A0%80"),
    *(b"a=1", b"&a=2", b"&b=", b"&&", b"&="),
    *(
        b"\x1e",
        b"\x1f",
        b"\r",
        b"%1E",
        b"%1f",
        b"%1",
        b"1E",
        b"%\n",
        b"%\r\n",
        b"%%",
        b"%=41",
        b"%3D3D",
        b"_",
        b" ",
        b"\xff",
    ),
]
queries = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from(FRAGMENTS), max_size=25).map(b"".join),
    st.lists(st.sampled_from(b"%%%&&===+aA1eEfF0\n\r\x1e\x1f\xce\xba"), max_size=40).map(bytes),
)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
anyhow = settings(deadline=None)  # two loaded cores say nothing about a property


def by_standard_library(query: bytes) -> list[tuple[str, str]]:
    """The names and values as the standard library finds them, which takes text."""
    text = "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in query)
    return urllib.parse.parse_qsl(text, keep_blank_values=True, errors="replace", separator="&")


@pytest.mark.parametrize(
    ("query", "repeated", "expected"),
    [
        pytest.param(b"foo=bar", "last", '{"foo":"bar"}', id="one"),
        pytest.param(b"a=1&b=&c&=x&&d=a=b", "last", '{"a":"1","b":"","c":"","":"x","d":"a=b"}', id="blanks"),
        pytest.param(b"q=a+b%20c%2Bd", "last", '{"q":"a b c+d"}', id="spaces"),
        pytest.param(b"n=%CE%BA%CE%B1&x=%F0%9F%98%80", "last", '{"n":"κα","x":"😀"}', id="utf-8"),
        pytest.param(b"bad=%zz%4&e=%FF%C3%28", "last", '{"bad":"%zz%4","e":"\ufffd\ufffd("}', id="malformed"),
        pytest.param(b"a=1&b=2&a=3", "last", '{"a":"3","b":"2"}', id="last"),
        pytest.param(b"a=1&b=2&a=3", "first", '{"a":"1","b":"2"}', id="first"),
        pytest.param(b"a=1&b=2&a=3", "list", '{"a":["1","3"],"b":"2"}', id="list"),
        pytest.param(b"a=&a&a=", "list", '{"a":["","",""]}', id="list-of-blanks"),
        pytest.param(b"c=%00%1F%22%5C%7F", "last", '{"c":"\\u0000\\u001f\\"\\\\\x7f"}', id="escapes"),
        pytest.param(b"c=%08%09%0A%0C%0D%0B", "last", '{"c":"\\b\\t\\n\\f\\r\\u000b"}', id="short-escapes"),
        pytest.param(b"c=%2F%E2%80%A8%C2%85%3C", "last", '{"c":"/\u2028\u0085<"}', id="no-other-escapes"),
        pytest.param(b"%EF%BB%BFa=%EF%BB%BFb", "last", '{"\ufeffa":"\ufeffb"}', id="byte-order-mark"),
        pytest.param(b"a=\xce%BA&b=%CE\xba&c=\xce\xba", "last", '{"a":"κ","b":"κ","c":"κ"}', id="partly-raw"),
        pytest.param(b"", "last", "{}", id="empty"),
        pytest.param(b"&&", "list", "{}", id="empty-pieces"),
    ],
)
def test_query_becomes_json(query: bytes, repeated: Repeated, expected: str) -> None:
    assert to_json(query, repeated) == expected.encode()


@pytest.mark.parametrize(("query", "expected"), [pytest.param(*block[1:], id=block[0][2:]) for block in BEACONS])
def test_beacon_becomes_json(query: str, expected: str) -> None:
    assert to_json(query.encode("ascii"), "last") == expected.encode()


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        pytest.param(b"", 0, id="empty"),
        pytest.param(b"&&&", 0, id="separators"),
        pytest.param(b"a", 1, id="name"),
        pytest.param(b"=", 1, id="equals-sign"),
        pytest.param(b"&a=1&&a=1&", 2, id="repeated-between-empty-pieces"),
        pytest.param(b"a%26b;c", 1, id="escaped-separator"),
    ],
)
def test_parameters_are_counted_before_merging(query: bytes, parameters: int) -> None:
    assert count_parameters(query) == parameters


TOO_MANY = "the query has 4 parameters, at most 3 are allowed"
TOO_LONG = "the query has 11 bytes, at most 10 are allowed"


@pytest.mark.parametrize(
    ("query", "reason", "sentence"),
    [
        pytest.param(b"", Reason.EMPTY_QUERY, 'the query "" has 0 parameters, at least 1 is required', id="empty"),
        pytest.param(b"&", Reason.EMPTY_QUERY, 'the query "&" has 0 parameters, at least 1 is required', id="no-name"),
        pytest.param(b"a&b&c&d", Reason.TOO_MANY_PARAMETERS, TOO_MANY, id="many"),
        pytest.param(b"a=123456789", Reason.QUERY_TOO_LONG, TOO_LONG, id="long"),
        pytest.param(b"a&b&c&d&e&f", Reason.QUERY_TOO_LONG, TOO_LONG, id="long-before-many"),
        pytest.param(b"&" * 11, Reason.QUERY_TOO_LONG, TOO_LONG, id="long-before-empty"),
    ],
)
def test_query_beyond_a_limit_is_refused(query: bytes, reason: Reason, sentence: str) -> None:
    refusal = Limits(max_bytes=10, max_parameters=3).refusal(query)
    assert refusal is not None
    assert (refusal.reason, refusal.sentence, refusal.retry_after_s) == (reason, sentence, None)


@pytest.mark.parametrize(
    "query",
    [pytest.param(b"a=12345678", id="bytes"), pytest.param(b"a&a&a", id="parameters"), pytest.param(b"=", id="one")],
)
def test_query_at_a_limit_passes(query: bytes) -> None:
    assert Limits(max_bytes=10, max_parameters=3).refusal(query) is None


@given(queries, st.sampled_from(REPEATED))
@example(b"%f0%80%80%ed%a0%80%f4%90%c0%af", "last")
@settings(max_examples=500, deadline=None)
def test_equals_both_the_standard_and_the_standard_librarys_conversion(query: bytes, repeated: Repeated) -> None:
    converted = to_json(query, repeated)
    assert converted == serialised(url_decoded(query), repeated)
    assert converted == serialised(by_standard_library(query), repeated)


@pytest.mark.parametrize("repeated", REPEATED)
@pytest.mark.parametrize("byte", [*range(0x20), 0x26, 0x2B, 0x3D, 0x7F, 0x80, 0xFF], ids="{:02x}".format)
def test_any_byte_is_itself_raw_and_escaped_in_name_and_value(byte: int, repeated: Repeated) -> None:
    for text in (bytes([byte]), b"%%%02x" % byte, b"%%%02X" % byte):
        for query in (b"a%sb=c%sd&e=f%%41" % (text, text), b"a=%" + text, b"a=%4" + text, b"a=%" + text + b"41&b=%4"):
            assert to_json(query, repeated) == serialised(url_decoded(query), repeated)


# Every way in which a sequence is cut short or goes wrong: one byte of each kind that the UTF-8 decoder tells apart.
KINDS = (0x41, 0x80, 0x90, 0xA0, 0xC1, 0xC3, 0xE0, 0xE1, 0xED, 0xF0, 0xF1, 0xF4, 0xF5)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_no_character_reaches_over_a_separator(length: int) -> None:
    for sequence in itertools.product(KINDS, repeat=length):
        escaped = b"".join(b"%%%02X" % byte for byte in sequence)
        alone = bytes(sequence).decode("utf-8", "replace")
        query = b"a%s=%s&b=%s" % (escaped, escaped, escaped)
        assert to_json(query, "last") == serialised([("a" + alone, alone), ("b", alone)], "last")


@given(st.lists(st.tuples(texts, texts), max_size=8))
@anyhow
def test_what_urlencode_makes_comes_back(pairs: list[tuple[str, str]]) -> None:
    query = urllib.parse.urlencode(pairs).encode()
    # urlencode writes a pair of empty strings as "=", so every pair is a parameter.
    assert count_parameters(query) == len(pairs)
    assert json.loads(to_json(query, "last")) == dict(pairs)
    lists: dict[str, list[str]] = {}
    for name, value in pairs:
        lists.setdefault(name, []).append(value)
    decoded = json.loads(to_json(query, "list"))
    assert {name: value if isinstance(value, list) else [value] for name, value in decoded.items()} == lists


@given(queries, st.sampled_from(REPEATED))
@anyhow
def test_output_is_one_object_on_one_line(query: bytes, repeated: Repeated) -> None:
    output = to_json(query, repeated)
    text = output.decode("utf-8", "strict")
    assert not any(character < " " for character in text)

    def distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    decoded = json.loads(text, object_pairs_hook=distinct)
    assert isinstance(decoded, dict)
    for value in decoded.values():
        values = value if isinstance(value, list) else [value]
        assert all(isinstance(element, str) for element in values)
        assert not isinstance(value, list) or (repeated == "list" and len(value) > 1)
    assert bool(decoded) == bool(count_parameters(query))


@given(st.lists(st.tuples(texts, texts), max_size=8), st.sampled_from(REPEATED))
@anyhow
def test_names_keep_the_order_in_which_they_first_came(pairs: list[tuple[str, str]], repeated: Repeated) -> None:
    query = urllib.parse.urlencode(pairs).encode()
    assert list(json.loads(to_json(query, repeated))) == list(dict(pairs))
