"""Flow: lines that go on coming to one flavor while a test breaks something, and whether each has arrived, in order.

Owns what a topic must hold of one `load.Load`'s single connection; breaks nothing itself.

    with Flow(daemon) as flow:
        with kafka.stopped():
            …
    flow.assert_arrived(kafka, topic)
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self

from daemon import Daemon
from kafka_client import Broker, first_occurrences
from load import Load

PAUSE_S = 0.01


class Flow:
    """Sends from entering to leaving.

    Args:
        host: the flavor's.
        pause_s: between two bursts.
    """

    def __init__(self, daemon: Daemon, host: str = "any.test", pause_s: float = PAUSE_S) -> None:
        self._daemon = daemon
        self._load = Load(daemon, "flow", (host,), connections=1, pause_s=pause_s)
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._running.enter_context(self._load.running())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()
        assert [sent.name for sent in self._load.sent if sent.answered] == ["flow-0-0"], "another connection"

    @property
    def count(self) -> int:
        """Lines that were answered so far."""
        return self._load.answered

    @property
    def lines(self) -> list[bytes]:
        """They themselves."""
        return [b'{"c":"flow-0-0","n":"%d"}' % number for number in range(self.count)]

    def go_on(self, count: int = 50) -> None:
        """Returns after that many more lines were answered."""
        wanted = self.count + count
        self._daemon.wait_for(lambda: self.count >= wanted, 30, f"{count} more lines answered")

    def assert_arrived(self, broker: Broker, topic: str, timeout_s: float = 60) -> None:
        """Every line is in the topic (of one partition), nothing else is, and in order; no visitor had to wait."""
        self._daemon.wait_drained(timeout_s)
        assert first_occurrences(broker.messages(topic, self.count)) == self.lines
        assert self._daemon.stats()["http"]["latency_s"]["max"] < 1
