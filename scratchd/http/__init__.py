"""The HTTP room: from bytes on a socket to `scratchd.track`, and from its outcome to bytes again.

    listen ──► gate ──► conversation ──► hot, head, host, client, body    (pure: bytes in, passes out)
                ├─────► intake ──► track, journal.writer
                ├─────► answers                                           (pure: outcomes in, bytes out)
                └─────► handover ──► asgi ──► intake, answers             (HTTP/2 and bodies, on Hypercorn)
                           └───────► boundary ──► Hypercorn
    listen ──► acceptor ──► admin (an application of its own on Hypercorn) ──► boundary

The gate is a driver: it waits, reads, writes and keeps time. What a byte means is decided in the pure modules, so
another driver may take its place without a word of the protocol being said twice.
"""
