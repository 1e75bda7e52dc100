"""Load: clients that send numbered events over several connections at once, and remember which were answered.

Owns the threads and what they saw; knows nothing of how a daemon is stopped or killed meanwhile. Every event is unique:
`{"c":"<connection>","n":"<number>"}`, numbers ascending on each connection, so that whoever reads files and topics can
tell what is missing, what is there twice and what changed places.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from daemon import Daemon
from wire import request

PIPELINED = 20
"""At most so many requests of a connection are under way at once."""


@dataclass(slots=True)
class Sent:
    """What one connection sent.

    Attributes:
        name: the connection's, in its events.
        sent: events that were sent, of which the first `answered` were answered with 200.
        refused: status codes of other answers; nothing more is sent behind one.
        last: whether the last answer said that the connection is closed.
    """

    name: str
    sent: int = 0
    answered: int = 0
    refused: list[int] = field(default_factory=list)
    last: bool = False


class Load:
    """Clients that send to `daemon` until told to stop or until it goes away.

    Args:
        daemon: where to.
        hosts: each connection sends to one of them, in turn.
        prefix: of the connections' names, so that several loads can follow one another.
        connections: how many at once; each is a thread.
        pause_s: of each connection between two bursts, where a test needs a flow and not a flood.
        padding_bytes: in each event beside its number.
    """

    def __init__(
        self,
        daemon: Daemon,
        prefix: str,
        hosts: Sequence[str] = ("any.test",),
        *,
        connections: int = 6,
        pause_s: float = 0,
        padding_bytes: int = 0,
    ) -> None:
        self._daemon = daemon
        self._pause_s = pause_s
        self._padding = "&p=" + "x" * padding_bytes if padding_bytes else ""
        self._stop = threading.Event()
        self._names = itertools.count()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(f"{prefix}-{number}", host))
            for number, host in zip(range(connections), itertools.cycle(hosts))
        ]
        self.sent: list[Sent] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Sends while the context lasts, and waits for the answers to what was sent."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads), "a client that never ends"

    @property
    def answered(self) -> int:
        """Events that were answered with 200 so far."""
        return sum(sent.answered for sent in self.sent)

    def _run(self, prefix: str, host: str) -> None:
        """Connection after connection, until there is nobody to connect to."""
        source = random.Random(prefix)
        while not self._stop.is_set():
            with self._lock:
                sent = Sent(f"{prefix}-{next(self._names)}")
                self.sent.append(sent)
            try:
                self._converse(sent, host, source)
            except ConnectionRefusedError:
                return
            except (OSError, EOFError):
                continue

    def _converse(self, sent: Sent, host: str, source: random.Random) -> None:
        with self._daemon.connect() as connection:
            while not self._stop.is_set():
                burst = source.choice((1, 1, 2, PIPELINED))
                numbers = range(sent.sent, sent.sent + burst)
                sent.sent += burst
                targets = (f"/track?c={sent.name}&n={number}{self._padding}" for number in numbers)
                connection.send(b"".join(request(target, host) for target in targets))
                for _ in range(burst):
                    answer = connection.response()
                    if answer.status != 200:
                        sent.refused.append(answer.status)
                        return
                    sent.answered += 1
                    if answer.field("connection") == "close":
                        sent.last = True
                        return
                if self._pause_s:
                    self._stop.wait(self._pause_s)


def assert_complete(sent: Sequence[Sent], lines: Sequence[bytes]) -> None:
    """Asserts that every answered event is in `lines` once, none more than once, and each connection's in its order.

    An event whose answer never came may be there or not, as nobody knows whether it was taken; but never one that
    stands behind a missing one of its connection, unless that one was refused.
    """
    assert sum(one.answered for one in sent) > 0, "nothing was answered: this proves nothing"
    found: dict[str, list[int]] = defaultdict(list)
    for line in lines:
        event = json.loads(line)
        found[event["c"]].append(int(event["n"]))
    names = {one.name for one in sent}
    assert set(found) <= names, f"lines of nobody: {sorted(set(found) - names)[:5]}"
    for one in sent:
        numbers = found[one.name]
        repeated = [number for number, count in Counter(numbers).items() if count > 1]
        assert not repeated, f"connection {one.name}: {repeated[:5]} came more than once"
        assert len(numbers) >= one.answered, f"connection {one.name}: answered {one.answered}, found {len(numbers)}"
        if one.refused:  # what was pipelined behind a refused event may have been taken
            assert one.answered not in numbers, f"connection {one.name}: {one.answered} was refused and is there"
            assert numbers == sorted(numbers), f"connection {one.name}: another order"
            numbers = numbers[: one.answered]
        assert len(numbers) <= one.sent
        assert numbers == list(range(len(numbers))), f"connection {one.name}: a hole, or another order"
