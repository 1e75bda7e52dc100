"""Tables and numbers as people read them on a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def columns(rows: Iterable[Sequence[str]], alignment: str, indent: str = "  ") -> str:
    """Rows of cells as lines; `alignment` has `<` or `>` for each column."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(alignment))]
    lines = []
    for row in cells:
        padded = (f"{cell:{side}{width}}" for cell, side, width in zip(row, alignment, widths, strict=True))
        lines.append((indent + "  ".join(padded)).rstrip())
    return "\n".join(lines)


def number(value: int) -> str:
    """With a comma after each thousand."""
    return f"{value:,}"


def counted(count: int, noun: str) -> str:
    """`1 line`, `2,000 lines`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
