"""What is allowed in a configuration and yet hardly meant is said, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from scratchd.config import Checks, Config, File, Flavor, Http, Journal, Kafka, warnings

GR = Flavor(name="gr", hosts=("a",))
SMALL = Journal(quota_bytes=1 << 20, segment_bytes=65536)


def of(**sections: Any) -> list[str]:  # noqa: ANN401 - sections of any kind
    return warnings(Config(**{"journal": SMALL, "flavors": (GR,), **sections}))


def test_defaults_need_none() -> None:
    assert of() == []


def test_quotas_beyond_the_file_system(tmp_path: Path) -> None:
    system = os.statvfs(tmp_path)
    size_bytes = system.f_blocks * system.f_frsize
    journal = Journal(directory=str(tmp_path / "not" / "there" / "yet"), quota_bytes=size_bytes)
    assert of(journal=journal) == []
    flavors = (GR, Flavor(name="tr", hosts=("b",), quota_bytes=1 << 30))
    (warning,) = of(journal=journal, flavors=flavors)
    assert warning.startswith(f"journal.quota_bytes: the flavors' quotas add up to {size_bytes + (1 << 30)} bytes")
    assert str(size_bytes) in warning
    assert list(tmp_path.iterdir()) == []


LIMITED = Checks(client_requests_per_min=1)
OPEN = Http(listen=("127.0.0.1:1", "0.0.0.0:9006"))


def test_clients_limited_behind_an_untrusted_proxy() -> None:
    (warning,) = of(checks=LIMITED, http=OPEN)
    assert warning.startswith("checks.client_requests_per_min: ")
    assert "0.0.0.0:9006" in warning
    (warning,) = of(checks=Checks(duplicate_window_s=1), http=OPEN)
    assert warning.startswith("checks.duplicate_window_s: ")


@pytest.mark.parametrize(
    ("checks", "http"),
    [
        (Checks(), OPEN),
        (LIMITED, Http()),
        (LIMITED, Http(listen=("unix:/a", "[::1]:1", "localhost:2"))),
        (LIMITED, Http(listen=("0.0.0.0:9006",), trusted_proxies=("10.0.0.0/8",))),
    ],
)
def test_clients_limited_as_they_should_be(checks: Checks, http: Http) -> None:
    assert of(checks=checks, http=http) == []


@pytest.mark.parametrize(
    ("sections", "begin"),
    [
        ({"http": Http(trusted_proxies=("0.0.0.0/0",))}, 'http.trusted_proxies: "0.0.0.0/0" is every address'),
        ({"http": Http(admin_allow=("::/0",))}, 'http.admin_allow: "::/0" is every address'),
        ({"http": Http(max_query_bytes=16384)}, "http.max_query_bytes: 16384 is never reached"),
        (
            {"journal": Journal(directory="var", quota_bytes=1 << 20, segment_bytes=65536)},
            'journal.directory: "var" is relative',
        ),
        (
            {"file": File(path="/var/lib/scratchd/_/{flavor}/{date}")},
            'journal.directory: "/var/lib/scratchd" also holds the log files of flavor gr',
        ),
        ({"kafka": Kafka(bootstrap_servers="a:1")}, "kafka.bootstrap_servers: is set, but kafka.enabled is false"),
        (
            {"kafka": Kafka(enabled=True, librdkafka={"sasl.password": "x"})},
            'kafka.librdkafka.sasl.password: does nothing, as security.protocol is "plaintext"',
        ),
        (
            {"kafka": Kafka(enabled=True, librdkafka={"group.id": "x"})},
            "kafka.librdkafka: librdkafka warns: Configuration property group.id is a consumer property",
        ),
        (
            {
                "kafka": Kafka(enabled=True),
                "flavors": (
                    Flavor(name="a", hosts=("a",), kafka_topic="x.y"),
                    Flavor(name="b", hosts=("b",), kafka_topic="x_y"),
                ),
            },
            'flavors: the topics "x.y" and "x_y" differ only in . and _',
        ),
    ],
)
def test_what_is_hardly_meant(sections: dict[str, object], begin: str) -> None:
    (warning,) = of(**sections)
    assert warning.startswith(begin)
