"""Figures: what each figure of `/stats` and `/metrics` is called, what it means, and what to do about it.

The one declaration: `scratchd.metrics` takes names, types, labels and help texts from here, `docs/metrics.md` is made
from it (`python -m scratchd.tools.figures > docs/metrics.md`), and tests compare it with what a running service says.
It knows no values; those are `scratchd.stats`' business.

Placeholders in braces stand for names that a configuration, the contract or Kafka's cluster has: flavors, backends,
codes, reasons, kinds of error, brokers. What clients send is never a name, so it makes no figure.
"""

from __future__ import annotations

from scratchd.figures.backends import BACKENDS
from scratchd.figures.brokers import BROKERS
from scratchd.figures.canary import CANARY
from scratchd.figures.events import EVENTS
from scratchd.figures.figure import Figure, Group
from scratchd.figures.journal import JOURNAL
from scratchd.figures.process import INSTANCE, PROCESS
from scratchd.figures.requests import REQUESTS

__all__ = ["GROUPS", "Figure", "Group", "exposed"]

GROUPS: tuple[Group, ...] = (EVENTS, REQUESTS, JOURNAL, BACKENDS, BROKERS, CANARY, PROCESS, INSTANCE)
"""Every figure, in the order in which one looks at them."""


def exposed() -> dict[str, Figure]:
    """The figures that `/metrics` has of scratchd's own, by the metric's name."""
    return {
        figure.metric: figure for group in GROUPS for figure in group.figures if figure.metric.startswith("scratchd_")
    }
