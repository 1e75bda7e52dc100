"""A line: what is persisted of one request. Knows neither where it came from nor where it goes."""

from __future__ import annotations

import datetime

import msgspec


class Line(msgspec.Struct, frozen=True):
    """One event of one flavor.

    Attributes:
        flavor: name of the flavor.
        values: one JSON object as UTF-8 bytes, without a newline.
        time: arrival, aware, in the flavor's zone.
    """

    flavor: str
    values: bytes
    time: datetime.datetime
