"""librdkafka's properties in the configuration: which are refused and why, and what librdkafka says to the others.

Owns `kafka.librdkafka`; it is the only module of the configuration that touches confluent_kafka, which is untyped and
takes a tenth of a second to import, so that happens only when there is something to validate. It connects to nobody:
a producer without `bootstrap.servers` parses, checks and combines its properties, knows no broker and is dropped.
(Two mechanisms of SASL would not wait for a broker; `_passive` holds them back.) Nobody waits for the dropping:
librdkafka 2.8 takes a second for it when its threads have only just begun.

librdkafka stops at its first objection. To hear them all, each property is first offered alone: an objection to its
name or value is then surely its own (an alias is answered in its main name's terms, so the text does not tell). Along
goes a combination that is always refused, so no thread is started: names and values are looked at first. Those that
pass are offered together, where an objection to a combination, a certificate or a mechanism comes up.

A credential that is unresolved (`scratchd.config.credentials`) is offered as a placeholder, so everything else is
validated as ever. What a placeholder cannot stand for is left out: a key pair of which a part is not there.

It must not show secrets: values of such properties, and of credentials, are cut out of librdkafka's own words too.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from scratchd.config.credentials import Credential, Value, resolve
from scratchd.config.syntax import nearest

_SERVERS = "set kafka.bootstrap_servers instead"
_EXPIRY = "the journal keeps what is not delivered, so messages never expire (it is 0)"
_ACKS = "a line counts as persisted when all in-sync replicas have it (it is all)"
_RETRIES = "a message is retried until it is delivered"
_IN_FLIGHT = "order per partition depends on it with the idempotent producer"
_CALLBACK = "callbacks belong to scratchd"

REFUSED: Mapping[str, str] = {
    "bootstrap.servers": _SERVERS,
    "metadata.broker.list": _SERVERS,
    "message.timeout.ms": _EXPIRY,
    "delivery.timeout.ms": _EXPIRY,
    "acks": _ACKS,
    "request.required.acks": _ACKS,
    "enable.idempotence": "the producer is idempotent, so that retries neither repeat nor reorder (it is true)",
    "retries": _RETRIES,
    "message.send.max.retries": _RETRIES,
    "max.in.flight*": _IN_FLIGHT,
    "queue.buffering.*": "scratchd bounds what is in flight below librdkafka's queue; for the delay set linger.ms",
    "transactional.id": "lines are persisted at least once, without transactions",
    "plugin.library.paths": "it would load foreign code into the service",
    "delivery.report.only.error": "a line counts as persisted when its delivery is reported",
    "test.mock.*": "a broker in memory would count lines as persisted that nobody has",
    "default.topic.config": "set the topic's properties beside the others",
    "default_topic_conf": "set the topic's properties beside the others",
    "*_cb": _CALLBACK,
    "on_delivery": _CALLBACK,
    "on_commit": _CALLBACK,
    "logger": _CALLBACK,
    "opaque": _CALLBACK,
    "interceptors": _CALLBACK,
}
"""Refused properties, aliases too, and the reason of each; `*` stands for any text."""

DEFAULTS: Mapping[str, Value] = {
    "client.id": "scratchd",
    # The same key goes to the same partition as with Java's clients.
    "partitioner": "murmur2_random",
    # With librdkafka's minute a paused leader was seen to block delivery for as long, although a new leader stood. With
    # these nothing was delivered for 7 to 9 s, about as long as a killed leader costs (three brokers, sessions of 3 s);
    # with 3 s it was 6 s, but with Kafka's own sessions of 9 s the election takes longer than that anyway.
    "socket.timeout.ms": 6000,
    # Below it, so that a leader whose replicas are slow says so before the connection is given up.
    "request.timeout.ms": 5000,
    "socket.keepalive.enable": True,
    "reconnect.backoff.max.ms": 2000,
    # A missing topic is said soon; librdkafka's own default is half a minute.
    "topic.metadata.propagation.max.ms": 5000,
    "log.connection.close": False,
    # The brokers' figures. A report on 30 topics of 12 partitions takes the loop about a millisecond.
    "statistics.interval.ms": 10_000,
}
"""Better than librdkafka's own for a collector; an operator's properties replace them."""

FIXED: Mapping[str, Value] = {
    "enable.idempotence": True,
    # A line waits in the journal for as long as it takes; librdkafka's default drops it after five minutes.
    "message.timeout.ms": 0,
    # The bounds that count are the backend's own, per flavor and far below; these must never be met.
    "queue.buffering.max.messages": 10_000_000,
    "queue.buffering.max.kbytes": 2_097_151,
}
"""What the promises rest on; an operator's properties cannot replace them."""


def settings(properties: Mapping[str, Value]) -> dict[str, Value]:
    """The producer's properties, without its brokers: an operator's between our defaults and what is fixed."""
    return {**DEFAULTS, **properties, **FIXED}


_PRODUCERS_ONLY = (
    "queue.buffering.",
    "compression.",
    "batch.",
    "delivery.",
    "request.",
    "retr",
    "message.",
    "partitioner",
    "linger.",
    "sticky.",
)


def readers_settings(properties: Mapping[str, Value], group: str) -> dict[str, Value]:
    """The properties of a consumer that reads partitions by itself and leaves no trace, without its brokers.

    Args:
        properties: the operator's: how brokers are reached is the same for whoever reads.
        group: librdkafka wants one, though nothing is committed.
    """
    return {
        "client.id": "scratchd",
        "socket.timeout.ms": 10_000,
        "log.connection.close": False,
        **{name: value for name, value in properties.items() if not name.startswith(_PRODUCERS_ONLY)},
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_uncommitted",  # another writer's open transaction holds nobody up
    }


_COMMON = """
    api.version.request batch.num.messages batch.size broker.address.family broker.address.ttl client.id client.rack
    compression.codec compression.level compression.type connections.max.idle.ms debug
    enable.ssl.certificate.verification linger.ms log.connection.close log_level message.copy.max.bytes
    message.max.bytes metadata.max.age.ms partitioner receive.message.max.bytes reconnect.backoff.max.ms
    reconnect.backoff.ms request.timeout.ms retry.backoff.max.ms retry.backoff.ms sasl.kerberos.keytab
    sasl.kerberos.kinit.cmd sasl.kerberos.principal sasl.kerberos.service.name sasl.mechanism sasl.mechanisms
    sasl.oauthbearer.client.id sasl.oauthbearer.client.secret sasl.oauthbearer.config sasl.oauthbearer.extensions
    sasl.oauthbearer.method sasl.oauthbearer.scope sasl.oauthbearer.token.endpoint.url sasl.password sasl.username
    security.protocol socket.blocking.max.ms socket.connection.setup.timeout.ms socket.keepalive.enable
    socket.max.fails socket.nagle.disable socket.receive.buffer.bytes socket.send.buffer.bytes socket.timeout.ms
    ssl.ca.location ssl.ca.pem ssl.certificate.location ssl.certificate.pem ssl.cipher.suites ssl.curves.list
    ssl.endpoint.identification.algorithm ssl.key.location ssl.key.password ssl.key.pem ssl.keystore.location
    ssl.keystore.password ssl.sigalgs.list statistics.interval.ms sticky.partitioning.linger.ms
    topic.metadata.refresh.interval.ms
"""
"""What a producer's operator sets: librdkafka tells no names, so the nearest to a mistyped one is sought here."""

_SECRET_CHARACTERS = 4
"""From this length on a secret is cut out of any text; a shorter one protects nothing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What librdkafka makes of the properties.

    Attributes:
        errors: property (empty where the fault is no single one's) and objection.
        warnings: its warnings on what it accepts, e.g. that a consumer's property does nothing.
    """

    errors: Sequence[tuple[str, str]]
    warnings: Sequence[str]


class Concealment:
    """Cuts secrets out of librdkafka's words, without mangling words that a tiny one occurs in.

    Args:
        properties: as they are in the configuration.
        values: the same, credentials resolved.
    """

    def __init__(self, properties: Mapping[str, Value | Credential], values: Mapping[str, Value]) -> None:
        secrets = {
            str(value)
            for name, value in values.items()
            if is_secret(name) or isinstance(properties.get(name), Credential)
        }
        # The longest first: one may contain another.
        self._secrets = sorted((s for s in secrets if len(s) >= _SECRET_CHARACTERS), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text in one line, without them."""
        for secret in self._secrets:
            text = text.replace(secret, "...")
        return " ".join(text.split())


def is_secret(name: str) -> bool:
    """Whether the property's value must not be shown."""
    name = name.lower()
    return name.endswith(("password", "secret", "key", "token", "pem")) or "sasl.oauthbearer.config" in name


def refusal(name: str) -> str | None:
    """Why the property is refused, None where it is not."""
    for pattern, reason in REFUSED.items():
        if re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name, re.IGNORECASE | re.DOTALL):
            return reason
    return None


def examine(properties: Mapping[str, Value | Credential]) -> Verdict:
    """Lets librdkafka validate the properties that are not refused, without connecting."""
    resolved = resolve(properties)
    offered = {name: resolved.values.get(name, _PLACEHOLDER) for name in properties if refusal(name) is None}
    conceal = Concealment(properties, resolved.values)
    errors = []
    accepted: dict[str, Value] = {}
    for name, value in offered.items():
        objection, _ = _offer({**_passive(settings({name: value})), **_REFUSED_COMBINATION}, conceal)
        if objection is None or objection.startswith(_COMBINED):
            accepted[name] = value
        elif name not in resolved.missing or objection.startswith(_UNKNOWN):
            hint = nearest(name, _COMMON.split()) if objection.startswith(_UNKNOWN) else ""
            errors.append((name, objection + hint))
    accepted.pop("sasl.kerberos.min.time.before.relogin", None)
    objection, warnings = _offer(_passive(settings(_without_placeholders(accepted, resolved.missing))), conceal)
    if objection is not None:
        text = objection.removeprefix(_COMBINED)
        named, failed, _ = text.partition(" failed: ")
        errors.append((named if failed and named in accepted else "", text))
    return Verdict(errors, warnings)


_PLACEHOLDER = "unresolved"
"""Offered in the place of a credential that is not there; where no word fits it is not offered together with others."""

_KEY_PAIR = ("ssl.key", "ssl.certificate", "ssl.keystore")
"""Validated together or not at all."""


def _without_placeholders(properties: Mapping[str, Value], missing: Collection[str]) -> dict[str, Value]:
    """The properties, without what cannot be combined while some are placeholders."""
    left_out = tuple(name for name in missing if name.startswith("ssl."))
    if any(name.startswith(_KEY_PAIR) for name in missing):
        left_out += _KEY_PAIR
    if {"sasl.mechanism", "sasl.mechanisms"} & set(missing):
        left_out += ("sasl.", "security.protocol")  # what they have to fit is not known
    return {name: value for name, value in properties.items() if not name.startswith(left_out)}


_COMBINED = "Failed to create producer: "
"""Begins an objection that came up only when all properties were taken and the producer was being built."""

_REFUSED_COMBINATION: Mapping[str, Value] = {"enable.idempotence": True, "max.in.flight": 6}
"""Each is valid, and five is the most that an idempotent producer may have in flight."""

_UNKNOWN = "No such"
"""Begins an objection to a name."""


class _Warnings(logging.Handler):
    """Keeps librdkafka's warnings on the configuration; nothing else is logged by an examination."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        kind, _, text = record.getMessage().partition(" ")
        text = re.sub(r"^(\[[^\]]*\][: ]*)+", "", text)
        if kind == "CONFWARN" and "bootstrap.servers" not in text:
            self.texts.append(text)


def _passive(properties: Mapping[str, Value]) -> dict[str, Value]:
    """The properties, without those that would act at once.

    The method `oidc` of OAUTHBEARER asks for its token while the producer is being built, and dropping the producer
    waits for the answer (seen: 20 s with a token server that hangs). A scheme that nobody speaks ends that at once.
    GSSAPI runs `sasl.kerberos.kinit.cmd` likewise, unless tickets are not renewed (seen in librdkafka 2.0).
    """
    passive = {name: value for name, value in properties.items() if name != "sasl.oauthbearer.token.endpoint.url"}
    if len(passive) < len(properties):
        passive["sasl.oauthbearer.token.endpoint.url"] = "nothing://"
    return {"sasl.kerberos.min.time.before.relogin": 0, **passive}


def _offer(properties: Mapping[str, Value], conceal: Concealment) -> tuple[str | None, list[str]]:
    """Builds a producer and drops it: librdkafka's objection, None where it has none, and its warnings."""
    import confluent_kafka  # type: ignore[import-untyped,unused-ignore]  # noqa: PLC0415

    warnings = _Warnings()
    logger = logging.Logger("librdkafka", logging.WARNING)  # noqa: LOG001 - one of its own, found by nobody else
    logger.addHandler(warnings)
    try:
        producer = confluent_kafka.Producer(dict(properties), logger=logger)
    except confluent_kafka.KafkaException as error:
        return conceal(error.args[0].str()), []
    except (TypeError, ValueError) as error:
        return conceal(str(error)), []
    producer.poll(0)  # serves the log
    held = [producer]
    del producer
    # A daemon: the process does not wait for it either.
    threading.Thread(target=held.clear, name="librdkafka-dropped", daemon=True).start()
    return None, [conceal(text) for text in warnings.texts]
