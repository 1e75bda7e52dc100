"""Recorded requests, sent again to the real daemon and to the legacy stand-in, and what both wrote compared."""

from __future__ import annotations

import gzip
import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from commands import scratchd
from daemon import SOURCE, Daemon
from deadline import wait_for
from kafka_client import Broker
from wire import Connection

FLAVORS = [{"name": "gr", "hosts": ["gr.test"]}, {"name": "de", "hosts": ["de.test"]}]
TIMEOUT_S = 120


class Legacy:
    """The stand-in as a process; its logs are below `directory`."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        script = Path(__file__).parent / "rollout" / "legacy.py"
        tenants = ("--tenant", "gr=gr.test", "--tenant", "de=de.test")
        command = [sys.executable, str(script), "--directory", str(directory), *tenants, *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = "http://" + self._process.stdout.readline().decode().split()[-1]

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def start_legacy(tmp_path: Path) -> Iterator[Callable[..., Legacy]]:
    with ExitStack() as stack:

        def start(*arguments: str) -> Legacy:
            started = Legacy(tmp_path / "legacy", *arguments)
            stack.callback(started.close)
            return started

        yield start


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "scratchd", *arguments]


def run(*arguments: str, status: int = 0, stdin: bytes = b"") -> str:
    """Runs a command that needs no daemon; what it printed on standard output."""
    done = subprocess.run(
        command(*arguments), cwd=SOURCE, input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
    assert b"Traceback" not in done.stderr
    return done.stdout.decode()


def replayed(*arguments: str, status: int = 0, stdin: bytes = b"") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run("replay", "--json", *arguments, status=status, stdin=stdin))
    return document


def url(daemon: Daemon) -> str:
    return f"http://{daemon.address}"


# The stand-in's switches, which the rollout's tests use.


def test_the_stand_in_fails_loses_and_is_unready_when_told_to(start_legacy: Callable[..., Legacy]) -> None:
    legacy = start_legacy("--lose", "1")
    with Connection(legacy.url.removeprefix("http://")) as connection:

        def get(target: str, method: str = "GET") -> int:
            return connection.get(target, "gr.test:80", method=method).status

        def switches(query: str) -> dict[str, Any]:
            answer = connection.get(f"/control?{query}", "localhost", "Content-Length: 0", method="POST")
            document: dict[str, Any] = json.loads(answer.body)
            return document

        assert get("/track?lost=1") == 200
        assert switches("lose=0&fail=1&ready=0")["fail"] == 1
        assert get("/track?failed=1") == 500
        assert get("/health/ready") == 503
        switches("fail=0&ready=1")
        assert get("/health/ready") == 200
        assert get("/track?kept[]=1") == 200
        assert get("/track?head=1", "HEAD") == 200
        assert get("/track?a=1&a[b]=2") == 400
        assert connection.get("/track?a=1", "unknown.test").status == 404
        assert get("/other") == 404
        assert switches("")["answers"] == {"200": 3, "400": 1, "404": 2, "500": 1}
    assert (legacy.directory / "gr.log").read_bytes() == b'{"kept":["1"]}\n'


# Old and new, compared.

SAME = ("n={n}&v=%CE%BA%CE%B1&w=a+b", "n={n}", "n={n}&e=&d=a=b")
RACKS = {
    "n={n}&a[b]=c&a[c]=d": "normalised",
    "n={n}&l[]=1&l[]=2": "normalised",
    "n={n}&x": "normalised",
    "n={n}&=z": "normalised",
    "n={n}&y=%FF%C3": "normalised",
    "n={n}&c[d]=1&c=2": "unsure",
    "n={n}&x=%zz": "refused",
    "n={n}&a=1&a[b]=2": "refused",
}


def haproxy_line(number: int, query: str, host: str) -> str:
    time = f"06/Feb/2026:12:{number // 60000:02}:{number // 1000 % 60:02}.{number % 1000:03}"
    return (
        f"Feb  6 12:00:00 edge haproxy[1]: 10.0.0.{number % 250}:4000 [{time}] in~ old/one 0/0/0/1/1 200 43 - - ----"
        f' 1/1/1/1/0 0/0 {{{host}}} "GET /track?{query} HTTP/1.1"\n'
    )


def test_twenty_thousand_logged_requests_differ_as_rack_makes_them(
    start_daemon: Callable[..., Daemon], start_legacy: Callable[..., Legacy], tmp_path: Path
) -> None:
    daemon, legacy = start_daemon(flavors=FLAVORS), start_legacy()
    source = random.Random(7)
    queries = [source.choice([*SAME, *RACKS]) for _ in range(20_000)]
    hosts = [source.choice(["gr.test", "de.test"]) for _ in queries]
    pairs = enumerate(zip(queries, hosts, strict=True))
    lines = [haproxy_line(number, query.format(n=number), host) for number, (query, host) in pairs]
    lines[100:100] = ["odd\n", haproxy_line(0, "", "gr.test").replace("?", "")]
    (tmp_path / "log.gz").write_bytes(gzip.compress("".join(lines).encode(), 1))

    differing = tmp_path / "differing"
    targets = ("--to", legacy.url, "--to", url(daemon))
    summary = replayed(str(tmp_path / "log.gz"), *targets, "--rate", "1000000", "--differing", str(differing))
    refused = sum(RACKS.get(query) == "refused" for query in queries)
    assert summary["malformed_examples"] == [
        "line 101: neither HAProxy's HTTP format nor nginx's combined nor METHOD TARGET HOST: odd"
    ]
    assert [target["statuses"] for target in summary["targets"]] == [
        {"200": 20_001 - refused, "400": refused},
        {"200": 20_000, "400": 1},
    ]
    assert {tuple(one["answers"]): one["requests"] for one in summary["differing"]} == {
        ("400", "200"): refused,
        ("200", "400"): 1,
    }
    told = [json.loads(line) for line in differing.read_text().splitlines()]
    assert len(told) == refused + 1
    assert {"line": 102, "method": "GET", "target": "/track", "host": "gr.test", "answers": ["200", "400"]} in told

    daemon.wait_drained()
    sides = ("--old", str(legacy.directory), "--new", str(daemon.directory / "log"))
    document = json.loads(run("compare", "--json", *sides, status=1))
    kinds = {flavor["flavor"]: set(flavor["differences"]) for flavor in document["flavors"]}
    assert kinds == {name: {"missing", "extra", "value", "encoding"} for name in ("gr", "de")}

    document = json.loads(run("compare", "--json", "--legacy", "rack", *sides))
    found: Counter[str] = Counter()
    for flavor in document["flavors"]:
        found.update(flavor["differences"])
    expected = Counter(RACKS[query] for query in queries if query in RACKS)
    assert found == {**expected, "empty": 1}
    assert document["identical"] is True

    # And it is no blank cheque: one line gone, one value changed.
    (path,) = daemon.file_paths("gr")
    gone, changed, *rest = [line for line in path.read_bytes().splitlines(keepends=True) if b'"v":' in line]
    kept = path.read_bytes().replace(gone, b"").replace(changed, changed.replace(b'"w":"a b"', b'"w":"ab"'))
    assert rest
    copy = tmp_path / "copy" / "gr" / path.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(kept)
    gr = ("--old", f"gr={legacy.directory}/gr.log", "--new", str(tmp_path / "copy"))
    document = json.loads(run("compare", "--json", "--legacy", "rack", *gr, status=1))
    assert document["different_lines"] == 2
    assert {kind: document["flavors"][0]["differences"][kind] for kind in ("missing", "value")} == {
        "missing": 1,
        "value": 1,
    }


def test_two_topics_are_compared(
    start_daemon: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str], tmp_path: Path
) -> None:
    topics = (make_topic(partitions=2), make_topic())
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        flavors=[
            {"name": name, "hosts": [f"{name}.test"], "kafka_topic": topic}
            for name, topic in zip(("old", "new"), topics, strict=True)
        ],
    )
    log = b"".join(b"GET /track?n=%d&v=%%CE%%BA gr.test\n" % number for number in range(500))
    for host in ("old.test", "new.test"):
        replayed("-", "--to", url(daemon), "--rate", "100000", "--host", host, stdin=log)
    daemon.wait_drained()
    sides = ("--old", f"site=topic:{topics[0]}", "--new", f"site=topic:{topics[1]}")
    assert "old 500, new 500 lines: identical" in scratchd(daemon, "compare", *sides)
    files = ("--old", f"site=topic:{topics[0]}", "--new", f"site={daemon.directory}/log/new")
    assert "old 500, new 500 lines: identical" in scratchd(daemon, "compare", *files)

    replayed("-", "--to", url(daemon), "--rate", "10", "--host", "{host}", stdin=b"GET /track?n=x new.test\n")
    daemon.wait_drained()
    report = scratchd(daemon, "compare", *sides, status=1)
    assert re.search(r"extra +1 +only new has it", report)
    assert re.search(rf'new {topics[1]}\[0\]@500: {{"n":"x"}}', report)
    assert "Unknown topic" in scratchd(
        daemon, "compare", "--old", "topic:none", "--new", f"topic:{topics[1]}", status=2
    )


# Interruptions.


def numbered(count: int) -> bytes:
    return b"".join(b"GET /track?n=%d gr.test\n" % number for number in range(1, count + 1))


def taken(daemon: Daemon) -> Counter[int]:
    daemon.wait_drained()
    return Counter(int(json.loads(line)["n"]) for line in daemon.lines("gr"))


def test_a_killed_replay_goes_on_behind_what_was_sent(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start_daemon(flavors=FLAVORS)
    log, count = tmp_path / "log", 3000
    log.write_bytes(numbered(count))
    arguments = ("replay", "--json", str(log), "--to", url(daemon), "--state", str(tmp_path / "state"))
    received, unknown = 0, set[int]()
    for _ in range(3):
        process = subprocess.Popen(command(*arguments, "--rate", "1500"), cwd=SOURCE, stdout=subprocess.DEVNULL)
        enough = received + 400
        wait_for(lambda: daemon.stats()["flavors"]["gr"]["received_lines"] >= enough, 30, "some were taken")  # noqa: B023
        process.kill()
        process.wait()
        received = daemon.stats()["flavors"]["gr"]["received_lines"]
        state = (tmp_path / "state").read_bytes().split(b"\n", 1)[1]
        unknown |= set(memoryview(state).cast("Q")[:-1]) - {0}
    summary = json.loads(run(*arguments, "--rate", "100000"))
    told = set(summary["in_flight"].get(url(daemon), []))
    assert told <= unknown
    assert summary["behind_line"] >= 1200
    found = taken(daemon)
    assert set(found.values()) == {1}, "a request was sent twice"
    assert set(range(1, count + 1)) - set(found) <= unknown, "a request was never sent and nobody said so"
    assert replayed(*arguments[2:])["targets"][0]["sent"] == 0


def test_an_interrupted_replay_ends_in_order(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start_daemon(flavors=FLAVORS)
    log = tmp_path / "log"
    log.write_bytes(numbered(2000))
    arguments = (str(log), "--to", url(daemon), "--state", str(tmp_path / "state"))
    process = subprocess.Popen(
        command("replay", "--json", *arguments, "--rate", "1000"), cwd=SOURCE, stdout=subprocess.PIPE
    )
    wait_for(lambda: daemon.stats()["flavors"]["gr"]["received_lines"] > 200, 30, "some were taken")
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(printed)["interrupted"] is True
    summary = replayed(*arguments, "--rate", "100000")
    assert summary["in_flight"] == {}
    assert taken(daemon) == dict.fromkeys(range(1, 2001), 1)


def test_what_was_in_flight_is_sent_again_if_asked(tmp_path: Path, start_legacy: Callable[..., Legacy]) -> None:
    legacy = start_legacy("--slow", "30")
    log = tmp_path / "log"
    log.write_bytes(numbered(3))
    arguments = ("replay", str(log), "--to", legacy.url, "--state", str(tmp_path / "state"), "--rate", "100")
    process = subprocess.Popen(command(*arguments), cwd=SOURCE, stdout=subprocess.DEVNULL)
    state = tmp_path / "state"

    def all_in_flight() -> bool:
        words = state.read_bytes().split(b"\n", 1)[1] if state.exists() else b""
        return set(memoryview(words).cast("Q")) >= {1, 2, 3}

    wait_for(all_in_flight, 30, "three requests in flight")
    process.kill()
    process.wait()
    legacy.close()
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", int(legacy.url.rpartition(":")[2])) as seen:
        summary = json.loads(run(*arguments, "--json", "--resend"))
    assert summary["targets"][0]["statuses"] == {"200": 3}
    assert sorted(re.findall(rb"n=([0-9])", b"".join(seen))) == [b"1", b"2", b"3"]


# Targets.


class Heads(list[bytes]):
    """What a server saw, at `url`."""

    url = ""


@contextmanager
def server(answer: bytes, port: int = 0) -> Iterator[Heads]:
    """A server that gives each request the same bytes and closes where they say so."""
    listener = socket.create_server(("127.0.0.1", port))
    seen, threads = Heads(), list[threading.Thread]()
    seen.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def converse(peer: socket.socket) -> None:
        with peer:
            received = b""
            while chunk := peer.recv(65536):
                received += chunk
                while b"\r\n\r\n" in received:
                    head, _, received = received.partition(b"\r\n\r\n")
                    seen.append(head)
                    peer.sendall(answer)
                    if b"close" in answer:
                        return

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=converse, args=(peer,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(10)
        for thread in threads:
            thread.join(10)


@pytest.mark.parametrize(
    ("answer", "statuses", "failures"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", {"200": 5}, {}, id="length"),
        pytest.param(
            b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n",
            {"404": 5},
            {},
            id="chunked",
        ),
        pytest.param(b"HTTP/1.1 204 None\r\nContent-Length: 3\r\n\r\n", {"204": 5}, {}, id="no-content"),
        pytest.param(
            b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            {"200": 5},
            {},
            id="interim",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", {"200": 5}, {}, id="to-the-end"),
        pytest.param(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", {"503": 5}, {}, id="unavailable"),
        pytest.param(b"SSH-2.0-close\r\n\r\n", {}, {"not HTTP": 5}, id="another-protocol"),
        pytest.param(b"HTTP/1.1 200 close\r\nContent-Length: 9\r\n\r\nabc", {}, {"closed": 5}, id="cut-off"),
    ],
)
def test_any_answer_is_understood(answer: bytes, statuses: dict[str, int], failures: dict[str, int]) -> None:
    with server(answer) as seen:
        arguments = ("-", "--to", seen.url, "--rate", "1000", "--connections", "1", "--timeout", "5")
        failed = 5 if failures or "503" in statuses else 0
        summary = replayed(*arguments, stdin=numbered(5), status=1 if failed else 0)
    assert summary["targets"][0]["statuses"] == statuses
    assert summary["targets"][0]["failures"] == failures
    assert summary["failed"] == failed
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("options", "host"),
    [
        pytest.param((), b"gr.test", id="original"),
        pytest.param(("--host", "original"), b"gr.test", id="said"),
        pytest.param(("--host", "other.test"), b"other.test", id="another"),
        pytest.param(("--host", "{host}.shadow.test"), b"gr.test.shadow.test", id="template"),
    ],
)
def test_the_host_chooses_the_flavor(options: Sequence[str], host: bytes) -> None:
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as seen:
        replayed("-", "--to", seen.url, "--rate", "100", *options, stdin=numbered(1))
    assert seen == [b"GET /track?n=1 HTTP/1.1\r\nHost: %s\r\nUser-Agent: scratchd-replay" % host]


def test_only_what_is_wanted_is_sent() -> None:
    log = b"".join(
        b"%s gr.test\n" % line for line in (b"GET /track?a", b"HEAD /track?b", b"POST /track?c", b"GET /x?d")
    )
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as seen:
        to = ("-", "--to", seen.url, "--rate", "1000")
        assert replayed(*to, "--path", "/track", stdin=log.replace(b"HEAD", b"GET"))["skipped"] == {
            "method POST": 1,
            "another path": 1,
        }
        assert len(seen) == 2
        assert replayed(*to, "--method", "POST", "--limit", "3", stdin=log)["targets"][0]["sent"] == 3
    assert b"POST /track?c HTTP/1.1\r\nHost: gr.test\r\nUser-Agent: scratchd-replay\r\nContent-Length: 0" in seen


def test_a_slow_target_holds_nobody_up(
    start_legacy: Callable[..., Legacy], start_daemon: Callable[..., Daemon]
) -> None:
    """Open loop: what is due waits for no answer, and its latency counts from when it was due."""
    daemon, legacy = start_daemon(flavors=FLAVORS), start_legacy("--slow", "0.1")
    targets = ("--to", legacy.url, "--to", url(daemon), "--connections", "1", "--rate", "1000")
    slow, fast = replayed("-", *targets, stdin=numbered(20))["targets"]
    assert slow["late"] > 0
    assert slow["latency_s"]["max"] > 1.5
    assert fast["late"] == 0


def test_a_target_that_is_not_there_is_a_failure() -> None:
    with socket.socket() as taken_port:
        taken_port.bind(("127.0.0.1", 0))
        to = f"http://127.0.0.1:{taken_port.getsockname()[1]}"
        summary = replayed("-", "--to", to, "--rate", "1000", stdin=numbered(3), status=1)
        assert summary["targets"][0]["failures"] == {"refused": 3}
        replayed("-", "--to", to, "--rate", "1000", "--max-failed", "3", stdin=numbered(3))


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("replay", "-"), id="no-target"),
        pytest.param(("replay", "-", "--to", "https://gr.test"), id="tls"),
        pytest.param(("replay", "-", "--to", "http://gr.test/path"), id="path"),
        pytest.param(("replay", "/none", "--to", "http://127.0.0.1:1"), id="no-log"),
        pytest.param(("replay", "-", "--to", "http://127.0.0.1:1", "--rate", "0"), id="rate"),
        pytest.param(("replay", "-", "--to", "http://127.0.0.1:1", "--host", "a\r\nb"), id="host"),
        pytest.param(("compare", "--old", "/none", "--new", "/none"), id="no-source"),
        pytest.param(("compare", "--old", "/none"), id="one-side"),
    ],
)
def test_wrong_usage_is_2(arguments: Sequence[str]) -> None:
    done = subprocess.run(command(*arguments), cwd=SOURCE, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 2, done
    assert b"Traceback" not in done.stderr


# Size.


_MEASURED = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


def test_a_million_lines_are_compared_in_bounded_memory(tmp_path: Path) -> None:
    sides = (tmp_path / "old", tmp_path / "new")
    lines = [b'{"n":"%d","page":"/a/b/c","v":"%d"}\n' % (number, number % 7) for number in range(500_000)]
    sides[0].write_bytes(b"".join(lines))
    lines.reverse()
    lines[1234] = b""
    sides[1].write_bytes(b"".join(lines))
    arguments = command("compare", "--json", "--old", str(sides[0]), "--new", str(sides[1]), "--work", str(tmp_path))
    # By way of a small process: what is forked off us has our size until it becomes another program.
    measured = [sys.executable, "-c", _MEASURED, *arguments]
    done = subprocess.run(measured, cwd=SOURCE, capture_output=True, check=False)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["flavors"][0]["differences"] == {"missing": 1}
    peak_kib = int(done.stderr.split()[-1])
    assert peak_kib < 200 * 1024, f"{peak_kib} KiB"
