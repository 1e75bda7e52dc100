"""Which flavor a host belongs to, and what day it is there."""

from __future__ import annotations

import datetime
import itertools
import zoneinfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchd import config
from scratchd.flavors import Flavor, Flavors

MILLISECOND = datetime.timedelta(milliseconds=1)


def flavors(**hosts: tuple[str, ...]) -> Flavors:
    return Flavors(config.Config(flavors=tuple(config.Flavor(name=name, hosts=hosts[name]) for name in hosts)))


def flavor_in(zone: str) -> Flavor:
    section = config.Flavor(name="f", hosts=("*",), time_zone=zone)
    return Flavors(config.Config(flavors=(section,))).by_name["f"]


def ms(text: str) -> int:
    """Milliseconds since the epoch of an ISO time in UTC."""
    return round(datetime.datetime.fromisoformat(text + "+00:00").timestamp() * 1000)


MATCHED = flavors(
    exact=("www.example.gr", "192.0.2.1", "[2001:DB8:0::1]", "Shop.Example.COM."),
    below=("*.example.gr",),
    deeper=("*.static.example.gr", "*.gr"),
    rest=("*",),
)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("www.example.gr", "exact"),
        ("shop.example.com", "exact"),
        ("192.0.2.1", "exact"),
        ("[2001:db8::1]", "exact"),
        ("a.example.gr", "below"),
        ("a.www.example.gr", "below"),
        ("static.example.gr", "below"),
        ("a.b.c.example.gr", "below"),
        ("a.static.example.gr", "deeper"),
        ("x.a.static.example.gr", "deeper"),
        ("example.gr", "deeper"),
        ("other.gr", "deeper"),
        ("gr", "rest"),
        ("example.gr.evil.com", "rest"),
        ("xexample.com", "rest"),
        ("192.0.2.2", "rest"),
        ("[::1]", "rest"),
        (None, "rest"),
    ],
)
def test_exact_goes_before_longest_wildcard_before_any(host: str | None, name: str) -> None:
    found = MATCHED.match(host)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("host", ["example.gr", "b.gr", None, "", ".", "gr"])
def test_without_any_other_a_host_may_match_nothing(host: str | None) -> None:
    assert flavors(gr=("a.gr", "*.example.gr")).match(host) is None


_labels = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join)


@given(st.lists(st.tuples(st.sampled_from(["", "*."]), _labels).map("".join), unique=True, max_size=6), _labels)
def test_match_equals_the_rule_word_for_word(patterns: list[str], host: str) -> None:
    made = flavors(**{f"f{index}": (pattern,) for index, pattern in enumerate(patterns)})
    fitting = [pattern for pattern in patterns if pattern == host or (pattern[0] == "*" and host.endswith(pattern[1:]))]
    best = max(fitting, key=lambda pattern: (pattern == host, len(pattern)), default=None)
    found = made.match(host)
    assert (found and found.name) == (None if best is None else f"f{patterns.index(best)}")


def test_paths_topics_and_quotas_are_resolved() -> None:
    made = Flavors(
        config.Config(
            instance="1",
            file=config.File(path="/log/{instance}/{flavor}/./{date}.log"),
            kafka=config.Kafka(topic="t.{flavor}"),
            journal=config.Journal(quota_bytes=7),
            flavors=(
                config.Flavor(name="gr", hosts=("a",)),
                config.Flavor(
                    name="tr",
                    hosts=("b",),
                    file_path="//x/{date}-{flavor}-{instance}",
                    kafka_topic="own",
                    quota_bytes=9,
                ),
            ),
        )
    )
    assert [(f.name, f.file_path, f.kafka_topic, f.quota_bytes) for f in made] == [
        ("gr", "/log/1/gr/{date}.log", "t.gr", 7),
        ("tr", "/x/{date}-tr-1", "own", 9),
    ]
    assert list(made.by_name) == ["gr", "tr"]
    assert len(made) == 2


@pytest.mark.parametrize(
    ("zone", "utc", "date"),
    [
        pytest.param("UTC", "2024-02-28T23:59:59.999", "2024-02-28", id="utc-before-midnight"),
        pytest.param("UTC", "2024-02-29T00:00:00.000", "2024-02-29", id="utc-midnight-leap-day"),
        pytest.param("Europe/Athens", "2024-01-15T21:59:59.999", "2024-01-15", id="athens-winter-before"),
        pytest.param("Europe/Athens", "2024-01-15T22:00:00.000", "2024-01-16", id="athens-winter-midnight"),
        pytest.param("Europe/Athens", "2024-07-15T20:59:59.999", "2024-07-15", id="athens-summer-before"),
        pytest.param("Europe/Athens", "2024-07-15T21:00:00.000", "2024-07-16", id="athens-summer-midnight"),
        # The day of 23 hours begins in winter and ends in summer time; that of 25 the other way round.
        pytest.param("Europe/Athens", "2024-03-30T22:00:00.000", "2024-03-31", id="athens-23h-day-begins"),
        pytest.param("Europe/Athens", "2024-03-31T20:59:59.999", "2024-03-31", id="athens-23h-day-ends"),
        pytest.param("Europe/Athens", "2024-03-31T21:00:00.000", "2024-04-01", id="athens-23h-day-over"),
        pytest.param("Europe/Athens", "2024-10-26T21:00:00.000", "2024-10-27", id="athens-25h-day-begins"),
        pytest.param("Europe/Athens", "2024-10-27T21:59:59.999", "2024-10-27", id="athens-25h-day-ends"),
        pytest.param("Europe/Athens", "2024-10-27T22:00:00.000", "2024-10-28", id="athens-25h-day-over"),
        # Santiago turns at 24:00: forward, the day begins at 01:00; back, its last hour comes twice.
        pytest.param("America/Santiago", "2023-09-03T03:59:59.999", "2023-09-02", id="santiago-forward-before"),
        pytest.param("America/Santiago", "2023-09-03T04:00:00.000", "2023-09-03", id="santiago-forward-at-midnight"),
        pytest.param("America/Santiago", "2024-04-07T02:59:59.999", "2024-04-06", id="santiago-back-first-23h"),
        pytest.param("America/Santiago", "2024-04-07T03:00:00.000", "2024-04-06", id="santiago-back-same-day-again"),
        pytest.param("America/Santiago", "2024-04-07T04:00:00.000", "2024-04-07", id="santiago-back-over"),
        pytest.param("Africa/Cairo", "2024-04-25T21:59:59.999", "2024-04-25", id="cairo-forward-before"),
        pytest.param("Africa/Cairo", "2024-04-25T22:00:00.000", "2024-04-26", id="cairo-forward-at-midnight"),
        pytest.param("Africa/Cairo", "2024-10-31T20:59:59.999", "2024-10-31", id="cairo-back-first-23h"),
        pytest.param("Africa/Cairo", "2024-10-31T21:30:00.000", "2024-10-31", id="cairo-back-same-day-again"),
        pytest.param("Africa/Cairo", "2024-10-31T22:00:00.000", "2024-11-01", id="cairo-back-over"),
        # Where clocks went back over midnight, at 00:01, a date came back for an hour.
        pytest.param("America/St_Johns", "2010-11-07T02:30:59.999", "2010-11-07", id="st-johns-new-day-for-a-minute"),
        pytest.param("America/St_Johns", "2010-11-07T02:31:00.000", "2010-11-06", id="st-johns-the-old-day-again"),
        pytest.param("America/St_Johns", "2010-11-07T03:30:00.000", "2010-11-07", id="st-johns-new-day-to-stay"),
        pytest.param("Pacific/Apia", "2011-12-30T09:59:59.999", "2011-12-29", id="apia-last-second-of-the-29th"),
        pytest.param("Pacific/Apia", "2011-12-30T10:00:00.000", "2011-12-31", id="apia-has-no-30th"),
        pytest.param("Asia/Kolkata", "2024-05-05T18:29:59.999", "2024-05-05", id="kolkata-half-hour-before"),
        pytest.param("Asia/Kolkata", "2024-05-05T18:30:00.000", "2024-05-06", id="kolkata-half-hour"),
        pytest.param("Asia/Kathmandu", "2024-05-05T18:14:59.999", "2024-05-05", id="kathmandu-quarter-before"),
        pytest.param("Asia/Kathmandu", "2024-05-05T18:15:00.000", "2024-05-06", id="kathmandu-quarter"),
        pytest.param("Australia/Lord_Howe", "2024-04-06T12:59:59.999", "2024-04-06", id="lord-howe-half-hour-dst"),
        pytest.param("Australia/Lord_Howe", "2024-04-06T13:00:00.000", "2024-04-07", id="lord-howe-midnight"),
        pytest.param("Pacific/Kiritimati", "2024-12-31T10:00:00.000", "2025-01-01", id="kiritimati-first-new-year"),
        pytest.param("Pacific/Pago_Pago", "2025-01-01T10:59:59.999", "2024-12-31", id="pago-pago-last-old-year"),
    ],
)
def test_date_is_the_local_one(zone: str, utc: str, date: str) -> None:
    flavor = flavor_in(zone)
    assert flavor.date(ms(utc)).isoformat() == date
    assert flavor.date(ms(utc)).isoformat() == date, "remembered"
    assert flavor.time(ms(utc)).date().isoformat() == date


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Europe/Athens", "2024-03-31"),
        ("Europe/Athens", "2024-10-27"),
        ("America/Santiago", "2024-04-07"),
        ("America/Santiago", "2023-09-03"),
        ("America/St_Johns", "2010-11-07"),
        ("Pacific/Apia", "2011-12-30"),
        ("Australia/Lord_Howe", "2024-10-06"),
    ],
)
def test_dates_are_the_local_ones_all_day(zone: str, day: str) -> None:
    flavor = flavor_in(zone)
    start = ms(day + "T00:00:00") - 86_400_000
    # Every half minute of three days, on its first and its last millisecond.
    for time_ms, offset_ms in itertools.product(range(start, start + 3 * 86_400_000, 30_000), (0, 999)):
        assert flavor.date(time_ms + offset_ms) == datetime.datetime.fromtimestamp(time_ms / 1000, flavor.zone).date()


_zones = st.sampled_from(sorted(zoneinfo.available_timezones() - {"localtime", "Factory"}))


@settings(max_examples=200)
@given(_zones, st.integers(0, 4_102_444_800_000), st.lists(st.integers(-2000, 2000), max_size=5))
def test_times_hold_in_every_zone_whatever_was_asked_before(zone: str, time_ms: int, steps: list[int]) -> None:
    flavor = flavor_in(zone)
    for step in (0, *steps):
        second, millisecond = divmod(time_ms + step, 1000)
        at = datetime.datetime.fromtimestamp(second, zoneinfo.ZoneInfo(zone)) + millisecond * MILLISECOND
        assert flavor.time(time_ms + step).isoformat() == at.isoformat()
        assert flavor.date(time_ms + step) == at.date()


@given(st.integers(0, 4_102_444_800_000))
def test_time_keeps_every_millisecond(time_ms: int) -> None:
    time = flavor_in("Europe/Athens").time(time_ms)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert (time - epoch) // MILLISECOND == time_ms
    assert time.microsecond % 1000 == 0


def test_the_hour_that_comes_twice_has_two_offsets() -> None:
    flavor = flavor_in("Europe/Athens")
    first, second = flavor.time(ms("2024-10-27T00:30:00")), flavor.time(ms("2024-10-27T01:30:00.250"))
    assert first.isoformat() == "2024-10-27T03:30:00+03:00"
    assert second.isoformat() == "2024-10-27T03:30:00.250000+02:00"
