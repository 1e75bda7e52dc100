"""Which hosts a flavor may have, and which of them the canary may ask."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from scratchd.config import Config

GR: dict[str, object] = {"name": "gr", "hosts": ["www.example.gr"]}

Load = Callable[..., Config]
Errors = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        ("https://www.example.gr", "only the name is expected"),
        ("www.example.gr/", "only the name is expected"),
        ("www.example.gr:80", "has a port"),
        ("www.*.gr", "has a * elsewhere than in front"),
        ("*example.gr", "has a * elsewhere than in front"),
        ("*.*", "has a * elsewhere than in front"),
        ("**", "has a * elsewhere than in front"),
        ("*.", "is no host"),
        ("", "is no host"),
        (".", "is no host"),
        ("a..b", "is no host"),
        (".a", "is no host"),
        ("a b", "is no host"),
        ("a@b", "is no host"),
        ("x" * 254, "is no host"),
        ("256.1.1.1", "is no host"),
        ("*.127.0.0.1", "puts a wildcard before an IP address"),
        ("::1", "is no host"),
        ("[::1", "is no host"),
        ("[::1]:80", "without zone and port"),
        ("[fe80::1%eth0]", "without zone and port"),
        ("*.[::1]", "is no host"),
        ("*.καφές.gr", 'write international names encoded, "*.xn--'),
    ],
)
def test_what_is_no_host_is_refused(errors_of: Errors, host: str, rule: str) -> None:
    (error,) = errors_of({"flavors": [{**GR, "hosts": [host]}]})
    assert error.startswith("config.json: flavors[0].hosts[0]: ")
    assert rule in error


@pytest.mark.parametrize(
    "host",
    [
        "a",
        "a.",
        "A-b_c.d",
        "*.gr",
        "*.a.b.",
        "*",
        "127.0.0.1",
        "[::1]",
        "xn--ixah0a1bn.gr",
        "localhost",
        "x" * 63 + ".gr",
    ],
)
def test_what_is_a_host_passes(load_text: Load, host: str) -> None:
    assert load_text(json.dumps({"flavors": [{**GR, "hosts": [host]}]})).flavors[0].hosts == (host,)


# The canary.

CANARY = {"name": "canary", "hosts": ["canary.test", "*.canary.test", "[::1]"]}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://canary.test/track",
        "http://CANARY.test.:8080/track?site=1&x",
        "https://www.a.canary.test",
        "http://[0:0::1]:80/track",
    ],
)
def test_a_canary_with_a_flavor_of_its_own_passes(load_text: Load, url: str) -> None:
    config = {"canary": {"url": url}, "flavors": [CANARY, {"name": "gr", "hosts": ["*"]}]}
    assert load_text(json.dumps(config)).canary.url == url


@pytest.mark.parametrize(
    ("canary", "error"),
    [
        ({"url": "https://canary.test/", "flavor": "canry"}, '"canry" is none of the flavors; did you mean "canary"?'),
        ({"url": "https://gr.test/", "flavor": ""}, '"" is none of the flavors'),
        (
            {"url": "https://www.gr.test/t"},
            "is not of flavor canary: requests for www.gr.test are those of flavor gr, beacons must not be among them",
        ),
        ({"url": "https://x.test/t"}, "requests for x.test are no flavor's"),
        ({"url": "canary.test/track"}, "is no URL of the web: expected http://... or https://..."),
        ({"url": "ftp://canary.test/track"}, "is no URL of the web"),
        ({"url": "https://"}, "names no host"),
        ({"url": "https://canary.test:0/"}, "or no port that can be connected to"),
        ({"url": "https://canary.test:99999/"}, "is no URL: port out of range 0-65535"),
        ({"url": "https://user:x@canary.test/"}, "has a user or a fragment"),
        ({"url": "https://canary.test/#a"}, "has a user or a fragment"),
        ({"url": "https://canary.test/a b"}, "only the characters 0x21-0x7E are allowed"),
        ({"url": "https://[::1"}, "is no URL: "),
        ({"url": "https://*.test/"}, "names no host"),
        ({"interval_s": 0}, "canary.interval_s: 0 is too small"),
        ({"timeout_s": -1}, "canary.timeout_s: -1 is too small"),
    ],
)
def test_a_canary_that_is_wrong_says_why(errors_of: Errors, canary: dict[str, object], error: str) -> None:
    flavors = [CANARY, {"name": "gr", "hosts": ["*.gr.test", "gr.test"]}]
    (told,) = errors_of(json.dumps({"canary": canary, "flavors": flavors}))
    assert error in told
