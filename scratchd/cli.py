"""The command line: arguments in, exit status out. Knows which module does what, and does nothing itself.

What a command does not need is not imported: `check` and `convert` start without trio, `serve` without the tools.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from scratchd import __version__

if TYPE_CHECKING:
    from scratchd.config import Config

DEFAULT_CONFIG = Path("/etc/scratchd/config.json")

OK = 0
FAILED = 1
WRONG_USAGE = 2
NOT_RUNNING = 69
"""EX_UNAVAILABLE of sysexits.h."""
BAD_CONFIGURATION = 78
"""EX_CONFIG of sysexits.h; the unit does not restart on it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; wrong usage exits with 2."""
    chosen = command_line().parse_args(arguments)
    command = {
        "serve": _serve,
        "check": _check,
        "convert": _convert,
        "stats": _stats,
        "backfill": _backfill,
        "audit": _audit,
    }[chosen.command]
    try:
        return command(chosen)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output is gone; the interpreter must not complain about it when it flushes.
        sys.stdout = None
        return OK


def command_line() -> argparse.ArgumentParser:
    """Everything that can be said on the command line; the man pages and the completion are made from it."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--config", metavar="PATH", type=Path, help=f"configuration file (default: {DEFAULT_CONFIG})")
    common.add_argument("--instance", metavar="NAME", help="name of this instance, replaces the key `instance`")
    parser = argparse.ArgumentParser(
        prog="scratchd",
        description="Collects tracking beacons as JSON lines in log files and Kafka topics.",
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"scratchd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, what in (
        ("serve", "run the service in the foreground"),
        ("check", "read the whole configuration and print every error in it"),
        ("convert", "turn query strings from standard input into JSON objects"),
        ("stats", "show what the running instance does"),
        ("backfill", "fill the gaps of one backend from what the other one has"),
        ("audit", "check that what was received is all accounted for; the instance must be stopped"),
    ):
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".", parents=[common])
        if name == "stats":
            command.add_argument("--json", action="store_true", help="print the JSON document of /stats")
        if name in {"backfill", "audit"}:
            command.add_argument("--flavor", metavar="NAME", help="only this flavor")
        if name == "backfill":
            command.add_argument("--to", choices=("file", "kafka"), required=True, help="the backend to be filled")
            command.add_argument(
                "--day",
                metavar="YYYY-MM-DD",
                type=_day,
                help="rebuild the log files of this day where none stand (with --to file)",
            )
            command.add_argument("--dry-run", action="store_true", help="say what would be filled, and fill nothing")
        if name == "audit":
            command.add_argument("--json", action="store_true", help="print a JSON document")
    return parser


def _day(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date like 2026-12-31") from None


def _load(chosen: argparse.Namespace, *, default_if_missing: bool = False) -> Config | None:
    """The configuration, None after its errors were printed."""
    from scratchd import config  # noqa: PLC0415 - see the module's docstring

    path = _path(chosen)
    if default_if_missing and not hasattr(chosen, "config") and not path.exists():
        return config.Config(flavors=(config.Flavor(name="any", hosts=("*",)),))
    try:
        return _read(chosen)
    except config.ConfigError as error:
        for line in error.errors:
            print(line, file=sys.stderr)
        return None


def _path(chosen: argparse.Namespace) -> Path:
    path: Path = getattr(chosen, "config", DEFAULT_CONFIG)
    return path


def _read(chosen: argparse.Namespace) -> Config:
    from scratchd import config  # noqa: PLC0415 - see the module's docstring

    return config.load(_path(chosen), instance=getattr(chosen, "instance", None))


def _has_credentials(loaded: Config, command: str) -> bool:
    """Whether every credential for Kafka is there; says which are not."""
    from scratchd.config import credentials  # noqa: PLC0415 - the same

    missing = credentials.resolve(loaded.kafka.librdkafka).missing
    for name, why in missing.items():
        print(f"scratchd {command}: kafka.librdkafka.{name}: {why}", file=sys.stderr)
    return not missing


def _serve(chosen: argparse.Namespace) -> int:
    # Until the service heeds it, a reload that comes early must not end the process: it has not read anything yet.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    loaded = _load(chosen)
    if loaded is None or (loaded.kafka.enabled and not _has_credentials(loaded, "serve")):
        return BAD_CONFIGURATION
    # HTTP/2's tables take 12 MB for a moment while they are imported. Before everything else: the rest then uses what
    # they leave, and the process' peak stays below what it needs anyway.
    import hpack.huffman_table  # noqa: F401, PLC0415

    from scratchd import log, memory, service  # noqa: PLC0415 - the same

    memory.share_one_arena()
    log.configure(loaded.log.level)
    return OK if service.run(loaded, functools.partial(_read, chosen)) else FAILED


def _check(chosen: argparse.Namespace) -> int:
    from scratchd import config  # noqa: PLC0415 - the same

    loaded = _load(chosen)
    if loaded is None:
        return BAD_CONFIGURATION
    for line in config.warnings(loaded):
        print(f"warning: {line}", file=sys.stderr)
    print("OK")
    return OK


def _convert(chosen: argparse.Namespace) -> int:
    loaded = _load(chosen, default_if_missing=True)
    if loaded is None:
        return BAD_CONFIGURATION
    from scratchd.tools import convert  # noqa: PLC0415 - the same

    convert.run(loaded, cast("convert.Input", sys.stdin.buffer), sys.stdout.buffer)
    return OK


def _stats(chosen: argparse.Namespace) -> int:
    loaded = _load(chosen)
    if loaded is None:
        return BAD_CONFIGURATION
    from scratchd.tools import stats  # noqa: PLC0415 - the same

    try:
        document = stats.ask(loaded)
    except stats.NotRunningError as error:
        print(f"scratchd stats: {error}", file=sys.stderr)
        return NOT_RUNNING
    print(document.decode().rstrip("\n") if chosen.json else stats.table(document), flush=True)
    return OK


def _backfill(chosen: argparse.Namespace) -> int:
    if chosen.day is not None and chosen.to != "file":
        print("scratchd backfill: --day goes with --to file", file=sys.stderr)
        return WRONG_USAGE
    loaded = _load(chosen)
    if loaded is None:
        return BAD_CONFIGURATION
    if not loaded.kafka.bootstrap_servers:
        print("scratchd backfill: kafka.bootstrap_servers is empty: there are no topics to read", file=sys.stderr)
        return BAD_CONFIGURATION
    if not _has_credentials(loaded, "backfill"):
        return BAD_CONFIGURATION
    from scratchd.tools import backfill  # noqa: PLC0415 - the same

    order = backfill.Order(chosen.to, chosen.flavor, chosen.day, chosen.dry_run)
    return OK if backfill.run(loaded, order, sys.stdout, sys.stderr) else FAILED


def _audit(chosen: argparse.Namespace) -> int:
    loaded = _load(chosen)
    if loaded is None:
        return BAD_CONFIGURATION
    from scratchd.tools import audit  # noqa: PLC0415 - the same

    try:
        holds = audit.run(loaded, chosen.flavor, sys.stdout, sys.stderr, as_json=chosen.json)
    except audit.AuditError as error:
        print(f"scratchd audit: {error}", file=sys.stderr)
        return FAILED
    return OK if holds else FAILED
