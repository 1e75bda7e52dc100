"""Figure: the description of one figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "summary", "info", "text"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        kind: `counter` only grows, and begins anew with the process or, lines, with the journal; `gauge` goes up and
            down; `histogram` and `summary` as Prometheus means them; `info` and `text` are words.
        unit: `lines`, `bytes`, `seconds`, …, empty where there is none.
        meaning: a sentence without its full stop.
        advice: what to do when it is high, or as it should not be.
        stats: where `/stats` has it, keys joined by dots; several where it is also told in sum.
        metric: its family's name in `/metrics`, empty where it has none.
        labels: of the metric.
    """

    kind: Kind
    unit: str
    meaning: str
    advice: str
    stats: tuple[str, ...] = ()
    metric: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Figures that are looked at together.

    Attributes:
        title: a heading.
        text: what the group is about, Markdown.
    """

    title: str
    text: str
    figures: tuple[Figure, ...]
