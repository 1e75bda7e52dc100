"""The canary: a beacon of our own every few seconds, on the whole way that a visitor's takes, looked for at its end.

Everything else that is measured begins at the gate. Whether an event gets from a page into files and topics depends on
more: a name that resolves, a certificate, a proxy's rules. So the canary asks the public address (`canary.url`) as a
browser would, on a new connection each time, and then looks for its line where consumers do: in the flavor's log file
and in its topic. What comes of it are figures (`scratchd.stats.CanaryStats`), nothing else depends on it.

    beacon    what is sent and how, and how it is recognised in a line
    leg       one way to go: what is on it, what has arrived, what is overdue; pure
    lookout   where lines are looked for: the file, the topic
    task      sends, looks, and writes the figures

It has a flavor of its own, so no real event is among its lines and none of its lines among real events. It must hurt
nobody: each thing that can block has one thread of its own, which is left behind when it hangs; what is on the way is
bounded; nothing is imported before it is switched on; and when it fails, that is a figure and a line in the log.
"""

from __future__ import annotations

from scratchd.canary.task import Canary

__all__ = ["Canary"]
