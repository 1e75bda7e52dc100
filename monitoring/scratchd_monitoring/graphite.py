"""scratchd-graphite: sends an instance's figures to Graphite, once; a timer or cron runs it each minute.

Owns the names: the path of a figure in `/stats`, below a prefix, in carbon's plaintext protocol. Numbers are sent, and
for `state` a `running` that is 1 or 0, as what is true or false is. What is `null` is not sent: Graphite shows a hole.
`up` is 1 where the instance answered and 0 otherwise, which tells a service that is down from a feeder that is.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from scratchd_monitoring import __version__
from scratchd_monitoring.ask import DEFAULT_ADDRESS, DownError, NonsenseError, split, stats

EX_UNAVAILABLE = 69
EX_TEMPFAIL = 75

_LEFT_OUT = {"buckets"}
"""Histograms are for Prometheus: sixteen figures that no function of Graphite reads; quantiles are there."""


def figures(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Names, below no prefix, and values of what is a number in a document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in _LEFT_OUT:
                yield from figures(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from figures(inner, (*path, str(index)))
    elif isinstance(value, bool | int | float):
        yield ".".join(map(segment, path)), value
    elif path and path[-1] == "state":
        yield ".".join(map(segment, (*path[:-1], "running"))), value == "running"


def segment(name: str) -> str:
    """A part of a name as carbon takes it: the dot parts names, and the rest would be a pattern in Graphite."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name) or "_"


def lines(prefix: str, document: dict[str, Any] | None, now_s: float) -> list[str]:
    """What is sent for an instance; None: it does not answer."""
    found = [("up", 0.0 if document is None else 1.0), *figures(document or {})]
    return [f"{prefix}.{name} {float(value):.15g} {int(now_s)}\n" for name, value in found]


def command_line() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="scratchd-graphite",
        description="Sends the figures of running instances of scratchd to Graphite, once.",
        epilog="Exit status: 0 sent; 69 an instance does not answer; 75 carbon does not take it; 2 wrong usage.",
    )
    parser.add_argument(
        "--address",
        metavar="[NAME=]ADDRESS",
        action="append",
        help=f"host:port or unix:/path, repeatable; NAME comes behind the prefix; default: {DEFAULT_ADDRESS}",
    )
    parser.add_argument(
        "--carbon", metavar="HOST:PORT", type=_carbon, default="127.0.0.1:2003", help="default: 127.0.0.1:2003"
    )
    parser.add_argument(
        "--prefix", metavar="PREFIX", default="scratchd.{host}", help="of every name; default: scratchd.{host}"
    )
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=10.0, help="for each of them; default: 10")
    parser.add_argument("--print", action="store_true", help="prints what it would send, and sends nothing")
    parser.add_argument("--version", action="version", version=f"scratchd-graphite {__version__}")
    return parser


def _carbon(text: str) -> tuple[str, int]:
    try:
        return split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Asks, sends, and returns the exit status."""
    parser = command_line()
    chosen = parser.parse_args(arguments)
    prefix = chosen.prefix.replace("{host}", segment(socket.gethostname().partition(".")[0]))
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", prefix):
        parser.error(f'--prefix: "{prefix}" is none: expected letters, digits, - and _, parted by dots')
    sent: list[str] = []
    status = 0
    for given in chosen.address or [DEFAULT_ADDRESS]:
        name, equals, address = given.rpartition("=")
        document = None
        try:
            document = stats(address, chosen.timeout)
        except (DownError, NonsenseError) as error:
            status = _complain(str(error), EX_UNAVAILABLE)
        except ValueError as error:
            parser.error(f"--address: {error}")
        sent += lines(f"{prefix}.{segment(name)}" if equals else prefix, document, time.time())
    if chosen.print:
        sys.stdout.writelines(sent)
        return status
    try:
        with socket.create_connection(chosen.carbon, chosen.timeout) as connection:
            connection.sendall("".join(sent).encode())
            # Carbon answers nothing. Having closed our side, its end of file says that it has read all.
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
    except OSError as error:
        return _complain(f"carbon at {chosen.carbon[0]}:{chosen.carbon[1]}: {error}", EX_TEMPFAIL)
    return status


def _complain(words: str, status: int) -> int:
    sys.stderr.write(f"scratchd-graphite: {words}\n")
    return status
