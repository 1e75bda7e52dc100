"""Scratchd through Hypercorn alone: the same service, journal and backends, but Hypercorn reads every request.

    python bench/hypercorn_alone.py serve --config FILE

What the gate is worth is the difference to this. Everything behind it is the product's own: its application for
Hypercorn, its intake, journal and backends.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import hypercorn.config
import hypercorn.trio
import trio

from scratchd import cli, service
from scratchd.config import Http
from scratchd.http.asgi import Http2App
from scratchd.http.client import Proxies
from scratchd.http.intake import Intake
from scratchd.http.listen import BACKLOG, Listener
from scratchd.log import Log
from scratchd.stats import HttpStats


class HypercornGate:
    """In the gate's place, as far as the service uses it without a reload."""

    def __init__(
        self, config: Http, intake: Intake, _stats: HttpStats, _log: Log, *, clock_ms: Callable[[], int]
    ) -> None:
        del clock_ms  # Hypercorn writes the Date
        self._stopping = trio.Event()
        self._app = Http2App(
            intake,
            Proxies(config.trusted_proxies),
            None,
            body_timeout_s=config.head_timeout_s,
            write_timeout_s=config.write_timeout_s,
            stopping=lambda: False,
            end=trio.lowlevel.checkpoint,
            abandon=lambda: None,
        )

    async def turned(self) -> None:
        """Returns soon: nobody has a watchdog here."""
        await trio.lowlevel.checkpoint()

    def stop(self, _until: trio.Event) -> None:
        """Lets `serve` return."""
        self._stopping.set()

    async def serve(self, sockets: Sequence[Listener]) -> None:
        """Hands the sockets to Hypercorn."""
        config = hypercorn.config.Config()
        config.bind = [f"fd://{listener.socket.fileno()}" for listener in sockets]
        config.backlog = BACKLOG
        config.graceful_timeout = 1
        await hypercorn.trio.serve(self._app, config, shutdown_trigger=self._stopping.wait)  # type: ignore[arg-type]


if __name__ == "__main__":
    vars(service)["Gate"] = HypercornGate
    sys.exit(cli.main())
