"""What `scratchd convert` answers, and when."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from scratchd.config import Config, Http, Query
from scratchd.tools import convert

BEACONS = [
    block.strip("\n").split("\n")
    for block in Path(__file__).with_name("beacons.txt").read_text("utf-8").split("\n\n")[1:]
]


def configuration(**query: str) -> Config:
    return Config(http=Http(max_query_bytes=20, max_parameters=3), query=Query(**query), flavors=())  # type: ignore[arg-type]


class Turns(io.BytesIO):
    """An output that tells what was flushed since it was asked last."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = b""

    def flush(self) -> None:
        """Makes what was written visible."""
        self.shown = self.getvalue()


class Dialogue:
    """An input that hands out one chunk a read, and notes what has been answered when it is asked for the next."""

    def __init__(self, chunks: list[bytes], output: Turns) -> None:
        self.chunks = chunks
        self.output = output
        self.seen: list[bytes] = []

    def read1(self, size: int = -1, /) -> bytes:
        """The next chunk; `size` is none of its concern."""
        del size
        self.seen.append(self.output.shown)
        return self.chunks.pop(0) if self.chunks else b""


def converted(config: Config, data: bytes) -> bytes:
    output = io.BytesIO()
    convert.run(config, io.BytesIO(data), output)
    return output.getvalue()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"a=1\nb=2\n", b'{"a":"1"}\n{"b":"2"}\n', id="two-lines"),
        pytest.param(b"a=1\nb=2", b'{"a":"1"}\n{"b":"2"}\n', id="last-line-without-newline"),
        pytest.param(b"\n&&\n", b"!empty_query\n!empty_query\n", id="empty"),
        pytest.param(b"a=1\r\n", b"!bad_request\n", id="crlf"),
        pytest.param(b"a b\n", b"!bad_request\n", id="space"),
        pytest.param(b"a\xce\xba\n", b"!bad_request\n", id="not-ascii"),
        pytest.param(b"a\x00\n\x7f\n", b"!bad_request\n!bad_request\n", id="control-characters"),
        pytest.param(b"!=~\n", b'{"!":"~"}\n', id="edges-of-the-allowed-bytes"),
        pytest.param(b"a=345678901234567890\n", b'{"a":"345678901234567890"}\n', id="at-the-byte-limit"),
        pytest.param(b"a=3456789012345678901\n", b"!query_too_long\n", id="too-long"),
        pytest.param(b"a&a&a\na&a&a&a\n", b'{"a":""}\n!too_many_parameters\n', id="too-many"),
        pytest.param(b"a&" * 11 + b" \n", b"!bad_request\n", id="bad-before-long"),
        pytest.param(b"a&" * 11 + b"\n", b"!query_too_long\n", id="long-before-many"),
        pytest.param(b"a=1\n \nb=2\n", b'{"a":"1"}\n!bad_request\n{"b":"2"}\n', id="goes-on-behind-a-refusal"),
    ],
)
def test_each_line_gets_its_answer(data: bytes, expected: bytes) -> None:
    assert converted(configuration(), data) == expected


@pytest.mark.parametrize(
    ("repeated", "expected"),
    [("last", b'{"a":"3"}\n'), ("first", b'{"a":"1"}\n'), ("list", b'{"a":["1","2","3"]}\n')],
)
def test_repeated_parameters_follow_the_configuration(repeated: str, expected: bytes) -> None:
    assert converted(configuration(repeated=repeated), b"a=1&a=2&a=3\n") == expected


def test_corpus_converts_line_by_line() -> None:
    queries = "".join(f"{query}\n" for _, query, _ in BEACONS).encode("ascii")
    objects = "".join(f"{expected}\n" for _, _, expected in BEACONS).encode()
    assert converted(Config(flavors=()), queries) == objects


def test_input_split_anywhere_gives_the_same() -> None:
    data = b"a=1\n\n \nb=%CE%BA&c\nd"
    for size in range(1, len(data) + 1):
        output = Turns()
        chunks = [data[start : start + size] for start in range(0, len(data), size)]
        convert.run(configuration(), Dialogue(chunks, output), output)
        assert output.shown == '{"a":"1"}\n!empty_query\n!bad_request\n{"b":"κ","c":""}\n{"d":""}\n'.encode()


def test_a_line_is_answered_before_the_next_read() -> None:
    output = Turns()
    dialogue = Dialogue([b"a=1\n", b"b=", b"2\nc=3\n"], output)
    convert.run(configuration(), dialogue, output)
    assert dialogue.seen == [b"", b'{"a":"1"}\n', b'{"a":"1"}\n', b'{"a":"1"}\n{"b":"2"}\n{"c":"3"}\n']


def test_a_line_may_be_longer_than_many_reads() -> None:
    long = b"a" * (3 * convert.CHUNK_BYTES)
    assert converted(configuration(), long + b"\nb=2\n") == b'!query_too_long\n{"b":"2"}\n'
