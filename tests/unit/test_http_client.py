"""Clients: who is believed, and whose address counts."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd.http.client import Proxies, parsed

PROXIES = Proxies(["127.0.0.0/8", "::1/128", "10.0.0.0/8", "2001:db8::/32"])
PROXY = ipaddress.ip_address("127.0.0.1")


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        (b"", "127.0.0.1"),
        (b"9.9.9.9", "9.9.9.9"),
        (b"1.1.1.1, 9.9.9.9", "9.9.9.9"),
        (b"9.9.9.9,10.1.2.3 ,\t127.0.0.1", "9.9.9.9"),
        (b"9.9.9.9:1234", "9.9.9.9"),
        (b"[2a00::1]:1234", "2a00::1"),
        (b"[2A00:0::1]", "2a00::1"),
        (b"2a00::1", "2a00::1"),
        (b"::ffff:9.9.9.9", "9.9.9.9"),
        (b"[::ffff:9.9.9.9]:1", "9.9.9.9"),
        (b"9.9.9.9, ::ffff:10.0.0.1", "9.9.9.9"),
        (b"9.9.9.9, 2001:db8::7", "9.9.9.9"),
        (b"9.9.9.9, ,", "9.9.9.9"),
        (b"9.9.9.9, unknown", "127.0.0.1"),
        (b"9.9.9.9, unknown, 10.0.0.1", "127.0.0.1"),
        (b"unknown, 9.9.9.9", "9.9.9.9"),
        (b"9.9.9.9, _hidden", "127.0.0.1"),
        (b"9.9.9.9, caf\xe9", "127.0.0.1"),
        (b"9.9.9.9, fe80::1%eth0", "127.0.0.1"),
        (b"9.9.9.9, 1.2.3", "127.0.0.1"),
        (b"9.9.9.9, 01.2.3.4", "127.0.0.1"),
        (b"9.9.9.9, 1.2.3.4:123456", "127.0.0.1"),
        (b"9.9.9.9, []", "127.0.0.1"),
        (b"10.0.0.1, 127.0.0.1", "127.0.0.1"),
    ],
)
def test_the_client_is_the_right_most_address_that_is_not_trusted(forwarded_for: bytes, client: str) -> None:
    assert PROXIES.client(PROXY, forwarded_for) == client


def test_a_peer_that_is_not_trusted_speaks_for_itself() -> None:
    assert PROXIES.client(ipaddress.ip_address("9.9.9.9"), b"1.1.1.1") == "9.9.9.9"


def test_the_peer_of_a_unix_socket_is_trusted_and_has_no_address() -> None:
    assert PROXIES.trusts(None)
    assert PROXIES.client(None, b"1.1.1.1") == "1.1.1.1"
    assert PROXIES.client(None, b"") == ""
    assert PROXIES.client(None, b"unknown") == ""


def test_no_proxy_may_be_trusted() -> None:
    assert not Proxies([]).trusts(PROXY)
    assert Proxies([]).client(PROXY, b"9.9.9.9") == "127.0.0.1"


@given(st.binary(max_size=40))
def test_a_client_is_always_an_address(forwarded_for: bytes) -> None:
    ipaddress.ip_address(PROXIES.client(PROXY, forwarded_for))


@given(st.ip_addresses(), st.sampled_from(["{}", "[{}]", "{}:80", "[{}]:80"]))
def test_an_entry_is_read_as_it_is_written(address: ipaddress.IPv4Address | ipaddress.IPv6Address, form: str) -> None:
    result = parsed(form.format(address))
    if form == "{}":
        assert result is not None
