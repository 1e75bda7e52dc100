"""The command line: arguments in, exit status out. Knows which module does what, and does nothing itself.

What a command does not need is not imported: `check` and `convert` start without trio, `serve` without the tools.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from scratchd import __version__

if TYPE_CHECKING:
    from scratchd.config import Config
    from scratchd.tools import tail

DEFAULT_CONFIG = Path("/etc/scratchd/config.json")

OK = 0
FAILED = 1
WRONG_USAGE = 2
NOT_RUNNING = 69
"""EX_UNAVAILABLE of sysexits.h."""
INTERRUPTED = 130
"""By SIGINT or SIGTERM; as a shell says it."""
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
        "replay": _replay,
        "compare": _compare,
        "tail": _tail,
    }[chosen.command]
    try:
        return command(chosen)
    except KeyboardInterrupt:
        return INTERRUPTED
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
        ("replay", "send the requests of an access log again, to one or two targets"),
        ("compare", "say whether two collectors wrote the same JSON values"),
        ("tail", "show the events of flavors as they come, from the journal"),
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
        if name in {"audit", "replay", "compare"}:
            command.add_argument("--json", action="store_true", help="print a JSON document")
        if name == "replay":
            _add_replay(command)
        if name == "compare":
            _add_compare(command)
        if name == "tail":
            _add_tail(command)
    return parser


def _add_tail(command: argparse.ArgumentParser) -> None:
    command.add_argument("flavors", metavar="FLAVOR", nargs="*", help="whose events; without one, all")
    command.add_argument(
        "--filter",
        metavar="NAME=VALUE",
        dest="filters",
        action="append",
        default=[],
        type=_filter,
        help="only events in which the parameter is VALUE; NAME=~EXPRESSION: in which the regular expression is found "
        "in it; may be given several times, then all have to match",
    )
    command.add_argument(
        "--lines", metavar="N", type=_count, default=10, help="first the last N that are still there (default: 10)"
    )
    command.add_argument("--json", action="store_true", help="print the JSON objects as they stand")
    command.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="default: on a terminal")
    command.add_argument(
        "--refused", action="store_true", help="the log's samples of what is being refused and why, in place of events"
    )
    command.add_argument(
        "--log",
        metavar="FILE",
        type=Path,
        help="with --refused: the file that the service's log goes to, - for standard input (default: journald's)",
    )


def _filter(text: str) -> tail.Filter:
    from scratchd.tools import tail  # noqa: PLC0415 - see the module's docstring

    try:
        return tail.Filter.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_replay(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("inputs", metavar="LOG", nargs="+", help="access logs of HAProxy or nginx, gzip or not; - is standard input")
    add(
        "--to", metavar="URL", action="append", required=True, help="http://HOST:PORT to send to; twice for two targets"
    )
    pace = command.add_mutually_exclusive_group()
    pace.add_argument("--rate", metavar="N", type=_positive, help="requests a second (default: the log's own pace)")
    pace.add_argument(
        "--speed", metavar="X", type=_positive, default=1.0, help="the log's own pace times this (default: 1)"
    )
    add(
        "--host",
        metavar="NAME",
        default="original",
        type=_host,
        help="Host of each request, which chooses the flavor: original (the log's, default), target (the URL's), or a"
        " name, in which {host} stands for the original one",
    )
    add(
        "--haproxy-host",
        metavar="N",
        type=_count,
        default=1,
        help="which of HAProxy's captured request headers is Host (default: 1, the first; 0: none)",
    )
    add("--forwarded-for", action="store_true", help="send the log's client addresses as X-Forwarded-For")
    add("--path", metavar="/PATH", help="only requests with this path")
    add("--method", metavar="NAME", action="append", default=[], help="send this method too, not only GET and HEAD")
    add("--limit", metavar="N", type=_count, help="send at most so many requests")
    add("--connections", metavar="N", type=_count, default=64, help="to each target, at most (default: 64)")
    add("--timeout", metavar="SECONDS", type=_positive, default=10.0, help="for one request (default: 10)")
    add("--state", metavar="PATH", type=Path, help="keep in this file what was sent, and go on behind it")
    add("--resend", action="store_true", help="send again what was in flight when the earlier run was killed")
    add(
        "--differing",
        metavar="PATH",
        type=Path,
        help="append requests to this file that the targets answer differently",
    )
    add(
        "--max-failed",
        metavar="N",
        type=_count,
        default=0,
        help="exit with 0 up to so many failed requests (default: 0)",
    )


def _add_compare(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    source = "a log file, a directory of them, or topic:NAME; each may stand behind FLAVOR="
    add("--old", metavar="SOURCE", nargs="+", action="extend", required=True, help=f"the one side: {source}")
    add("--new", metavar="SOURCE", nargs="+", action="extend", required=True, help="the other side, likewise")
    add(
        "--legacy",
        choices=("rack",),
        help="the old side was written by an application on Rack: normalise what that means",
    )
    add("--ignore", metavar="NAME", action="append", default=[], help="leave this key of the objects out")
    add("--strict", action="store_true", help="another order of keys and another spelling are differences too")
    add("--examples", metavar="N", type=_count, default=3, help="to show of each kind (default: 3)")
    add(
        "--work",
        metavar="DIRECTORY",
        type=Path,
        default=Path(os.environ.get("TMPDIR", "/var/tmp")),  # noqa: S108 - what is made there has a name of its own
        help="whose disk to work on (default: $TMPDIR, else /var/tmp)",
    )


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _host(text: str) -> str:
    if re.fullmatch(r"(?:[A-Za-z0-9_.:\[\]-]|\{host\})+", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a host")
    return text


def _day(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date like 2026-12-31") from None


def _load(chosen: argparse.Namespace, *, for_flavors: bool = True) -> Config | None:
    """The configuration, None after its errors were printed.

    Args:
        chosen: which one.
        for_flavors: whether its flavors matter; else it may lack them, and the default file may be missing.
    """
    from scratchd import config  # noqa: PLC0415 - see the module's docstring

    path = _path(chosen)
    if not for_flavors and not hasattr(chosen, "config") and not path.exists():
        return config.Config(flavors=(config.Flavor(name="any", hosts=("*",)),))
    try:
        return _read(chosen, needs_flavors=for_flavors)
    except config.ConfigError as error:
        for line in error.errors:
            print(line, file=sys.stderr)
        return None


def _path(chosen: argparse.Namespace) -> Path:
    path: Path = getattr(chosen, "config", DEFAULT_CONFIG)
    return path


def _read(chosen: argparse.Namespace, *, needs_flavors: bool = True) -> Config:
    from scratchd import config  # noqa: PLC0415 - see the module's docstring

    return config.load(_path(chosen), instance=getattr(chosen, "instance", None), needs_flavors=needs_flavors)


def _has_credentials(loaded: Config, command: str) -> bool:
    """Whether every credential for Kafka is there; says which are not."""
    from scratchd.config import credentials  # noqa: PLC0415 - the same

    missing = credentials.resolve(loaded.kafka.librdkafka).missing
    for name, why in missing.items():
        print(f"scratchd {command}: kafka.librdkafka.{name}: {why}", file=sys.stderr)
    return not missing


def _can_read_topics(loaded: Config, command: str) -> bool:
    """Whether Kafka is configured for a tool that reads topics; says what is missing."""
    if not loaded.kafka.bootstrap_servers:
        print(f"scratchd {command}: kafka.bootstrap_servers is empty: there are no topics to read", file=sys.stderr)
        return False
    return _has_credentials(loaded, command)


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
    loaded = _load(chosen, for_flavors=False)
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
    if not _can_read_topics(loaded, "backfill"):
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


def _replay(chosen: argparse.Namespace) -> int:
    from scratchd.tools import replay, target  # noqa: PLC0415 - the same

    urls = []
    for text in chosen.to:
        try:
            urls.append(target.parse(text))
        except ValueError as error:
            print(f"scratchd replay: --to {text} {error}", file=sys.stderr)
            return WRONG_USAGE
    order = replay.Order(
        inputs=chosen.inputs,
        targets=urls,
        rate=chosen.rate,
        speed=chosen.speed,
        host=chosen.host,
        haproxy_host=chosen.haproxy_host,
        forwarded_for=chosen.forwarded_for,
        methods=frozenset(name.encode() for name in ("GET", "HEAD", *chosen.method)),
        path=None if chosen.path is None else chosen.path.encode(),
        limit=chosen.limit,
        connections=max(1, chosen.connections),
        timeout_s=chosen.timeout,
        state=chosen.state,
        resend=chosen.resend,
        differing=chosen.differing,
    )
    try:
        summary = replay.run(order, sys.stdin.buffer, sys.stdout, sys.stderr, as_json=chosen.json)
    except replay.ReplayError as error:
        print(f"scratchd replay: {error}", file=sys.stderr)
        return WRONG_USAGE
    if summary.interrupted:
        return INTERRUPTED
    return OK if summary.failed <= chosen.max_failed else FAILED


def _compare(chosen: argparse.Namespace) -> int:
    from scratchd.tools import compare, outputs  # noqa: PLC0415 - the same

    old, new = (tuple(map(outputs.parse, sources)) for sources in (chosen.old, chosen.new))
    loaded = None
    if any(source.is_topic for source in (*old, *new)):
        loaded = _load(chosen)
        if loaded is None:
            return BAD_CONFIGURATION
        if not _can_read_topics(loaded, "compare"):
            return BAD_CONFIGURATION
    ignored = frozenset(chosen.ignore)
    order = compare.Order(old, new, chosen.legacy, ignored, chosen.strict, chosen.examples, chosen.work)
    try:
        identical = compare.run(loaded, order, sys.stdout, sys.stderr, as_json=chosen.json)
    except compare.CompareError as error:
        print(f"scratchd compare: {error}", file=sys.stderr)
        return WRONG_USAGE
    return OK if identical else FAILED


def _tail(chosen: argparse.Namespace) -> int:
    wrong = ""
    if chosen.refused and (chosen.flavors or chosen.filters or chosen.json):
        wrong = "--refused goes with --lines, --log and --color only: what is refused is of no flavor"
    elif chosen.log and not chosen.refused:
        wrong = "--log goes with --refused"
    if wrong:
        print(f"scratchd tail: {wrong}", file=sys.stderr)
        return WRONG_USAGE
    loaded = _load(chosen)
    if loaded is None:
        if not os.access(getattr(chosen, "config", DEFAULT_CONFIG), os.R_OK):
            print("scratchd tail: run it as the service's user: sudo -u scratchd scratchd tail", file=sys.stderr)
        return BAD_CONFIGURATION
    from scratchd.tools import refusals, tail, terminal  # noqa: PLC0415 - the same

    out = cast("io.TextIOWrapper", sys.stdout)
    # What the terminal's own character set lacks is shown by number; JSON is UTF-8 wherever it goes.
    out.reconfigure(encoding="utf-8" if chosen.json else None, errors="backslashreplace")
    palette = terminal.Palette(on=terminal.wanted(chosen.color, out, os.environ))
    try:
        if chosen.refused:
            refusals.run(chosen.log, loaded.instance, chosen.lines, palette, out)
        else:
            order = tail.Order(chosen.flavors, chosen.filters, chosen.lines, chosen.json)
            tail.run(loaded, order, palette, out, sys.stderr)
    except tail.TailError as error:
        print(f"scratchd tail: {error}", file=sys.stderr)
        return FAILED
    return OK
