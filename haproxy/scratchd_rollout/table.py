"""Numbers, durations and columns as people read them on a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def columns(rows: Iterable[Sequence[str]], alignment: str, indent: str = "") -> str:
    """Rows of cells as lines; `alignment` has `<` or `>` for each column."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(alignment))]
    lines = []
    for row in cells:
        padded = (f"{cell:{side}{width}}" for cell, side, width in zip(row, alignment, widths, strict=True))
        lines.append((indent + "  ".join(padded)).rstrip())
    return "\n".join(lines)


def rate(part: float | None) -> str:
    """`0.0123` as `1.23 %`, `-` where it is not known."""
    return "-" if part is None else f"{part * 100:.3g} %"


def duration(seconds: float) -> str:
    """`4 min 10 s`; the two greatest units."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts = []
    for name, size in units:
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])
