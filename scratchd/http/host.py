"""Hosts: the value of a Host field or of an authority, made comparable. Pure; knows no flavor.

Strict, since what one program takes for a host and the next one does not is how requests reach what they should not:
`host [ ":" port ]` without userinfo, the host being a name of letters, digits, `-` and `_` in labels between single
dots (RFC 3986's reg-name without percent-encoding and punctuation; dotted IPv4 is one of these), or an IPv6 address in
brackets. One trailing dot is the name's root and means nothing here.
"""

from __future__ import annotations

import ipaddress
import re

_NAME = re.compile(rb"([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\.?(?::([0-9]{0,5}))?")
_BRACKETED = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::([0-9]{0,5}))?")

MAX_NAME_BYTES = 253
"""Of a name without its trailing dot: what DNS can carry (RFC 1035, section 2.3.4)."""


def normalised(value: bytes) -> str | None:
    """The host in `value`, without port.

    Args:
        value: a Host field's value without white space around it, or a target's authority.

    Returns:
        A name in lower case without trailing dot, or an IPv6 address in its canonical form in brackets; None where
        `value` is not a host.
    """
    match = _NAME.fullmatch(value)
    if match is not None:
        name, port = match.groups()
        return name.decode("ascii").lower() if len(name) <= MAX_NAME_BYTES and _is_port(port) else None
    match = _BRACKETED.fullmatch(value)
    if match is None:
        return None
    digits, port = match.groups()
    try:
        address = ipaddress.IPv6Address(digits.decode("ascii"))
    except ValueError:
        return None
    return f"[{address}]" if _is_port(port) else None


def is_address(host: str) -> bool:
    """Whether a normalised host is an IPv4 or IPv6 address."""
    if host.startswith("["):
        return True
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _is_port(digits: bytes | None) -> bool:
    # An empty port is one by RFC 3986, section 3.2.3.
    return not digits or int(digits) <= 65535
