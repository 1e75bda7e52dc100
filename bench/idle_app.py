"""Stock Hypercorn with an application that does nothing: what any application on it costs at least (trio worker).

python bench/idle_app.py PORT
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import hypercorn.config
import hypercorn.trio
import trio

BODY = bytes(43)


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answers everything alike."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"image/gif"), (b"content-length", b"%d" % len(BODY))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})
    elif scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})


if __name__ == "__main__":
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.backlog = 4096
    trio.run(hypercorn.trio.serve, app, config)  # type: ignore[arg-type]
