"""The hand-over: bodies and HTTP/2 on Hypercorn, and the boundary around it."""

from __future__ import annotations

import collections
import contextlib
import logging
import random
from collections.abc import Callable, MutableMapping
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
import trio
import trio.testing

from scratchd.config import Http
from scratchd.http.answers import GIF
from scratchd.http.asgi import BodyApp
from scratchd.http.fake import Room, everything
from scratchd.http.head import HTTP2_PREFACE
from scratchd.track import Request

GET = b"GET /track?a=b HTTP/1.1\r\nHost: gr.example\r\n\r\n"
LINE = b'{"a":"b"}'


def post(*fields: bytes, method: bytes = b"POST", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([method + b" /track?a=b HTTP/" + version, b"Host: gr.example", *fields, b"", b""])


# Requests over HTTP/1 with a body: what follows on the wire decides nothing.
BODIES = {
    "length": (post(b"Content-Length: 5") + b"hello", 405),
    "chunked": (post(b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n", 405),
    "get-with-length": (post(b"Content-Length: 5", method=b"GET") + b"hello", 200),
    "get-chunked": (post(b"Transfer-Encoding: chunked", method=b"GET") + b"0\r\n\r\n", 200),
    "truncated": (post(b"Content-Length: 50", method=b"GET") + b"hello", 200),
    "truncated-chunk": (post(b"Transfer-Encoding: chunked", method=b"GET") + b"5\r\nhe", 200),
    "broken-chunk": (post(b"Transfer-Encoding: chunked", method=b"GET") + b"zz\r\nhello", 200),
    "none-at-all": (post(b"Content-Length: 50", method=b"GET"), 200),
    "request-behind": (post(b"Content-Length: 5", method=b"GET") + b"hello" + GET, 200),
    "http10": (post(b"Content-Length: 5", method=b"GET", version=b"1.0") + b"hello", 200),
    "websocket": (
        post(b"Upgrade: websocket", b"Connection: upgrade", b"Content-Length: 1", method=b"GET") + b"x",
        200,
    ),
    "h2c": (post(b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk", b"Content-Length: 1") + b"x", 405),
    "not-found": (post(b"Content-Length: 1").replace(b"/track", b"/nowhere") + b"x", 404),
    "head": (post(b"Content-Length: 1", method=b"HEAD") + b"x", 200),
    "head-in-lower-case": (post(b"Content-Length: 1", method=b"head") + b"x", 405),
    "method-of-all-token-bytes": (post(b"Content-Length: 1", method=b"!#$%&'*+-.^_`|~09azAZ") + b"x", 405),
    "absolute-form": (post(b"Content-Length: 1", method=b"GET").replace(b"/track", b"http://tr.example/track"), 200),
    "value-with-obs-text": (post(b"Content-Length: 1", b"X: caf\xe9", method=b"GET") + b"x", 200),
}


def read(data: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode().lower().split("\r\n")
    return int(line.split()[1]), dict(field.split(": ", 1) for field in fields), body


@pytest.mark.parametrize(("asked", "status"), BODIES.values(), ids=BODIES.keys())
async def test_a_body_changes_nothing_but_that_the_connection_is_closed(asked: bytes, status: int) -> None:
    room = Room()
    async with room.serving():
        answer, fields, body = read(await room.ask(asked))
    assert answer == status
    assert fields["connection"] == "close"
    assert fields["date"] == fields["date"].strip()
    assert "server" not in fields
    assert "transfer-encoding" not in fields
    if asked[:4].upper() != b"HEAD":
        assert int(fields["content-length"]) == len(body)
    if status != 200:
        assert fields["content-type"] == "text/plain; charset=utf-8"
        assert (fields.get("allow") == "get, head") is (status == 405)
    elif asked.startswith(b"GET"):
        assert body == GIF
    lines = [line for journal in room.journals.values() for line in journal.lines]
    assert lines == ([LINE] if status == 200 and asked.startswith(b"GET") else [])
    assert room.stats.requests == {status: 1}
    assert room.stats.connections_failed == 0


async def test_requests_before_a_body_are_answered_first() -> None:
    room = Room()
    async with room.serving():
        answers = await room.ask(GET + GET + post(b"Content-Length: 1") + b"x" + GET)
    assert [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"405"]


async def test_a_body_is_drained_before_the_answer() -> None:
    room = Room()
    async with room.serving(), await room.connect() as client:
        await client.send_all(post(b"Content-Length: 5", method=b"GET") + b"hell")
        await trio.testing.wait_all_tasks_blocked()
        assert room.stats.requests == {}
        await client.send_all(b"o")
        assert read(await everything(client))[0] == 200


async def test_a_body_that_does_not_come_is_not_waited_for_longer_than_a_head(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room()
    async with room.serving(), await room.connect() as client:
        await client.send_all(post(b"Content-Length: 5"))
        assert read(await client.receive_some())[0] == 405
        assert autojump_clock.current_time() == pytest.approx(10)


@pytest.mark.parametrize("field", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
async def test_of_a_large_body_only_the_beginning_is_drained(field: bytes) -> None:
    room = Room()
    async with room.serving(), await room.connect() as client:
        await client.send_all(post(field) + b"FFFFFFF\r\n" + bytes(65000))
        await trio.testing.wait_all_tasks_blocked()
        assert room.stats.requests == {}
        await client.send_all(bytes(1000))
        assert read(await everything(client))[0] == 405
        # And it is not reset while the peer goes on for a while.
        await client.send_all(bytes(100_000))


async def test_who_expects_100_continue_gets_it() -> None:
    room = Room()
    async with room.serving(), await room.connect() as client:
        await client.send_all(post(b"Expect: 100-continue", b"Content-Length: 5", method=b"GET"))
        interim = bytes(await client.receive_some())
        assert interim.startswith(b"HTTP/1.1 100 ")
        await client.send_all(b"hello")
        assert read(await everything(client))[0] == 200
    assert room.journals["gr"].lines == [LINE]


async def test_stopping_answers_a_request_whose_body_is_on_its_way() -> None:
    room = Room()
    async with room.serving(), await room.connect() as client:
        await client.send_all(post(b"Content-Length: 5", method=b"GET") + b"hell")
        await trio.testing.wait_all_tasks_blocked()
        room.gate.stop()
        await trio.testing.wait_all_tasks_blocked()
        await client.send_all(b"o")
        assert read(await everything(client))[0] == 200
        await client.aclose()
        await room.served.wait()


# HTTP/2.


class Client:
    """A client of HTTP/2 with prior knowledge that may be told to do what none should."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        configuration = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(configuration)
        self.h2.initiate_connection()
        self.answers: dict[int, tuple[dict[str, str], bytes]] = collections.defaultdict(lambda: ({}, b""))
        self.done: set[int] = set()
        self.goodbye: int | h2.errors.ErrorCodes | None = None

    async def flush(self) -> None:
        """Sends what is to be sent."""
        await self.stream.send_all(self.h2.data_to_send())

    async def ask(self, *extra: tuple[str, str], end: bool = True, **pseudo: str) -> int:
        """Opens a stream; what is not said is that of a GET."""
        number = self.h2.get_next_available_stream_id()
        said = {"method": "GET", "authority": "gr.example", "scheme": "http", "path": "/track?a=b", **pseudo}
        headers = [(f":{name}", value) for name, value in said.items() if value]
        self.h2.send_headers(number, [*headers, *extra], end_stream=end)
        await self.flush()
        return number

    async def read(self, until: Callable[[], bool]) -> bool:
        """Reads until the condition holds; False when the connection ended before."""
        while not until():
            data = bytes(await self.stream.receive_some())
            if not data:
                return False
            for event in self.h2.receive_data(data):
                self._heed(event)
            with contextlib.suppress(trio.BrokenResourceError):
                await self.flush()
        return True

    async def answer(self, number: int) -> tuple[dict[str, str], bytes]:
        """Fields and body of a stream's answer."""
        assert await self.read(lambda: number in self.done)
        return self.answers[number]

    def _heed(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.answers[event.stream_id] = ({str(name): str(value) for name, value in event.headers}, b"")
        elif isinstance(event, h2.events.DataReceived):
            fields, body = self.answers[event.stream_id]
            self.answers[event.stream_id] = (fields, body + event.data)
        elif isinstance(event, h2.events.StreamEnded):
            self.done.add(event.stream_id)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goodbye = event.error_code


@contextlib.asynccontextmanager
async def spoken(room: Room) -> Any:  # noqa: ANN401 - an iterator of one Client
    async with room.serving(), await room.connect() as stream:
        client = Client(stream)
        await client.flush()
        yield client


ANSWERS: dict[str, tuple[dict[str, str], tuple[tuple[str, str], ...], str, str]] = {
    "get": ({}, (), "200", ""),
    "head": ({"method": "HEAD"}, (), "200", ""),
    "no-authority": ({"authority": ""}, (("host", "gr.example"),), "200", ""),
    "authority-and-host": ({}, (("host", "gr.example"),), "200", ""),
    "not-found": ({"path": "/x?a=b"}, (), "404", "not_found"),
    "method": ({"method": "DELETE"}, (), "405", "method_not_allowed"),
    "get-in-lower-case": ({"method": "get"}, (), "405", "method_not_allowed"),
    "head-in-mixed-case": ({"method": "Head"}, (), "405", "method_not_allowed"),
    "connect": ({"method": "CONNECT", "scheme": "", "path": ""}, (), "404", "not_found"),
    "unknown-host": ({"authority": "x"}, (), "421", "unknown_host"),
    "empty-query": ({"path": "/track"}, (), "400", "empty_query"),
    "host-differs": ({}, (("host", "tr.example"),), "400", "bad_host"),
    "host-repeated": ({}, (("host", "gr.example"), ("host", "gr.example")), "400", "bad_host"),
    "bad-host": ({"authority": "me@gr.example"}, (), "400", "bad_host"),
    "asterisk": ({"method": "OPTIONS", "path": "*"}, (), "404", "not_found"),
    "no-path": ({"path": "track?a=b"}, (), "400", "bad_request"),
    "space-in-path": ({"path": "/track?a b"}, (), "400", "bad_request"),
    "non-ascii-path": ({"path": "/track?a=é"}, (), "400", "bad_request"),
    "websocket": (
        {"method": "CONNECT", "protocol": "websocket"},
        (("sec-websocket-version", "13"),),
        "405",
        "method_not_allowed",
    ),
}


@pytest.mark.parametrize(("pseudo", "extra", "status", "word"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_http2_is_answered_alike(
    pseudo: dict[str, str], extra: tuple[tuple[str, str], ...], status: str, word: str
) -> None:
    room = Room()
    async with spoken(room) as client:
        fields, body = await client.answer(await client.ask(*extra, **pseudo, end="protocol" not in pseudo))
        await trio.testing.wait_all_tasks_blocked()
    assert fields[":status"] == status
    assert fields["cache-control"] == "no-store"
    assert fields["date"].endswith(" GMT")
    assert not {"server", "connection"} & fields.keys()
    if pseudo.get("method") != "HEAD":
        assert int(fields["content-length"]) == len(body)
    if word:
        assert body.decode().startswith(f"{word}: ")
        assert fields["x-content-type-options"] == "nosniff"
    assert room.stats.requests == {int(status): 1}
    assert room.stats.refusals == ({word: 1} if word else {})
    assert len(room.journals["gr"].lines) == (not word and pseudo.get("method") != "HEAD")
    assert room.stats.connections_failed == 0


async def test_many_streams_share_a_connection() -> None:
    room = Room()
    async with spoken(room) as client:
        numbers = [await client.ask(path=f"/track?n={number}") for number in range(50)]
        for number in numbers:
            assert (await client.answer(number))[1] == GIF
    assert sorted(room.journals["gr"].lines) == sorted(b'{"n":"%d"}' % number for number in range(50))


async def test_the_preface_and_the_rest_may_come_byte_by_byte() -> None:
    room = Room()
    async with room.serving(), await room.connect() as stream:
        client = Client(stream)
        client.h2.send_headers(
            1,
            [(":method", "GET"), (":authority", "gr.example"), (":scheme", "http"), (":path", "/track?a")],
            end_stream=True,
        )
        for byte in client.h2.data_to_send():
            await stream.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert (await client.answer(1))[0][":status"] == "200"


async def test_a_body_over_http2_is_drained_and_refused() -> None:
    room = Room()
    async with spoken(room) as client:
        number = await client.ask(method="POST", end=False)
        client.h2.send_data(number, b"x" * 1000)
        await client.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert room.stats.requests == {}
        client.h2.send_data(number, b"x", end_stream=True)
        await client.flush()
        assert (await client.answer(number))[0][":status"] == "405"
        assert (await client.answer(await client.ask()))[0][":status"] == "200"


async def test_a_body_over_http2_that_does_not_come_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    async with spoken(room) as client:
        assert (await client.answer(await client.ask(end=False)))[0][":status"] == "200"
        assert autojump_clock.current_time() == pytest.approx(10)
    assert room.journals["gr"].lines == [LINE]


@pytest.mark.parametrize("sent", ["a part of the fields", "fields that go on"])
async def test_a_head_over_http2_that_stops_ends_the_connection_in_its_time(
    autojump_clock: trio.testing.MockClock, sent: str
) -> None:
    room = Room(Http(head_timeout_s=3))
    async with spoken(room) as client:
        await client.answer(await client.ask())
        await trio.sleep(5)
        data = b"\0\0\x20\x01\x04\0\0\0\x03" if sent == "a part of the fields" else b"\0\0\0\x01\0\0\0\0\x03"
        await client.stream.send_all(data)
        assert not await client.read(lambda: False)
        assert client.goodbye == h2.errors.ErrorCodes.NO_ERROR
        assert autojump_clock.current_time() == pytest.approx(8)
    assert room.stats.connections_failed == 0


async def test_what_breaks_hypercorn_costs_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    room = Room(Http(head_timeout_s=0.01))
    async with spoken(room) as client:
        number = await client.ask(method="POST", end=False)
        assert await client.read(lambda: number in client.done)
        client.h2.send_data(number, b"too late", end_stream=True)
        await client.flush()
        assert not await client.read(lambda: False)
        assert room.stats.connections_failed == 1
        assert GIF in await room.ask(GET)
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "KeyError" in record.getMessage()


async def test_a_closing_refusal_ends_the_connection_behind_the_others() -> None:
    room = Room()
    room.journals["gr"].settles = trio.Event()
    async with spoken(room) as client:
        pending = await client.ask()
        refused = await client.ask(authority="x..")
        assert (await client.answer(refused))[0][":status"] == "400"
        room.journals["gr"].settles.set()
        assert (await client.answer(pending))[0][":status"] == "200"
        assert not await client.read(lambda: False)
        assert client.goodbye == h2.errors.ErrorCodes.NO_ERROR


async def test_who_says_nothing_after_the_preface_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    async with spoken(room) as client:
        assert not await client.read(lambda: False)
        assert autojump_clock.current_time() == pytest.approx(75)


async def test_who_holds_its_window_back_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    async with spoken(room) as client:
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        await client.flush()
        await client.ask()
        assert not await client.read(lambda: False)
        assert autojump_clock.current_time() == pytest.approx(10)


async def test_header_lists_are_bounded() -> None:
    room = Room(Http(max_head_bytes=500))
    async with spoken(room) as client:
        await client.ask(("x", "y" * 600))
        assert not await client.read(lambda: False)
        assert client.goodbye not in (None, h2.errors.ErrorCodes.NO_ERROR)
    assert room.stats.requests == {}


async def test_stopping_answers_one_more_request_over_http2(autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    async with spoken(room) as client:
        await client.answer(await client.ask())
        await trio.testing.wait_all_tasks_blocked()
        room.gate.stop()
        await trio.sleep(4)
        late = await client.ask()
        assert await client.read(lambda: client.goodbye is not None and late in client.done)
        assert client.goodbye == h2.errors.ErrorCodes.NO_ERROR
        assert client.answers[late][0][":status"] == "200"
        assert not await client.read(lambda: False)
        assert autojump_clock.current_time() == pytest.approx(4)
        await client.stream.aclose()
        await room.served.wait()


async def test_stopping_ends_an_idle_http2_connection_after_half_the_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room()
    async with spoken(room) as client:
        await trio.testing.wait_all_tasks_blocked()
        room.gate.stop()
        assert not await client.read(lambda: False)
        assert autojump_clock.current_time() == pytest.approx(5)


async def test_stopping_asks_the_client_of_a_busy_http2_connection_to_go(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room()
    room.journals["gr"].settles = trio.Event()
    async with spoken(room) as client:
        await client.ask()
        await trio.testing.wait_all_tasks_blocked()
        room.gate.stop()
        assert await client.read(lambda: client.goodbye == h2.errors.ErrorCodes.NO_ERROR)
        assert autojump_clock.current_time() == pytest.approx(2.5)
        room.journals["gr"].settles.set()
        assert GIF in await everything(client.stream)
    assert room.stats.requests == {200: 1}


@pytest.mark.parametrize("seed", range(20))
async def test_no_bytes_behind_the_preface_break_more_than_their_connection(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    chance = random.Random(seed)
    room = Room()
    async with room.serving():
        client = Client(await room.connect())
        client.h2.send_headers(
            1, [(":method", "GET"), (":authority", "gr.example"), (":scheme", "http"), (":path", "/track?a")]
        )
        client.h2.send_data(1, b"data", end_stream=True)
        data = bytearray(client.h2.data_to_send())
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(HTTP2_PREFACE), len(data))] = chance.randrange(256)
        await room.ask(bytes(data) + chance.randbytes(chance.randrange(50)))
        await client.stream.aclose()
        assert GIF in await room.ask(GET)
    assert room.stats.connections == 0


# The applications by themselves.


async def test_an_application_takes_part_in_a_lifespan_and_declines_websockets() -> None:
    room = Room()
    app = BodyApp(room.intake, Request(b"GET", b"/track", b"a", "gr.example", ""), trio.Event(), 0)
    sent: list[MutableMapping[str, Any]] = []
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> MutableMapping[str, Any]:
        await trio.lowlevel.checkpoint()
        return next(events)

    async def send(message: MutableMapping[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    await app({"type": "lifespan"}, receive, send)
    await app({"type": "websocket"}, receive, send)
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
        "websocket.close",
    ]
