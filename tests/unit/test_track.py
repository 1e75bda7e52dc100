"""Which requests are taken, which are refused and why, and in which order the rules are tested."""

from __future__ import annotations

import datetime
import itertools
import zoneinfo

import msgspec
import pytest

from scratchd.config import Checks, Config, Flavor, Http, Query
from scratchd.flavors import Flavors
from scratchd.line import Line
from scratchd.refusal import Reason, Refusal
from scratchd.track import Accepted, Duplicate, HeadOnly, Outcome, Request, Track

TIME_MS = 1_711_846_799_123  # 2024-03-31 02:59:59.123 in Athens, the last second before summer time
FLAVORS = (
    Flavor(name="gr", hosts=("www.example.gr",), time_zone="Europe/Athens"),
    Flavor(name="tr", hosts=("*.example.com.tr",), time_zone="Europe/Istanbul"),
)
GET = Request(b"GET", b"/track", b"foo=bar", "www.example.gr", "192.0.2.1")
UNCHECKED = Checks()
HEAD = msgspec.structs.replace(GET, method=b"HEAD")


def track(checks: Checks = UNCHECKED, *, flavors: tuple[Flavor, ...] = FLAVORS, repeated: str = "last") -> Track:
    config = Config(
        http=Http(max_query_bytes=20, max_parameters=3),
        query=Query(repeated=repeated),  # type: ignore[arg-type]
        checks=checks,
        flavors=flavors,
    )
    return Track(config, Flavors(config))


def words(outcomes: list[Outcome]) -> list[str]:
    return [
        outcome.reason.word if isinstance(outcome, Refusal) else type(outcome).__name__.lower() for outcome in outcomes
    ]


def test_get_becomes_a_line_in_its_flavors_zone() -> None:
    outcome = track().receive(GET, TIME_MS, 0.0)
    assert isinstance(outcome, Accepted)
    assert outcome.digest is None
    assert outcome.line == Line("gr", b'{"foo":"bar"}', datetime.datetime.fromtimestamp(TIME_MS / 1000, datetime.UTC))
    assert outcome.line.time.tzinfo == zoneinfo.ZoneInfo("Europe/Athens")
    assert outcome.line.time.isoformat(timespec="milliseconds") == "2024-03-31T02:59:59.123+02:00"


def test_host_selects_the_flavor() -> None:
    outcome = track().receive(msgspec.structs.replace(GET, host="shop.example.com.tr"), TIME_MS, 0.0)
    assert isinstance(outcome, Accepted)
    assert (outcome.line.flavor, outcome.line.time.utcoffset()) == ("tr", datetime.timedelta(hours=3))


def test_request_without_host_goes_to_the_flavor_of_any_other() -> None:
    any_other = Flavor(name="any", hosts=("*",))
    outcome = track(flavors=(*FLAVORS, any_other)).receive(msgspec.structs.replace(GET, host=None), TIME_MS, 0.0)
    assert isinstance(outcome, Accepted)
    assert outcome.line.flavor == "any"


def test_head_persists_nothing() -> None:
    assert track().receive(HEAD, TIME_MS, 0.0) == HeadOnly("gr")


@pytest.mark.parametrize(
    ("repeated", "values"),
    [("last", b'{"a":"2"}'), ("first", b'{"a":"1"}'), ("list", b'{"a":["1","2"]}')],
)
def test_repeated_parameters_follow_the_configuration(repeated: str, values: bytes) -> None:
    outcome = track(repeated=repeated).receive(msgspec.structs.replace(GET, query=b"a=1&a=2"), TIME_MS, 0.0)
    assert isinstance(outcome, Accepted)
    assert outcome.line.values == values


@pytest.mark.parametrize(
    ("change", "reason", "sentence"),
    [
        pytest.param(
            {"path": b"/favicon.ico"},
            Reason.NOT_FOUND,
            'the path "/favicon.ico" is not known, expected "/track"',
            id="another-path",
        ),
        pytest.param(
            {"path": b"/%74rack"},
            Reason.NOT_FOUND,
            'the path "/%74rack" is not known, expected "/track"',
            id="nothing-is-decoded",
        ),
        pytest.param(
            {"path": b"/TRACK"}, Reason.NOT_FOUND, 'the path "/TRACK" is not known, expected "/track"', id="path-case"
        ),
        pytest.param(
            {"path": b"/track/"}, Reason.NOT_FOUND, 'the path "/track/" is not known, expected "/track"', id="slash"
        ),
        pytest.param(
            {"path": b'/"\\\xce\n'},
            Reason.NOT_FOUND,
            r'the path "/\x22\x5c\xce\x0a" is not known, expected "/track"',
            id="path-is-escaped",
        ),
        pytest.param(
            {"path": b"/" + b"x" * 100},
            Reason.NOT_FOUND,
            f'the path "/{"x" * 96}..." is not known, expected "/track"',
            id="path-is-cut",
        ),
        pytest.param(
            {"path": b"/" + b'"' * 25},
            Reason.NOT_FOUND,
            'the path "/' + r"\x22" * 24 + '..." is not known, expected "/track"',
            id="path-is-cut-between-escapes",
        ),
        pytest.param(
            {"method": b"POST"},
            Reason.METHOD_NOT_ALLOWED,
            'the method "POST" is not allowed, expected GET or HEAD',
            id="post",
        ),
        pytest.param(
            {"method": b"get"},
            Reason.METHOD_NOT_ALLOWED,
            'the method "get" is not allowed, expected GET or HEAD',
            id="method-case",
        ),
        pytest.param(
            {"host": "www.example.com"},
            Reason.UNKNOWN_HOST,
            'the host "www.example.com" belongs to no flavor',
            id="another-host",
        ),
        pytest.param(
            {"host": "\u03b5\ud800"},
            Reason.UNKNOWN_HOST,
            r'the host "\xce\xb5\x5cud800" belongs to no flavor',
            id="host-is-escaped",
        ),
        pytest.param(
            {"host": None}, Reason.UNKNOWN_HOST, "the request names no host, and no flavor takes any", id="no-host"
        ),
        pytest.param(
            {"query": b"a=%41%41%41%41%41%41a"},
            Reason.QUERY_TOO_LONG,
            "the query has 21 bytes, at most 20 are allowed",
            id="raw-bytes-count",
        ),
        pytest.param(
            {"query": b"a=1&a=2&&a=3&a=4"},
            Reason.TOO_MANY_PARAMETERS,
            "the query has 4 parameters, at most 3 are allowed",
            id="too-many",
        ),
        pytest.param(
            {"query": None},
            Reason.EMPTY_QUERY,
            'the query "" has 0 parameters, at least 1 is required',
            id="no-query",
        ),
        pytest.param(
            {"query": b"&&"},
            Reason.EMPTY_QUERY,
            'the query "&&" has 0 parameters, at least 1 is required',
            id="no-parameter",
        ),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_refusal(method: bytes, change: dict[str, object], reason: Reason, sentence: str) -> None:
    request = msgspec.structs.replace(GET, **{"method": method, **change})
    refusal = track().receive(request, TIME_MS, 0.0)
    assert refusal == Refusal(reason, sentence, flavor=None if "host" in change else "gr")
    assert refusal.body == f"{reason.word}: {sentence}\n".encode("ascii")


@pytest.mark.parametrize("change", [{"path": b"/"}, {"method": b"POST"}])
def test_what_is_refused_before_its_host_matters_is_its_flavors_all_the_same(change: dict[str, bytes]) -> None:
    hosts = {"www.example.gr": "gr", "a.example.com.tr": "tr", "www.example.com": None, None: None}
    for host, flavor in hosts.items():
        refusal = track().receive(msgspec.structs.replace(GET, host=host, **change), TIME_MS, 0.0)
        assert isinstance(refusal, Refusal)
        assert refusal.flavor == flavor


def test_client_over_its_rate_is_refused_until_the_windows_end() -> None:
    limited = track(Checks(client_requests_per_min=2))
    outcomes = [limited.receive(GET, TIME_MS, now_s) for now_s in (0.0, 1.0, 1.5, 59.9, 60.0)]
    assert words(outcomes) == ["accepted", "accepted", "rate_limited", "rate_limited", "accepted"]
    assert outcomes[2] == Refusal(
        Reason.RATE_LIMITED,
        "the client has sent 3 requests within 60 seconds, at most 2 are allowed, the next in 59 seconds",
        retry_after_s=59,
        flavor="gr",
    )
    assert isinstance(outcomes[3], Refusal)
    assert outcomes[3].retry_after_s == 1


def test_rate_is_each_clients_own() -> None:
    limited = track(Checks(client_requests_per_min=1))
    other = msgspec.structs.replace(GET, client="192.0.2.2")
    outcomes = [limited.receive(request, TIME_MS, 0.0) for request in (GET, other, GET, other)]
    assert words(outcomes) == ["accepted", "accepted", "rate_limited", "rate_limited"]


def test_head_counts_for_the_rate() -> None:
    limited = track(Checks(client_requests_per_min=2))
    outcomes = [limited.receive(request, TIME_MS, 0.0) for request in (HEAD, GET, HEAD, GET)]
    assert words(outcomes) == ["headonly", "accepted", "rate_limited", "rate_limited"]


def test_duplicate_counts_for_the_rate_which_is_tested_first() -> None:
    both = track(Checks(client_requests_per_min=2, duplicate_window_s=10))
    assert words([both.receive(GET, TIME_MS, 0.0) for _ in range(3)]) == ["accepted", "duplicate", "rate_limited"]


# Each breaks one rule, in the order in which the rules are tested.
BREACHES: list[tuple[Reason, dict[str, object]]] = [
    (Reason.NOT_FOUND, {"path": b"/"}),
    (Reason.METHOD_NOT_ALLOWED, {"method": b"PUT"}),
    (Reason.UNKNOWN_HOST, {"host": "unknown"}),
    (Reason.QUERY_TOO_LONG, {"query": b"a=" + b"1" * 19}),
    (Reason.TOO_MANY_PARAMETERS, {"query": b"a&a&a&a"}),
    (Reason.EMPTY_QUERY, {"query": b""}),
    (Reason.RATE_LIMITED, {"client": "busy"}),
]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(first, second, id=f"{first[0].word}-before-{second[0].word}")
        for first, second in itertools.combinations(BREACHES, 2)
        if not first[1].keys() & second[1].keys()
    ],
)
def test_earlier_rule_wins(first: tuple[Reason, dict[str, object]], second: tuple[Reason, dict[str, object]]) -> None:
    limited = track(Checks(client_requests_per_min=1))
    limited.receive(msgspec.structs.replace(GET, client="busy"), TIME_MS, 0.0)
    request = msgspec.structs.replace(GET, **{**second[1], **first[1]})
    refusal = limited.receive(request, TIME_MS, 0.0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is first[0]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        pytest.param(b"a&" * 11, Reason.QUERY_TOO_LONG, id="query_too_long-before-too_many_parameters"),
        pytest.param(b"&" * 21, Reason.QUERY_TOO_LONG, id="query_too_long-before-empty_query"),
    ],
)
def test_earlier_rule_on_the_query_wins(query: bytes, reason: Reason) -> None:
    refusal = track().receive(msgspec.structs.replace(GET, query=query), TIME_MS, 0.0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason


@pytest.mark.parametrize("breach", BREACHES[:-1], ids=lambda breach: breach[0].word)
def test_refused_request_does_not_count_for_the_rate(breach: tuple[Reason, dict[str, object]]) -> None:
    limited = track(Checks(client_requests_per_min=1))
    refused = msgspec.structs.replace(GET, **breach[1])
    outcomes = [limited.receive(request, TIME_MS, 0.0) for request in (refused, refused, GET, GET)]
    assert words(outcomes) == [breach[0].word, breach[0].word, "accepted", "rate_limited"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"client": "192.0.2.2"}, id="client"),
        pytest.param({"host": "www.example.com.tr"}, id="host"),
        pytest.param({"query": b"foo=bar&"}, id="query"),
    ],
)
def test_another_request_is_no_duplicate(change: dict[str, object]) -> None:
    checked = track(Checks(duplicate_window_s=10))
    other = msgspec.structs.replace(GET, **change)
    outcomes = [checked.receive(request, TIME_MS, 0.0) for request in (GET, other, GET, other)]
    assert words(outcomes) == ["accepted", "accepted", "duplicate", "duplicate"]


def test_duplicate_does_not_renew_the_window() -> None:
    checked = track(Checks(duplicate_window_s=10))
    outcomes = [checked.receive(GET, TIME_MS, now_s) for now_s in (0.0, 9.0, 10.0, 19.9, 20.0)]
    assert words(outcomes) == ["accepted", "duplicate", "accepted", "duplicate", "accepted"]
    assert outcomes[1] == Duplicate("gr")


def test_head_is_no_duplicate_and_makes_none() -> None:
    checked = track(Checks(duplicate_window_s=10))
    outcomes = [checked.receive(request, TIME_MS, 0.0) for request in (HEAD, GET, HEAD, GET)]
    assert words(outcomes) == ["headonly", "accepted", "headonly", "duplicate"]


def test_forgotten_request_makes_no_duplicate() -> None:
    checked = track(Checks(duplicate_window_s=10))
    accepted = checked.receive(GET, TIME_MS, 0.0)
    assert isinstance(accepted, Accepted)
    assert accepted.digest is not None
    checked.forget(accepted)
    assert words([checked.receive(GET, TIME_MS, 0.0) for _ in range(2)]) == ["accepted", "duplicate"]


def test_without_checks_nothing_is_remembered() -> None:
    unchecked = track()
    outcomes = [unchecked.receive(GET, TIME_MS, 0.0) for _ in range(3)]
    assert words(outcomes) == ["accepted", "accepted", "accepted"]
    assert isinstance(outcomes[0], Accepted)
    unchecked.forget(outcomes[0])


@pytest.mark.parametrize(
    ("checks", "wanted"),
    [
        pytest.param(UNCHECKED, False, id="none"),
        pytest.param(Checks(duplicate_window_s=0.5), True, id="duplicates"),
        pytest.param(Checks(client_requests_per_min=1), True, id="rate"),
    ],
)
def test_client_is_wanted_when_a_check_is_on(checks: Checks, wanted: bool) -> None:
    assert track(checks).wants_client is wanted
