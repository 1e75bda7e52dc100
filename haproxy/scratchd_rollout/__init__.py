"""scratchd-rollout: moves visitors from a legacy service to scratchd, step by step, on the HAProxy in front of both.

It runs on the edge, with nothing but Python's standard library. What it is made of, pure parts first:

    counts    what both sides did between two looks, from what was read
    judge     counts and gates in, a verdict out; no clock, no file, no network
    plan      the steps and gates that an inventory asks for, checked
    rollout   the state of one tenant's rollout and what may follow on what
    table     numbers and tables as people read them
    runtime   HAProxy's socket: maps, counters, servers
    sharemap  the same map as a file, for HAProxy's next start
    service   what scratchd says of itself: /stats
    store     state under a lock, samples, the audit log
    edge      one change of the share, in the order that is safe
    guard     one look at everything, and what follows from it
    report    the status page
    cli       the command

A *share* is a number of ten-thousandths of the visitors (0 to 10000), a *tenant* is one of scratchd's flavors or `all`,
a *side* is `scratchd` or `legacy`.
"""

from __future__ import annotations

__version__ = "0.1.0"
