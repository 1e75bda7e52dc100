"""A report of what a tool did and could not do: lines on standard output, progress on a terminal."""

from __future__ import annotations

from typing import TextIO

from scratchd.tools.progress import Progress
from scratchd.tools.table import counted


class Report:
    """Collects and prints.

    Args:
        dry_run: what is done is called what would be done.
        out: where lines go.
        terminal: where progress goes, if it is one.

    Attributes:
        filled_lines: lines that came where they were missing.
        unfilled_lines: lines that did not.
        problems: what could not be done, as printed.
    """

    def __init__(self, out: TextIO, terminal: TextIO, *, dry_run: bool = False) -> None:
        self._out = out
        self._terminal = terminal
        self._dry_run = dry_run
        self.filled_lines = 0
        self.unfilled_lines = 0
        self.problems: list[str] = []

    def filled(self, what: str, lines: int) -> None:
        """Says what is filled now."""
        self.filled_lines += lines
        self._print(("would fill: " if self._dry_run else "filling: ") + what)

    def problem(self, what: str, lines: int = 0, *, undone: int = 0) -> None:
        """Says what cannot be done; `undone` lines had been counted as filled."""
        self.problems.append(what)
        self.filled_lines -= undone
        self.unfilled_lines += lines
        self._print(f"cannot: {what}")

    def note(self, what: str) -> None:
        """Says something that is no problem."""
        self._print(what)

    def progress(self, what: str, total: int) -> Progress:
        """A bar for something that takes long."""
        return Progress(what, total, self._terminal)

    def close(self) -> None:
        """Prints the sum."""
        verb = "to fill" if self._dry_run else "filled"
        rest = f", {counted(self.unfilled_lines, 'line')} cannot be filled" if self.problems else ""
        self._print(f"{counted(self.filled_lines, 'line')} {verb}{rest}")

    def _print(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()
