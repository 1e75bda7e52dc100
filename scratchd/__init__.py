"""scratchd: turns tracking beacons into JSON lines in log files and Kafka topics."""

__version__ = "0.1.0"
