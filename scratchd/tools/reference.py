"""Reference: the page on every key of the configuration, made from the sections' own documentation.

Owns the page's shape and what concerns no single key; what a key means is said in `scratchd.config.sections` alone.
`python -m scratchd.tools.reference > docs/configuration.md`; a test fails when the two differ.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import inspect

from scratchd.config import Config, Flavor
from scratchd.config.librdkafka import REFUSED
from scratchd.config.takeover import needs_restart

_HEAD = """\
# Configuration

<!-- Made by `python -m scratchd.tools.reference > docs/configuration.md`: edit the sections' documentation instead. -->

One JSON object, by default in `/etc/scratchd/config.json`. Every key but `flavors` has a default, so
[minimal.json](../examples/minimal.json) is a whole configuration; [complete.json](../examples/complete.json) has every
key. `scratchd check` reads the file as the service would and prints everything that is wrong with it, not only the
first error, librdkafka's settings included; it connects to nobody and touches no directory:

```
config.json: flavors[1].time_zone: "Europe/Athen" is not a known time zone; did you mean "Europe/Athens"?
```

- Unknown keys, keys that come twice, comments and trailing commas are errors.
- Names ending in `_s` are seconds (fractions allowed), in `_bytes` bytes. A value equal to a limit passes.
- A number that stands for something else is the exception and **bold** below; where nothing is said, 0 is refused.
- `null`, where allowed, is the same as leaving the key out.
- Secrets in `kafka.librdkafka` (`*password`, `*secret`, `*key`, `*token`, `*pem`, `sasl.oauthbearer.config`, and
  whatever comes from a credential, see below) are never shown, neither by `check` nor in the log.

What is allowed and yet hardly meant, `check` and the start warn of: quotas that add up to more than the journal's file
system holds, clients limited behind a proxy that is not trusted, `sasl.*` set while `security.protocol` is plaintext.

A change takes effect at the next start or, but for the keys marked †, at the next reload (`systemctl reload scratchd`,
or SIGHUP). A reload reads and checks the whole file first. If anything is wrong with it, every error is logged and
nothing changes. If not, flavors, limits and the log level are put into effect together: no connection is dropped, and a
request is judged by the old configuration or the new one, never by a part of each. Changed keys that are marked † are
named in the log and wait for a restart.

- A flavor that is gone takes nothing more, and what its journal holds is brought to its files and topic as they were.
- Lines that wait in the journal go where the file says by the time they go; what was begun in a log file is completed
  there.
- A limit holds from the next head on that is read, a time limit from the next time that something is waited for, a
  quota from the next segment on. Open HTTP/2 connections keep their limits of time and of heads' size.
- What the checks remember is kept, unless `checks.store_entries` or `checks.duplicate_window_s` change.
"""

_REFUSED = """
### Properties of librdkafka that are refused

scratchd's promises rest on these, so it sets them itself. `*` stands for any text.

| property | reason |
|---|---|
"""

_CREDENTIALS = """
### Credentials

A value in `kafka.librdkafka` may be the name of a credential, so that no secret is in the configuration:

```json
{"kafka": {"librdkafka": {"sasl.username": "scratchd", "sasl.password": {"credential": "kafka-password"}}}}
```

with `LoadCredential=kafka-password:/etc/scratchd/kafka-password` (or `LoadCredentialEncrypted=`, `SetCredential=`) in a
drop-in of the unit. The file is then read from `$CREDENTIALS_DIRECTORY`, which systemd makes for the service alone. A
name has letters, digits, `_`, `.` and `-`, no `.` in front; links are not followed. The content is UTF-8; **one newline
at its end is removed**, any other byte belongs to the value.

Outside of the unit, in a shell or while a package is installed, there is no such directory: `scratchd check` then warns
that the credential is unresolved, validates everything else and ends with 0. `scratchd serve` and `scratchd backfill`
refuse an unresolved credential with exit status 78. To run a tool that talks to Kafka by hand, give it the same
credential:

```sh
systemd-run --pty --uid=scratchd -p LoadCredential=kafka-password:/etc/scratchd/kafka-password \\
    scratchd backfill --to kafka
```

A changed credential takes effect at the next start.
"""

_TEMPLATES = """
### Fields of templates

| field | in | stands for |
|---|---|---|
| `{flavor}` | `file.path`, `flavors[].file_path`, `kafka.topic`, `flavors[].kafka_topic` | the flavor's name |
| `{date}` | `file.path`, `flavors[].file_path` | the local date of a line's arrival in the flavor's zone, ISO 8601 |
| `{instance}` | `file.path`, `flavors[].file_path`, unix paths of `http.admin_listen` | the instance's name |

Any other brace is an error. When `instance` is set, `{instance}` must be in every path of files, `flavors[].file_path`
included: instances share a listening socket, never a file.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """What is said of one key; all of it is Markdown, code in backquotes.

    Attributes:
        name: with its section: `http.listen`.
        type: what may be written.
        default: JSON, or the word `required`.
        meaning: sentences.
        needs_restart: whether a reload leaves it as it is.
    """

    name: str
    type: str
    default: str
    meaning: str
    needs_restart: bool


def sections() -> Iterator[tuple[str, str, list[Key]]]:
    """Each section's name, what it is about (nothing for the first, of what lies in no other one), and its keys."""
    top = [field for field in _fields(Config) if not isinstance(_bare(field.type), inspect.StructType)]
    yield "Top level", "", _keys(Config, "", top)
    for field in _fields(Config):
        section = _bare(field.type)
        if isinstance(section, inspect.StructType):
            name = field.encode_name
            yield name, str(section.cls.__doc__), _keys(section.cls, f"{name}.", section.fields)
    yield "flavors[]", str(Flavor.__doc__), _keys(Flavor, "flavors[].", _fields(Flavor))


def page() -> str:
    """The whole page, ending in a newline."""
    parts = [_HEAD]
    for name, about, keys in sections():
        parts += [f"\n## {name}\n\n", f"{about}\n\n" if about else ""]
        parts.append("| key | type | default | meaning |\n|---|---|---|---|\n")
        for key in keys:
            cells = (f"`{key.name}`", key.type, key.default, key.meaning + (" †" if key.needs_restart else ""))
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
        if name == "kafka":
            parts += [_REFUSED, *(f"| `{pattern}` | {reason} |\n" for pattern, reason in REFUSED.items()), _CREDENTIALS]
    parts.append(_TEMPLATES)
    return "".join(parts)


def _keys(struct: type[msgspec.Struct], prefix: str, fields: Sequence[inspect.Field]) -> list[Key]:
    hints = typing.get_type_hints(struct)
    found = []
    for field in fields:
        if not isinstance(field.type, inspect.Metadata) or not field.type.extra_json_schema:
            raise TypeError(f"{prefix}{field.name}: expected a description, got none")
        meaning = field.type.extra_json_schema["description"]
        kind = _type(field.type, hints[field.name])
        found.append(Key(f"{prefix}{field.name}", kind, _default(field), str(meaning), needs_restart(field)))
    return found


def _type(kind: inspect.Type, hint: object) -> str:
    """What may be written; `hint` keeps the order of a `Literal`, which the inspected type sorts."""
    match _bare(kind):
        case inspect.LiteralType():
            text = ", ".join(f'`"{choice}"`' for choice in typing.get_args(hint))
        case inspect.BoolType():
            text = "`true`, `false`"
        case inspect.StrType():
            text = "string"
        case inspect.IntType() as number:
            text = f"integer{_least(number)}"
        case inspect.FloatType() as number:
            text = f"number{_least(number)}"
        case inspect.DictType():
            text = 'object of strings, numbers, booleans and `{"credential": ...}`'
        case inspect.VarTupleType(item_type=item):
            text = (
                "array of objects" if isinstance(_bare(item), inspect.StructType) else f"array of {_type(item, hint)}s"
            )
        case inspect.UnionType(types=types):
            text = ", ".join("`null`" if isinstance(one, inspect.NoneType) else _type(one, hint) for one in types)
        case other:
            raise TypeError(f"expected a type that configurations have, got {other}")
    return text


def _least(number: inspect.IntType | inspect.FloatType) -> str:
    if number.gt is not None:
        return f" > {number.gt:g}"
    return "" if number.ge is None else f" ≥ {number.ge}"


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    default = field.default_factory() if callable(field.default_factory) else field.default
    return f"`{msgspec.json.encode(default).decode()}`".replace('","', '", "')


def _fields(struct: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    kind = inspect.type_info(struct)
    return kind.fields if isinstance(kind, inspect.StructType) else ()


def _bare(kind: inspect.Type) -> inspect.Type:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind


if __name__ == "__main__":
    sys.stdout.write(page())
