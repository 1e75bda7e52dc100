"""Hosts: what is one, and how it is made comparable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd.http.host import is_address, normalised


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"example.gr", "example.gr"),
        (b"EXAMPLE.gr", "example.gr"),
        (b"example.gr.", "example.gr"),
        (b"example.gr.:80", "example.gr"),
        (b"example.gr:8080", "example.gr"),
        (b"example.gr:", "example.gr"),
        (b"example.gr:65535", "example.gr"),
        (b"a_b-c.x", "a_b-c.x"),
        (b"xn--mxafd0bf.gr", "xn--mxafd0bf.gr"),
        (b"localhost", "localhost"),
        (b"127.0.0.1:9006", "127.0.0.1"),
        (b"[::1]", "[::1]"),
        (b"[::1]:80", "[::1]"),
        (b"[2001:DB8:0:0::1]", "[2001:db8::1]"),
        (b"[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"),
        (b"a" * 253, "a" * 253),
    ],
)
def test_hosts_are_made_comparable(value: bytes, host: str) -> None:
    result = normalised(value)
    assert result is not None
    assert result.replace("[::ffff:102:304]", "[::ffff:1.2.3.4]") == host


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b".",
        b"x..",
        b"x..y",
        b".x",
        b":80",
        b"x:y",
        b"x:65536",
        b"x:123456",
        b"x:-1",
        b"x:80:80",
        b"user@x",
        b"user:secret@x",
        b"a b",
        b"a,b",
        b"a/b",
        b"a%41",
        b"a\x00",
        b"a\n",
        b"caf\xc3\xa9",
        b"\xff",
        b"::1",
        b"[]",
        b"[::1",
        b"[::1]x",
        b"[::1].",
        b"[1.2.3.4]",
        b"[fe80::1%eth0]",
        b"[v1.x]",
        b"[:::1]",
        b"[::1]:65536",
        b"a" * 254,
    ],
)
def test_what_is_no_host_is_refused(value: bytes) -> None:
    assert normalised(value) is None


@given(st.binary(max_size=40))
def test_normalising_never_raises_and_is_idempotent(value: bytes) -> None:
    host = normalised(value)
    if host is not None:
        assert normalised(host.encode("ascii")) == host


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("[::1]", True), ("localhost", False), ("1.2.3", False), ("example.gr", False)],
)
def test_addresses_are_told_from_names(host: str, *, expected: bool) -> None:
    assert is_address(host) is expected
