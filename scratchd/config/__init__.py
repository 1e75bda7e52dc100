"""The configuration: one JSON object, read whole and checked whole before anything starts.

This package owns the file; nobody else reads it, and it knows none of the parts that it configures.

    sections    a frozen struct for each section: every key with type, limits, meaning and default
    syntax      the rules that one value obeys by itself: addresses, hosts, zones, templates
    document    JSON text into structs, with every error and not only the first
    rules       what several keys must obey together
    librdkafka  Kafka's properties, validated by librdkafka without connecting
    credentials secrets that are only named, and that systemd hands over
    advice      warnings: allowed, yet hardly meant
    takeover    which part of it a running service can put into effect

An error names file, key, value, rule and, for a mistyped name, the nearest known one. Secrets are never shown.
"""

from __future__ import annotations

from pathlib import Path

from scratchd.config import document, rules
from scratchd.config.advice import warnings
from scratchd.config.sections import Canary, Checks, Config, File, Flavor, Http, Journal, Kafka, Log, Query

__all__ = [
    "Canary",
    "Checks",
    "Config",
    "ConfigError",
    "File",
    "Flavor",
    "Http",
    "Journal",
    "Kafka",
    "Log",
    "Query",
    "load",
    "warnings",
]

FILE_BYTES = 16 * 1024 * 1024
"""No configuration is larger; a device or a log taken for one is."""


class ConfigError(Exception):
    """The configuration cannot be used: print every error, exit 78.

    Attributes:
        errors: one line each, at least one: `config.json: flavors[1].hosts: "x" is already that of flavors[0]`.
    """

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def load(path: Path, *, instance: str | None = None, needs_flavors: bool = True) -> Config:
    """Reads and checks the configuration, librdkafka's properties included; touches nothing but the file.

    Args:
        path: the file; errors show its base name.
        instance: replaces the key `instance`; None leaves it as it is.
        needs_flavors: whether a configuration without any is wrong; else it gets one of any host.

    Raises:
        ConfigError: the file cannot be read or anything in it is wrong; it has every error.
    """
    name = document.printable(path.name)
    report = document.Report()
    try:
        parsed = document.parse(_read(path))
        if instance is not None:
            parsed["instance"] = instance
        if not needs_flavors:
            parsed.setdefault("flavors", [{"name": "any", "hosts": ["*"]}])
        config = document.read(parsed, Config, report)
        rules.check(config, report)
    except document.NotAnObjectError as error:
        raise ConfigError([f"{name}: {error}"]) from error
    if report.errors:
        raise ConfigError([f"{name}: {error}" for error in report.errors])
    return config


def _read(path: Path) -> str:
    """The file's text.

    Raises:
        NotAnObjectError: it cannot be read, or is no text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise document.NotAnObjectError(f"cannot be read: {error.strerror}: {document.printable(str(path))}") from error
    except ValueError as error:  # a path with a NUL or half of a surrogate pair
        raise document.NotAnObjectError(f"cannot be read: {error}") from error
    if len(data) > FILE_BYTES:
        raise document.NotAnObjectError(f"is too large for a configuration: more than {FILE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise document.NotAnObjectError(f"line {line}: is not UTF-8: byte 0x{data[error.start]:02x}") from error
