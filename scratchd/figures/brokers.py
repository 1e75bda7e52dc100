"""The figures of Kafka's producer and the brokers that it knows: librdkafka's own statistics."""

from __future__ import annotations

from scratchd.figures.figure import Figure, Group, Kind

_PRODUCER = "backends.kafka.producer"
_BROKER = f"{_PRODUCER}.brokers.{{broker}}"
_EACH = ("broker",)


def _of_broker(kind: Kind, unit: str, meaning: str, advice: str, *, key: str, metric: str) -> Figure:
    return Figure(kind, unit, meaning, advice, (f"{_BROKER}.{key}",), metric, _EACH)


BROKERS = Group(
    "Kafka's brokers",
    "librdkafka's statistics, every `statistics.interval.ms` (`kafka.librdkafka`, 10 s unless set; 0 turns them off). "
    "`broker` is a broker of the cluster as `host:port`. Means and quantiles are of the last interval; counters begin "
    "anew when the producer is replaced.",
    (
        Figure(
            "gauge",
            "seconds",
            "Since librdkafka's last report",
            "Beyond the interval: the statistics are off, or librdkafka hangs",
            (f"{_PRODUCER}.age_s",),
            "scratchd_kafka_statistics_age_seconds",
        ),
        Figure(
            "gauge",
            "messages",
            "In the producer: waiting to be sent, or for an answer",
            "At 1,000 for each flavor the brokers are what is waited for",
            (f"{_PRODUCER}.queue_messages",),
            "scratchd_kafka_queue_messages",
        ),
        Figure(
            "gauge",
            "bytes",
            "Their size",
            "As above; 4 MiB for each flavor at most",
            (f"{_PRODUCER}.queue_bytes",),
            "scratchd_kafka_queue_bytes",
        ),
        _of_broker(
            "gauge",
            "true or false, 1 or 0",
            "Whether the producer is connected to it",
            "**0** is bad while the cluster counts it as alive: network, firewall, TLS, SASL",
            key="up",
            metric="scratchd_kafka_broker_up",
        ),
        _of_broker(
            "gauge",
            "seconds",
            "Mean time from a request to its response; 0 where there was none in the last interval",
            "The broker, its disks or its replicas are slow, or the network is",
            key="round_trip_mean_s",
            metric="scratchd_kafka_broker_round_trip_mean_seconds",
        ),
        _of_broker(
            "gauge",
            "seconds",
            "The same, 99 of 100 were as quick",
            "As above; near `request.timeout.ms` requests are repeated",
            key="round_trip_p99_s",
            metric="scratchd_kafka_broker_round_trip_p99_seconds",
        ),
        _of_broker(
            "gauge",
            "seconds",
            "Mean time that requests waited to be sent",
            "The broker answers more slowly than lines come",
            key="queue_mean_s",
            metric="scratchd_kafka_broker_queue_mean_seconds",
        ),
        _of_broker(
            "gauge",
            "requests",
            "Waiting to be sent",
            "As above",
            key="queued_requests",
            metric="scratchd_kafka_broker_queued_requests",
        ),
        _of_broker(
            "gauge",
            "requests",
            "Sent and not answered yet",
            "Five at a time at most; standing there: the broker hangs",
            key="awaited_requests",
            metric="scratchd_kafka_broker_awaited_requests",
        ),
        _of_broker(
            "counter",
            "requests",
            "Requests sent",
            "One broker far above the others leads too many partitions",
            key="requests",
            metric="scratchd_kafka_broker_requests_total",
        ),
        _of_broker(
            "counter",
            "bytes",
            "Sent to it",
            "As above; `compression.type` makes it less",
            key="sent_bytes",
            metric="scratchd_kafka_broker_sent_bytes_total",
        ),
        _of_broker(
            "counter",
            "requests",
            "Requests sent again",
            "Leaders change, or replicas are slow: look at the cluster",
            key="retries",
            metric="scratchd_kafka_broker_retries_total",
        ),
        _of_broker(
            "counter",
            "requests",
            "Requests that could not be sent",
            "Connections break: network, or the broker restarts",
            key="errors",
            metric="scratchd_kafka_broker_errors_total",
        ),
        _of_broker(
            "counter",
            "requests",
            "Requests that were not answered in time",
            "The broker hangs, or a firewall drops packets",
            key="timeouts",
            metric="scratchd_kafka_broker_timeouts_total",
        ),
        _of_broker(
            "counter",
            "connections",
            "Connections that ended",
            "A few are idle ones that a broker closes; many: as for errors",
            key="disconnects",
            metric="scratchd_kafka_broker_disconnects_total",
        ),
        _of_broker(
            "gauge",
            "seconds",
            "Mean time that the broker makes the producer wait",
            "Above 0: a quota of the cluster holds scratchd back, raise it",
            key="throttle_mean_s",
            metric="scratchd_kafka_broker_throttle_mean_seconds",
        ),
    ),
)
