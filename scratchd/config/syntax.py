"""Syntax: the rules that one value of the configuration obeys by itself, whatever the other keys say.

Owns a function for each kind of text; knows no key's name and no struct. A rule takes the value and returns nothing,
or raises `ValueError` whose message completes the sentence that begins with the value:
`"Europe/Athen" is not a known time zone; did you mean "Europe/Athens"?`.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import re
import urllib.parse
import zoneinfo
from collections.abc import Iterable

from scratchd import address

NAME_BYTES = 255
"""NAME_MAX: flavors and instances name directories."""

TOPIC_BYTES = 249
"""Kafka's own limit on a topic's name (`org.apache.kafka.common.internals.Topic`)."""

_MACHINES_OWN_ZONES = frozenset({"localtime", "posixrules", "Factory"})
"""Found beside the zones but naming none: two machines would disagree on a line's day."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint to put behind a message: `; did you mean "…"?`, or nothing where no known word is near."""
    # The comparison is quadratic in the length, and no known word is that long.
    near = difflib.get_close_matches(word, sorted(known), n=1) if len(word) <= NAME_BYTES else []
    return f'; did you mean "{near[0]}"?' if near else ""


def instance(text: str) -> None:
    """An instance's name, or nothing."""
    if re.fullmatch(r"[A-Za-z0-9-]*", text) is None:
        raise ValueError("is no name of an instance: only letters (A-Z, a-z), digits and - are allowed")
    _require_directory_name(text)


def flavor_name(text: str) -> None:
    """A flavor's name."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", text) is None:
        raise ValueError("is no name of a flavor: one or more letters (A-Z, a-z), digits, - and _ are allowed")
    _require_directory_name(text)


def credential(text: str) -> None:
    """The name of a credential, which is one of a file."""
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", text) is None:
        raise ValueError(
            "is no name of a credential: letters (A-Z, a-z), digits, _, . and - are allowed, and no . in front"
        )
    if len(text) > NAME_BYTES:
        raise ValueError(f"is too long for the name of a file: {len(text)} characters, at most {NAME_BYTES}")


def listen(text: str) -> None:
    """An address of the track listener."""
    require_fields(address.parse(text).path, allowed=())


def admin_listen(text: str) -> None:
    """An address of the admin listener; the path of a unix socket may contain `{instance}`."""
    parsed = address.parse(text)
    require_fields(parsed.path, allowed=("instance",))


def network(text: str) -> None:
    """An IPv4 or IPv6 network, or a single address."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError("is no network: expected an address and a prefix length, as in 10.0.0.0/8") from None
        raise ValueError(f'has bits set beyond its prefix; did you mean "{meant}"?') from None


def track_path(text: str) -> None:
    """The path of events, as its raw bytes come in a request."""
    if not text.startswith("/"):
        raise ValueError("does not begin with /")
    if "?" in text:
        raise ValueError("contains a ?, where a request's path ends")
    if re.fullmatch(r"[\x21-\x7e]+", text) is None:
        raise ValueError(
            "contains what no request target may: only the bytes 0x21-0x7E are compared, percent-encode the others"
        )


def directory(text: str) -> None:
    """A directory's path."""
    if not text:
        raise ValueError("is empty")
    _require_printable(text)


def file_template(text: str) -> None:
    """The path of every flavor's files: `{flavor}` and `{date}` must be there."""
    _require_path(text)
    require_fields(text, allowed=("flavor", "date", "instance"), required=("flavor", "date"))


def flavor_file_template(text: str) -> None:
    """The path of one flavor's files: `{date}` must be there."""
    _require_path(text)
    require_fields(text, allowed=("flavor", "date", "instance"), required=("date",))


def bootstrap_servers(text: str) -> None:
    """Kafka's brokers to ask first: `host:port,host:port`, or nothing."""
    for entry in text.split(",") if text else ():
        if "://" in entry:
            raise ValueError(f'has a scheme in "{entry}": expected host:port; see security.protocol of librdkafka')
        try:
            parsed = address.parse(entry)
        except ValueError as error:
            raise ValueError(f'is no host:port,host:port: "{entry}" {error}') from None
        if parsed.port == 0:
            raise ValueError(f'is no host:port,host:port: "{entry}" has no port that can be connected to')


def topic_template(text: str) -> None:
    """A topic's name, in which `{flavor}` may stand."""
    require_fields(text, allowed=("flavor",))
    topic(text.replace("{flavor}", "x"))


def topic(text: str) -> None:
    """A topic's name as Kafka takes it."""
    if text in (".", "..") or re.fullmatch(r"[A-Za-z0-9._-]+", text) is None:
        raise ValueError(
            "is no name of a Kafka topic: letters (A-Z, a-z), digits, ., _ and - are allowed, but not . or .. alone"
        )
    if len(text) > TOPIC_BYTES:
        raise ValueError(f"is too long for a Kafka topic: {len(text)} characters, at most {TOPIC_BYTES}")


def host_pattern(text: str) -> None:
    """An exact host, `*.` before one, or `*` for any other."""
    if text == "*":
        return
    host = text.removeprefix("*.")
    if "://" in host or "/" in host:
        raise ValueError("is no host: only the name is expected, without scheme and path")
    if "*" in host:
        raise ValueError("has a * elsewhere than in front: expected a name, *.name, or * for any other")
    if text.startswith("["):
        _require_ipv6_literal(text)
    elif re.fullmatch(r"[^:]*:[0-9]*", host):
        raise ValueError("has a port: hosts match whatever the port, leave it out")
    elif not host.isascii():
        raise ValueError(f"is no host as browsers send it: write international names encoded{_punycode(text)}")
    elif not address.is_name(host):
        raise ValueError("is no host: expected a name, *.name, an IP address (IPv6 in brackets), or * for any other")
    elif host != text and re.fullmatch(r"[0-9.]+", host):
        raise ValueError("puts a wildcard before an IP address")


def normal_host(pattern: str) -> str:
    """The one form of a valid host or pattern: lower case, without one trailing dot, an IPv6 address canonical."""
    if pattern.startswith("["):
        return f"[{ipaddress.IPv6Address(pattern[1:-1])}]"
    return pattern.lower().removesuffix(".")


def time_zone(text: str) -> None:
    """A zone of the system's tz database."""
    known = text not in _MACHINES_OWN_ZONES and not text.startswith(("posix/", "right/"))
    try:
        zoneinfo.ZoneInfo(text)
    except (LookupError, ValueError, OSError):
        known = False
    if not known:
        zones = _zones()
        # Listing them opens every file of the database (0.2 s), so only a mistake pays for it.
        raise ValueError(
            f"is not a known time zone{nearest(text, zones)}"
            if zones
            else "is not a known time zone: this machine has no tz database, install tzdata"
        )


def url(text: str) -> None:
    """Where the canary sends its beacons, or nothing."""
    if not text:
        return
    if re.fullmatch(r"[\x21-\x7e]+", text) is None:
        raise ValueError("is no URL: only the characters 0x21-0x7E are allowed, percent-encode the others")
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"is no URL: {str(error)[:1].lower()}{str(error)[1:]}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("is no URL of the web: expected http://... or https://...")
    if "@" in parts.netloc or "#" in text:
        raise ValueError("has a user or a fragment, which no beacon has")
    if not parts.hostname or "*" in parts.hostname or port == 0:
        raise ValueError("names no host, or no port that can be connected to")
    host_pattern(f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname)


def host_of(text: str) -> str:
    """The host of a valid URL, in its normal form."""
    host = urllib.parse.urlsplit(text).hostname or ""
    return normal_host(f"[{host}]" if ":" in host else host)


def require_fields(text: str, *, allowed: tuple[str, ...], required: tuple[str, ...] = ()) -> None:
    """Requires that braces in `text` enclose allowed fields only, and that every required one is there.

    Raises:
        ValueError: a field is unknown or missing, or a brace stands alone.
    """
    fields = set(re.findall(r"\{([^{}]*)\}", text))
    expected = f"expected {', '.join(f'{{{name}}}' for name in allowed)}" if allowed else "none is allowed here"
    for field in sorted(fields.difference(allowed)):
        raise ValueError(f"has the unknown field {{{field}}}{nearest(field, allowed) or f': {expected}'}")
    if re.search(r"[{}]", re.sub(r"\{[^{}]*\}", "", text)):
        raise ValueError(f"has a brace that encloses no field: {expected}")
    missing = [f"{{{name}}}" for name in required if name not in fields]
    if missing:
        raise ValueError(f"lacks {' and '.join(missing)}")


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() - _MACHINES_OWN_ZONES)


def _require_directory_name(text: str) -> None:
    if len(text) > NAME_BYTES:
        raise ValueError(f"is too long for the name of a directory: {len(text)} characters, at most {NAME_BYTES}")


def _require_printable(text: str) -> None:
    if not text.isprintable():
        raise ValueError("contains characters that cannot be printed")


def _require_path(text: str) -> None:
    if not text.startswith("/"):
        raise ValueError("is not absolute: expected a path that begins with /")
    if ".." in text.split("/"):
        raise ValueError("contains ..: expected a path that leads straight to its place")
    if text.endswith(("/", "/.")):
        raise ValueError("is a directory: expected the path of a file")
    _require_printable(text)


def _require_ipv6_literal(text: str) -> None:
    expected = "is no host: expected a valid IPv6 address between brackets, without zone and port"
    if re.fullmatch(r"\[[0-9A-Fa-f:.]+\]", text) is None:
        raise ValueError(expected)
    try:
        ipaddress.IPv6Address(text[1:-1])
    except ValueError:
        raise ValueError(expected) from None


def _punycode(text: str) -> str:
    try:
        return f', "{text.encode("idna").decode()}"'
    except UnicodeError:
        return ", as in xn--..."
