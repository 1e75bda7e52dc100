"""The log: one line per event to stderr, `component: message key=value …`.

Owns the shape of a log line and knows nothing of what is logged. When the log goes to journald, each line begins with
the syslog priority prefix of sd-daemon(3). Field values are escaped here, at the one place where every line passes,
so nothing that a client sends can begin a log line or reach it unescaped.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

COMPONENTS = ("http", "kafka", "file", "journal", "service")

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.,:;/@+*%()[]{}<>=?&!#~^|$'")

_CONTROLS = {code: ascii(chr(code))[1:-1] for code in (*range(0x20), 0x7F)}


class Log:
    """A component's log. A message is fixed text in lower case; what varies goes into fields."""

    def __init__(self, component: str) -> None:
        self.logger = logging.getLogger(f"scratchd.{component}")

    def debug(self, message: str, **fields: object) -> None:
        """Of interest to a developer."""
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: object) -> None:
        """Of interest to an operator, nothing to do."""
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, **fields: object) -> None:
        """Something is wrong and heals by itself, or will hurt later."""
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, **fields: object) -> None:
        """An operator has to act."""
        self._write(logging.ERROR, message, fields)

    def _write(self, level: int, message: str, fields: dict[str, object]) -> None:
        if self.logger.isEnabledFor(level):
            self.logger.log(level, "%s", " ".join([message, *(f"{key}={field(fields[key])}" for key in fields)]))


def field(value: object) -> str:
    """A field's value as one word: as it is where it is plain, otherwise quoted, with escapes as Python's `ascii`."""
    text = str(value)
    if text and _PLAIN.issuperset(text):
        return text
    # With both kinds of quotes in front, `ascii` always takes the single ones, and escapes those inside.
    escaped = ascii("'\"" + text)[4:-1]
    return '"' + escaped.replace("\\'", "'").replace('"', '\\"') + '"'


class _Formatter(logging.Formatter):
    def __init__(self, prefixed: bool) -> None:
        super().__init__()
        self._prefixed = prefixed

    def format(self, record: logging.LogRecord) -> str:
        names = record.name.split(".")  # scratchd.COMPONENT, or a library's own
        component = names[1] if names[1:] and names[1] in COMPONENTS else "service"
        message = record.getMessage()
        if record.exc_info:
            message += " exception=" + field(self.formatException(record.exc_info))
        # A message may come from a library: it gets no line of its own either.
        message = message.translate(_CONTROLS).encode("ascii", "backslashreplace").decode()
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>" if self._prefixed else ""
        return f"{prefix}{component}: {message}"


def goes_to_journald(stream: TextIO) -> bool:
    """Whether `stream` is the one that systemd connected to the journal (`$JOURNAL_STREAM`, systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def configure(level: str, stream: TextIO = sys.stderr) -> None:
    """Sends every component's log, and what libraries log, to `stream` from `level` on (`log.level`)."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter(goes_to_journald(stream)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)


def set_level(level: str) -> None:
    """Logs from `level` on from now on."""
    logging.getLogger("scratchd").setLevel(level.upper())
