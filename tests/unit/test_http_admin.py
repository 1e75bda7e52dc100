"""The admin listener: who may ask what, over real connections to Hypercorn."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import ipaddress
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from scratchd.config import Http
from scratchd.history import History
from scratchd.http.admin import MAX_CONNECTIONS, Admin
from scratchd.http.fake import everything
from scratchd.http.listen import Listener
from scratchd.http.page import Page
from scratchd.log import Log
from scratchd.scrape import Scrape
from scratchd.stats import Stats

PEER = ipaddress.ip_address("127.0.0.1")


class Desk:
    """An admin listener over made-up figures."""

    def __init__(self, http: Http | None = None) -> None:
        self.word = "ready"
        self.figures: dict[str, object] = {"http": {"connections": 3}}
        stats = Stats("1.0.0", "", lambda: 0, lambda: 0.0)
        now = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
        page = Page(stats.document, History(stats, lambda: 0.0), lambda: self.word, lambda: now)
        scrape = Scrape(stats)
        self.admin = Admin(
            http or Http(), lambda: self.figures, scrape.exposition, page, lambda: self.word, log=Log("http")
        )
        self.address = ("", 0)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Runs it on a free port of 127.0.0.1."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(0)
            self.address = listening.getsockname()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.admin.serve, [Listener(listening)])
                yield
                nursery.cancel_scope.cancel()

    async def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, fields and body of what a client is answered."""
        async with await trio.open_tcp_stream(*self.address) as client:
            await client.send_all(data)
            head, _, body = (await everything(client)).partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        return int(line.split()[1]), dict(field.lower().split(": ", 1) for field in fields), body


def get(path: str, host: str = "127.0.0.1:9007", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


async def test_health_is_told_in_one_word() -> None:
    desk = Desk()
    async with desk.serving():
        assert (await desk.ask(get("/health/live")))[::2] == (200, b"live")
        assert (await desk.ask(get("/health/ready")))[::2] == (200, b"ready")
        for desk.word in ("starting", "stopping", "journal_full"):
            assert (await desk.ask(get("/health/ready")))[::2] == (503, desk.word.encode())


async def test_figures_are_json_and_metrics_text() -> None:
    desk = Desk()
    async with desk.serving():
        status, fields, body = await desk.ask(get("/stats"))
        assert (status, fields["content-type"], json.loads(body)) == (200, "application/json", desk.figures)
        assert body.endswith(b"}\n")
        status, fields, body = await desk.ask(get("/metrics"))
        assert status == 200
        assert b"\nscratchd_ledger_residual_lines 0.0\n" in body
        assert fields["content-type"].startswith("text/plain; version=")
        assert fields["cache-control"] == "no-store"
        assert "date" in fields
        assert "server" not in fields


async def test_the_status_page_lets_nothing_run_but_what_is_in_it() -> None:
    desk = Desk()
    async with desk.serving():
        status, fields, body = await desk.ask(get("/"))
    assert (status, fields["content-type"]) == (200, "text/html; charset=utf-8")
    assert fields["referrer-policy"] == "no-referrer"
    policy = fields["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        (content,) = re.findall(f"<{kind}>(.*?)</{kind}>", body.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest.lower()}'" in policy  # `ask` lowers the fields


async def test_the_status_page_has_a_head() -> None:
    desk = Desk()
    async with desk.serving():
        status, fields, body = await desk.ask(get("/", method="HEAD"))
    assert (status, body) == (200, b"")
    assert int(fields["content-length"]) > 10_000


async def test_the_status_page_comes_while_others_are_served() -> None:
    turns, sent = [], trio.Event()

    async def others() -> None:
        while not sent.is_set():
            turns.append(trio.current_time())
            await trio.lowlevel.checkpoint()

    desk = Desk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        scope = {"method": "GET", "raw_path": b"/", "query_string": b"", "headers": [(b"host", b"localhost")]}
        answer = await desk.admin.answer(scope, PEER)
        sent.set()
    assert answer.status == 200
    assert len(turns) >= 3


async def test_head_gets_a_head() -> None:
    desk = Desk()
    async with desk.serving():
        status, fields, body = await desk.ask(get("/stats", method="HEAD"))
    assert (status, body) == (200, b"")
    assert int(fields["content-length"]) > 0


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (get("/"), 200),
        (get("/?flavor=%3Cb%3E&sort=rate&all=1&x"), 200),
        (get("/", method="POST"), 405),
        (get("/", host="evil.example"), 421),
        (get("/index.html"), 404),
        (get("/stats/"), 404),
        (get("/health/"), 404),
        (get("/stats", method="POST"), 405),
        (get("/stats", host="evil.example"), 421),
        (get("/health/live", host="evil.example"), 421),
        (get("/stats", host="127.0.0.1.evil.example"), 421),
        (get("/stats", host="localhost.evil.example"), 421),
        (get("/stats", host=""), 421),
        (get("/stats", host="localhost"), 200),
        (get("/stats", host="LOCALHOST.:80"), 200),
        (get("/stats", host="[::1]:9007"), 200),
        (get("/stats", host="10.1.2.3"), 200),
        (b"GET /stats HTTP/1.0\r\n\r\n", 200),
        (get("/stats?x=y"), 200),
    ],
)
async def test_what_is_asked_rightly_is_answered(asked: bytes, status: int) -> None:
    desk = Desk()
    async with desk.serving():
        answer, fields, body = await desk.ask(asked)
    assert answer == status
    assert body
    assert (fields.get("allow") == "get, head") is (status == 405)


async def test_who_is_not_allowed_may_ask_for_health_alone() -> None:
    desk = Desk(Http(admin_allow=("10.0.0.0/8",)))
    async with desk.serving():
        assert [
            (await desk.ask(get(path)))[0]
            for path in ("/health/live", "/health/ready", "/", "/stats", "/metrics", "/nothing")
        ] == [200, 200, 403, 403, 403, 403]


async def test_the_peer_of_a_unix_socket_may_ask(tmp_path: Path) -> None:
    desk = Desk(Http(admin_allow=()))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        listening.settimeout(0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.admin.serve, [Listener(listening)])
            async with await trio.open_unix_socket(tmp_path / "s") as client:
                await client.send_all(get("/stats", host="localhost"))
                assert (await everything(client)).startswith(b"HTTP/1.1 200")
            nursery.cancel_scope.cancel()


async def test_nothing_that_is_sent_ends_the_listener(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    async with desk.serving():
        for asked in (
            b"nonsense\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /stats HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
            b"\x16\x03\x01",
        ):
            async with await trio.open_tcp_stream(*desk.address) as client:
                await client.send_all(asked)
                await client.send_eof()
                await everything(client)
        assert (await desk.ask(get("/health/live")))[0] == 200
    assert all(record.getMessage().isprintable() for record in caplog.records)


async def test_failing_figures_are_a_500_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.figures = {"x": object()}
    async with desk.serving():
        assert (await desk.ask(get("/stats")))[0] == 500
        assert (await desk.ask(get("/health/live")))[0] == 200
    assert caplog.records


async def test_connections_are_few_and_none_is_held_for_nothing(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    async with desk.serving():
        idle = [await trio.open_tcp_stream(*desk.address) for _ in range(MAX_CONNECTIONS)]
        assert (await desk.ask(get("/health/live")))[0] == 200
        assert autojump_clock.current_time() <= 12
        for client in idle:
            await client.aclose()


async def test_a_peer_that_has_gone_is_let_go_of(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    async with desk.serving():
        for _ in range(MAX_CONNECTIONS + 1):
            async with await trio.open_tcp_stream(*desk.address) as client:
                await client.send_all(get("/health/live").replace(b"Connection: close\r\n", b""))
                assert (await client.receive_some()).startswith(b"HTTP/1.1 200")
        assert autojump_clock.current_time() < 1
