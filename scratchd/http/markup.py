"""Markup: what the status page is made of: text, numbers as people read them, shapes, sparklines. Pure.

Everything that was not written here passes `text`, which is where markup ends.
"""

from __future__ import annotations

import datetime
import html
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

BAR = 10
"""Width of a sparkline's bar in its own units, the gap to the next included."""

HEIGHT = 100
_LEAST = 5
"""The least height of what is not nothing."""

_SHAPES: Mapping[str, str] = MappingProxyType(
    {
        # Each is told from the others without colour: a disc with arrows that point onward, a square with two bars, a
        # triangle with an exclamation mark, a disc with a tick.
        "flowing": '<circle cx="24" cy="24" r="22"/><path class="ink" d="M14 14l10 10-10 10M25 14l10 10-10 10"/>',
        "idle": '<rect x="3" y="3" width="42" height="42" rx="8"/><path class="ink" d="M18 15v18M30 15v18"/>',
        "fine": '<circle cx="24" cy="24" r="22"/><path class="ink" d="M13 25l8 8 14-17"/>',
        "trouble": '<path d="M24 2.5 47 44H1z" stroke-linejoin="round"/><path class="ink" d="M24 17v13M24 36.5v.5"/>',
    }
)

_BADGES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "running": ("flowing", "running"),
        "backing_off": ("trouble", "failing"),
        "stopped": ("idle", "stopped"),
    }
)


def text(value: object) -> str:
    """Any value as text between tags or in a quoted attribute; what is not printable is shown by its number."""
    shown = "".join(part if part.isprintable() else ascii(part)[1:-1] for part in str(value))
    return html.escape(shown)


def shape(state: str) -> str:
    """The state's shape, for eyes alone: the word stands beside it."""
    return f'<svg class="shape" viewBox="0 0 48 48" aria-hidden="true">{_SHAPES[state]}</svg>'


def badge(state: str, word: str) -> str:
    """A small shape with its word, in the state's colour: one of the page's, or `fine`."""
    return f'<span class="badge {state}">{shape(state)}{text(word)}</span>'


def backend_badge(state: str) -> str:
    """The badge of a backend in one of its states."""
    return badge(*_BADGES[state])


def sparkline(points: Sequence[float | None], spoken: str) -> str:
    """Bars on a line, one for each point, oldest first; nothing where a point is not known.

    Args:
        points: at least 0, the highest of which is drawn at full height.
        spoken: what stands for the picture where it is not seen.
    """
    highest = max((point for point in points if point), default=0.0)
    bars = [
        f"M{at * BAR} {HEIGHT}v-{max(_LEAST, round(HEIGHT * point / highest))}h{BAR - 2}V{HEIGHT}z"
        for at, point in enumerate(points)
        if point
    ]
    known = next((at for at, point in enumerate(points) if point is not None), len(points))
    width = len(points) * BAR
    return (
        f'<svg class="spark" viewBox="0 0 {width} {HEIGHT + 4}" preserveAspectRatio="none" role="img" '
        f'aria-label="{text(spoken)}"><path class="bars" d="{"".join(bars)}"/>'
        f'<path class="ground" d="M0 {HEIGHT + 2}H{width}"/>'
        f'<path class="known" d="M{known * BAR} {HEIGHT + 2}H{width}"/></svg>'
    )


def spoken(what: str, points: Sequence[float | None], shown: Callable[[float], str]) -> str:
    """A sparkline in words."""
    known = [point for point in points if point is not None]
    if not known:
        return f"{what}: nothing is known yet"
    lowest, highest = shown(min(known)), shown(max(known))
    return f"{what}, last {len(known)} min: now {shown(known[-1])}, lowest {lowest}, highest {highest}"


def number(value: float) -> str:
    """With a comma after each thousand."""
    return f"{value:,.0f}"


def rate(per_s: float) -> str:
    """Three digits or so."""
    return number(per_s) if per_s >= 10 or per_s == 0 else f"{per_s:.1f}" if per_s >= 1 else f"{per_s:.2f}"


def counted(count: int, noun: str) -> str:
    """`1 segment`, `2,000 segments`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def duration(seconds: float) -> str:
    """In the unit that fits: `0.25 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds >= 86400:
        return f"{seconds // 86400:.0f} d {seconds % 86400 // 3600:.0f} h"
    if seconds >= 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    if seconds >= 60:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds >= 1:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds * 1000:.3g} ms"


def size(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def moment(when: datetime.datetime) -> str:
    """A time of day in UTC, with the date for machines."""
    return f'<time datetime="{when:%Y-%m-%dT%H:%M:%SZ}">{when:%H:%M:%S}</time>'


def rows(pairs: Sequence[tuple[str, str]]) -> str:
    """A description list of names and of markup."""
    return "<dl>" + "".join(f"<div><dt>{text(name)}</dt><dd>{value}</dd></div>" for name, value in pairs) + "</dl>"
