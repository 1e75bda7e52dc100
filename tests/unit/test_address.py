"""Which texts are addresses of a listener."""

from __future__ import annotations

import re

import pytest

from scratchd.address import Address, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9006", Address("127.0.0.1", 9006)),
        ("0.0.0.0:0", Address("0.0.0.0", 0)),
        ("[::1]:9006", Address("::1", 9006)),
        ("[::]:65535", Address("::", 65535)),
        ("localhost:80", Address("localhost", 80)),
        ("scratch_1.example.gr:80", Address("scratch_1.example.gr", 80)),
        ("unix:/run/scratchd/track.sock", Address(path="/run/scratchd/track.sock")),
        ("unix:/" + "x" * 106, Address(path="/" + "x" * 106)),
    ],
)
def test_address_is_parsed_and_written_back(text: str, expected: Address) -> None:
    assert parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "has no port"),
        ("9006", "has no port"),
        ("localhost", "has no port"),
        (":9006", "has no host: every address of this machine is 0.0.0.0:9006 for IPv4 and [::]:9006 for IPv6"),
        ("*:9006", "has no host"),
        ("127.0.0.1:", "has no valid port"),
        ("127.0.0.1:65536", "has no valid port"),
        ("127.0.0.1:-1", "has no valid port"),
        ("127.0.0.1:+1", "has no valid port"),
        ("127.0.0.1:٣", "has no valid port"),
        ("127.0.0.1:9 ", "has no valid port"),
        ("256.0.0.1:80", "has no valid host"),
        ("127.1:80", "has no valid host"),
        ("a b:80", "has no valid host"),
        ("a..b:80", "has no valid host"),
        ("host/path:80", "has no valid host"),
        ("::1:9006", "goes in brackets"),
        ("[::1]", "goes in brackets"),
        ("[::1]9006", "goes in brackets"),
        ("[::g]:9006", "no valid IPv6 address"),
        ("[127.0.0.1]:9006", "no valid IPv6 address"),
        ("[]:9006", "has no host"),
        ("/run/a.sock", 'is written "unix:/run/a.sock"'),
        ("unix:run/a.sock", "has no absolute path"),
        ("unix:", "has no absolute path"),
        ("unix:/run/", "is a directory"),
        ("unix:/" + "x" * 107, "is too long for a unix socket: 108 bytes, at most 107"),
        ("unix:/" + "λ" * 54, "is too long"),
    ],
)
def test_what_is_no_address_is_refused_with_its_rule(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=re.escape(rule)):
        parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/a", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.0.2.1:1", False),
        ("scratch.example.gr:1", False),
    ],
)
def test_loopback(text: str, expected: bool) -> None:
    assert parse(text).is_loopback is expected
