"""Clients: connections that send numbered events all the time, and know what they were answered.

Owns the load and the bookkeeping of answers; knows nothing of where lines go. What arrived is compared with it. Unlike
those of `load`, which stop at a refusal, a client here goes on until it is served again, and knows how long it waited.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from wire import Connection

PAUSE_S = 0.002


class Client:
    """One connection that sends `/track?n=0`, `n=1`, … one after another while its context is open.

    Args:
        address: of the track listener.
        host: whom the events are for.
        pad: bytes added to each.
        first: number of the first event.
        pause_s: between an answer and the next request.

    Attributes:
        answered: numbers that were answered 200, in order.
        refused: numbers that were answered 503 with `Retry-After: 1`, in order; any other answer is an error.
        slowest_s: the longest that an answer took since `forget_slowest`.
    """

    def __init__(self, address: str, host: str, *, pad: int = 0, first: int = 0, pause_s: float = PAUSE_S) -> None:
        self.answered: list[int] = []
        self.refused: list[int] = []
        self.slowest_s = 0.0
        self._address = address
        self._host = host
        self._pad = f"&pad={'x' * pad}" if pad else ""
        self._first = first
        self._pause_s = pause_s
        self._ending = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise AssertionError(f"client of {self._host}: {self._error!r}") from self._error

    def has_sent(self, count: int) -> bool:
        """Whether that many were answered, either way; an error of the client's is raised here too."""
        if self._error is not None:
            raise AssertionError(f"client of {self._host}: {self._error!r}") from self._error
        return len(self.answered) + len(self.refused) >= count

    def forget_slowest(self) -> None:
        """Begins `slowest_s` anew."""
        self.slowest_s = 0.0

    def _run(self) -> None:
        number = self._first
        try:
            with Connection(self._address) as connection:
                while not self._ending.is_set():
                    began = time.monotonic()
                    answer = connection.get(f"/track?n={number}{self._pad}", self._host)
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                    if answer.status == 200:
                        self.answered.append(number)
                    else:
                        assert answer.status == 503, answer
                        assert answer.field("retry-after") == "1", answer
                        self.refused.append(number)
                    number += 1
                    time.sleep(self._pause_s)
        except BaseException as error:  # noqa: BLE001 - raised where the context is left
            self._error = error


def numbers(lines: Iterable[bytes]) -> list[int]:
    """The numbers of lines that a `Client` sent."""
    return [int(json.loads(line)["n"]) for line in lines]
