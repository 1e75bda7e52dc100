"""Whether a power failure costs what `journal.sync` promised, tears a line, or gives one id to two lines.

Journal and log files lie on an ext4 that is shut down under the running daemon, unmounted and mounted again. What a
mode promises of answered events: `always` all of them; `interval` those answered before the last sync; `none` nothing.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest

from daemon import Daemon
from disks import Disks, Image
from kafka_client import Broker, first_occurrences
from load import Load, Sent

ROUNDS = 4
INTERVAL_S = 0.2
SYNCED_S = 1.0
"""What was answered this long before the power failed is synced with `interval`: several times its interval."""


def promised(sync: str, load: Load) -> dict[str, int]:
    """How many events of each connection the mode has promised by now."""
    if sync == "none":
        return {}
    return {sent.name: sent.answered for sent in load.sent}


def cut_power_under_load(daemon: Daemon, disk: Image, sync: str, name: str) -> tuple[list[Sent], dict[str, int]]:
    """A life that ends with the power; returns what was sent, and how much of it must be there."""
    load = Load(daemon, name, connections=3, padding_bytes=100)
    with load.running():
        daemon.wait_for(lambda: load.answered > 0)
        time.sleep(random.uniform(0, 1.5))
        must = promised(sync, load)
        if sync == "interval":
            time.sleep(SYNCED_S)
        # Answers after this moment promise nothing: a machine without power gives none. Here a few come: ext4 lets an
        # fdatasync succeed that is under way when it is shut down, and loses its bytes.
        disk.shut_down()
    daemon.kill()
    return load.sent, must


def assert_kept(must: dict[str, int], lines: Sequence[bytes], *, whole: bool) -> None:
    """Asserts that what was promised is there, nothing twice, in order; `whole`: without a hole."""
    found: dict[str, list[int]] = defaultdict(list)
    for line in lines:
        event = json.loads(line)
        found[event["c"]].append(int(event["n"]))
    for name, numbers in found.items():
        assert numbers == sorted(set(numbers)), f"connection {name}: twice, or another order"
        assert not whole or numbers == list(range(len(numbers))), f"connection {name}: a hole"
    for name, answered in must.items():
        assert found[name][:answered] == list(range(answered)), f"connection {name}: promised {answered}, lost some"


@pytest.mark.parametrize("sync", ["always", "interval", "none"])
def test_power_loss(disks: Disks, start_daemon: Callable[..., Daemon], kafka: Broker, topic: str, sync: str) -> None:
    disk = disks.ext4("disk", 64 << 20)
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        flavors=[{"name": "any", "hosts": ["*"], "kafka_topic": topic}],
        journal={
            "directory": str(disk.path / "journal"),
            "sync": sync,
            "sync_interval_s": INTERVAL_S,
            "segment_bytes": 65536,
        },
        file={"path": str(disk.path / "log" / "{flavor}" / "{date}.log")},
    )
    must: dict[str, int] = {}
    answered = 0
    for number in range(ROUNDS):
        sent, promises = cut_power_under_load(daemon, disk, sync, f"{sync}{number}")
        must |= promises
        answered += sum(one.answered for one in sent)
        disk.power_up()
        daemon.start()
        assert daemon.stats()["ledger"]["residual_lines"] == 0
        daemon.wait_drained()
        content = b"".join(path.read_bytes() for path in disk.path.glob("log/any/*"))
        assert content.endswith(b"\n") or not content, "a torn line"
        lines = content.split(b"\n")[:-1]
        assert_kept(must, lines, whole=sync == "always")
        stayed = sum(map(int, re.findall(r"lost stay in the file .*\blines=(\d+)", daemon.log())))
        backends = daemon.stats()["backends"]
        assert len(lines) == backends["file"]["persisted_lines"] + stayed, "the cursor counts what is not there"
        persisted = backends["kafka"]["persisted_lines"]
        messages = first_occurrences(kafka.messages(topic, persisted))
        assert len(messages) >= persisted, "the cursor counts what is not there"
        assert set(messages) >= {line for line in lines if is_promised(must, line)}, "Kafka lacks a promised event"
    print(  # noqa: T201 - what a run has shown
        f"power loss, sync={sync}: {ROUNDS} times, {answered} events answered, {sum(must.values())} promised, "
        f"{len(lines)} in the file, of which {stayed} the journal had lost; gaps: "
        f"{ {name: backend['gap_lines'] for name, backend in backends.items()} }"
    )


def is_promised(must: dict[str, int], line: bytes) -> bool:
    """Whether the event was answered under a promise."""
    event = json.loads(line)
    return int(event["n"]) < must.get(event["c"], 0)
