"""What is read of servers: scratchd's figures only when they are whole, HAProxy's answers for what they are."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from scratchd_rollout import service
from scratchd_rollout.runtime import Runtime, RuntimeSocketError

FEED = {"state": "running", "gap_lines": 5000}
FIGURES: Mapping[str, object] = {
    "version": "1",
    "started_at": "2026-01-01T00:00:00.000Z",
    "http": {"duplicates": 2},
    "backends": {
        "file": {"errors": {"io": 3}, "oldest_pending_age_s": 0.5},
        "kafka": {"errors": {}, "oldest_pending_age_s": 2.5},
    },
    "flavors": {
        "gr": {"received_lines": 9000, "file": FEED, "kafka": {**FEED, "gap_lines": 7}},
        "it": {"received_lines": 10, "file": {**FEED, "gap_lines": 0}},
    },
    "ledger": {"residual_lines": 0},
}


@contextlib.contextmanager
def answering(answers: Mapping[str, tuple[int, bytes]]) -> Iterator[str]:
    """A server that gives these answers by path; 404 to everything else. Its `/stats`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, b"no such path"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/stats"
        finally:
            server.shutdown()
            serving.join()


STATS = (200, json.dumps(FIGURES).encode())


@pytest.mark.parametrize(
    "readiness",
    [
        pytest.param((200, b"ready"), id="ready"),
        pytest.param((503, b"journal_full"), id="full"),
        pytest.param((503, b"stopping"), id="stopping"),
        pytest.param((404, b"?"), id="somebody in between who lets only the figures through"),
    ],
)
def test_whoever_has_opened_its_journals_has_figures(readiness: tuple[int, bytes]) -> None:
    with answering({"/health/ready": readiness, "/stats": STATS}) as address:
        told = service.ask([address], 5)[address]
    assert told is not None
    assert told.received == {"gr": 9000, "it": 10}
    assert told.gaps == {("gr", "file"): 5000, ("gr", "kafka"): 7, ("it", "file"): 0}
    assert (told.duplicates, told.backend_errors, told.residual_lines, told.pending_age_s) == (2, 3, 0, 2.5)


def test_a_service_that_still_opens_its_journals_has_no_figures_yet() -> None:
    """What it says on /stats lacks flavors: every line answered since the look before would be missing."""
    opening = (200, json.dumps({**FIGURES, "flavors": {}}).encode())
    with answering({"/health/ready": (503, b"starting"), "/stats": opening}) as address:
        assert service.ask([address], 5) == {address: None}


@pytest.mark.parametrize(
    "stats", [(500, STATS[1]), (200, b"{"), (200, b"{}"), (200, b"[]")], ids=["500", "torn", "empty", "list"]
)
def test_what_is_no_figures_is_nothing_known(stats: tuple[int, bytes]) -> None:
    with answering({"/health/ready": (200, b"ready"), "/stats": stats}) as address:
        assert service.ask([address], 5) == {address: None}


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Callable[[Callable[[str], str]], Runtime]]:
    """A runtime socket that answers each command by what it is given; ended with the test."""
    with contextlib.ExitStack() as ending:

        def serve(answer: Callable[[str], str]) -> Runtime:
            path = tmp_path / "admin.sock"
            listener = ending.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()

            def accept() -> None:
                while True:
                    with listener.accept()[0] as connection, connection.makefile("rw") as lines:
                        command = lines.readline().strip()
                        if command == "end":
                            return
                        lines.write(answer(command) + "\n\n")

            accepting = threading.Thread(target=accept)
            accepting.start()
            runtime = Runtime(path)
            ending.callback(accepting.join)
            ending.callback(runtime.ask, "end")
            return runtime

        yield serve


@pytest.mark.parametrize(
    "line",
    ["Unknown map identifier. Please use #<id> or <file>.", "0x55d0 all", "[NOTICE] all 5"],
    ids=["no such map", "torn", "something else"],
)
def test_what_is_no_entry_of_a_map_is_shown_and_not_explained(
    haproxy: Callable[[Callable[[str], str]], Runtime], line: str
) -> None:
    runtime = haproxy(lambda _: f"0x55d0c0 kill 0\n{line}")
    with pytest.raises(RuntimeSocketError) as caught:
        runtime.map(Path("/share.map"))
    assert str(caught.value) == f"map /share.map: expected 0x... KEY VALUE of haproxy, got {line!r}"


def test_counters_that_began_anew_while_they_were_read_are_not_known(
    haproxy: Callable[[Callable[[str], str]], Runtime],
) -> None:
    """A reload between two questions: the new worker's counters must not go by the old one's name."""
    rows = "".join(f"{side}_gr,BACKEND,UP,1,0,0,0,0,0\n" for side in ("scratchd", "legacy"))
    stat = f"# pxname,svname,status,hrsp_2xx,hrsp_1xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other\n{rows}"
    pids = iter([10, 10, 10, 11])

    def answer(command: str) -> str:
        if command == "show info":
            return f"Pid: {next(pids)}\nStart_time_sec: 5"
        return stat if command == "show stat" else "# table: st_sides"

    runtime = haproxy(answer)
    source, _ = runtime.side_counters(["gr"])
    assert (source.run, source.counters["gr/scratchd/requests"]) == ("10/5", 1)
    with pytest.raises(RuntimeSocketError, match="started anew or reloaded"):
        runtime.side_counters(["gr"])
