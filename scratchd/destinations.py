"""Destinations: the backends that a configuration enables, and where each flavor's lines go there.

Knows which part of a flavor matters to which backend; knows neither journals nor requests.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

import trio

from scratchd.backends.contract import Backend
from scratchd.backends.file import FileBackend
from scratchd.config import Config, credentials, librdkafka
from scratchd.flavors import Flavor, Flavors
from scratchd.log import Log
from scratchd.stats import BackendStats, Stats


class Destinations:
    """The backends.

    Args:
        flavors: those of the configuration.
        clock_ms: the wall clock, milliseconds since the epoch.

    Attributes:
        backends: those that are enabled, once `open` has returned.
    """

    def __init__(self, flavors: Flavors, *, clock_ms: Callable[[], int]) -> None:
        self.backends: list[Backend] = []
        self._flavors = flavors
        self._clock_ms = clock_ms
        # By backend: what of a flavor says where its lines go, and how the backend learns of it.
        self._places: dict[str, Callable[[Flavor], object]] = {}
        self._adopt: dict[str, Callable[[Flavors], None]] = {}

    async def open(self, config: Config, stats: Stats, background: trio.Nursery) -> None:
        """Makes the backends; what one needs to run all the time goes into `background`.

        Raises:
            CredentialError: one that Kafka wants is not there.
        """
        if config.file.enabled:
            stats.backends["file"] = BackendStats()
            paths, zones = _paths(self._flavors), _zones(self._flavors)
            file = FileBackend(paths, self._today, config.file.flush_interval_s, Log("file"), zones)
            self.add(
                file,
                lambda flavor: (flavor.file_path, flavor.zone.key),
                lambda flavors: file.adopt(_paths(flavors), _zones(flavors)),
            )
        if config.kafka.enabled:
            await self._open_kafka(config, stats, background)

    async def _open_kafka(self, config: Config, stats: Stats, background: trio.Nursery) -> None:
        # Importing it takes longer than all else together, so only who uses it pays.
        from scratchd.backends.kafka import KafkaBackend  # noqa: PLC0415
        from scratchd.backends.producer import Producer, library_version  # noqa: PLC0415

        stats.build["librdkafka"] = library_version()
        stats.backends["kafka"] = BackendStats()
        given, topics = config.kafka.librdkafka, _topics(self._flavors)
        properties = credentials.resolved(given)
        producer = Producer(
            {**librdkafka.settings(properties), "bootstrap.servers": config.kafka.bootstrap_servers},
            next(iter(topics.values())),
            stats=stats.backends["kafka"],
            log=Log("kafka"),
            clock_ms=self._clock_ms,
            conceal=librdkafka.Concealment(given, properties),
        )
        await background.start(producer.run)
        kafka = KafkaBackend(topics=topics, key_parameter=config.kafka.key_parameter, producer=producer)
        self.add(kafka, lambda flavor: flavor.kafka_topic, lambda flavors: kafka.adopt(_topics(flavors)))

    def add(self, backend: Backend, place: Callable[[Flavor], object], adopt: Callable[[Flavors], None]) -> None:
        """Adds a backend.

        Args:
            backend: opened by who feeds it.
            place: what of a flavor says where its lines go there.
            adopt: tells it of new flavors.
        """
        self.backends.append(backend)
        self._places[backend.name] = place
        self._adopt[backend.name] = adopt

    def adopt(self, flavors: Flavors) -> set[tuple[str, str]]:
        """Opens flavors as these say from now on.

        Returns:
            Pairs of a flavor that was there before and a backend where its lines go elsewhere now: to be opened anew.
        """
        before, self._flavors = self._flavors, flavors
        for adopt in self._adopt.values():
            adopt(flavors)
        return {
            (flavor.name, name)
            for flavor in flavors
            for name, place in self._places.items()
            if flavor.name in before.by_name and place(flavor) != place(before.by_name[flavor.name])
        }

    def _today(self, flavor: str) -> datetime.date:
        known = self._flavors.by_name.get(flavor)
        return known.date(self._clock_ms()) if known else datetime.datetime.now(datetime.UTC).date()


def _paths(flavors: Flavors) -> dict[str, str]:
    return {flavor.name: flavor.file_path for flavor in flavors}


def _zones(flavors: Flavors) -> dict[str, str]:
    return {flavor.name: flavor.zone.key for flavor in flavors}


def _topics(flavors: Flavors) -> dict[str, str]:
    return {flavor.name: flavor.kafka_topic for flavor in flavors}
