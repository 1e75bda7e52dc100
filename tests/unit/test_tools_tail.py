"""Tail: what is shown of events and of refusals, which of them, and that no terminal obeys what a client sent."""

from __future__ import annotations

import datetime
import io
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd import config
from scratchd.journal.format import SegmentName, frame, segment_head
from scratchd.log import field
from scratchd.tools import refusals, tail, terminal
from scratchd.tools.refusals import Sample
from scratchd.tools.tail import Filter, Order, TailError
from scratchd.tools.terminal import Palette

EPOCH = "00000000-0000-4000-8000-000000000001"
NOON_MS = 1_798_718_400_000  # 2026-12-31T12:00:00Z


@pytest.fixture(autouse=True)
def athens(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The operator's time zone."""
    monkeypatch.setenv("TZ", "Europe/Athens")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def configured(tmp_path: Path) -> config.Config:
    path = tmp_path / "config.json"
    flavors = [{"name": name, "hosts": [f"{name}.test"]} for name in ("gr", "tr")]
    path.write_text(json.dumps({"journal": {"directory": str(tmp_path / "journal")}, "flavors": flavors}))
    return config.load(path)


def write(loaded: config.Config, flavor: str, first: int, *lines: Mapping[str, object], at_ms: int = NOON_MS) -> None:
    """A segment of one frame."""
    directory = loaded.journal_directory / flavor
    directory.mkdir(parents=True, exist_ok=True)
    encoded = [json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() for line in lines]
    framed = frame(encoded, first, at_ms, datetime.date(2026, 12, 31))
    (directory / str(SegmentName(first, 0, EPOCH))).write_bytes(segment_head(first, EPOCH) + framed)


class Impatient(io.StringIO):
    """What is shown to somebody who goes away once something was.

    Args:
        reading: that one's end.
        writing: the command's.
    """

    def __init__(self, reading: int, writing: int) -> None:
        super().__init__()
        self.flushes = 0
        self._reading = reading
        self._writing = writing

    def fileno(self) -> int:
        """Looked at, not written to."""
        return self._writing

    def flush(self) -> None:
        """Something was shown."""
        self.flushes += 1
        if self.flushes == 1:
            os.close(self._reading)
        assert self.flushes < 5, "it goes on though nobody reads"


@pytest.fixture(params=["pipe", "socket"])
def impatient(request: pytest.FixtureRequest) -> Iterator[Impatient]:
    """By a pipe as in a shell, by a socket as under inetd and the like."""
    if request.param == "pipe":
        reading, writing = os.pipe()
    else:
        reading, writing = (end.detach() for end in socket.socketpair())
    yield Impatient(reading, writing)
    os.close(writing)


def shown(loaded: config.Config, order: Order, palette: Palette | None = None, notes: io.StringIO | None = None) -> str:
    """What is shown of what is there."""
    reading, writing = os.pipe()
    out = Impatient(reading, writing)
    try:
        with pytest.raises(BrokenPipeError):
            tail.run(loaded, order, palette or Palette(on=False), out, notes or io.StringIO())
    finally:
        os.close(writing)
    return out.getvalue()


def test_events_end_when_who_reads_them_leaves(configured: config.Config, impatient: Impatient) -> None:
    with pytest.raises(BrokenPipeError):
        tail.run(configured, Order(), Palette(on=False), impatient, io.StringIO())


def test_events_are_shown_with_time_flavor_and_values(configured: config.Config) -> None:
    write(
        configured, "gr", 0, {"page": "/home", "title": "Καλημέρα 😀", "q": 'a "b"=c\\', "e": ""}, {"a": ["1", "2 3"]}
    )
    write(configured, "tr", 0, {"page": "/"}, at_ms=NOON_MS + 50)
    assert shown(configured, Order()).splitlines() == [
        "-- Thursday, 2026-12-31 EET --",
        '14:00:00.000 gr page=/home title="Καλημέρα 😀" q="a \\"b\\"=c\\\\" e=""',
        '14:00:00.000 gr a=[1, "2 3"]',
        "14:00:00.050 tr page=/",
    ]


def test_a_new_day_is_told(configured: config.Config) -> None:
    write(configured, "gr", 0, {"a": "1"}, at_ms=NOON_MS + 10 * 3_600_000 - 1)
    write(configured, "gr", 1, {"a": "2"}, at_ms=NOON_MS + 10 * 3_600_000)
    assert shown(configured, Order()).splitlines() == [
        "-- Thursday, 2026-12-31 EET --",
        "23:59:59.999 gr a=1",
        "-- Friday, 2027-01-01 EET --",
        "00:00:00.000 gr a=2",
    ]


def test_raw_is_the_line_as_it_stands(configured: config.Config) -> None:
    write(configured, "gr", 0, {"a": "\x9b\x7f\u202eκ", "b": ""})
    assert shown(configured, Order(raw=True)) == '{"a":"\x9b\x7f\u202eκ","b":""}\n'


@pytest.mark.parametrize(
    ("order", "found"),
    [
        (Order(), "01234"),
        (Order(lines=2), "34"),
        (Order(lines=0), ""),
        (Order(flavors=("tr",)), "4"),
        (Order(filters=(Filter.parse("kind=odd"),)), "13"),
        (Order(filters=(Filter.parse("kind=odd"),), lines=1), "3"),
        (Order(filters=(Filter.parse("kind=odd"), Filter.parse("n=1"))), "1"),
        (Order(filters=(Filter.parse("n=~[0-2]"),)), "012"),
        (Order(filters=(Filter.parse("many=b"),)), "2"),
        (Order(filters=(Filter.parse("many=~^c"),)), ""),
        (Order(filters=(Filter.parse("nothing="),)), ""),
    ],
)
def test_what_is_asked_for_is_shown(configured: config.Config, order: Order, found: str) -> None:
    write(configured, "gr", 0, {"n": "0", "kind": "even"}, {"n": "1", "kind": "odd"}, at_ms=NOON_MS)
    write(configured, "gr", 2, {"n": "2", "many": ["a", "b"]}, at_ms=NOON_MS + 1)
    write(configured, "gr", 3, {"n": "3", "kind": "odd"}, at_ms=NOON_MS + 2)
    write(configured, "tr", 9, {"n": "4"}, at_ms=NOON_MS + 3)
    lines = shown(configured, Order(order.flavors, order.filters, order.lines, raw=True)).splitlines()
    assert "".join(json.loads(line)["n"] for line in lines) == found


@pytest.mark.parametrize("text", ["", "name", "name=~[", "name=~(?P<x"])
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        Filter.parse(text)


def test_an_unknown_flavor_is_refused_with_those_that_there_are(configured: config.Config) -> None:
    write(configured, "removed", 0, {"a": "1"})
    with pytest.raises(TailError, match=r'no flavor "x\\x1b"; there are: gr, removed, tr$'):
        shown(configured, Order(flavors=("x\x1b",)))
    assert "removed" in shown(configured, Order(flavors=("removed",)))


def test_what_may_not_be_read_is_told_with_the_cure(configured: config.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    write(configured, "gr", 0, {"a": "1"})

    def refused(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(TailError, match=r"permission denied; run it as sudo (-u \S+ )?scratchd tail$"):
        shown(configured, Order())


# The terminal.


@given(st.text())
def test_nothing_that_a_client_sent_reaches_a_terminal_unescaped(sent: str) -> None:
    for text in (terminal.safe(sent), terminal.quoted(sent)):
        assert text.isprintable()
    line = json.dumps({"a": sent}, ensure_ascii=False)
    assert terminal.safe_json(line).isprintable()
    assert json.loads(terminal.safe_json(line)) == json.loads(line)


@pytest.mark.parametrize(
    ("sent", "quoted"),
    [
        ("/home", "/home"),
        ("", '""'),
        ("a b", '"a b"'),
        ("\x1b]0;owned\x07", '"\\x1b]0;owned\\x07"'),
        ("a\nb\r", '"a\\nb\\r"'),
        ("\u009b2J", '"\\x9b2J"'),
        ("\u202e", '"\\u202e"'),
        ("\\x1b", '"\\\\x1b"'),
        ("καφές", "καφές"),
    ],
)
def test_a_value_is_quoted_where_it_must_be(sent: str, quoted: str) -> None:
    assert terminal.quoted(sent) == quoted


class Stream(io.StringIO):
    """A terminal, or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        """As it was made."""
        return self._terminal


@pytest.mark.parametrize(
    ("choice", "environment", "on_terminal", "on_pipe"),
    [
        ("auto", {}, True, False),
        ("auto", {"NO_COLOR": ""}, True, False),
        ("auto", {"NO_COLOR": "1"}, False, False),
        ("auto", {"TERM": "dumb"}, False, False),
        ("always", {"NO_COLOR": "1"}, True, True),
        ("never", {}, False, False),
    ],
)
def test_colour_is_for_terminals(
    choice: terminal.Colour, environment: dict[str, str], on_terminal: bool, on_pipe: bool
) -> None:
    assert terminal.wanted(choice, Stream(terminal=True), environment) is on_terminal
    assert terminal.wanted(choice, Stream(terminal=False), environment) is on_pipe


def test_colours_stand_around_what_is_shown(configured: config.Config) -> None:
    write(configured, "gr", 0, {"a": "\x1b[31m"})
    line = shown(configured, Order(), Palette(on=True)).splitlines()[1]
    assert line.startswith("\x1b[2m14:00:00.000\x1b[0m \x1b[1;")
    assert line.endswith(' \x1b[36ma\x1b[0m="\\x1b[31m"')


# Refusals.


@pytest.mark.parametrize(
    ("line", "sample"),
    [
        ("http: request refused reason=empty_query why=x", Sample(None, "empty_query", "x", 0)),
        (
            '<6>http: request refused reason=bad_host why="a \'b\' \\"c\\"" not_logged=12',
            Sample(None, "bad_host", "a 'b' \"c\"", 12),
        ),
        (
            "Nov 23 14:00:00 host scratchd[7]: http: request refused reason=not_found why=y",
            Sample(None, "not_found", "y", 0),
        ),
        ("http: stopped reason=x", None),
        ('service: x error="http: request refused reason=x"', None),
        ("", None),
    ],
)
def test_a_refusal_is_told_from_other_lines(line: str, sample: Sample | None) -> None:
    assert refusals.parse(line) == sample


@given(st.text())
def test_a_sentence_comes_back_as_it_was_logged(sentence: str) -> None:
    sample = refusals.parse(f"http: request refused reason=bad_host why={field(sentence)} not_logged=3")
    assert sample is not None
    assert (sample.reason, sample.passed_over) == ("bad_host", 3)
    assert sample.why.isprintable()


@pytest.mark.parametrize(("instance", "unit"), [("", "scratchd.service"), ("1", "scratchd@1.service")])
def test_an_instance_has_its_unit(instance: str, unit: str) -> None:
    assert refusals.unit(instance) == unit


@pytest.mark.parametrize("end", ["\n", ""], ids=["whole", "torn"])
def test_standard_input_is_shown_to_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    first, second = "http: request refused reason=a why=b", "<6>http: request refused reason=c why=d not_logged=1500"
    log.write_text(f"http: ready\n{first}\n{second}{end}")
    with log.open() as stdin, out.open("w") as stdout:
        monkeypatch.setattr("sys.stdin", stdin)
        refusals.run(Path("-"), "", 0, Palette(on=False), stdout)
    assert out.read_text() == "a b\nc d (and 1,500 more before it)\n"


def test_refusals_of_a_file_end_when_who_reads_them_leaves(tmp_path: Path, impatient: Impatient) -> None:
    log = tmp_path / "log"
    log.write_text("http: request refused reason=a why=b\n")
    with pytest.raises(BrokenPipeError):
        refusals.run(log, "", 10, Palette(on=False), impatient)
    assert impatient.getvalue() == "a b\n"


def test_refusals_of_journald_end_when_who_reads_them_leaves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, impatient: Impatient
) -> None:
    """Over a journalctl that has one entry, and then none for a minute."""
    entry = {"MESSAGE": "http: request refused reason=a why=é", "__REALTIME_TIMESTAMP": f"{NOON_MS}000"}
    journalctl = tmp_path / "journalctl"
    journalctl.write_text(f"#!/bin/sh\necho '{json.dumps(entry, ensure_ascii=False)}'\nexec sleep 60\n")
    journalctl.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda _name: str(journalctl))
    monkeypatch.setattr(Path, "exists", lambda _path: True)
    with pytest.raises(BrokenPipeError):
        refusals.run(None, "", 10, Palette(on=False), impatient)
    assert impatient.getvalue() == "14:00:00.000 a é\n"


def test_a_log_that_is_truncated_within_a_line_begins_anew(tmp_path: Path) -> None:
    """As logrotate's copytruncate does it."""
    log = tmp_path / "log"
    log.write_text("http: request refused reason=a why=b\nhttp: request refused reason=x not_logged=7 why=")
    reading, writing = os.pipe()

    class Rotating(Impatient):
        def flush(self) -> None:
            if "c d" in self.getvalue():
                super().flush()
            else:
                log.write_text("http: request refused reason=c why=d\n")

    out = Rotating(reading, writing)
    with pytest.raises(BrokenPipeError):
        refusals.run(log, "", 10, Palette(on=False), out)
    os.close(writing)
    assert out.getvalue() == "a b\nc d\n"


def test_refusals_of_a_pipe_end_when_who_reads_them_leaves(
    monkeypatch: pytest.MonkeyPatch, impatient: Impatient
) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "w") as log:
        monkeypatch.setattr("sys.stdin", stdin)
        log.write("http: request refused reason=a why=b\n")
        log.flush()
        with pytest.raises(BrokenPipeError):
            refusals.run(Path("-"), "", 10, Palette(on=False), impatient)
    assert impatient.getvalue() == "a b\n"


def test_a_log_that_is_not_there_is_told(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out, pytest.raises(TailError, match="No such file"):
        refusals.run(tmp_path / "log", "", 0, Palette(on=False), out)
