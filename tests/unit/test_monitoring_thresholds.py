"""Ranges mean what the Monitoring Plugins' guidelines say."""

from __future__ import annotations

import pytest

from scratchd_monitoring.thresholds import parse


@pytest.mark.parametrize(
    ("text", "alerting", "quiet"),
    [
        ("10", (-0.1, 10.1), (0, 10)),
        ("10:", (9.9, -5), (10, 1e9)),
        ("~:10", (10.1,), (-1e9, 10)),
        ("10:20", (9.9, 20.1), (10, 20)),
        ("@10:20", (10, 15, 20), (9.9, 20.1)),
        ("0:0", (-1, 1), (0,)),
        ("-5:5", (-5.1, 5.1), (-5, 5)),
        ("1.5", (1.6,), (1.5,)),
    ],
)
def test_a_range_alerts_where_it_should(text: str, alerting: tuple[float, ...], quiet: tuple[float, ...]) -> None:
    limit = parse(text)
    assert [value for value in alerting if not limit.alerts(value)] == []
    assert [value for value in quiet if limit.alerts(value)] == []


@pytest.mark.parametrize("text", ["", "a", "1:2:3", "5:1", "@", "nan", "~:nan", "1,5", "-1"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no range"):
        parse(text)
