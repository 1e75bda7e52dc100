"""Whether the commands do what they say, and tell by their exit status how it went."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import scratchd
from daemon import SOURCE, Daemon, free_port
from wire import request

OK, FAILED, USAGE, NOT_RUNNING, BAD_CONFIGURATION = 0, 1, 2, 69, 78

FLAVORS = [{"name": "gr", "hosts": ["gr.test"]}]


def scratch(*arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Runs `scratchd` with these arguments, `given` on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", "scratchd", *arguments],
        cwd=SOURCE,
        input=given,
        capture_output=True,
        check=False,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration and returns its path: `configured(flavors=[…], …)`, one flavor where none is given."""

    def write(**sections: Any) -> Path:  # noqa: ANN401 - sections are what tests make them
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"flavors": FLAVORS, **sections}))
        return path

    return write


# check.


def test_check_says_ok_and_touches_nothing(configured: Callable[..., Path], tmp_path: Path) -> None:
    path = configured(
        journal={"directory": f"{tmp_path}/journal", "quota_bytes": 1_000_000, "segment_bytes": 65536},
        file={"path": f"{tmp_path}/log/{{flavor}}/{{date}}.log"},
        kafka={"enabled": True, "bootstrap_servers": f"127.0.0.1:{free_port()}", "librdkafka": {"linger.ms": 5}},
    )
    done = scratch("check", "--config", path)
    assert (done.returncode, done.stdout, done.stderr) == (OK, b"OK\n", b"")
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.json"]


WRONG: dict[str, Any] = {
    "http": {"listen": ["nowhere"], "max_head_byte": 1, "head_timeout_s": 0, "trusted_proxies": ["10.0.0.0/99"]},
    "query": {"repeated": "lsat"},
    "checks": {"duplicate_window_s": -1},
    "journal": {"sync": "sometimes", "segment_bytes": 65535},
    "file": {"path": "log/{flavor}.log"},
    "kafka": {"enabled": True, "librdkafka": {"acks": "1", "linger.sm": 5, "compression.type": "rar"}},
    "log": {"level": "loud"},
    "flavour": [],
    "flavors": [
        {"name": "gr", "hosts": ["gr.test"], "time_zone": "Europe/Athens"},
        {"name": "gr", "hosts": ["gr.test"], "time_zone": "Europe/Athen"},
        {"name": "x y", "hosts": []},
    ],
}

COMPLAINTS = (
    r"config\.json: http\.listen(\[0\])?: .*nowhere",
    r"config\.json: http\.max_head_byte: .*did you mean .*max_head_bytes",
    r"config\.json: http\.head_timeout_s: ",
    r"config\.json: http\.trusted_proxies(\[0\])?: .*10\.0\.0\.0/99",
    r"config\.json: query\.repeated: .*lsat",
    r"config\.json: checks\.duplicate_window_s: ",
    r"config\.json: journal\.sync: .*sometimes",
    r"config\.json: journal\.segment_bytes: .*65536",
    r"config\.json: file\.path: ",
    r"config\.json: kafka\.bootstrap_servers: ",
    r"config\.json: kafka\.librdkafka\.acks: ",
    r"config\.json: kafka\.librdkafka\.linger\.sm: .*linger\.ms",
    r"config\.json: kafka\.librdkafka\.compression\.type: .*rar",
    r"config\.json: log\.level: .*loud",
    r"config\.json: flavour: .*flavors",
    r"config\.json: flavors\[1\]\.name: .*gr",
    r"config\.json: flavors\[1\]\.hosts(\[0\])?: .*gr\.test",
    r'config\.json: flavors\[1\]\.time_zone: "Europe/Athen" is not a known time zone; did you mean "Europe/Athens"\?$',
    r"config\.json: flavors\[2\]\.name: .*x y",
    r"config\.json: flavors\[2\]\.hosts: ",
)


@pytest.mark.parametrize("command", ["check", "serve", "stats", "convert"])
def test_every_error_is_told_at_once(configured: Callable[..., Path], command: str) -> None:
    done = scratch(command, "--config", configured(**WRONG))
    assert (done.returncode, done.stdout) == (BAD_CONFIGURATION, b"")
    lines = done.stderr.decode().splitlines()
    assert [complaint for complaint in COMPLAINTS if not any(re.match(complaint, line) for line in lines)] == []
    assert all(line.startswith("config.json: ") for line in lines)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"flavors": []}', b"{}", b"\xff\xfe", b'{"flavors": 1}', b"[" * 100_000]
)
def test_what_is_no_configuration_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    done = scratch("check", "--config", path)
    assert (done.returncode, done.stdout) == (BAD_CONFIGURATION, b"")
    assert done.stderr.startswith(b"config.json: ")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["check", "serve", "stats", "convert"])
def test_a_named_file_must_exist(tmp_path: Path, command: str) -> None:
    done = scratch(command, "--config", tmp_path / "missing.json")
    assert done.returncode == BAD_CONFIGURATION
    assert b"missing.json" in done.stderr
    assert b"Traceback" not in done.stderr


REFUSED_PROPERTIES = (
    "bootstrap.servers",
    "metadata.broker.list",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "retries",
    "message.send.max.retries",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "transactional.id",
    "plugin.library.paths",
    "error_cb",
    "dr_msg_cb",
)


def test_properties_that_scratchd_sets_are_refused_with_the_reason(configured: Callable[..., Path]) -> None:
    kafka = {"bootstrap_servers": "127.0.0.1:9092", "enabled": True, "librdkafka": dict.fromkeys(REFUSED_PROPERTIES, 1)}
    done = scratch("check", "--config", configured(kafka=kafka))
    assert done.returncode == BAD_CONFIGURATION
    lines = done.stderr.decode().splitlines()
    for name in REFUSED_PROPERTIES:
        (line,) = (line for line in lines if line.startswith(f"config.json: kafka.librdkafka.{name}: "))
        assert len(line) > len(f"config.json: kafka.librdkafka.{name}: ") + 20, "without a reason"


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"file": {"enabled": False}}, "enabled"),
        ({"flavors": [*FLAVORS, {"name": "tr", "hosts": ["GR.test."]}]}, r"flavors\[1\]\.hosts"),
        ({"flavors": [*FLAVORS, {"name": "tr", "hosts": ["tr.test"], "kafka_topic": "scratch-gr"}]}, r"flavors\[1\]"),
        (
            {"flavors": [*FLAVORS, {"name": "tr", "hosts": ["t"], "file_path": "/var/log/scratchd/gr/{date}.log"}]},
            r"flavors\[1\]\.file_path",
        ),
        ({"instance": "one"}, r"file\.path"),
        ({"instance": "a b"}, "instance"),
        ({"file": {"path": "/var/../{flavor}/{date}.log"}}, r"file\.path"),
        ({"file": {"path": "/var/{flavor}/x.log"}}, r"file\.path: .*date"),
        ({"file": {"path": "/var/{date}.log"}}, r"file\.path: .*flavor"),
        ({"file": {"path": "/var/{flavor}/{date}/{hour}.log"}}, r"file\.path: .*hour"),
        ({"journal": {"segment_bytes": 65536, "quota_bytes": 65536}}, r"journal\.quota_bytes"),
        ({"kafka": {"topic": "one"}, "flavors": [*FLAVORS, {"name": "tr", "hosts": ["t"]}]}, "topic"),
    ],
)
def test_what_cannot_work_together_is_refused(
    configured: Callable[..., Path], sections: dict[str, Any], expected: str
) -> None:
    done = scratch("check", "--config", configured(**sections))
    assert (done.returncode, done.stdout) == (BAD_CONFIGURATION, b"")
    assert re.search(expected, done.stderr.decode()), done.stderr


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"http": {"listen": ["0.0.0.0:9006"]}, "checks": {"client_requests_per_min": 60}}, "trusted_proxies"),
        ({"journal": {"quota_bytes": 10**18}}, "quota"),
    ],
    ids=["clients behind an unknown proxy", "quotas larger than the disk"],
)
def test_check_warns_and_says_ok(configured: Callable[..., Path], sections: dict[str, Any], expected: str) -> None:
    done = scratch("check", "--config", configured(**sections))
    assert (done.returncode, done.stdout) == (OK, b"OK\n")
    assert expected in done.stderr.decode()


def test_instance_replaces_the_key(configured: Callable[..., Path]) -> None:
    path = configured(instance="one", file={"path": "/var/log/scratchd/{instance}/{flavor}/{date}.log"})
    assert scratch("check", "--config", path, "--instance", "two").returncode == OK
    done = scratch("check", "--config", path, "--instance", "a/b")
    assert done.returncode == BAD_CONFIGURATION
    assert b"instance" in done.stderr


# convert.

CONVERTED = {
    b"foo=bar": '{"foo":"bar"}',
    b"a=1&b=&c&=x&&d=a=b": '{"a":"1","b":"","c":"","":"x","d":"a=b"}',
    b"q=a+b%20c%2Bd": '{"q":"a b c+d"}',
    b"n=%CE%BA%CE%B1&x=%F0%9F%98%80": '{"n":"κα","x":"😀"}',
    b"bad=%zz%4&e=%FF%C3%28": '{"bad":"%zz%4","e":"\ufffd\ufffd("}',
    b"a=1&b=2&a=3": '{"a":"3","b":"2"}',
    b"c=%00%1F%22%5C%7F": '{"c":"\\u0000\\u001f\\"\\\\\x7f"}',
    b"w=%08%09%0A%0C%0D%0B": '{"w":"\\b\\t\\n\\f\\r\\u000b"}',
    b"bom=%EF%BB%BFx": '{"bom":"\ufeffx"}',
    b"=": '{"":""}',
    b"": "!empty_query",
    b"&&&": "!empty_query",
    b"x" * 8192: f'{{"{"x" * 8192}":""}}',
    b"x" * 8193: "!query_too_long",
    b"&".join([b"a=1"] * 256): '{"a":"1"}',
    b"&".join([b"a=1"] * 257): "!too_many_parameters",
    b"a=b c": "!bad_request",
    b"a=\xce\xba": "!bad_request",
    b"a=\x7f": "!bad_request",
    b"a=b\r": "!bad_request",
}


def test_convert_prints_an_object_or_a_word_for_each_line(configured: Callable[..., Path]) -> None:
    done = scratch("convert", "--config", configured(), given=b"\n".join(CONVERTED) + b"\n")
    assert (done.returncode, done.stderr) == (OK, b"")
    assert dict(zip(CONVERTED, done.stdout.decode().split("\n"), strict=False)) == CONVERTED
    assert done.stdout.count(b"\n") == len(CONVERTED)


@pytest.mark.parametrize(
    ("repeated", "expected"),
    [("last", b'{"a":"3","b":"2"}'), ("first", b'{"a":"1","b":"2"}'), ("list", b'{"a":["1","3"],"b":"2"}')],
)
def test_convert_follows_the_configuration(configured: Callable[..., Path], repeated: str, expected: bytes) -> None:
    path = configured(query={"repeated": repeated}, http={"max_parameters": 3})
    done = scratch("convert", "--config", path, given=b"a=1&b=2&a=3\na&b&c&d")
    assert done.stdout == expected + b"\n!too_many_parameters\n"


def test_convert_says_what_the_service_does(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(query={"repeated": "list"})
    queries = [query for query in CONVERTED if b"\r" not in query and not re.search(rb"[^\x21-\x7e]", query)]
    words = []
    for query in queries:
        answer = daemon.get(f"/track?{query.decode()}")
        words.append(None if answer.status == 200 else "!" + answer.body.decode().partition(":")[0])
    daemon.wait_drained()
    done = scratch("convert", "--config", daemon.config_path, given=b"\n".join(queries) + b"\n")
    converted = done.stdout.decode().splitlines()
    assert [line if line.startswith("!") else None for line in converted] == words
    assert [line.encode() for line in converted if not line.startswith("!")] == daemon.lines("any")


def test_convert_needs_no_flavors(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"query": {"repeated": "list"}, "http": {"max_parameters": 3}}')
    done = scratch("convert", "--config", path, given=b"a=1&a=2\na&b&c&d\n")
    assert (done.returncode, done.stderr) == (OK, b"")
    assert done.stdout == b'{"a":["1","2"]}\n!too_many_parameters\n'


def test_convert_needs_no_configuration() -> None:
    done = scratch("convert", given=b"foo=bar\n")
    assert (done.returncode, done.stdout) == (OK, b'{"foo":"bar"}\n')


# stats.


def test_stats_prints_a_table_or_the_document(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=[{"name": "gr", "hosts": ["gr.test"]}])
    for _ in range(3):
        daemon.get("/track?a=1", host="gr.test")
    daemon.get("/track", host="gr.test")
    document = scratch("stats", "--json", "--config", daemon.config_path)
    assert document.returncode == OK
    assert json.loads(document.stdout)["flavors"]["gr"]["received_lines"] == 3
    table = scratch("stats", "--config", daemon.config_path)
    assert (table.returncode, table.stderr) == (OK, b"")
    text = table.stdout.decode()
    assert re.search(r"\bgr\b.*\b3\b", text)
    assert "empty_query" in text
    assert max(map(len, text.splitlines())) <= 120


def test_stats_of_a_unix_socket(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start_daemon(http={"admin_listen": [f"unix:{tmp_path}/{{instance}}.sock"]}, wait_ready=False)
    daemon.wait_for((tmp_path / ".sock").exists)
    done = scratch("stats", "--json", "--config", daemon.config_path)
    assert (done.returncode, json.loads(done.stdout)["instance"]) == (OK, "")


def test_stats_of_what_does_not_run(configured: Callable[..., Path]) -> None:
    done = scratch("stats", "--config", configured(http={"admin_listen": [f"127.0.0.1:{free_port()}"]}))
    assert (done.returncode, done.stdout) == (NOT_RUNNING, b"")
    assert done.stderr


# Usage.


@pytest.mark.parametrize(
    "arguments", [[], ["sevre"], ["serve", "--unknown"], ["check", "--config"], ["check", "x"], ["convert", "--json"]]
)
def test_wrong_usage(arguments: Sequence[str]) -> None:
    done = scratch(*arguments)
    assert (done.returncode, done.stdout) == (USAGE, b"")
    assert b"usage: scratchd" in done.stderr


def test_version_and_help() -> None:
    done = scratch("--version")
    assert (done.returncode, done.stdout) == (OK, f"scratchd {scratchd.__version__}\n".encode())
    for arguments in (["--help"], ["serve", "--help"]):
        done = scratch(*arguments)
        assert done.returncode == OK
        assert b"usage: scratchd" in done.stdout


def test_options_may_stand_before_and_behind_the_command(configured: Callable[..., Path]) -> None:
    path = configured()
    assert scratch("--config", path, "check").returncode == OK
    assert scratch("check", "--config", path).returncode == OK


# serve.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_with_0_when_asked(start_daemon: Callable[..., Daemon], number: signal.Signals) -> None:
    daemon = start_daemon()
    assert daemon.get("/track?a=1").status == 200
    os.kill(daemon.pid, number)
    assert daemon.wait() == OK
    assert daemon.lines("any") == [b'{"a":"1"}']


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once_and_the_journal_keeps_the_rest(
    start_daemon: Callable[..., Daemon], tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "blocked").write_text("a file where a directory should be")
    daemon = start_daemon(http={"stop_timeout_s": 60}, file={"path": f"{tmp_path}/blocked/log/{{flavor}}/{{date}}.log"})
    with daemon.connect() as idle:
        assert idle.get("/track?n=1", "any.test").status == 200
        os.kill(daemon.pid, number)
        daemon.wait_for(lambda: daemon.admin("/health/ready").status == 503)
        os.kill(daemon.pid, number)
        assert daemon.wait(5) == OK
    (tmp_path / "blocked").unlink()
    daemon.start()
    daemon.wait_drained()
    (path,) = (tmp_path / "blocked" / "log" / "any").iterdir()
    assert path.read_bytes() == b'{"n":"1"}\n'


def test_a_port_in_use_is_told_and_exits_with_1(start_daemon: Callable[..., Daemon]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for sections in ({"listen": [address]}, {"admin_listen": [address]}):
            daemon = start_daemon(http=sections, wait_ready=False)
            assert daemon.wait() == FAILED
            (line,) = daemon.log().splitlines()
            assert re.match(r"(service|http): ", line)
            assert address in line


def test_a_journal_has_one_owner(start_daemon: Callable[..., Daemon]) -> None:
    first = start_daemon()
    second = start_daemon(journal=first.config["journal"], file=first.config["file"], wait_ready=False)
    assert second.wait() == FAILED
    assert first.config["journal"]["directory"] in second.log()
    assert first.get("/track?a=1").status == 200
    # Another instance has a directory of its own below the same one.
    third = start_daemon(
        instance="three",
        journal=first.config["journal"],
        file={"path": f"{first.directory}/log/{{flavor}}/{{instance}}-{{date}}.log"},
    )
    assert third.get("/track?b=1").status == 200
    assert (Path(first.config["journal"]["directory"]) / "three" / "any").is_dir()
    assert (Path(first.config["journal"]["directory"]) / "_" / "any").is_dir()


def test_a_log_file_has_one_owner(start_daemon: Callable[..., Daemon]) -> None:
    first = start_daemon()
    assert first.get("/track?n=1").status == 200
    first.wait_for(lambda: first.lines("any") == [b'{"n":"1"}'])
    second = start_daemon(file=first.config["file"], http={"stop_timeout_s": 1})
    assert second.get("/track?n=2").status == 200
    second.wait_for(lambda: second.stats()["backends"]["file"]["state"] == "backing_off")
    assert first.get("/track?n=3").status == 200
    first.wait_drained()
    assert first.lines("any") == [b'{"n":"1"}', b'{"n":"3"}']
    first.stop()
    second.wait_drained()
    assert first.lines("any") == [b'{"n":"1"}', b'{"n":"3"}', b'{"n":"2"}']


def test_a_journal_directory_that_cannot_be_made_exits_with_1(
    start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    daemon = start_daemon(journal={"directory": f"{tmp_path}/file/journal"}, wait_ready=False)
    assert daemon.wait() == FAILED
    assert f"{tmp_path}/file" in daemon.log()


def test_serve_takes_the_instance_from_the_command_line(configured: Callable[..., Path], tmp_path: Path) -> None:
    track = free_port()
    path = configured(
        http={"listen": [f"127.0.0.1:{track}"], "admin_listen": [f"unix:{tmp_path}/{{instance}}.sock"]},
        journal={"directory": f"{tmp_path}/journal"},
        file={"path": f"{tmp_path}/log/{{instance}}/{{flavor}}/{{date}}.log"},
    )
    command = [sys.executable, "-m", "scratchd", "serve", "--config", str(path), "--instance", "two"]
    daemon = Daemon(tmp_path / "unused", {})
    with (tmp_path / "log.txt").open("wb") as log, subprocess.Popen(command, cwd=SOURCE, stderr=log) as process:
        try:
            daemon.admin_address = f"unix:{tmp_path}/two.sock"
            daemon.address = f"127.0.0.1:{track}"
            daemon.process = process
            daemon.wait_for(daemon.is_ready)
            assert daemon.stats()["instance"] == "two"
            daemon.get("/track?a=1", host="gr.test")
            done = scratch("stats", "--json", "--config", path, "--instance", "two")
            assert json.loads(done.stdout)["journal"]["appended_lines"] == 1
        finally:
            process.terminate()
    assert process.returncode == OK
    assert (tmp_path / "journal" / "two" / "gr").is_dir()
    assert len(list((tmp_path / "log" / "two" / "gr").iterdir())) == 1


def test_a_burst_before_the_end_is_in_the_files(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    with daemon.connect() as connection:
        connection.send(request("/track?a=1", "any.test") * 500)
        for _ in range(500):
            assert connection.response().status == 200
        daemon.sigterm()
    assert daemon.wait() == OK
    assert daemon.lines("any") == [b'{"a":"1"}'] * 500
