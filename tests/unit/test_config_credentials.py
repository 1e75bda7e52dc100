"""Credentials: found in one directory only, read without surprises, validated with what they hold, never shown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scratchd.config import Config, ConfigError, load, warnings
from scratchd.config.credentials import DIRECTORY, LARGEST_BYTES, Credential, CredentialError, Value, resolve, resolved
from scratchd.config.librdkafka import Concealment, examine

PAIR = Path(__file__).with_name("credentials")
"""A key and its certificate, valid for a hundred years and for nobody."""

SECRET = "correct-horse-battery"  # noqa: S105 - a test's
PROPERTIES: dict[str, Value | Credential] = {
    "security.protocol": "sasl_plaintext",
    "sasl.mechanism": "PLAIN",
    "sasl.username": "scratchd",
    "sasl.password": Credential("kafka-password"),
}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What systemd gives a unit that loads credentials."""
    place = tmp_path / "credentials"
    place.mkdir()
    monkeypatch.setenv(DIRECTORY, str(place))
    return place


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell."""
    monkeypatch.delenv(DIRECTORY, raising=False)


def loaded(tmp_path: Path, properties: dict[str, Any]) -> Config:
    path = tmp_path / "config.json"
    kafka = {"enabled": True, "bootstrap_servers": "kafka:9092", "librdkafka": properties}
    path.write_text(json.dumps({"kafka": kafka, "flavors": [{"name": "gr", "hosts": ["*"]}]}))
    return load(path)


def errors(tmp_path: Path, properties: dict[str, Any]) -> list[str]:
    try:
        loaded(tmp_path, properties)
    except ConfigError as error:
        return error.errors
    return []


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\n\n", "hunter2\n"),
        (b"hunter2\r\n", "hunter2\r"),
        (b" hunter 2 \n", " hunter 2 "),
        ("κωδικός\n".encode(), "κωδικός"),
        (b"x" * (LARGEST_BYTES - 1) + b"\n", "x" * (LARGEST_BYTES - 1)),
    ],
    ids=["bare", "newline", "two newlines", "carriage return", "spaces", "not ascii", "largest"],
)
def test_a_credential_is_its_file_without_one_newline_at_the_end(directory: Path, content: bytes, value: str) -> None:
    (directory / "kafka-password").write_bytes(content)
    assert resolved(PROPERTIES)["sasl.password"] == value
    assert resolved(PROPERTIES)["sasl.username"] == "scratchd"


def make_link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def make_link_beside(path: Path) -> None:
    path.with_name("other").write_text(SECRET)
    path.symlink_to("other")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda _path: None, "No such file or directory"),
        (make_link, "Too many levels of symbolic links"),
        (make_link_beside, "Too many levels of symbolic links"),
        (Path.mkdir, "no regular file"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(b"\n"), "it is empty"),
        (lambda path: path.write_bytes(SECRET.encode() + b"\0"), "no text in UTF-8"),
        (lambda path: path.write_bytes(SECRET.encode() + b"\xff"), "no text in UTF-8"),
        (lambda path: path.write_bytes(SECRET.encode() * 100000), "more than 1048576 bytes"),
    ],
    ids=["missing", "link", "link beside", "directory", "fifo", "empty", "newline", "nul", "not utf-8", "too large"],
)
def test_what_is_no_readable_file_is_unresolved_and_says_why(
    directory: Path, make: Callable[[Path], object], why: str
) -> None:
    make(directory / "kafka-password")
    (reason,) = resolve(PROPERTIES).missing.values()
    assert reason.startswith(f'the credential "kafka-password" is unresolved: {directory}: ')
    assert why in reason
    assert "horse" not in reason


def test_who_needs_a_credential_is_refused_without_it(outside: None) -> None:
    with pytest.raises(CredentialError, match=r"kafka\.librdkafka\.sasl\.password: .*CREDENTIALS_DIRECTORY"):
        resolved(PROPERTIES)


def test_a_file_elsewhere_is_never_read(directory: Path) -> None:
    """Whatever a name slipped through with: openat(2) on the directory alone."""
    (directory.parent / "secret").write_text(SECRET)
    (directory / "in").symlink_to(directory.parent)
    with pytest.raises(CredentialError):
        resolved({"sasl.password": Credential("in/secret")})


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "../a", "/etc/passwd", "a b", "a\nb", "é", "x" * 256]
)
def test_names_that_are_none_are_refused_and_not_shown(tmp_path: Path, name: str) -> None:
    (error,) = errors(tmp_path, {"sasl.password": {"credential": name}})
    assert error.startswith('config.json: kafka.librdkafka.sasl.password.credential: "..." is ')


@pytest.mark.parametrize("name", ["a", "kafka-password", "kafka.password_2", "-", "_", "A.", "x" * 255])
def test_names_of_files_pass(tmp_path: Path, outside: None, name: str) -> None:
    assert errors(tmp_path, {"sasl.password": {"credential": name}}) == []


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({}, "sasl.password.credential: is required, but missing"),
        ({"credential": 1}, 'sasl.password.credential: "..." is not a string'),
        ({"credential": None}, 'sasl.password.credential: "..." is not a string'),
        ({"credential": "a", "foo": "/x"}, "sasl.password.foo: is not a known key"),
        ([SECRET], 'sasl.password: "..." is none of a string, a number, {"credential": ...}, true and false'),
    ],
)
def test_another_object_is_no_credential(tmp_path: Path, outside: None, value: object, error: str) -> None:
    assert [f"config.json: kafka.librdkafka.{error}"] == errors(tmp_path, {"sasl.password": value})


def test_outside_of_the_unit_it_is_a_warning_and_all_else_is_validated(tmp_path: Path, outside: None) -> None:
    properties = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": "scratchd"}
    unresolved = {"sasl.password": {"credential": "kafka-password"}}
    (warning,) = warnings(loaded(tmp_path, {**properties, **unresolved}))
    assert warning == (
        'kafka.librdkafka.sasl.password: the credential "kafka-password" is unresolved: there is no '
        "$CREDENTIALS_DIRECTORY, as outside of a unit with LoadCredential="
    )
    (error,) = errors(tmp_path, {**properties, "sasl.username": "", **unresolved, "sasl.mechanism": "PLAIM"})
    assert "PLAIM" in error
    (error,) = errors(tmp_path, {"sasl.pasword": {"credential": "kafka-password"}})
    assert 'No such configuration property: "sasl.pasword"; did you mean "sasl.password"?' in error


@pytest.mark.parametrize(
    "properties",
    [
        {"linger.ms": Credential("a")},
        {"socket.keepalive.enable": Credential("a"), "security.protocol": Credential("b")},
        {"security.protocol": "ssl", "ssl.key.pem": Credential("a"), "ssl.certificate.pem": "rubbish"},
        {"security.protocol": "ssl", "ssl.ca.pem": Credential("a")},
        {"security.protocol": "ssl", "ssl.key.password": Credential("a"), "ssl.key.location": "/nowhere"},
        {"security.protocol": "ssl", "ssl.keystore.password": Credential("a"), "ssl.keystore.location": "/nowhere"},
        {"security.protocol": "sasl_ssl", "sasl.mechanism": Credential("a"), "sasl.username": Credential("b")},
        PROPERTIES,
    ],
)
def test_a_placeholder_is_never_held_against_the_configuration(
    outside: None, properties: dict[str, Value | Credential]
) -> None:
    assert examine(properties).errors == []


def test_librdkafka_validates_what_a_credential_holds(directory: Path, tmp_path: Path) -> None:
    properties = {"security.protocol": "ssl", "ssl.key.pem": {"credential": "key"}, "ssl.ca.pem": {"credential": "ca"}}
    (directory / "key").write_text(SECRET)
    for name, file in (("good-key", "key.pem"), ("ca", "certificate.pem")):
        (directory / name).write_text((PAIR / file).read_text())
    (error,) = errors(tmp_path, properties)
    assert "ssl.key.pem" in error
    assert "horse" not in error
    properties["ssl.key.pem"] = {"credential": "good-key"}
    properties["ssl.certificate.pem"] = {"credential": "ca"}
    assert errors(tmp_path, properties) == []


@pytest.mark.parametrize("name", ["linger.ms", "security.protocol", "compression.type", "foo", "acks"])
def test_what_a_credential_holds_is_not_shown_whatever_is_wrong_with_it(
    directory: Path, tmp_path: Path, name: str
) -> None:
    (directory / "a").write_text(SECRET)
    found = errors(tmp_path, {name: {"credential": "a"}})
    assert len(found) == 1
    assert "horse" not in found[0]


def test_a_configuration_shows_no_credentials_content(directory: Path, tmp_path: Path) -> None:
    (directory / "a").write_text(SECRET)
    config = loaded(tmp_path, {"sasl.password": {"credential": "a"}})
    assert "horse" not in repr(config)
    assert "horse" not in str(warnings(config))


def test_librdkafkas_words_are_cleared_of_secrets() -> None:
    values: dict[str, Value] = {"sasl.username": "long", "sasl.password": "long-password", "client.id": "visible"}
    conceal = Concealment({**values, "sasl.username": Credential("u")}, values)
    assert conceal("login of long with\nlong-password from visible") == "login of ... with ... from visible"
