"""`scratchd convert`: query strings in, one per line; for each the JSON object, or `!` and why it would be refused.

Knows two byte streams and the configuration's limits; reads no file and starts nothing.

What one read brought is answered and flushed before the next read. So a person at a terminal and a program that talks
through two pipes get each answer when they have sent its line, while a file goes through in large chunks.
"""

from __future__ import annotations

import re
from typing import BinaryIO, Protocol

from scratchd.config import Config
from scratchd.query import Limits, Repeated, to_json
from scratchd.refusal import Reason

CHUNK_BYTES = 65536
"""Most that one read takes; no bound on a line."""

_NOT_IN_A_TARGET = re.compile(rb"[^\x21-\x7e]")


class Input(Protocol):
    """The side of `io.BufferedReader` that waits for the first byte only, which `typing.BinaryIO` leaves out."""

    def read1(self, size: int = ..., /) -> bytes:
        """Reads what is there, at most `size` bytes, waiting only if there is nothing; empty at the end."""


def run(config: Config, stdin: Input, stdout: BinaryIO) -> None:
    r"""Converts until the end of the input.

    Lines end with `\n` alone, which the last one may lack; a `\r` is a byte like others, and none that a query has.

    Args:
        config: of which the limits and `query` matter.
        stdin: the queries.
        stdout: gets one line for each, in their order.

    Raises:
        OSError: reading or writing failed; `BrokenPipeError` when nobody reads the output any more.
    """
    limits = Limits(config.http.max_query_bytes, config.http.max_parameters)
    repeated = config.query.repeated
    begun: list[bytes] = []
    while chunk := stdin.read1(CHUNK_BYTES):
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join([*begun, lines[0]])
            begun = []
            stdout.writelines(_answer(line, limits, repeated) for line in lines)
            stdout.flush()
        if rest:
            begun.append(rest)
    if begun:
        stdout.write(_answer(b"".join(begun), limits, repeated))
        stdout.flush()


def _answer(query: bytes, limits: Limits, repeated: Repeated) -> bytes:
    if _NOT_IN_A_TARGET.search(query):
        return b"!%s\n" % Reason.BAD_REQUEST.word.encode()
    refusal = limits.refusal(query)
    if refusal is not None:
        return b"!%s\n" % refusal.reason.word.encode()
    return to_json(query, repeated) + b"\n"
