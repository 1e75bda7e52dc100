"""What librdkafka's statistics say: brokers of the cluster, in seconds, and nothing of topics."""

from __future__ import annotations

import json

import msgspec
import pytest

from scratchd.backends.brokers import parse
from scratchd.stats import BrokerStats, ProducerStats

WINDOW = {"min": 1, "max": 9, "avg": 2000, "sum": 1, "stddev": 1, "p50": 1, "p75": 1, "p90": 1, "p99": 3000, "cnt": 1}
BROKER = {
    "name": "kafka1:9092/1",
    "nodeid": 1,
    "nodename": "kafka1:9092",
    "source": "learned",
    "state": "UP",
    "stateage": 9007,
    "outbuf_cnt": 1,
    "outbuf_msg_cnt": 2,
    "waitresp_cnt": 3,
    "waitresp_msg_cnt": 4,
    "tx": 5,
    "txbytes": 6,
    "txerrs": 7,
    "txretries": 8,
    "txidle": -1,
    "req_timeouts": 9,
    "connects": 10,
    "disconnects": 11,
    "int_latency": WINDOW,
    "outbuf_latency": {**WINDOW, "avg": 500},
    "rtt": WINDOW,
    "throttle": {**WINDOW, "avg": 40},
    "req": {"Produce": 3},
    "toppars": {"t-0": {"topic": "t", "partition": 0}},
}
REPORT = {
    "name": "scratchd#producer-1",
    "ts": 1,
    "time": 2,
    "replyq": 0,
    "msg_cnt": 12,
    "msg_size": 13,
    "brokers": {"kafka1:9092/1": BROKER},
    "topics": {"t": {"topic": "t", "partitions": {"0": {"partition": 0, "txmsgs": 1}}}},
    "eos": {"idemp_state": "Assigned"},
}


def test_a_report_in_the_figures_terms() -> None:
    assert parse(json.dumps(REPORT), 99) == ProducerStats(
        at_ms=99,
        queue_messages=12,
        queue_bytes=13,
        brokers={
            "kafka1:9092": BrokerStats(
                up=True,
                round_trip_mean_s=0.002,
                round_trip_p99_s=0.003,
                queue_mean_s=0.0005,
                queued_requests=1,
                awaited_requests=3,
                requests=5,
                sent_bytes=6,
                retries=8,
                errors=7,
                timeouts=9,
                disconnects=11,
                throttle_mean_s=0.04,
            )
        },
    )


@pytest.mark.parametrize("state", ["INIT", "DOWN", "CONNECT", "AUTH_LEGACY", ""])
def test_only_a_broker_that_is_up_is_up(state: str) -> None:
    report = {**REPORT, "brokers": {"kafka1:9092/1": {**BROKER, "state": state}}}
    assert not parse(json.dumps(report), 0).brokers["kafka1:9092"].up


@pytest.mark.parametrize("name", ["kafka1:9092/bootstrap", "GroupCoordinator", ":0/internal"])
def test_what_is_no_broker_of_the_cluster_is_left_out(name: str) -> None:
    report = {**REPORT, "brokers": {name: {**BROKER, "name": name, "nodeid": -1}}}
    assert parse(json.dumps(report), 0).brokers == {}


def test_a_report_of_another_version_may_lack_fields() -> None:
    found = parse('{"brokers":{"k:1/1":{"nodeid":1,"nodename":"k:1"}}}', 0)
    assert not found.brokers["k:1"].up
    assert found.brokers["k:1"].retries == 0


@pytest.mark.parametrize("report", ["", "[]", '{"msg_cnt":"many"}'])
def test_what_is_no_report_is_an_error(report: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        parse(report, 0)
