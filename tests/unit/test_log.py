"""A log line's shape, and that nothing can break out of it."""

from __future__ import annotations

import ast
import io
import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scratchd.log import Log, configure, field, goes_to_journald


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Puts back what `configure` changes for the whole process."""
    root, ours = logging.getLogger(), logging.getLogger("scratchd")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def logged(level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure(level, stream)
    return stream


def test_a_line_is_component_message_fields() -> None:
    stream = logged()
    Log("file").info("moved or deleted", path="/var/log/a.log", lines=3, text="two words", none=None)
    assert stream.getvalue() == 'file: moved or deleted path=/var/log/a.log lines=3 text="two words" none=None\n'


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["one", "two", "three", "four"]),
        ("info", ["two", "three", "four"]),
        ("warning", ["three", "four"]),
        ("error", ["four"]),
    ],
)
def test_only_the_level_and_above_is_written(level: str, expected: list[str]) -> None:
    stream = logged(level)
    log = Log("journal")
    log.debug("one")
    log.info("two")
    log.warning("three")
    log.error("four")
    assert stream.getvalue().splitlines() == [f"journal: {word}" for word in expected]


def test_configuring_again_replaces() -> None:
    first, second = logged(), logged()
    Log("http").info("once")
    assert (first.getvalue(), second.getvalue()) == ("", "http: once\n")


def test_libraries_speak_as_the_service_from_warning_on() -> None:
    stream = logged("debug")
    logging.getLogger("hypercorn.error").info("nobody asked")
    logging.getLogger("hypercorn.error").warning("listen %s", "here")
    logging.getLogger().error("root")
    assert stream.getvalue() == "service: listen here\nservice: root\n"


def test_a_components_own_loggers_may_be_handed_to_libraries() -> None:
    stream = logged()
    Log("kafka").logger.warning("FAIL [thrd]: %d/%d brokers", 1, 1)
    assert stream.getvalue() == "kafka: FAIL [thrd]: 1/1 brokers\n"


def test_an_exception_is_a_field_of_one_line() -> None:
    stream = logged()
    try:
        raise ValueError("two\nlines")  # noqa: TRY301
    except ValueError:
        Log("service").logger.exception("unexpected")
    (line,) = stream.getvalue().splitlines()
    assert line.startswith('service: unexpected exception="Traceback')
    assert "two\\nlines" in line


def test_a_librarys_line_ends_make_no_lines() -> None:
    stream = logged()
    logging.getLogger("library").warning("one\r\n<0>two ω\x1b[31m")
    assert stream.getvalue().count("\n") == 1
    assert "one\\r\\n<0>two \\u03c9" in stream.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("plain/path:1", "plain/path:1", id="plain"),
        pytest.param("", '""', id="empty"),
        pytest.param("two words", '"two words"', id="space"),
        pytest.param('say "x"', r'"say \"x\""', id="quotes"),
        pytest.param("a\\b", r'"a\\b"', id="backslash"),
        pytest.param("it's", "it's", id="apostrophe"),
        pytest.param("it's two", '"it\'s two"', id="apostrophe and space"),
        pytest.param("line\nend\x00", r'"line\nend\x00"', id="control"),
        pytest.param("ω", r'"\u03c9"', id="not ASCII"),
        pytest.param(3.5, "3.5", id="number"),
    ],
)
def test_a_field_is_one_word(value: object, expected: str) -> None:
    assert field(value) == expected


@given(st.text())
@example("\\'")
@example("\\'\"")
@example("\\\\'")
def test_a_field_is_printable_and_reads_back(text: str) -> None:
    word = field(text)
    assert word.isascii()
    assert word.isprintable()
    if word.startswith('"'):
        assert ast.literal_eval(word) == text
    else:
        assert word == text
        assert " " not in word


@given(st.text(), st.text())
def test_every_event_is_one_printable_line(message: str, value: str) -> None:
    stream = logged()
    Log("http").warning(message, value=value)
    (line, end) = stream.getvalue().split("\n")
    assert end == ""
    assert line.isascii()
    assert line.isprintable()
    assert line.startswith("http: ")


def test_lines_for_journald_begin_with_their_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with os.fdopen(read) as reader, os.fdopen(write, "w") as writer:
        status = os.fstat(write)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert goes_to_journald(writer)
        configure("debug", writer)
        log = Log("file")
        log.debug("a")
        log.info("b")
        log.warning("c")
        log.error("d")
        logging.getLogger("x").critical("e")
        writer.flush()
        lines = [reader.readline() for _ in range(5)]
    assert lines == ["<7>file: a\n", "<6>file: b\n", "<4>file: c\n", "<3>file: d\n", "<2>service: e\n"]


@pytest.mark.parametrize("value", [None, "", "1:1", "garbage"])
def test_other_streams_get_no_priority(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    else:
        monkeypatch.setenv("JOURNAL_STREAM", value)
    assert not goes_to_journald(io.StringIO())
    with open(os.devnull, "w", encoding="ascii") as stream:  # noqa: PTH123 - any real file
        assert not goes_to_journald(stream)
