"""Thresholds: the ranges of the Monitoring Plugins' development guidelines.

`10` alerts outside of 0 to 10, `10:` below 10, `~:10` above 10, `10:20` outside of them, `@10:20` inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """When to alert.

    Attributes:
        low: inclusive.
        high: inclusive.
        inside: alert inside instead of outside.
        text: as it was written, for the performance data.
    """

    low: float
    high: float
    inside: bool
    text: str

    def alerts(self, value: float) -> bool:
        """Whether `value` is a reason to alert."""
        return (self.low <= value <= self.high) == self.inside


def parse(text: str) -> Range:
    """Reads a range.

    Raises:
        ValueError: it is none.
    """
    inside = text.startswith("@")
    low, colon, high = text.removeprefix("@").rpartition(":")
    try:
        least = -math.inf if low == "~" else float(low) if colon and low else 0.0
        most = float(high) if high else math.inf
    except ValueError:
        raise ValueError(f'"{text}" is no range: expected e.g. 10, 10:, ~:10, 10:20 or @10:20') from None
    if (not colon and not high) or not least <= most or math.isnan(least) or math.isnan(most):
        raise ValueError(f'"{text}" is no range: expected a lower bound that is not above the upper one')
    return Range(least, most, inside, text)
