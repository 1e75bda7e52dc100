"""Whether any SIGKILL at any moment costs an answered event, doubles one in a log file, or gives one id to two lines.

A round: events flow over several connections, some in bursts; SIGKILL at a random moment; perhaps the configuration
changes; perhaps further starts are killed within milliseconds, in the middle of recovery; then a start that lives.
Segments are small, so kills meet rotations too. After every round the ledger's residual is 0. Files and topics are read
every few rounds and at the end. In a second test midnight passes while events flow, in every round; it has no Kafka,
since librdkafka spins for ever in a process whose clock libfaketime turns.

`SCRATCHD_TORTURE_ROUNDS` says how many rounds (`make torture`: 200); `SCRATCHD_TORTURE_SEED` repeats a run's choices,
though not its moments.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import random
import time
import zoneinfo
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon import Daemon
from kafka_client import Broker, first_occurrences
from load import Load, Sent, assert_complete

ROUNDS = int(os.environ.get("SCRATCHD_TORTURE_ROUNDS", "20"))
SEED = os.environ.get("SCRATCHD_TORTURE_SEED") or str(random.SystemRandom().randrange(10**6))
READ_EVERY = 10
"""Rounds between two looks at everything that files and topics hold."""

ZONES = ("Etc/GMT+12", "Pacific/Kiritimati")
"""It is never the same day in both, so a change of zone is one of the day, back and forth."""

MIDNIGHT = datetime.datetime(2026, 12, 31, tzinfo=zoneinfo.ZoneInfo(ZONES[0])).timestamp()
"""The one that passes again and again."""

BEFORE_MIDNIGHT_S = 0.1
LONGEST_LIFE_S = 0.5
LONGEST_START_S = 1.0
"""Kills of a start come within it; it takes about as long until requests are taken."""


def faketime() -> Path:
    """The library that tells a process of several threads another time."""
    for path in sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")):
        return path
    pytest.fail("libfaketime is not installed", pytrace=False)


class Clock:
    """The daemon's clock: the real one, or one that a file says."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._file = daemon.directory / "clock"
        self._library = faketime()

    def real(self) -> None:
        """The next start has the real time."""
        self._daemon.environment.clear()

    def before_midnight(self) -> None:
        """The next start has a time some minutes before midnight."""
        self._set(MIDNIGHT - 300)
        self._daemon.environment |= {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self) -> None:
        """Midnight comes in a moment."""
        self._set(MIDNIGHT - BEFORE_MIDNIGHT_S)

    def _set(self, time_s: float) -> None:
        new = self._file.with_suffix(".new")  # never read while it is half written
        new.write_text(f"{time_s - time.time():+.3f}")
        new.replace(self._file)

    def clean(self, pid: int) -> None:
        """Removes what the library leaves behind of a process that was killed."""
        for path in Path("/dev/shm").glob(f"*faketime_*_{pid}"):  # noqa: S108 - the library's own place
            path.unlink()


class Torture:
    """A daemon of two flavors, what was sent to it, and what was done to it."""

    def __init__(self, daemon: Daemon, source: random.Random) -> None:
        self.daemon = daemon
        self.logs = Path(daemon.config["file"]["path"]).parent
        self.clock = Clock(daemon)
        self.sent: dict[str, list[Sent]] = {"stays": [], "leaves": []}
        self.done: Counter[str] = Counter()
        self._source = source
        self._began = time.monotonic()
        self._flavors = list(daemon.config["flavors"])

    def round(self, number: int, *, midnight: bool = False) -> None:
        """One life under load, its end, and the start after it."""
        source, daemon = self._source, self.daemon
        hosts = [flavor["name"] for flavor in daemon.config["flavors"]]
        if midnight:
            daemon.kill()
            self.clock.before_midnight()
            self._start()
        loads = {host: Load(daemon, f"{number}-{host}", (host,), connections=2, padding_bytes=150) for host in hosts}
        with contextlib.ExitStack() as flowing:
            for load in loads.values():
                flowing.enter_context(load.running())
            daemon.wait_for(lambda: loads["stays"].answered > 0)
            if midnight:
                self.clock.jump()
                self.done["midnights"] += 1
            # The first one lives beyond midnight whatever the others do.
            time.sleep(source.uniform(0, LONGEST_LIFE_S) + (BEFORE_MIDNIGHT_S if midnight and not number else 0))
            daemon.kill()
            self.clock.clean(daemon.pid)
            self.done["kills under load"] += 1
        for host, load in loads.items():
            self.sent[host] += load.sent
        self.clock.real()
        self._reconfigure()
        for _ in range(source.choice((0, 0, 1, 1, 2, 4))):
            daemon.start(wait_ready=False)
            time.sleep(source.uniform(0, LONGEST_START_S))
            daemon.kill()
            self.done["kills of a start"] += 1
        self._start()
        if source.random() < 0.25:
            daemon.wait_drained(60)

    def _start(self) -> None:
        self.daemon.start()
        stats = self.daemon.stats()
        assert stats["ledger"]["residual_lines"] == 0, stats
        assert stats["journal"]["corrupt_lines"] == 0, stats
        assert {backend["gap_lines"] for backend in stats["backends"].values()} == {0}, stats
        self.done["torn bytes cut"] += stats["journal"]["cut_bytes"]

    def _reconfigure(self) -> None:
        source, config = self._source, self.daemon.config
        change = source.choice(("path", "zone", "flavors", "sync", "nothing"))
        self.done[f"changes: {change}"] += 1
        if change == "path":
            # A number of its own each time, so that (date, number) is the order in which a connection's lines came.
            self.done["paths"] += 1
            config["file"]["path"] = str(self.logs / f"{self.done['paths']:03d}-{{flavor}}-{{date}}.log")
        elif change == "zone":
            self._flavors[0]["time_zone"] = source.choice(ZONES)
        elif change == "flavors":
            config["flavors"] = self._flavors[: 1 if len(config["flavors"]) > 1 else 2]
        elif change == "sync":
            config["journal"]["sync"] = source.choice(("none", "interval", "always"))

    def figures(self) -> str:
        """What was done, in a line."""
        sent = [one for flavor in self.sent.values() for one in flavor]
        answered = sum(one.answered for one in sent)
        done = ", ".join(f"{count} {what}" for what, count in sorted(self.done.items()))
        return (
            f"torture: {answered} events answered on {len(sent)} connections, none lost, in {self._took_s()} s; {done}"
        )

    def _took_s(self) -> int:
        return round(time.monotonic() - self._began)

    def everything_back(self) -> None:
        """Both flavors are configured again, and every backend has everything."""
        self.daemon.config["flavors"] = self._flavors
        self.daemon.kill()
        self._start()
        self.daemon.wait_drained(60)

    def lines(self, flavor: str) -> list[bytes]:
        """The flavor's lines of all files, by date and then by the order in which paths were configured."""
        found = sorted(
            (path.stem.split(f"-{flavor}-")[1], path.name, path.read_bytes())
            for path in self.logs.glob(f"*-{flavor}-*.log")
        )
        torn = [(name, content[-100:]) for _, name, content in found if content and not content.endswith(b"\n")]
        assert not torn, f"torn lines: {torn}"
        return b"".join(content for _, _, content in found).split(b"\n")[:-1]


def start(start_daemon: Callable[..., Daemon], directory: Path, topics: dict[str, str], **sections: object) -> Torture:
    """A daemon to be tortured, with small segments; `topics` by flavor."""
    print(f"torture: SCRATCHD_TORTURE_SEED={SEED}")  # noqa: T201 - to repeat it
    flavors = [
        {"name": name, "hosts": [name], "time_zone": ZONES[0], "kafka_topic": topic} for name, topic in topics.items()
    ]
    daemon = start_daemon(
        flavors=flavors,
        journal={"segment_bytes": 65536},
        file={"path": str(directory / "log" / "000-{flavor}-{date}.log")},
        **sections,
    )
    return Torture(daemon, random.Random(SEED))


def test_kills_at_any_moment(
    start_daemon: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str], tmp_path: Path
) -> None:
    topics = {"stays": make_topic(), "leaves": make_topic()}
    torture = start(
        start_daemon, tmp_path, topics, kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers}
    )
    for number in range(ROUNDS):
        torture.round(number)
        if number % READ_EVERY == READ_EVERY - 1 or number == ROUNDS - 1:
            torture.everything_back()
            repeats = 0
            for flavor, topic in topics.items():
                lines = torture.lines(flavor)
                messages = kafka.messages(topic, len(lines), 60)
                first = first_occurrences(messages)
                assert_complete(torture.sent[flavor], lines)
                assert_complete(torture.sent[flavor], first)
                assert sorted(first) == sorted(lines)
                repeats += len(messages) - len(first)
            torture.done["messages repeated in Kafka"] = repeats
    print(torture.figures())  # noqa: T201 - what a long run is for


def test_kills_around_midnight(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    torture = start(start_daemon, tmp_path, {"stays": "unused", "leaves": "unused-too"})
    for number in range(max(3, ROUNDS // 10)):
        torture.round(number, midnight=True)
    torture.everything_back()
    days = set()
    for flavor, sent in torture.sent.items():
        assert_complete(sent, torture.lines(flavor))
        days |= {path.stem.partition(f"-{flavor}-")[2] for path in torture.logs.glob(f"*-{flavor}-*.log")}
    assert len(days) > 1, "midnight has not passed"
    print(torture.figures())  # noqa: T201 - the same
