"""Claims: what holds for any bytes at all. Each is a function that takes bytes and fails where it does not hold.

Knows no generator: the unit tests call them with what hypothesis makes of a grammar and with the fixed corpus, and
fuzz.py with what libFuzzer finds.
"""

from __future__ import annotations

import ipaddress
import json
import string
import zlib
from collections.abc import Iterable
from typing import get_args

import h11

from scratchd.http.answers import Answers
from scratchd.http.client import Proxies
from scratchd.http.conversation import Conversation, Http2, Pass, WithBody
from scratchd.http.head import Head, parse
from scratchd.http.hot import Recogniser
from scratchd.query import Repeated, to_json
from scratchd.refusal import Reason, Refusal, shown
from scratchd.track import HeadOnly, Outcome, Request

LIMIT = 400
"""Of a head: short, so that what is over-long is found soon."""

_PEER = ipaddress.ip_address("127.0.0.1")
_PROXIES = Proxies(["127.0.0.0/8"])
_RECOGNISER = Recogniser(LIMIT)
_ANSWERS = Answers(lambda: 0)


def head(data: bytes) -> None:
    """The recogniser takes only what the parser takes, with the same outcome; the parser nothing that h11 refuses."""
    parsed = parse(data, 0, LIMIT, http2=False)
    if isinstance(parsed, Head):
        _h11_agrees(data[: parsed.end], parsed)
    for start in (0, 3):
        hot = _RECOGNISER.recognise(b"x\r\n"[:start] + data, start)
        if hot is not None:
            assert isinstance(parsed, Head), parsed
            assert not parsed.has_body
            assert hot == (_request(parsed), parsed.persistent, start + parsed.end), (hot, parsed)


def conversation(data: bytes) -> None:
    """With or without a recogniser the answers are the same, byte for byte; cut in two somewhere they say the same."""
    at = zlib.crc32(data) % (len(data) + 1)
    assert _told_alike([data]) == _told_alike([data[:at], data[at:]]), at


def bytewise(data: bytes) -> None:
    """The same, however conversations are cut: in two everywhere, and into bytes."""
    expected = _told_alike([data])
    assert _told_alike([data[at : at + 1] for at in range(len(data))]) == expected
    for at in range(1, len(data)):
        assert _told_alike([data[:at], data[at:]]) == expected, at


def query(data: bytes) -> None:
    """The conversion is that of the URL standard, word for word, and one JSON object in a line."""
    parameters = url_decoded(data)
    for repeated in get_args(Repeated):
        converted = to_json(data, repeated)
        assert converted == serialised(parameters, repeated), (repeated, converted)
        assert b"\n" not in converted
        json.loads(converted.decode())


def _request(parsed: Head) -> Request:
    return Request(parsed.method, parsed.path, parsed.query, parsed.host, "")


def _h11_agrees(data: bytes, parsed: Head) -> None:
    connection = h11.Connection(h11.SERVER)
    # The one thing that h11 does not do: skip an empty line.
    connection.receive_data(data.removeprefix(b"\r\n"))
    request = connection.next_event()
    assert isinstance(request, h11.Request), request
    fields = dict(request.headers)
    assert request.method == parsed.method
    assert parsed.content_length == int(fields.get(b"content-length", b"0"))
    assert parsed.chunked is (b"transfer-encoding" in fields)
    assert request.http_version in (b"1.0", b"1.1")
    if not parsed.has_body:
        # h11 decides alike whether the connection may go on; it is asked after an answer without more to say on it.
        assert isinstance(connection.next_event(), h11.EndOfMessage)
        connection.send(h11.Response(status_code=404, headers=[(b"Content-Length", b"0")]))
        connection.send(h11.EndOfMessage())
        assert (connection.our_state is h11.DONE) is parsed.persistent, connection.our_state


def _answered(pieces: Iterable[bytes], recogniser: Recogniser | None) -> tuple[bytes, str, bool]:
    """All that is answered to a peer that sends these pieces and half-closes; what is handed on; whether it ended."""
    talk = Conversation(None, _PROXIES, recogniser, max_head_bytes=LIMIT)
    answered = b""
    for piece in [*(piece for piece in pieces if piece), b""]:
        only = talk.only_request(piece)
        if only is not None:
            answered += Pass((only,)).render([_outcome(only)], _ANSWERS)
            continue
        talk.feed(piece)
        while turn := talk.next_pass(stopping=False):
            answered += turn.render([_outcome(request) for request in turn.requests], _ANSWERS)
            if turn.unusual is not None:
                return answered, _handed_on(turn.unusual), False
            if turn.closes:
                return answered, "", True
    return answered, "", False


def _handed_on(unusual: WithBody | Http2) -> str:
    return "HTTP/2" if isinstance(unusual, Http2) else repr((unusual.request.query, unusual.head))


def _outcome(request: Request) -> Outcome:
    """An answer that tells everything of its request."""
    if request.method == b"HEAD":
        return HeadOnly("gr")
    told = b"%s %s %s" % (request.method, request.path, str((request.query, request.host)).encode())
    return Refusal(Reason.NOT_FOUND, shown(told))


def _told_alike(pieces: list[bytes]) -> tuple[list[bytes], str, bool]:
    hot, plain = (_answered(pieces, recogniser) for recogniser in (_RECOGNISER, None))
    assert hot == plain, (hot, plain)
    return _told(hot)


def _told(answered: tuple[bytes, str, bool]) -> tuple[list[bytes], str, bool]:
    """The same, but for what a refusal of a head shows of it: that depends on how much of it was there."""
    data, unusual, ended = answered
    lines = data.split(b"\r\n")
    return [line if line[:9] == b"not_found" else line.partition(b":")[0] for line in lines], unusual, ended


def url_decoded(data: bytes) -> list[tuple[str, str]]:
    """The names and values as the URL standard's parser finds them, word for word, which takes bytes."""
    found = []
    for piece in data.split(b"&"):
        if piece:
            name, _, value = piece.replace(b"+", b" ").partition(b"=")
            found.append((_percent_decoded(name), _percent_decoded(value)))
    return found


def _percent_decoded(escaped: bytes) -> str:
    output = bytearray()
    index = 0
    while index < len(escaped):
        digits = escaped[index + 1 : index + 3]
        if escaped[index : index + 1] == b"%" and len(digits) == 2 and set(digits) <= set(string.hexdigits.encode()):
            output.append(int(digits, 16))
            index += 3
        else:
            output.append(escaped[index])
            index += 1
    return output.decode("utf-8", "replace")


def serialised(parameters: list[tuple[str, str]], repeated: Repeated) -> bytes:
    """The object that is made of names and values, by the standard library."""
    collected: dict[str, list[str]] = {}
    for name, value in parameters:
        collected.setdefault(name, []).append(value)
    chosen: dict[str, str | list[str]] = {}
    for name, values in collected.items():
        if repeated == "list":
            chosen[name] = values if len(values) > 1 else values[0]
        else:
            chosen[name] = values[{"first": 0, "last": -1}[repeated]]
    return json.dumps(chosen, ensure_ascii=False, separators=(",", ":")).encode()
