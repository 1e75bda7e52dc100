"""The terminal: colours where they are wanted, and nothing that a client sent reaching it unescaped. Pure.

A terminal obeys what it is sent: ESC and the C1 controls move its cursor, set its title, on some even answer as if one
had typed; marks of direction make a line read as another one. So everything that is not printable is shown by number.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Literal, TextIO

Colour = Literal["always", "never", "auto"]

_FLAVORS = (36, 35, 33, 32, 34, 96, 95, 93, 92, 94)
"""Foregrounds that are read on a black and on a white ground."""

_PLAIN = re.compile(r"[^\s\"'=\\]+")


def wanted(choice: Colour, stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether to colour: as chosen, else on a terminal unless `NO_COLOR` (no-color.org) or a dumb one says no."""
    if choice != "auto":
        return choice == "always"
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def safe(text: str) -> str:
    r"""The text with all that is not printable as `\n`, `\x1b`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(part if part.isprintable() else _escaped(part) for part in text)


def safe_json(line: str) -> str:
    """The same for a JSON document: escaped as JSON has it, so that its value is the same."""
    if line.isprintable():
        return line
    return "".join(part if part.isprintable() else _json_escaped(part) for part in line)


def quoted(value: str) -> str:
    """As it is where it is a plain word, otherwise in quotes, safe either way."""
    if _PLAIN.fullmatch(value) and value.isprintable():
        return value
    return '"' + safe(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


class Palette:
    """Colours, or none.

    Args:
        on: whether there are any.
    """

    def __init__(self, *, on: bool) -> None:
        self._on = on

    def dim(self, text: str) -> str:
        """What is there in every line."""
        return self._painted(text, "2")

    def name(self, text: str) -> str:
        """A parameter's name."""
        return self._painted(text, "36")

    def flavor(self, text: str) -> str:
        """A flavor, each in a colour of its own and always the same."""
        return self._painted(text, f"1;{_FLAVORS[zlib.crc32(text.encode()) % len(_FLAVORS)]}")

    def reason(self, text: str) -> str:
        """Why something was refused."""
        return self._painted(text, "1;33")

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._on else text


def _escaped(part: str) -> str:
    return ascii(part)[1:-1]


def _json_escaped(part: str) -> str:
    units = part.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
