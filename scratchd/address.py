"""Addresses: where a listener listens, as written in the configuration.

Owns the syntax `host:port`, `[v6]:port` and `unix:/path`; opens no socket and looks up no name.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")

UNIX_PATH_BYTES = 107
"""`sun_path` of unix(7) holds 108 bytes, the last one a NUL."""


@dataclass(frozen=True, slots=True)
class Address:
    """A listener's address: either `host` and `port`, or `path`.

    Attributes:
        host: a name, an IPv4 or an IPv6 address (without brackets); empty for a unix socket.
        port: 0-65535, 0 for any free one (tests); 0 for a unix socket.
        path: absolute path of a unix socket, otherwise empty.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it; a name other than `localhost` is taken for one that others reach."""
        if self.path:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower().rstrip(".") == "localhost"


def parse(text: str) -> Address:
    """Reads `host:port`, `[v6]:port` or `unix:/path`.

    Raises:
        ValueError: it is none of them; the message completes the sentence that begins with the address.
    """
    if text.startswith("unix:"):
        return _parse_unix(text.removeprefix("unix:"))
    if text.startswith("/"):
        raise ValueError(f'is a path: a unix socket is written "unix:{text}"')
    bracketed = re.fullmatch(r"\[([^\[\]]*)\]:([^:]*)", text)
    host, colon, port = text.rpartition(":") if bracketed is None else (bracketed[1], ":", bracketed[2])
    if bracketed is None and (":" in host or "[" in text):
        raise ValueError("is no address: an IPv6 address goes in brackets and a port behind them, as in [::1]:9006")
    if not colon:
        raise ValueError("has no port: expected host:port, [v6]:port or unix:/path")
    if re.fullmatch(r"[0-9]{1,5}", port) is None or int(port) > 65535:
        raise ValueError("has no valid port: expected a number from 0 to 65535 behind the last colon")
    if host in ("", "*"):
        raise ValueError(
            f"has no host: every address of this machine is 0.0.0.0:{port} for IPv4 and [::]:{port} for IPv6"
        )
    if bracketed is not None:
        _require_ipv6(host)
    elif not is_name(host):
        raise ValueError("has no valid host: expected a name, an IPv4 address or an IPv6 address in brackets")
    return Address(host=host, port=int(port))


def is_name(host: str) -> bool:
    """Whether `host` is an IPv4 address or a name of letters, digits, `-`, `_` and dots that is none."""
    if re.fullmatch(r"([0-9]+|.*\.[0-9]+)\.?", host):
        # What ends in a number is an IPv4 address everywhere on the web, so a mistyped one is no name.
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return False
        return True
    return len(host) <= 253 and _NAME.fullmatch(host.removesuffix(".")) is not None


def _parse_unix(path: str) -> Address:
    if not path.startswith("/"):
        raise ValueError("has no absolute path behind unix:")
    if path.endswith("/"):
        raise ValueError("is a directory: expected the path of a socket behind unix:")
    if len(path.encode()) > UNIX_PATH_BYTES:
        raise ValueError(f"is too long for a unix socket: {len(path.encode())} bytes, at most {UNIX_PATH_BYTES}")
    return Address(path=path)


def _require_ipv6(host: str) -> None:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise ValueError("has no valid IPv6 address between the brackets") from None
