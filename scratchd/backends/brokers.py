"""Brokers: what librdkafka's statistics say of them, in the figures' terms. Knows the report's format and no producer.

A report is a JSON object (librdkafka's STATISTICS.md) of some kilobytes for each broker, topic and partition. Only the
brokers and the producer's own queue are taken: what partitions do is the cluster's business, and with many topics their
figures would be most of what there is. librdkafka's bootstrap servers and its view of a coordinator are no brokers.
"""

from __future__ import annotations

import msgspec

from scratchd.stats import BrokerStats, ProducerStats

_US = 1e-6
_MS = 1e-3


class _Window(msgspec.Struct):
    """Durations over the last interval."""

    avg: int = 0
    p99: int = 0


class _Broker(msgspec.Struct):
    nodename: str = ""
    nodeid: int = -1
    source: str = ""
    state: str = ""
    outbuf_cnt: int = 0
    waitresp_cnt: int = 0
    tx: int = 0
    txbytes: int = 0
    txerrs: int = 0
    txretries: int = 0
    req_timeouts: int = 0
    disconnects: int = 0
    outbuf_latency: _Window = msgspec.field(default_factory=_Window)
    rtt: _Window = msgspec.field(default_factory=_Window)
    throttle: _Window = msgspec.field(default_factory=_Window)


class _Report(msgspec.Struct):
    msg_cnt: int = 0
    msg_size: int = 0
    brokers: dict[str, _Broker] = {}


_DECODER = msgspec.json.Decoder(_Report)


def parse(report: str, at_ms: int) -> ProducerStats:
    """What a report of librdkafka says.

    Args:
        report: as `stats_cb` gets it.
        at_ms: when it came, milliseconds since the Unix epoch.

    Raises:
        msgspec.DecodeError: it is not in the format that is known.
    """
    read = _DECODER.decode(report)
    brokers = {broker.nodename: _broker(broker) for broker in read.brokers.values() if broker.nodeid >= 0}
    return ProducerStats(at_ms, read.msg_cnt, read.msg_size, brokers)


def _broker(broker: _Broker) -> BrokerStats:
    return BrokerStats(
        up=broker.state == "UP",
        round_trip_mean_s=round(broker.rtt.avg * _US, 6),
        round_trip_p99_s=round(broker.rtt.p99 * _US, 6),
        queue_mean_s=round(broker.outbuf_latency.avg * _US, 6),
        queued_requests=broker.outbuf_cnt,
        awaited_requests=broker.waitresp_cnt,
        requests=broker.tx,
        sent_bytes=broker.txbytes,
        retries=broker.txretries,
        errors=broker.txerrs,
        timeouts=broker.req_timeouts,
        disconnects=broker.disconnects,
        throttle_mean_s=round(broker.throttle.avg * _MS, 3),
    )
