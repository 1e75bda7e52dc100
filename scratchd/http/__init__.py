"""The HTTP room: from bytes on a socket to `scratchd.track`, and from its outcome to bytes again.

    listen ──► gate ──► conversation ──► head, host, client      (pure: bytes in, requests or refusals out)
                 │            └────────► intake ──► track, journal.writer
                 │                          └─────► answers      (pure: outcomes in, bytes out)
                 └────► handover ──► Hypercorn ──► asgi ──► intake, answers
    admin (an application of its own on Hypercorn) ─────► stats

The gate is a driver: it waits, reads, writes and keeps time. What a byte means is decided in the pure modules, so
another driver may take its place without a word of the protocol being said twice.
"""
