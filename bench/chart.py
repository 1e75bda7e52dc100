"""The chart: bars of the medians as SVG, made without a library. Knows figures and titles, and measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from xml.sax.saxutils import escape

from contenders import TITLES
from measure import Figures

COLOURS = {"scratchd": "#1b7f5c", "alone": "#7fbfa5", "go": "#3a7ebf", "stock": "#999999", "nginx": "#c9a227"}
PANELS: tuple[tuple[str, Callable[[Figures], float | None], str], ...] = (
    ("sustained lines/s", lambda figures: figures.lines_s, "{:,.0f}"),
    ("requests/s", lambda figures: figures.requests_s, "{:,.0f}"),
    ("CPU for 1,000 requests, ms", lambda figures: figures.cpu_s_1000 * 1000, "{:.1f}"),
    ("p99, ms", lambda figures: figures.latency_ms["p99"], "{:.2f}"),
    ("peak memory, MB", lambda figures: figures.peak_bytes / 1e6, "{:.0f}"),
)
_BAR, _GAP, _LEFT, _WIDTH, _MARGIN = 14, 12, 150, 170, 90


def drawn(medians: Mapping[str, Mapping[str, Figures]], subtitle: str) -> str:
    """One row for each scenario, one column for each figure; bars of a column's row share a scale."""
    body, height = list[str](), 70
    for place, name in enumerate(TITLES):
        x = 10 + place * 210
        body.append(f'<rect x="{x}" y="30" width="12" height="12" fill="{COLOURS[name]}"/>')
        body.append(_text(x + 18, 40, TITLES[name]))
    body += [_text(_LEFT + at * (_WIDTH + _MARGIN), 64, title, "bold") for at, (title, _, _) in enumerate(PANELS)]
    for scenario, found in medians.items():
        body.append(_text(10, height + _BAR, scenario, "bold"))
        for at, (_, figure, form) in enumerate(PANELS):
            body += _bars(_LEFT + at * (_WIDTH + _MARGIN), height, found, figure, form)
        height += len(found) * _BAR + _GAP
    width = _LEFT + len(PANELS) * (_WIDTH + _MARGIN)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height + 10}" font-family="sans-serif"'
    return "\n".join(
        [
            f'{head} font-size="11">',
            '<rect width="100%" height="100%" fill="white"/>',
            _text(10, 18, subtitle),
            *body,
            "</svg>",
            "",
        ]
    )


def _bars(
    x: int, y: int, found: Mapping[str, Figures], figure: Callable[[Figures], float | None], form: str
) -> Iterator[str]:
    longest = max((figure(figures) or 0 for figures in found.values()), default=0) or 1
    for place, (name, figures) in enumerate(found.items()):
        value, top = figure(figures), y + place * _BAR
        if value is not None:
            width = max(1, round(value / longest * _WIDTH))
            yield f'<rect x="{x}" y="{top}" width="{width}" height="{_BAR - 3}" fill="{COLOURS[name]}"/>'
            yield _text(x + width + 4, top + _BAR - 5, form.format(value))


def _text(x: int, y: int, text: str, weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" font-weight="{weight}">{escape(text)}</text>'
