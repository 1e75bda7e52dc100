"""librdkafka's properties: refused with the reason, judged by librdkafka, and no secret in any word of it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from scratchd.config import Config, ConfigError, Flavor, Kafka, load, rules
from scratchd.config.credentials import Value
from scratchd.config.document import Report
from scratchd.config.librdkafka import examine, is_secret, refusal, settings


def errors_of(properties: dict[str, Value]) -> list[str]:
    report = Report()
    config = Config(
        kafka=Kafka(enabled=True, bootstrap_servers="a:1", librdkafka={**properties}),
        flavors=(Flavor(name="gr", hosts=("a",)),),
    )
    rules.check(config, report)
    return report.errors


REFUSED = """
    bootstrap.servers metadata.broker.list message.timeout.ms delivery.timeout.ms acks request.required.acks
    enable.idempotence retries message.send.max.retries max.in.flight max.in.flight.requests.per.connection
    queue.buffering.max.messages queue.buffering.max.kbytes queue.buffering.max.ms
    queue.buffering.backpressure.threshold transactional.id plugin.library.paths
    error_cb stats_cb throttle_cb oauth_cb log_cb dr_cb dr_msg_cb on_delivery on_commit logger default.topic.config
    oauthbearer_token_refresh_cb ssl.certificate.verify_cb partitioner_cb background_event_cb opaque interceptors
"""


@pytest.mark.parametrize("name", REFUSED.split())
def test_refused_property_says_why(name: str) -> None:
    (error,) = errors_of({name: "1"})
    assert error == f'kafka.librdkafka.{name}: "1" cannot be set: {refusal(name)}'
    assert refusal(name.upper()) == refusal(name)


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"compression.type": "lz4", "linger.ms": 5, "batch.size": 100000, "socket.keepalive.enable": True},
        {"linger.ms": 0.5, "client.id": "x", "message.max.bytes": "2000000", "debug": "all", "log_level": 7},
        {
            "security.protocol": "sasl_ssl",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "scratchd",
            "sasl.password": "hunter2",
        },
        {"partitioner": "consistent_random", "statistics.interval.ms": 1000},
    ],
)
def test_what_librdkafka_takes_passes(properties: dict[str, Value]) -> None:
    assert errors_of(properties) == []
    assert examine(properties).warnings == []


def test_each_bad_property_is_named_as_the_operator_wrote_it() -> None:
    errors = errors_of(
        {
            "linger.ms": 10**9,
            "compression.type": "zip",
            "client.id": "fine",
            "foo": 1,
            "compresion.type": "lz4",
            "socket.keepalive.enable": "maybe",
            "retries": 3,
            "reconnect.backoff.ms": 60000,
        }
    )
    out_of_range = 'Configuration property "queue.buffering.max.ms" value 1e+09 is outside allowed range 0..900000'
    not_known = 'No such configuration property: "compresion.type"; did you mean "compression.type"?'
    said = [error.removeprefix("kafka.librdkafka").split(": ", 1) for error in errors]
    assert said[:-1] == [
        [".retries", "3 cannot be set: a message is retried until it is delivered"],
        [".linger.ms", f"1000000000: librdkafka refuses it: {out_of_range}"],
        [
            ".compression.type",
            '"zip": librdkafka refuses it: Invalid value "zip" for configuration property "compression.codec"',
        ],
        [".foo", '1: librdkafka refuses it: No such configuration property: "foo"'],
        [".compresion.type", f'"lz4": librdkafka refuses it: {not_known}'],
        [
            ".socket.keepalive.enable",
            '"maybe": librdkafka refuses it: Expected bool value for "socket.keepalive.enable": true or false',
        ],
    ]
    assert errors[-1].startswith("kafka.librdkafka: librdkafka refuses it: `reconnect.backoff.max.ms` must be >=")


def test_combination_that_does_not_work_is_found() -> None:
    (error,) = errors_of({"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN"})
    assert error == "kafka.librdkafka: librdkafka refuses it: sasl.username and sasl.password must be set"
    (error,) = errors_of({"security.protocol": "ssl", "ssl.ca.location": "/nowhere/ca.pem"})
    assert error.startswith(
        'kafka.librdkafka.ssl.ca.location: "/nowhere/ca.pem": librdkafka refuses it: ssl.ca.location failed: '
    )


def test_an_operator_replaces_defaults_and_not_what_promises_rest_on() -> None:
    settled = settings({"client.id": "mine", "message.timeout.ms": 1000})
    assert settled["client.id"] == "mine"
    assert settled["message.timeout.ms"] == 0


def test_token_is_not_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        properties: dict[str, Value] = {
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": "a",
            "sasl.oauthbearer.client.secret": "b",
        }
        url = f"http://127.0.0.1:{server.getsockname()[1]}/token"
        # Not every build has it: the point is what is left undone, not what is said.
        examine({**properties, "sasl.oauthbearer.token.endpoint.url": url})
        with pytest.raises(BlockingIOError):
            server.accept()


def test_ticket_is_not_renewed(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    # Not every build has GSSAPI either.
    examine({"security.protocol": "sasl_plaintext", "sasl.kerberos.kinit.cmd": f"touch {ran}"})
    assert not ran.exists()


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "SASL.PASSWORD",
        "ssl.keystore.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "ssl.key.pem",
        "ssl_key",
        "my.token",
        "sasl.pasword.secret",
    ],
)
@pytest.mark.parametrize(
    "value", ['"hunter2-in-clear"', '["hunter2-in-clear"]', '"hunter2-in-clear\\u0000"', "17171717e400"]
)
def test_secret_is_in_no_error(tmp_path: Path, name: str, value: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        f'{{"kafka": {{"librdkafka": {{"{name}": {value}, "acks": 1, "security.protocol": "ssl"}}, "{name}": {value}}},'
        f'"{name}": {value}}}',
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert is_secret(name)
    assert "hunter2" not in str(refused.value)
    assert "17171717" not in str(refused.value)


def test_section_that_is_a_text_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"kafka": {"librdkafka": "sasl.password=hunter2"}}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"kafka\.librdkafka: expected an object, got a string") as refused:
        load(path)
    assert "hunter2" not in str(refused.value)


def test_secret_is_cut_out_of_librdkafkas_own_words() -> None:
    (error,) = errors_of(
        {"security.protocol": "ssl", "ssl.ca.location": "/hunter2/ca", "ssl.key.password": "/hunter2/ca"}
    )
    assert "hunter2" not in error


def test_secret_is_in_no_repr() -> None:
    section = Kafka(librdkafka={"sasl.password": "hunter2"})
    assert "hunter2" not in repr(section)
    assert "sasl.password" in repr(section)
