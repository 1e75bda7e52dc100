"""Figures: the page on every figure of `/stats` and `/metrics`, made from their declaration (`scratchd.figures`).

Owns the page's shape alone. `python -m scratchd.tools.figures > docs/metrics.md`; a test fails when the two differ.
"""

from __future__ import annotations

import sys

from scratchd.figures import GROUPS, Figure, Group

_HEAD = """\
# Figures

<!-- Made by `python -m scratchd.tools.figures > docs/metrics.md`: edit `scratchd/figures/` instead. -->

Every figure of the admin listener's `/stats` (JSON) and `/metrics` (Prometheus), what it means, and what to do about
it. Both tell the same figures; where a row names both, they are equal. Which of them to be woken by is in
[monitor.md](monitor.md).

- Line counts are for the journal's lifetime and survive restarts. Everything else is since the start of the process.
- A counter only grows; `rate()` and `increase()` in Prometheus heed its beginning anew.
- Names in braces are flavors, backends (`file`, `kafka`), status codes, reasons, kinds of error and Kafka's brokers.
  What clients send names nothing, so whatever they send makes no series.
- A metric whose row is here is always exposed, at least by its type; one on something that is off (Kafka's) has no
  series then.
- Histograms have buckets from 0.1 ms to 10 s.
"""


def page() -> str:
    """The whole page, ending in a newline."""
    return _HEAD + "".join(_section(group) for group in GROUPS)


def _section(group: Group) -> str:
    text = f"\n{group.text}\n" if group.text else ""
    rows = "".join(_row(figure) for figure in group.figures)
    head = "| `/metrics` | `/stats` | type | unit | meaning | what to do |\n|---|---|---|---|---|---|\n"
    return f"\n## {group.title}\n{text}\n{head}{rows}"


def _row(figure: Figure) -> str:
    labels = f"{{{','.join(figure.labels)}}}" if figure.labels else ""
    metric = f"`{figure.metric}{labels}`" if figure.metric else ""
    stats = ", ".join(f"`{path}`" for path in figure.stats)
    cells = (
        metric,
        stats,
        figure.kind,
        figure.unit,
        f"{figure.meaning}.",
        f"{figure.advice}." if figure.advice else "",
    )
    return "| " + " | ".join(cells) + " |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
