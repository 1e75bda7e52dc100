"""scratchd_monitoring: what Nagios, Munin and Graphite are told of scratchd, by Python's standard library alone.

Each of the three is a command of its own that asks an instance's `/stats`, once, and speaks its tool's language:
`check` (`check_scratchd`), `munin` (`scratchd_`), `graphite` (`scratchd-graphite`). They know the document's shape,
which is public, and nothing of the service's inside: they run where scratchd is not installed.
"""

__version__ = "0.1.0"
