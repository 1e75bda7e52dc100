"""What is counted and shown of a replay, and when its requests are due."""

from __future__ import annotations

from scratchd.tools.recorded import Request
from scratchd.tools.replay import Pace
from scratchd.tools.replayed import Answers, Latencies, Summary, Tally


def at(time_s: float | None) -> Request:
    return Request(b"GET", b"/", b"gr.test", b"", time_s)


def test_quantiles_are_two_per_cent_off_at_most() -> None:
    latencies = Latencies()
    for milliseconds in range(1, 1001):
        latencies.add(milliseconds / 1000)
    assert 0.5 <= latencies.quantile_s(0.5) <= 0.51
    assert 0.99 <= latencies.quantile_s(0.99) <= 1.0
    assert latencies.longest_s == 1.0
    assert Latencies().quantile_s(0.5) == 0.0


def test_a_rate_says_when_requests_are_due() -> None:
    pace = Pace(10, 1)
    assert [pace.due_s(at(time_s)) for time_s in (5.0, None, 3.0)] == [0.0, 0.1, 0.2]


def test_the_logs_pace_is_kept_times_a_factor_and_never_goes_back() -> None:
    pace = Pace(None, 2)
    assert [pace.due_s(at(time_s)) for time_s in (100.0, 101.0, 100.5, 104.0)] == [0.0, 0.5, 0.5, 2.0]


def test_answers_are_compared_once_both_are_there() -> None:
    answers = Answers(2)
    assert answers.add(1, 0, "200") is None
    assert not answers.is_settled(1)
    assert answers.add(2, 1, "200") is None
    assert answers.add(1, 1, "200") is None
    assert answers.is_settled(1)
    assert answers.add(2, 0, "400") == ("400", "200")
    assert answers.differing == {("400", "200"): 1}


def test_one_targets_answers_are_compared_with_nothing() -> None:
    answers = Answers(1)
    assert answers.add(1, 0, "200") is None
    assert answers.is_settled(1)


def test_failed_is_what_was_not_served() -> None:
    tally = Tally("http://one")
    tally.statuses.update({200: 5, 404: 1, 503: 2})
    tally.failures.update({"timeout": 3})
    assert Summary([tally]).failed == 5


def test_malformed_lines_are_shown_up_to_ten_and_counted_all() -> None:
    summary = Summary([Tally("http://one")])
    for line in range(1, 13):
        summary.spoil(line, "no request", "x")
    assert "line 10: no request: x\n… and 2 more lines" in summary.page()
    assert summary.document()["malformed"] == 12


def test_what_was_in_flight_is_told() -> None:
    summary = Summary([Tally("http://one")], behind=9, in_flight={"http://one": [7, 9]})
    assert "http://one: in flight when the earlier run ended, it may have taken them: line 7, 9" in summary.page()
    assert "0 lines read behind line 9" in summary.page()
