"""Flavors that come, leave and come back while others are fed, and where their lines go."""

from __future__ import annotations

import contextlib
import datetime
import os
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from scratchd.backends import supervisor as supervisor_module
from scratchd.backends.fake import FakeBackend
from scratchd.config import Config, File, Flavor, Journal, Kafka
from scratchd.destinations import Destinations
from scratchd.flavors import Flavors
from scratchd.journal.format import SegmentName, segment_head
from scratchd.journal.recovery import NewerJournalError
from scratchd.stats import BackendStats, Stats
from scratchd.tenants import ComebackError, Tenants

DAY = datetime.date(2026, 11, 23)
EPOCH = "0b3f2f6e-7c3a-4f6e-9d1b-2f6e7c3a4f6e"
SECTION = Journal(segment_bytes=1 << 16, quota_bytes=1 << 18, sync="none")


def flavors(*names: str, quota_bytes: int | None = None) -> Flavors:
    return Flavors(Config(flavors=tuple(Flavor(name=n, hosts=(n,), quota_bytes=quota_bytes) for n in names)))


class House:
    """Tenants over fake backends."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.backends = {name: FakeBackend(name, linger_s=0.0) for name in names or ("file", "kafka")}
        self.stats = Stats("1", "", lambda: 0, lambda: 0.0)
        self.stats.backends = {name: BackendStats() for name in self.backends}
        self.tenants = Tenants(directory, SECTION, self.stats, clock_ms=lambda: 0)
        self.steps: list[str] = []

    @contextlib.asynccontextmanager
    async def running(self, *names: str) -> AsyncIterator[None]:
        """With these flavors; drains at the end."""
        await self.tenants.open(flavors(*names), list(self.backends.values()), self.steps.append)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await nursery.start(self.tenants.run)
                yield
                self.tenants.stop(trio.current_time() + 5)

    async def change(self, *names: str, elsewhere: set[tuple[str, str]] | None = None) -> None:
        """Has these flavors from now on."""
        async with self.tenants.changing:
            added = await self.tenants.open_added(flavors(*names))
            self.tenants.adopt(flavors(*names), added, elsewhere or set())

    def append(self, flavor: str, text: str) -> None:
        """A line of its own frame."""
        self.tenants.writers[flavor].append([b'{"t":"%b"}' % text.encode()], 0, DAY)

    def received(self, flavor: str, backend: str = "file") -> list[str]:
        """The texts that came downstream."""
        found = self.backends[backend].received.get(flavor)
        return [line.decode()[6:-2] for _, line in found.lines] if found else []


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "BACK_OFF_FIRST_S", 0.002)
    monkeypatch.setattr(supervisor_module, "SETTLE_S", 0.005)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def later_head() -> bytes:
    """A segment's head as a later version would write it."""
    head = segment_head(0, EPOCH)
    head = head[:7] + bytes([head[7] + 1]) + head[8:36]
    return head + struct.pack("<I", zlib.crc32(head))


def open_below(directory: Path) -> list[str]:
    """The files below a directory that this process has open."""
    names = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
    return [name for name in names if name.startswith(str(directory))]


async def until(condition: object) -> None:
    assert callable(condition)
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - a thread sets no trio event
            await trio.sleep(0.001)


async def test_a_flavor_comes_and_leaves_and_others_do_not_notice(house: House) -> None:
    async with house.running("gr"):
        house.append("gr", "1")
        await house.change("gr", "cy")
        house.append("cy", "2")
        await house.change("gr")
        house.append("gr", "3")
        with pytest.raises(KeyError):
            house.append("cy", "4")
        await until(lambda: "cy" not in house.stats.flavors)
        assert house.stats.residual_lines() == 0
    for backend in house.backends:
        assert house.received("gr", backend) == ["1", "3"]
        assert house.received("cy", backend) == ["2"]
    assert house.backends["file"].received["gr"].openings == 1


async def test_a_removed_flavor_is_forgotten_when_every_backend_has_all_of_it(house: House) -> None:
    house.backends["kafka"].mischief.hangs = trio.Event()
    async with house.running("gr", "cy"):
        house.append("cy", "1")
        await house.change("gr")
        await until(lambda: house.received("cy") == ["1"])
        await trio.sleep(0.05)
        assert house.stats.flavors["cy"].pending_lines("kafka") == 1
        house.backends["kafka"].mischief.hangs.set()
        await until(lambda: "cy" not in house.stats.flavors)
        await house.change("gr", "cy")
        house.append("cy", "2")
    assert house.received("cy", "kafka") == ["1", "2"]
    assert house.stats.flavors["cy"].received_lines == 2


async def test_a_flavor_that_comes_back_while_it_is_drained_goes_on(house: House) -> None:
    """The one backend has drained and stopped, the other has not begun."""
    house.backends["kafka"].mischief.hangs = trio.Event()
    async with house.running("gr", "cy"):
        house.append("cy", "1")
        await house.change("gr")
        await until(lambda: house.stats.flavors["cy"].feeds["file"].state == "stopped")
        await house.change("gr", "cy")
        house.append("cy", "2")
        await until(lambda: house.received("cy") == ["1", "2"])
        house.backends["kafka"].mischief.hangs.set()
        await until(lambda: house.received("cy", "kafka") == ["1", "2"])
        house.append("cy", "3")
    assert house.received("cy") == house.received("cy", "kafka") == ["1", "2", "3"]
    assert house.stats.residual_lines() == 0


async def test_lines_that_go_elsewhere_are_opened_anew_and_no_others(house: House) -> None:
    async with house.running("gr", "cy"):
        await until(lambda: all(len(backend.received) == 2 for backend in house.backends.values()))
        await house.change("gr", "cy", elsewhere={("gr", "file")})
        await until(lambda: house.backends["file"].received["gr"].openings == 2)
    openings = {
        (flavor, name): backend.received[flavor].openings
        for name, backend in house.backends.items()
        for flavor in ("gr", "cy")
    }
    assert openings == {("gr", "file"): 2, ("gr", "kafka"): 1, ("cy", "file"): 1, ("cy", "kafka"): 1}


async def test_one_journal_that_cannot_be_opened_leaves_all_as_it_was(house: House, tmp_path: Path) -> None:
    async with house.running("gr"):
        (tmp_path / "tr").write_text("in the way")
        with pytest.raises(OSError, match="File exists"):
            await house.change("gr", "cy", "tr")
        assert set(house.stats.flavors) == {"gr"}
        assert set(house.tenants.writers) == {"gr"}
        (tmp_path / "tr").unlink()
        await house.change("gr", "cy", "tr")
        house.append("cy", "1")
    assert house.received("cy") == ["1"]


async def test_a_journal_of_a_later_version_leaves_none_open(house: House, tmp_path: Path) -> None:
    async with house.running("gr"):
        (tmp_path / "tr").mkdir()
        (tmp_path / "tr" / str(SegmentName(0, 0, EPOCH))).write_bytes(later_head())
        with pytest.raises(NewerJournalError):
            await house.change("gr", "cy", "tr")
        assert open_below(tmp_path / "cy") == []


async def test_a_flavor_drained_to_fewer_backends_cannot_come_back_before_that(tmp_path: Path) -> None:
    first = House(tmp_path, "file")
    first.backends["file"].mischief.hangs = trio.Event()
    with trio.move_on_after(0.1):
        async with first.running("gr", "cy"):
            first.append("cy", "1")
            await trio.sleep_forever()
    second = House(tmp_path)
    second.backends["file"].mischief.hangs = trio.Event()
    async with second.running("gr"):
        with pytest.raises(ComebackError, match="cy is still being drained, and not to kafka: restart"):
            await second.change("gr", "cy")
        second.backends["file"].mischief.hangs.set()
        await until(lambda: "cy" not in second.stats.flavors)
        await second.change("gr", "cy")
        second.append("cy", "2")
    assert second.received("cy") == ["1", "2"]
    assert second.received("cy", "kafka")[-1:] == ["2"]


async def test_a_quota_is_adopted(house: House) -> None:
    for backend in house.backends.values():
        backend.mischief.hangs = trio.Event()
    async with house.running("gr"):
        house.tenants.adopt(flavors("gr", quota_bytes=1 << 17), [], set())
        for number in range(40):
            house.append("gr", f"{number:05}" + "x" * 10000)
        assert house.stats.flavors["gr"].journal_bytes <= 1 << 17
        for backend in house.backends.values():
            assert backend.mischief.hangs is not None
            backend.mischief.hangs.set()


def test_where_lines_go_tells_what_is_to_be_opened_anew() -> None:
    def config(**changes: object) -> Flavors:
        section = Flavor(name="gr", hosts=("gr",), **changes)  # type: ignore[arg-type] # a table's
        other = Flavor(name="cy", hosts=("cy",))
        return Flavors(
            Config(file=File(), kafka=Kafka(enabled=True, bootstrap_servers="a:1"), flavors=(section, other))
        )

    destinations = Destinations(config(), clock_ms=lambda: 0)
    destinations.add(FakeBackend("file"), lambda flavor: (flavor.file_path, flavor.zone.key), lambda _flavors: None)
    destinations.add(FakeBackend("kafka"), lambda flavor: flavor.kafka_topic, lambda _flavors: None)
    assert destinations.adopt(config(quota_bytes=1 << 30)) == set()
    assert destinations.adopt(config(time_zone="Europe/Athens")) == {("gr", "file")}
    assert destinations.adopt(config(time_zone="Europe/Athens", kafka_topic="x")) == {("gr", "kafka")}
    assert destinations.adopt(config()) == {("gr", "file"), ("gr", "kafka")}
