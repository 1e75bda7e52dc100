"""Credentials: secrets that the configuration only names, and that systemd hands to the service in files.

Owns how they are found and read; knows no property and shows no content, whatever is wrong with it.

`LoadCredential=NAME:PATH` in a unit puts the file NAME below `$CREDENTIALS_DIRECTORY` (systemd.exec(5), "Credentials"),
readable by that service alone. Content is UTF-8; one newline at its end, which every editor puts there, is no part of
the secret, any other byte is. A name is looked up in that one directory and nowhere else: it has no slash, and a link
in its place is not followed, so the configuration cannot make the service read any other file.

Outside of its unit (`scratchd check` in a shell or a maintainer script) a credential is not there. That is no fault of
the configuration: it is unresolved, which a check warns of, and which only those who connect to Kafka refuse.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from scratchd.config import syntax

DIRECTORY = "CREDENTIALS_DIRECTORY"
"""The variable in which systemd tells where."""

LARGEST_BYTES = 1 << 20
"""systemd's own limit for all credentials of a service together."""

Value = str | int | float | bool


class Credential(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stands in the configuration for a value that is not in it: `{"credential": "NAME"}`."""

    credential: Annotated[str, Meta(extra={"rule": syntax.credential})]


class CredentialError(Exception):
    """Credentials are needed and not there: exit 78; the message has every one of them."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Properties with the contents of credentials in their names' places.

    Attributes:
        values: those that have one. **Secrets in plain text**: never to be shown.
        missing: by property, why its credential is unresolved.
    """

    values: Mapping[str, Value]
    missing: Mapping[str, str]


def resolve(properties: Mapping[str, Value | Credential]) -> Resolved:
    """Reads every credential that the properties name; what cannot be read is among `missing`."""
    values: dict[str, Value] = {}
    missing: dict[str, str] = {}
    for name, value in properties.items():
        if not isinstance(value, Credential):
            values[name] = value
            continue
        try:
            values[name] = _read(value.credential)
        except CredentialError as error:
            missing[name] = f'the credential "{value.credential}" is unresolved: {error}'
    return Resolved(values, missing)


def resolved(properties: Mapping[str, Value | Credential]) -> Mapping[str, Value]:
    """The properties' values, for who is about to use them.

    Raises:
        CredentialError: a credential is unresolved.
    """
    found = resolve(properties)
    if found.missing:
        raise CredentialError("; ".join(f"kafka.librdkafka.{name}: {why}" for name, why in found.missing.items()))
    return found.values


def _read(name: str) -> str:
    place = os.environ.get(DIRECTORY)
    if not place:
        raise CredentialError(f"there is no ${DIRECTORY}, as outside of a unit with LoadCredential=")
    try:
        syntax.credential(name)  # whoever made it: a slash would lead out of the directory
        data = _content(place, name)
    except ValueError as error:
        raise CredentialError(str(error)) from None
    except OSError as error:
        raise CredentialError(f"{place}: cannot be read from there: {error.strerror}") from None
    if len(data) > LARGEST_BYTES:
        raise CredentialError(f"{place}: it has more than {LARGEST_BYTES} bytes")
    try:
        text = data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        text = "\0"
    # The error has nothing of the content, not even a byte's place or value: hence no cause.
    if "\0" in text:
        raise CredentialError(f"{place}: it is no text in UTF-8") from None
    if not text:
        raise CredentialError(f"{place}: it is empty")
    return text


def _content(place: str, name: str) -> bytes:
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A FIFO must not keep the start waiting, hence non-blocking.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CredentialError(f"{place}: it is no regular file")
        with open(fd, "rb", closefd=False) as file:
            return file.read(LARGEST_BYTES + 1)
    finally:
        os.close(fd)
