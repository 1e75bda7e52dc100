"""Inputs: the lines of what a tool is given to read: files, gzip or not, and standard input. Blocking.

Knows nothing of what the lines mean. Gzip is told by its first bytes, not by a name: logrotate compresses under any.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, cast

STDIN = "-"
_GZIP = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 18


class InputError(Exception):
    """An input cannot be read, or no further: what it was and why."""


def batches(names: Iterable[str], stdin: BinaryIO) -> Iterator[list[bytes]]:
    r"""The lines of all inputs, one after another, without their `\n`; the last one of each may lack it.

    A batch is what one read brought, so that what comes through a pipe is not waited for longer than it takes.

    Args:
        names: paths, or `-` for standard input.
        stdin: what `-` stands for.

    Raises:
        InputError: one cannot be opened, read or unpacked.
    """
    for name in names:
        if name == STDIN:
            yield from _batches(stdin, "standard input")
        else:
            try:
                opened = open(name, "rb")  # noqa: SIM115, PTH123 - closed below; a name as the operator gave it
            except OSError as error:
                raise InputError(f"{name}: {error.strerror}") from error
            with opened:
                yield from _batches(opened, name)


def lines_of(opened: BinaryIO, name: str) -> Iterator[bytes]:
    """The lines of one input, see `batches`.

    Raises:
        InputError: it cannot be read or unpacked.
    """
    for batch in _batches(opened, name):
        yield from batch


def _batches(opened: BinaryIO, name: str) -> Iterator[list[bytes]]:
    begun: list[bytes] = []
    try:
        stream = _unpacked(opened)
        while chunk := stream.read1(_CHUNK_BYTES):
            *whole, rest = chunk.split(b"\n")
            if whole:
                whole[0] = b"".join([*begun, whole[0]])
                begun = []
                yield whole
            if rest:
                begun.append(rest)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{name}: the gzip data is cut off or damaged: {error}") from error
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from error
    if begun:
        yield [b"".join(begun)]


def _unpacked(opened: BinaryIO) -> io.BufferedReader | gzip.GzipFile:
    """The stream itself, or what is packed in it where it begins as gzip does."""
    buffered = opened if isinstance(opened, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", opened))
    return gzip.GzipFile(fileobj=buffered) if buffered.peek(2)[:2] == _GZIP else buffered
