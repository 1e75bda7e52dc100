"""Rules: what several keys of the configuration must obey together.

Owns them all, each a function that adds to a report; knows nothing of JSON. The configuration may come from a document
with errors and then has defaults in their places, so a rule looks only at keys that are sound.
"""

from __future__ import annotations

from collections.abc import Mapping

from scratchd.config import librdkafka, syntax
from scratchd.config.credentials import Credential, Value
from scratchd.config.document import Report, join, shown
from scratchd.config.sections import Config


def check(config: Config, report: Report) -> None:
    """Adds whatever of `config` contradicts itself to `report`."""
    _check_addresses(config, report)
    _check_backends(config, report)
    _check_instance(config, report)
    _check_quotas(config, report)
    _check_flavors(config, report)
    _check_canary(config, report)
    _check_librdkafka(config, report)


def _check_addresses(config: Config, report: Report) -> None:
    if not report.is_sound("http.listen", "http.admin_listen", "instance"):
        return
    taken: dict[str, str] = {}
    listed = [("http.listen", at) for at in config.track_addresses]
    listed += [("http.admin_listen", at) for at in config.admin_addresses]
    for path, at in listed:
        if not at.path and at.port == 0:
            continue  # any free port: never the same
        if str(at) in taken:
            report.add(path, f"{shown(str(at))} is already listed in {taken[str(at)]}")
        taken[str(at)] = path


def _check_backends(config: Config, report: Report) -> None:
    if report.is_sound("file.enabled", "kafka.enabled") and not (config.file.enabled or config.kafka.enabled):
        report.add("file.enabled", "false, and kafka.enabled too: at least one backend must be enabled")
    if report.is_sound("kafka.enabled", "kafka.bootstrap_servers") and (
        config.kafka.enabled and not config.kafka.bootstrap_servers
    ):
        report.add("kafka.bootstrap_servers", '"" is empty: required when kafka.enabled is true')


def _check_instance(config: Config, report: Report) -> None:
    if not config.instance or not report.is_sound("instance"):
        return
    templates = [("file.path", config.file.path)]
    templates += [
        (f"flavors[{index}].file_path", flavor.file_path or "") for index, flavor in enumerate(config.flavors)
    ]
    for path, template in templates:
        if report.is_sound(path) and template and "{instance}" not in template:
            report.add(
                path,
                f"{shown(template)} lacks {{instance}}: instances must not share a file, and this one is named "
                f"{shown(config.instance)}",
            )


def _check_quotas(config: Config, report: Report) -> None:
    least = 2 * config.journal.segment_bytes
    quotas = [("journal.quota_bytes", config.journal.quota_bytes)]
    quotas += [
        (f"flavors[{index}].quota_bytes", flavor.quota_bytes)
        for index, flavor in enumerate(config.flavors)
        if flavor.quota_bytes is not None
    ]
    for path, quota_bytes in quotas:
        if report.is_sound(path, "journal.segment_bytes") and quota_bytes < least:
            report.add(
                path, f"{quota_bytes} is too small: it must be at least two segments of journal.segment_bytes, {least}"
            )


def _check_flavors(config: Config, report: Report) -> None:
    names = _Taken("name", report)
    hosts = _Taken("hosts", report)
    paths = _Taken("file_path", report)
    topics = _Taken("kafka_topic", report)
    for index, flavor in enumerate(config.flavors):
        at = f"flavors[{index}]"
        for host in flavor.hosts:
            hosts.take(index, syntax.normal_host(host), host)
        # Who has another's name has its file and topic by that: one error says it all.
        if not report.is_sound(f"{at}.name") or not names.take(index, flavor.name, flavor.name):
            continue
        if report.is_sound("instance", "file.path" if flavor.file_path is None else f"{at}.file_path"):
            paths.take(index, config.file_path(flavor), config.file_path(flavor))
        if report.is_sound("kafka.topic" if flavor.kafka_topic is None else f"{at}.kafka_topic"):
            topic = config.kafka_topic(flavor)
            try:
                syntax.topic(topic)
            except ValueError as error:
                report.add(f"{at}.kafka_topic", f"{shown(topic)} {error}")
            topics.take(index, topic, topic)


def _check_canary(config: Config, report: Report) -> None:
    url, name = config.canary.url, config.canary.flavor
    if not url or not report.is_sound("canary", "flavors"):
        return
    names = [flavor.name for flavor in config.flavors]
    if name not in names:
        report.add("canary.flavor", f"{shown(name)} is none of the flavors{syntax.nearest(name, names)}")
        return
    host = syntax.host_of(url)
    owner = _owner(config, host)
    if owner != name:
        whose = "no flavor's" if owner is None else f"those of flavor {owner}"
        report.add(
            "canary.url",
            f"{shown(url)} is not of flavor {name}: requests for {host} are {whose}, beacons must not be among them",
        )


def _owner(config: Config, host: str) -> str | None:
    """The name of the flavor that takes a host's requests: see `scratchd.flavors`."""
    owners = {syntax.normal_host(pattern): flavor.name for flavor in config.flavors for pattern in flavor.hosts}
    labels = host.split(".")
    patterns = [host, *(".".join(["*", *labels[at:]]) for at in range(1, len(labels))), "*"]
    return next((owners[pattern] for pattern in patterns if pattern in owners), None)


class _Taken:
    """What of one key flavors have taken so far: no two may share it, and none may name it twice."""

    def __init__(self, key: str, report: Report) -> None:
        self._key = key
        self._report = report
        self._owners: dict[str, int] = {}

    def take(self, index: int, value: str, written: str) -> bool:
        """Whether `value` is the flavor's now; if not, `written` is reported on that flavor, the later one."""
        owner = self._owners.get(value)
        if owner is None:
            self._owners[value] = index
            return True
        whose = "there twice" if owner == index else f"already that of flavors[{owner}]"
        self._report.add(f"flavors[{index}].{self._key}", f"{shown(written)} is {whose}")
        return False


def _check_librdkafka(config: Config, report: Report) -> None:
    properties = config.kafka.librdkafka
    for name, value in properties.items():
        reason = librdkafka.refusal(name)
        if reason is not None:
            hidden = librdkafka.is_secret(name) or isinstance(value, Credential)
            text = shown("..." if hidden else value)
            report.add(join("kafka.librdkafka", name), f"{text} cannot be set: {reason}")
    if properties:
        for name, objection in librdkafka.examine(properties).errors:
            path = join("kafka.librdkafka", name) if name else "kafka.librdkafka"
            report.add(path, f"{_named(name, properties)}librdkafka refuses it: {objection}")


def _named(name: str, properties: Mapping[str, Value | Credential]) -> str:
    """The value of a property that is refused, where it is one's own and no secret."""
    values = {own: value for own, value in properties.items() if not isinstance(value, Credential)}
    if name not in values or librdkafka.is_secret(name):
        return ""
    return librdkafka.Concealment(properties, values)(shown(values[name])) + ": "
