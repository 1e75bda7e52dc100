"""What the stores remember, for how long and of whom."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scratchd.checks import Counted, Duplicates, Rate, Store, memory
from scratchd.config import Checks

ENTRIES = 3
TTL_S = 10.0


def test_store_gives_back_what_was_set() -> None:
    store: Store[str] = Store(ENTRIES, TTL_S)
    store.set("a", "text", 0.0)
    store.set(b"a", "bytes", 0.0)
    assert (store.get("a", 0.0), store.get(b"a", 0.0), store.get("b", 0.0)) == ("text", "bytes", None)


@pytest.mark.parametrize(
    ("now_s", "expected"),
    [
        pytest.param(109.999, "value", id="before"),
        pytest.param(110.0, None, id="at"),
        pytest.param(1e9, None, id="long"),
    ],
)
def test_store_forgets_when_the_time_is_over(now_s: float, expected: str | None) -> None:
    store: Store[str] = Store(ENTRIES, TTL_S)
    store.set("key", "value", 100.0)
    assert store.get("key", now_s) == expected


def test_store_set_renews_the_time() -> None:
    store: Store[str] = Store(ENTRIES, TTL_S)
    store.set("key", "old", 0.0)
    store.set("key", "new", 9.0)
    assert store.get("key", 18.0) == "new"


def test_store_get_does_not_renew_the_time() -> None:
    store: Store[str] = Store(ENTRIES, TTL_S)
    store.set("key", "value", 0.0)
    assert store.get("key", 9.0) == "value"
    assert store.get("key", 10.0) is None


def test_full_store_evicts_the_entry_asked_for_least_recently() -> None:
    store: Store[str] = Store(ENTRIES, TTL_S)
    for key in ("a", "b", "c"):
        store.set(key, key, 0.0)
    store.get("a", 1.0)
    store.set("d", "d", 2.0)
    assert [store.get(key, 3.0) for key in ("a", "b", "c", "d")] == ["a", None, "c", "d"]


def test_full_store_drops_expired_entries_before_it_evicts() -> None:
    store: Store[str] = Store(ENTRIES, TTL_S)
    store.set("old", "old", 0.0)
    store.set("a", "a", 5.0)
    store.set("b", "b", 5.0)
    store.get("old", 9.0)
    store.set("c", "c", 10.0)
    assert [store.get(key, 10.0) for key in ("old", "a", "b", "c")] == [None, "a", "b", "c"]


def test_store_discards() -> None:
    store: Store[str] = Store(ENTRIES, TTL_S)
    store.set("key", "value", 0.0)
    store.discard("key")
    store.discard("key")
    store.discard("never set")
    assert store.get("key", 0.0) is None


def test_store_discards_an_entry_whose_time_is_over() -> None:
    store: Store[str] = Store(ENTRIES, TTL_S)
    store.set("key", "value", 0.0)
    assert store.get("other", 20.0) is None
    store.discard("key")
    assert len(store) == 0


@pytest.mark.parametrize(
    "key", [1, 1.0, True, None, ("a",), bytearray(b"a"), memoryview(b"a")], ids=lambda key: type(key).__name__
)
def test_store_refuses_keys_other_than_strings(key: object) -> None:
    store: Store[str] = Store(ENTRIES, TTL_S)
    message = f"store key: expected str or bytes, got {type(key).__name__}"
    with pytest.raises(TypeError, match=message):
        store.get(key, 0.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=message):
        store.set(key, "value", 0.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=message):
        store.discard(key)  # type: ignore[arg-type]
    assert len(store) == 0


class StoreMachine(RuleBasedStateMachine):
    """The store against a plain list of entries, the least recently asked for first."""

    keys = st.sampled_from(["a", "b", "c", "d", b"a", b"b"])

    def __init__(self) -> None:
        super().__init__()
        self.store: Store[int] = Store(ENTRIES, TTL_S)
        self.model: list[tuple[str | bytes, int, float]] = []
        self.now_s = 0.0

    def drop_expired(self) -> None:
        """What the store may do at any time, and the model where it matters."""
        self.model = [entry for entry in self.model if self.now_s < entry[2]]

    @rule(seconds=st.integers(0, 6))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now_s += seconds

    @rule(key=keys, value=st.integers())
    def set(self, key: str | bytes, value: int) -> None:
        """A new entry, or an old one renewed."""
        self.store.set(key, value, self.now_s)
        self.drop_expired()
        self.model = [entry for entry in self.model if entry[0] != key]
        self.model = [*self.model[-(ENTRIES - 1) :], (key, value, self.now_s + TTL_S)]

    @rule(key=keys)
    def get(self, key: str | bytes) -> None:
        """The same answer; whoever is asked for is the last to leave."""
        self.drop_expired()
        found = [entry for entry in self.model if entry[0] == key]
        assert self.store.get(key, self.now_s) == (found[0][1] if found else None)
        self.model = [entry for entry in self.model if entry[0] != key] + found

    @rule(key=keys)
    def discard(self, key: str | bytes) -> None:
        """Known or not."""
        self.store.discard(key)
        self.model = [entry for entry in self.model if entry[0] != key]

    @invariant()
    def is_bounded(self) -> None:
        """At any time."""
        assert len(self.store) <= ENTRIES


StoreMachine.TestCase.settings = settings(deadline=None, max_examples=50)
TestStoreAgainstPlainList = StoreMachine.TestCase


def test_remembered_request_is_a_duplicate_within_the_window() -> None:
    duplicates = Duplicates(TTL_S, ENTRIES)
    digest = duplicates.digest("192.0.2.1", "example.gr", b"a=1")
    assert not duplicates.seen(digest, 0.0)
    duplicates.remember(digest, 0.0)
    assert duplicates.seen(digest, 9.9)
    assert not duplicates.seen(digest, 10.0)


def test_forgotten_request_is_no_duplicate() -> None:
    duplicates = Duplicates(TTL_S, ENTRIES)
    digest = duplicates.digest("192.0.2.1", "example.gr", b"a=1")
    duplicates.remember(digest, 0.0)
    duplicates.forget(digest)
    assert not duplicates.seen(digest, 0.0)


def test_digests_have_16_bytes_and_a_key_of_their_own() -> None:
    digests = {Duplicates(TTL_S, ENTRIES).digest("192.0.2.1", "example.gr", b"a=1") for _ in range(2)}
    assert [len(digest) for digest in digests] == [16, 16]


parts = st.text(max_size=4)
anyhow = settings(deadline=None)  # two loaded cores say nothing about a property


@given(st.lists(st.tuples(parts, st.none() | parts, st.binary(max_size=4)), min_size=2, max_size=2))
@anyhow
def test_digest_tells_requests_apart(requests: list[tuple[str, str | None, bytes]]) -> None:
    duplicates = Duplicates(TTL_S, ENTRIES)
    first, second = requests
    assert (duplicates.digest(*first) == duplicates.digest(*second)) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(("a", "bc", b""), ("ab", "c", b""), id="client-into-host"),
        pytest.param(("a", "b", b"c"), ("a", "bc", b""), id="host-into-query"),
        pytest.param(("a", None, b""), ("a", "", b""), id="no-host-and-empty"),
        pytest.param(("a", None, b""), ("a", "None", b""), id="no-host-and-its-name"),
        pytest.param(("a', 'b", "c", b""), ("a", "b', 'c", b""), id="framing-as-data"),
    ],
)
def test_digest_frames_its_parts(first: tuple[str, str | None, bytes], second: tuple[str, str | None, bytes]) -> None:
    duplicates = Duplicates(TTL_S, ENTRIES)
    assert duplicates.digest(*first) != duplicates.digest(*second)


def test_window_is_fixed_and_begins_with_the_first_request() -> None:
    rate = Rate(ENTRIES)
    times_s = [1000.0, 1000.0, 1030.5, 1059.999, 1060.0, 1061.0]
    assert [rate.count("192.0.2.1", now_s) for now_s in times_s] == [
        Counted(1, 60),
        Counted(2, 60),
        Counted(3, 30),
        Counted(4, 1),
        Counted(1, 60),
        Counted(2, 59),
    ]


@given(st.floats(0, 1e8), st.floats(0, 60, exclude_max=True))
@anyhow
def test_window_ends_in_1_to_60_seconds(begins_s: float, after_s: float) -> None:
    rate = Rate(ENTRIES)
    rate.count("192.0.2.1", begins_s)
    assert 1 <= rate.count("192.0.2.1", begins_s + after_s).ends_in_s <= 60


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        pytest.param("192.0.2.1", "192.0.2.1", True, id="ipv4"),
        pytest.param("192.0.2.1", "192.0.2.2", False, id="ipv4-neighbours"),
        pytest.param("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True, id="ipv6-same-64"),
        pytest.param("2001:db8:1:2::1", "2001:db8:1:3::1", False, id="ipv6-next-64"),
        pytest.param("2001:DB8::1", "2001:0db8:0:0::1", True, id="ipv6-two-spellings"),
        pytest.param("::ffff:192.0.2.1", "192.0.2.1", True, id="v4-mapped-is-ipv4"),
        pytest.param("::ffff:192.0.2.1", "::ffff:192.0.2.2", False, id="v4-mapped-is-not-one-64"),
        pytest.param("fe80::1%eth0", "fe80::2", True, id="ipv6-zone"),
        pytest.param("unix:", "unix:", True, id="no-address"),
        pytest.param("unix:", "", False, id="no-address-and-none"),
    ],
)
def test_requests_count_for_an_ipv4_address_or_an_ipv6_64(first: str, second: str, alike: bool) -> None:
    rate = Rate(ENTRIES)
    rate.count(first, 0.0)
    assert (rate.count(second, 0.0).requests == 2) == alike


def test_evicted_client_begins_a_new_window_and_a_busy_one_stays() -> None:
    rate = Rate(ENTRIES)
    rate.count("quiet", 0.0)
    for other in range(10):
        rate.count("busy", float(other))
        rate.count(f"other {other}", float(other))
    assert rate.count("busy", 10.0) == Counted(11, 50)
    assert rate.count("quiet", 10.0) == Counted(1, 60)


def test_a_new_configuration_keeps_what_still_fits() -> None:
    both = Checks(duplicate_window_s=10, client_requests_per_min=5, store_entries=7)
    before = memory(both)
    assert memory(both, before).rate is before.rate
    assert memory(both, before).duplicates is before.duplicates
    other = memory(Checks(duplicate_window_s=11, client_requests_per_min=6, store_entries=7), before)
    assert other.rate is before.rate, "another limit, the same counts"
    assert other.duplicates is not before.duplicates, "remembered for another time"
    larger = memory(Checks(duplicate_window_s=10, client_requests_per_min=5, store_entries=8), before)
    assert larger.rate is not before.rate
    assert larger.duplicates is not before.duplicates


def test_checks_that_are_off_remember_nothing_and_begin_anew() -> None:
    on, off = Checks(duplicate_window_s=10, client_requests_per_min=5), Checks()
    before = memory(on)
    between = memory(off, before)
    assert (between.rate, between.duplicates) == (None, None)
    again = memory(on, between)
    assert again.rate is not None
    assert again.duplicates is not None
