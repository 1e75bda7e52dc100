"""`scratchd tail --refused`: shows what is being refused and why, from the service's log.

The journal holds no refusals; the log has samples of them, at most one of a reason and second, with the number of those
that were passed over. Under systemd the log is journald's and is asked for by journalctl; elsewhere it is a file, or
whatever else stderr goes to, and is given as one.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from scratchd.tools.tail import POLL_MS, Audience, TailError
from scratchd.tools.terminal import Palette, safe

_REFUSED = re.compile(r"(?:.*\s)?(?:<\d>)?http: request refused (reason=.*)")
_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the log about a refusal.

    Attributes:
        time_ms: when it was logged, None where the log does not say.
        reason: its word.
        why: the sentence that the client was told.
        passed_over: how many more of this reason came since the last sample.
    """

    time_ms: int | None
    reason: str
    why: str
    passed_over: int


def parse(line: str, time_ms: int | None = None) -> Sample | None:
    """The sample that a line of the log is, None where it is about something else."""
    match = _REFUSED.fullmatch(line)
    if match is None:
        return None
    fields = dict(_FIELD.findall(match[1]))
    more = fields.get("not_logged", "0")
    return Sample(time_ms, _plain(fields["reason"]), _plain(fields.get("why", "")), int(more) if more.isdigit() else 0)


def _plain(value: str) -> str:
    return value[1:-1].replace('\\"', '"') if value.startswith('"') else value


def unit(instance: str) -> str:
    """The systemd unit of an instance."""
    return f"scratchd@{instance}.service" if instance else "scratchd.service"


def run(log: Path | None, instance: str, lines: int, palette: Palette, out: TextIO) -> None:
    """Shows samples until it is interrupted, until the log ends (standard input), or until nobody reads `out`.

    Args:
        log: the file that the service's log goes to, `-` for standard input; None for journald's.
        instance: the instance's name, empty where it has none.
        lines: how many of the samples that are there already come first.
        palette: colours, or none.
        out: where samples are shown.

    Raises:
        TailError: there is no such log, or it may not be read.
        BrokenPipeError: nobody reads `out` any more.
    """
    audience = Audience(out)
    source = _journald(instance, lines, audience) if log is None else _file(log, lines, audience)
    with contextlib.closing(source):
        for sample in source:
            out.write(_shown(sample, palette) + "\n")
            out.flush()


def _shown(sample: Sample, palette: Palette) -> str:
    when = ""
    if sample.time_ms is not None:
        moment = datetime.datetime.fromtimestamp(sample.time_ms / 1000).astimezone()
        when = palette.dim(f"{moment:%H:%M:%S}.{sample.time_ms % 1000:03d}") + " "
    more = palette.dim(f" (and {sample.passed_over:,} more before it)") if sample.passed_over else ""
    return f"{when}{palette.reason(safe(sample.reason))} {safe(sample.why)}{more}"


def _journald(instance: str, lines: int, audience: Audience) -> Generator[Sample, None, None]:
    journalctl = shutil.which("journalctl")
    if journalctl is None or not Path("/run/systemd/journal").exists():
        raise TailError(
            "systemd-journald does not run here, so the log is not with it: name the file that the service's standard "
            "error goes to (--log FILE), or pipe it in (--log -)"
        )
    # What journalctl has to say (that one may not read the log, for one thing) goes to stderr as it is.
    command = [journalctl, "--follow", "--output=json", f"--unit={unit(instance)}", "--grep=^http: request refused"]
    with subprocess.Popen(  # noqa: S603 - an absolute path and a unit's name
        [*command, f"--lines={lines}"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            for line in _coming(process.stdout.fileno(), audience):
                entry = json.loads(line)
                message = entry.get("MESSAGE")
                if isinstance(message, str):
                    sample = parse(message, int(entry["__REALTIME_TIMESTAMP"]) // 1000)
                    if sample is not None:
                        yield sample
        finally:
            process.terminate()
    if process.returncode > 0:
        raise TailError(f"journalctl ended with {process.returncode}")


def _file(path: Path, lines: int, audience: Audience) -> Generator[Sample, None, None]:
    recent: deque[Sample] | None = deque(maxlen=lines)
    try:
        for line in _piped(audience) if str(path) == "-" else _lines(path, audience):
            if line is None:
                yield from recent or ()
                recent = None
            elif sample := parse(line):
                if recent is None:
                    yield sample
                else:
                    recent.append(sample)
    except PermissionError as error:
        raise TailError(f"{path}: permission denied; run it as a user who may read the log") from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TailError(f"{path}: {error.strerror}") from error


def _piped(audience: Audience) -> Iterator[str | None]:
    """The lines of standard input, all of which are shown."""
    yield None
    yield from map(_text, _coming(sys.stdin.fileno(), audience))


def _coming(source: int, audience: Audience) -> Iterator[bytes]:
    """The lines that come from a descriptor, up to its end."""
    torn = b""
    while True:
        audience.wait(None, source)
        if not (chunk := os.read(source, 1 << 16)):
            break
        *whole, torn = (torn + chunk).split(b"\n")
        yield from whole
    if torn:
        yield torn


def _text(line: bytes) -> str:
    return line.decode("ascii", "backslashreplace")


def _lines(path: Path, audience: Audience) -> Iterator[str | None]:
    """The whole lines of a log, None once where it ended at first, and what comes; also of a new file in its place."""
    with contextlib.ExitStack() as held:
        file = held.enter_context(path.open("rb"))
        torn, caught_up = b"", False
        while True:
            if chunk := file.read(1 << 16):
                *whole, torn = (torn + chunk).split(b"\n")
                yield from map(_text, whole)
                continue
            if not caught_up:
                yield None
                caught_up = True
            audience.wait(POLL_MS)
            with contextlib.suppress(FileNotFoundError):
                now, then = path.stat(), os.fstat(file.fileno())
                if (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino):
                    if now.st_size < file.tell():  # truncated in its place
                        file.seek(0)
                        torn = b""  # its end is gone with the rest
                elif now.st_size and not file.peek():  # who writes has gone over to the new one
                    held.close()
                    file, torn = held.enter_context(path.open("rb")), b""
