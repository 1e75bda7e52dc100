"""The audit says that everything holds when it does, and what does not when it does not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import scratchd
from daemon import Daemon, free_port
from kafka_client import Broker

LINES = 40


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str]) -> Daemon:
    """A stopped daemon that has received and persisted lines of two flavors, over a kill -9."""
    started = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        flavors=[
            {"name": "gr", "hosts": ["gr.test"], "time_zone": "Europe/Athens", "kafka_topic": make_topic(2)},
            {"name": "tr", "hosts": ["tr.test"], "kafka_topic": make_topic()},
        ],
    )
    send(started, range(LINES // 2))
    started.kill()
    started.start()
    send(started, range(LINES // 2, LINES))
    started.wait_drained()
    started.stop()
    return started


def send(daemon: Daemon, numbers: range) -> None:
    for number in numbers:
        assert daemon.get(f"/track?n={number}", "gr.test").status == 200
    assert daemon.get("/track?n=1", "tr.test").status == 200


def directory(daemon: Daemon) -> Path:
    return Path(daemon.config["journal"]["directory"]) / "_" / "gr"


def audited(daemon: Daemon, status: int = 0) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(scratchd(daemon, "audit", "--json", status=status))
    assert document["holds"] is (status == 0)
    return document


def findings(daemon: Daemon) -> str:
    return "\n".join(audited(daemon, status=1)["flavors"]["gr"]["findings"])


def test_everything_holds(daemon: Daemon) -> None:
    page = scratchd(daemon, "audit")
    assert "Everything holds: received = persisted + pending + gaps + set aside." in page
    assert re.search(rf"gr +file +{LINES} +{LINES} +0 +0 +0 +0 +0\n", page)
    assert re.search(rf"gr +kafka +{LINES} +{LINES} +0 +0 +0 +0 +0\n", page)
    document = audited(daemon)["flavors"]
    assert document["gr"]["found_lines"] == LINES
    assert document["tr"]["received_lines"] == 2
    assert "tr" not in scratchd(daemon, "audit", "--flavor", "gr")


def test_lines_that_wait_are_pending_and_hold(start_daemon: Callable[..., Daemon], kafka: Broker, topic: str) -> None:
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": f"127.0.0.1:{free_port()}"},
        flavors=[{"name": "gr", "hosts": ["gr.test"], "kafka_topic": topic}, {"name": "tr", "hosts": ["tr.test"]}],
    )
    send(daemon, range(5))
    daemon.kill()
    text = daemon.config_path.read_text()
    servers = daemon.config["kafka"]["bootstrap_servers"]
    daemon.config_path.write_text(text.replace(servers, kafka.bootstrap_servers))
    page = scratchd(daemon, "audit", "--flavor", "gr")
    assert re.search(r"gr +kafka +5 +0 +5 +0 +0 +0 +0\n", page)


def test_a_running_instance_is_left_alone(daemon: Daemon) -> None:
    daemon.start()
    assert "the instance runs" in scratchd(daemon, "audit", status=1)
    daemon.stop()
    before = {path: path.read_bytes() for path in directory(daemon).iterdir()}
    scratchd(daemon, "audit")
    assert {path: path.read_bytes() for path in directory(daemon).iterdir()} == before


def test_a_log_file_that_lost_lines_is_found(daemon: Daemon) -> None:
    (path,) = daemon.file_paths("gr")
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    assert f"{path}: " in findings(daemon)
    path.write_bytes(content)
    audited(daemon)


def test_a_finished_file_that_was_edited_is_found(daemon: Daemon) -> None:
    daemon.config["flavors"][0]["time_zone"] = "Pacific/Kiritimati"
    (path,) = daemon.file_paths("gr")
    manifest = path.with_name(path.name + ".manifest.json")
    pago = daemon.config["flavors"][0] | {"time_zone": "Pacific/Pago_Pago"}
    daemon.config["flavors"][0] = pago
    daemon.start()
    send(daemon, range(3))
    daemon.stop()
    daemon.config["flavors"][0] = pago | {"time_zone": "Pacific/Kiritimati"}
    daemon.start()
    paths = daemon.file_paths("gr")
    manifests = [path.with_name(path.name + ".manifest.json") for path in paths]
    daemon.wait_for(lambda: any(manifest.exists() for manifest in manifests), 30, "a manifest")
    daemon.stop()
    audited(daemon)
    path, manifest = next((path, one) for path, one in zip(paths, manifests, strict=True) if one.exists())
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"n":"1"', b'"n":"9"', 1))
    assert "not what its manifest says" in findings(daemon)
    path.unlink()
    assert "gone, and its manifest stands" in findings(daemon)
    day = path.stem
    scratchd(daemon, "backfill", "--to", "file", "--flavor", "gr", "--day", day)
    assert path.read_bytes() == content
    kept = manifest.read_bytes()
    manifest.unlink()
    assert "gone or unreadable" in findings(daemon)
    path.unlink()
    assert "its manifest too" in scratchd(daemon, "audit")  # retention, or a loss: nobody can tell
    scratchd(daemon, "backfill", "--to", "file", "--flavor", "gr", "--day", day)
    assert path.read_bytes() == content
    assert manifest.read_bytes() == kept
    audited(daemon)


def test_a_line_that_the_topic_lost_is_found(daemon: Daemon, make_topic: Callable[..., str]) -> None:
    topic = daemon.config["flavors"][0]["kafka_topic"]
    text = daemon.config_path.read_text()
    other = make_topic()
    for cursor in directory(daemon).glob("kafka.cursor.*"):
        cursor.write_bytes(recount(cursor.read_bytes(), topic, other))
    daemon.config_path.write_text(text.replace(topic, other))
    assert f"{LINES} lines persisted and not there: 0-{LINES - 1}" in findings(daemon)


def recount(cursor: bytes, topic: str, other: str) -> bytes:
    """A cursor with another topic in it, and the checksum that belongs to it."""
    import zlib  # noqa: PLC0415

    body = cursor[9:].replace(topic.encode(), other.encode())
    return b"%08x " % zlib.crc32(body) + body


def test_a_cursor_that_counts_wrongly_is_found(daemon: Daemon) -> None:
    for cursor in directory(daemon).glob("file.cursor.*"):
        text = cursor.read_bytes().decode()
        cursor.write_bytes(recount(text.encode(), f'"persisted_lines":{LINES}', f'"persisted_lines":{LINES - 2}'))
    assert "2 lines received and not accounted for" in findings(daemon)


def test_an_unreachable_broker_is_a_finding(daemon: Daemon, kafka: Broker) -> None:
    text = daemon.config_path.read_text()
    daemon.config_path.write_text(text.replace(kafka.bootstrap_servers, f"127.0.0.1:{free_port()}"))
    assert "kafka: topic" in findings(daemon)


def test_what_cannot_be_audited_is_said(daemon: Daemon) -> None:
    assert "no flavor 'de'" in scratchd(daemon, "audit", "--flavor", "de", status=1)
    text = daemon.config_path.read_text()
    daemon.config_path.write_text(text.replace("/journal", "/elsewhere"))
    assert "there is no journal here" in scratchd(daemon, "audit", status=1)
    daemon.config_path.write_text("{}")
    scratchd(daemon, "audit", status=78)
