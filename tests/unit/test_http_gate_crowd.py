"""The gate in a crowd: nobody waits for long, nothing is mixed up, and who leaves, however, leaves nothing behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from scratchd.config import Http
from scratchd.http.answers import GIF
from scratchd.http.conversation import MAX_PASS_REQUESTS
from scratchd.http.fake import Room, everything
from scratchd.http.gate import MAX_EVENTS, MAX_TURN_REQUESTS
from scratchd.http.head import HTTP2_PREFACE

GET = b"GET /track?a=b HTTP/1.1\r\nHost: gr.example\r\n\r\n"
NUMBERED = b"GET /track?n=%d HTTP/1.1\r\nHost: gr.example\r\n\r\n"
POST = b"POST /track?a=b HTTP/1.1\r\nHost: gr.example\r\nContent-Length: 5\r\n\r\n"
# What is refused without being written anywhere, in as many bytes as it took to ask.
ELSEWHERE = b"GET /%080d HTTP/1.1\r\nHost: gr.example\r\n\r\n"

CROWD = 2000


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Two descriptors for each connection, and none more behind the test than before."""
    limits = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2 * CROWD + 500), hard), hard))
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1  # the gate's epoll lives as long as the gate
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.asynccontextmanager
async def crowd(room: Room, count: int) -> AsyncIterator[list[trio.SocketStream]]:
    clients = [await room.connect() for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            await client.aclose()


def reset(client: trio.SocketStream) -> None:
    """Closes a connection without a goodbye."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.socket.close()


async def connections(room: Room, count: int) -> None:
    """Returns when so many are open."""
    for _ in itertools.count():
        if room.stats.connections == count:
            return
        await trio.sleep(0.01)


async def answer(client: trio.SocketStream) -> bytes:
    data = b""
    while not data.endswith(GIF):
        received = await client.receive_some()
        assert received, data
        data += received
    return data


# Fairness.


async def test_thousands_who_are_ready_are_served_in_bounded_turns() -> None:
    room = Room()
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with room.serving(), crowd(room, CROWD) as clients, trio.open_nursery() as others:
        await connections(room, CROWD)
        for client in clients:
            os.write(client.socket.fileno(), GET)  # all before anybody else has a turn
        others.start_soon(take_turns)
        for client in clients:
            await answer(client)
        others.cancel_scope.cancel()
    batches = [len(lines) for lines in room.journals["gr"].appends]
    assert sum(batches) == CROWD
    assert max(batches) == MAX_EVENTS
    assert turns >= CROWD // MAX_EVENTS


async def test_thousands_of_requests_in_one_connection_keep_nobody_waiting() -> None:
    room = Room()
    asked = b"".join(NUMBERED % number for number in range(5000))
    async with room.serving(), crowd(room, 2) as (greedy, modest), trio.open_nursery() as nursery:
        nursery.start_soon(greedy.send_all, asked)
        while not room.journals["gr"].lines:
            await trio.lowlevel.checkpoint()
        before = len(room.journals["gr"].lines)
        await modest.send_all(GET)
        await answer(modest)
        assert len(room.journals["gr"].lines) - before <= 10 * MAX_PASS_REQUESTS
        await greedy.send_eof()
        assert (await everything(greedy)).count(GIF) == 5000
    assert [line for line in room.journals["gr"].lines if b"n" in line] == [b'{"n":"%d"}' % n for n in range(5000)]
    assert max(len(lines) for lines in room.journals["gr"].appends) <= MAX_PASS_REQUESTS + 1


async def test_many_that_pipeline_take_turns() -> None:
    room = Room()
    asked = b"".join(NUMBERED % number for number in range(3 * MAX_PASS_REQUESTS))
    async with room.serving(), crowd(room, 40) as clients:
        await connections(room, len(clients))
        for client in clients:
            os.write(client.socket.fileno(), asked)
        for client in clients:
            await client.send_eof()
            assert (await everything(client)).count(GIF) == 3 * MAX_PASS_REQUESTS
    appends = room.journals["gr"].appends
    assert max(len(lines) for lines in appends) < MAX_TURN_REQUESTS + MAX_PASS_REQUESTS
    # Nobody has had a second pass before everybody had a first.
    first = [line for lines in appends for line in lines][: len(clients) * MAX_PASS_REQUESTS]
    assert first.count(b'{"n":"0"}') == len(clients)


async def test_who_waits_for_the_disk_keeps_nobody_waiting() -> None:
    room = Room()
    room.journals["gr"].settles = trio.Event()
    async with room.serving(), await room.connect() as waiting, await room.connect() as other:
        await waiting.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        await other.send_all(GET.replace(b"gr.", b"tr."))
        await answer(other)
        await waiting.send_all(GET + GET[:10])  # and is not read meanwhile
        await trio.testing.wait_all_tasks_blocked()
        assert len(room.journals["gr"].lines) == 1
        room.journals["gr"].settles.set()
        await waiting.send_all(GET[10:])
        await waiting.send_eof()
        assert (await everything(waiting)).count(GIF) == 3


async def test_a_pass_that_waited_for_the_disk_is_followed_by_the_next() -> None:
    room = Room()
    room.journals["gr"].settles = trio.Event()
    async with room.serving(), await room.connect() as client:
        await client.send_all(GET * 3 * MAX_PASS_REQUESTS)
        await trio.testing.wait_all_tasks_blocked()
        assert len(room.journals["gr"].lines) == MAX_PASS_REQUESTS
        room.journals["gr"].settles.set()
        with trio.fail_after(30):
            data = b""
            while data.count(GIF) < 3 * MAX_PASS_REQUESTS:
                data += await client.receive_some()


# Sending.


async def test_who_reads_little_by_little_gets_everything_in_order() -> None:
    room = Room()
    count = 3000
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    async with room.serving():
        client.connect(room.address)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
        async with stream, trio.open_nursery() as nursery:

            async def ask() -> None:
                await stream.send_all(b"".join(ELSEWHERE % number for number in range(count)))
                await stream.send_eof()

            nursery.start_soon(ask)
            data = bytearray()
            while received := await stream.receive_some(700):
                data += received
    assert [int(number) for number in re.findall(rb'the path "/(\d+)"', data)] == list(range(count))
    assert data.count(b"HTTP/1.1 404 ") == count


# However a peer leaves.


async def at_the_beginning(room: Room, client: trio.SocketStream) -> None:
    await connections(room, 1)


async def idle(room: Room, client: trio.SocketStream) -> None:
    await client.send_all(GET)
    await answer(client)


async def within_a_head(room: Room, client: trio.SocketStream) -> None:
    await client.send_all(GET[:20])
    await trio.testing.wait_all_tasks_blocked()


async def waiting_for_the_disk(room: Room, client: trio.SocketStream) -> None:
    room.journals["gr"].settles = trio.Event()
    await client.send_all(GET * 100)
    await trio.testing.wait_all_tasks_blocked()


async def with_unsent_output(room: Room, client: trio.SocketStream) -> None:
    with trio.move_on_after(0.1):
        while True:
            await client.send_all(ELSEWHERE % 0 * 1000)


async def being_left(room: Room, client: trio.SocketStream) -> None:
    await client.send_all(b"nonsense\r\n\r\n")
    await trio.testing.wait_all_tasks_blocked()


async def with_a_body_on_its_way(room: Room, client: trio.SocketStream) -> None:
    await client.send_all(GET + POST + b"hell")
    await trio.testing.wait_all_tasks_blocked()


async def speaking_http2(room: Room, client: trio.SocketStream) -> None:
    await client.send_all(HTTP2_PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    await trio.testing.wait_all_tasks_blocked()


STAGES = (
    at_the_beginning,
    idle,
    within_a_head,
    waiting_for_the_disk,
    with_unsent_output,
    being_left,
    with_a_body_on_its_way,
    speaking_http2,
)
Stage = Callable[[Room, trio.SocketStream], Awaitable[None]]


async def half_closes(client: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        await client.send_eof()
        await everything(client)


async def closes(client: trio.SocketStream) -> None:
    await client.aclose()


async def resets(client: trio.SocketStream) -> None:
    reset(client)
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("leaves", [half_closes, closes, resets])
@pytest.mark.parametrize("stage", STAGES)
async def test_who_leaves_leaves_nothing_behind(
    stage: Stage,
    leaves: Callable[[trio.SocketStream], Awaitable[None]],
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room()
    async with room.serving(), await room.connect() as client:
        await stage(room, client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leaves, client)
            await trio.testing.wait_all_tasks_blocked()
            if room.journals["gr"].settles is not None:
                room.journals["gr"].settles.set()
            await connections(room, 0)
        assert autojump_clock.current_time() < 15
        assert GIF in await room.ask(GET)
    assert room.stats.connections_failed == 0


@pytest.mark.parametrize("stage", STAGES)
async def test_stopping_comes_to_an_end(stage: Stage, autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    async with room.serving(), await room.connect() as client:
        await stage(room, client)
        began = autojump_clock.current_time()
        room.gate.stop()
        if room.journals["gr"].settles is not None:
            room.journals["gr"].settles.set()
        with trio.fail_after(30):
            await room.served.wait()
        assert autojump_clock.current_time() - began <= 7.6
    assert room.stats.connections == 0


async def test_stopping_closes_behind_a_full_pass(autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    room.journals["gr"].settles = trio.Event()
    async with room.serving(), await room.connect() as client:
        await client.send_all(GET * 2 * MAX_PASS_REQUESTS)
        await trio.testing.wait_all_tasks_blocked()
        room.gate.stop()
        room.journals["gr"].settles.set()
        answers = await everything(client)
        assert autojump_clock.current_time() < 1
    assert answers.count(GIF) == 2 * MAX_PASS_REQUESTS
    assert answers.count(b"Connection: close") == 1


async def test_a_thousand_comers_and_goers_leave_no_descriptor_behind() -> None:
    room = Room()
    async with room.serving():
        for number in range(1000):
            client = await room.connect()
            await client.send_all((GET, GET[:9], b"", POST + b"hello", b"nonsense\r\n\r\n")[number % 5])
            if number % 3:
                await trio.testing.wait_all_tasks_blocked()
            if number % 2:
                reset(client)
            else:
                await client.aclose()
        await connections(room, 0)
        assert GIF in await room.ask(GET)


# Times.


@pytest.mark.parametrize("limit_s", [0.2, 1.0, 10.0])
async def test_times_are_kept_to_a_tenth(limit_s: float, autojump_clock: trio.testing.MockClock) -> None:
    times = Http(head_timeout_s=limit_s, keep_alive_s=limit_s, write_timeout_s=limit_s)
    room = Room(times)
    async with room.serving():
        for stage, told in ((at_the_beginning, b""), (idle, b""), (within_a_head, b"HTTP/1.1 408 ")):
            async with await room.connect() as client:
                await stage(room, client)
                began = autojump_clock.current_time()
                assert (await everything(client)).startswith(told)
                assert limit_s * 0.99 <= autojump_clock.current_time() - began <= limit_s * 1.15
        async with await room.connect() as client:
            fill = ELSEWHERE % 0 * 1000
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    began = autojump_clock.current_time()
                    await client.send_all(fill)
            assert limit_s * 0.99 <= autojump_clock.current_time() - began <= limit_s * 1.15


@pytest.mark.parametrize("attempt", range(8))  # who comes first, reading or time, is trio's choice
async def test_what_has_come_in_time_is_not_too_late(attempt: int, autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    async with room.serving(), crowd(room, 20) as clients:
        for client in clients[:10]:
            await within_a_head(room, client)
        await connections(room, 20)
        for client in clients:
            os.write(client.socket.fileno(), GET[20:] if client in clients[:10] else GET)
        autojump_clock.jump(80)  # as if the process had been held up, with all of it in the kernel's hands
        for client in clients:
            await answer(client)
    assert room.stats.requests == {200: 20}
