"""Which differences between Rack's reading of a query and scratchd's are none; test_rack.py asks the real Rack."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd.tools.rack import read, values


@pytest.mark.parametrize(
    ("legacy", "ours"),
    [
        pytest.param({"a": "1"}, {"a": "1"}, id="same"),
        pytest.param({"a": {"b": "c", "d": "e"}}, {"a[b]": "c", "a[d]": "e"}, id="nested"),
        pytest.param({"a": ["1", "2"]}, {"a[]": "2"}, id="array"),
        pytest.param({"a": ["1", "2"]}, {"a[]": ["1", "2"]}, id="array-and-list"),
        pytest.param({"a": "2"}, {"a": ["1", "2"]}, id="repeated-and-list"),
        pytest.param({"a": [{"b": "1"}, {"b": "3", "c": "2"}]}, {"a[][b]": "3", "a[][c]": "2"}, id="array-of-objects"),
        pytest.param({"a": None}, {"a": ""}, id="without-equals-sign"),
        pytest.param({"a": [None]}, {"a[]": ""}, id="array-without-equals-sign"),
        pytest.param({"a": "1", "b": "2"}, {"a": "1;b=2"}, id="semicolon"),
        pytest.param({"a": "1;b=2"}, {"a": "1;b=2"}, id="escaped-semicolon"),
        pytest.param({"a": "x"}, {"a": "x", "": "y"}, id="no-name"),
        pytest.param({"a": "\udcff\udcc3("}, {"a": "\ufffd\ufffd("}, id="invalid-bytes"),
    ],
)
def test_both_sides_read_alike(legacy: dict[str, Any], ours: dict[str, Any]) -> None:
    reading = read(ours)
    assert reading.values == read(legacy).values
    assert reading.unsure == frozenset()


@pytest.mark.parametrize(
    ("legacy", "ours"),
    [
        pytest.param({"a": "1"}, {"a": "2"}, id="value"),
        pytest.param({"a": {"b": "1"}}, {"a[c]": "1"}, id="name"),
        pytest.param({"a": "1"}, {"a": "1", "b": ""}, id="one-more"),
        pytest.param({"a": ["1"]}, {"a[]": "2"}, id="element"),
        pytest.param({"a": "1"}, {"a": "1;b=2"}, id="behind-a-semicolon"),
    ],
)
def test_other_values_stay_others(legacy: dict[str, Any], ours: dict[str, Any]) -> None:
    reading = read(ours)
    assert reading.sure(reading.unsure) != read(legacy).sure(reading.unsure)


def test_contradicting_names_leave_the_rest_to_be_compared() -> None:
    ours = read({"a[b]": "1", "a": "2", "c": "3"})
    assert ours.unsure == {"a"}
    assert ours.sure(ours.unsure) == {"c": "3"} == read({"a": "2", "c": "3"}).sure(ours.unsure)


@pytest.mark.parametrize(
    ("legacy", "ours"),
    [
        pytest.param({"a": [None]}, {"a[][][]": "1"}, id="third-empty-pair"),
        pytest.param({"aa": [{";a": None}]}, {"aa[];a\n": ""}, id="end-of-line"),
        pytest.param({"a=": ""}, {"a=": ";"}, id="equals-sign-in-a-name"),
        pytest.param({"a": None}, {"a": [";b", ""]}, id="in-a-value-that-was-replaced"),
        pytest.param({"a": None}, {"a": ";b;a"}, id="in-a-value-that-another-part-replaces"),
        pytest.param({"a": None}, {"a[b]": ";c", "a": ""}, id="in-a-value-that-a-contradiction-replaces"),
    ],
)
def test_what_rack_2_makes_of_it_is_not_compared(legacy: dict[str, Any], ours: dict[str, Any]) -> None:
    """The same documents with something else beside it differ as ever."""
    unsure = read(ours).unsure
    assert read(ours).sure(unsure) == read(legacy).sure(unsure)
    assert read({**ours, "x": "1"}).sure(unsure) != read({**legacy, "x": "2"}).sure(unsure)


@pytest.mark.parametrize(
    ("ours", "why"),
    [
        pytest.param({"a": "%zz"}, "a stray %", id="percent"),
        pytest.param({"a%": "1"}, "a stray %", id="percent-in-name"),
        pytest.param({"a": "\ufffd"}, "invalid bytes", id="bytes"),
        pytest.param({"a": "1", "a[b]": "2"}, "conflicting uses of a", id="conflict"),
        pytest.param({"a[]": "1", "a[b]": "2"}, "conflicting uses of a", id="array-and-object"),
        pytest.param({"a" + "[b]" * 40: "1"}, "a name too deep", id="deep"),
        pytest.param({"a[b": "1"}, "brackets that do not match", id="brackets"),
        pytest.param({"a": "1", "b[c]": "100%25"}, "", id="nothing"),
    ],
)
def test_why_rack_may_have_refused_it(ours: dict[str, Any], why: str) -> None:
    assert read(ours).refused_by == why


_TEXT = st.text(st.sampled_from("ab[];=%&\n\ufffd\udcffκ"), max_size=4)


@given(document=st.dictionaries(_TEXT, st.one_of(_TEXT, st.none(), st.lists(_TEXT, max_size=2)), max_size=3))
def test_the_quick_way_is_no_second_opinion(document: dict[str, Any]) -> None:
    assert values(document) == read(document).values
