"""Clients: whose address a request counts for, when proxies stand between. Pure; knows networks and no sockets.

A trusted proxy appends the address that it saw to `X-Forwarded-For`, so the list is true from its right end for as long
as its entries are trusted themselves: the client is the right-most address that is not. What stands further left is
what that client claims.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# An address with a port, or an IPv6 address in brackets; a bare one is told by ipaddress.
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


class Networks:
    """A set of networks, as in `http.trusted_proxies` and `http.admin_allow`.

    Args:
        networks: each an address or an address with a prefix length.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


class Proxies:
    """Tells clients behind trusted proxies.

    Args:
        trusted: networks of the peers whose `X-Forwarded-For` is believed (`http.trusted_proxies`).
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = Networks(trusted)

    def adopt(self, trusted: Iterable[str]) -> None:
        """Believes these from now on, and no others."""
        self._trusted = Networks(trusted)

    def trusts(self, peer: Address | None) -> bool:
        """Whether a peer is believed; None is the peer of a unix socket, and is."""
        return peer is None or peer in self._trusted

    def client(self, peer: Address | None, forwarded_for: bytes) -> str:
        """The client's address.

        Args:
            peer: who holds the connection, None for a unix socket.
            forwarded_for: the values of all X-Forwarded-For fields, joined by commas.

        Returns:
            An address in its canonical form; that of the peer where the list tells none. Empty where the peer is that
            of a unix socket.
        """
        return str(self._forwarded(forwarded_for) or peer or "") if self.trusts(peer) else str(peer)

    def _forwarded(self, forwarded_for: bytes) -> Address | None:
        for entry in reversed(forwarded_for.decode("latin-1").split(",")):
            # Empty entries are none (RFC 9110, section 5.6.1).
            if text := entry.strip(" \t"):
                address = parsed(text)
                if address is None or address not in self._trusted:
                    return address
        return None


def parsed(text: str) -> Address | None:
    """The address in an entry such as `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]` or `[::1]:5`; None where it is none."""
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address(match[1] or match[2] if match else text)
    except ValueError:
        return None
    return None if "%" in text else plain(address)


def plain(address: Address) -> Address:
    """The address without an IPv6 zone, and as IPv4 where it is one in IPv6's clothes (`::ffff:1.2.3.4`)."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return address.ipv4_mapped or ipaddress.IPv6Address(address.packed)
