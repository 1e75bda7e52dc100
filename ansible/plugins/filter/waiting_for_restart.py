"""The filter `waiting_for_restart`: which keys of two configurations differ that only a start of scratchd can change.

Pure. Everything else is put into effect by a reload, which no client notices. The keys are those marked † in
docs/configuration.md; a test holds them against scratchd's own description.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping

DOCUMENTATION = r"""
name: waiting_for_restart
short_description: Keys of scratchd's configuration that differ and need a restart
version_added: 0.1.0
description:
  - Of two configurations of scratchd, the keys that differ and that only a start can change.
  - Where there are none, C(systemctl reload) puts the new one into effect.
  - Of a file that is no configuration nobody knows what runs by it, so all of them wait.
options:
  _input:
    description: The file of the configuration that is running, in base64, as M(ansible.builtin.slurp) returns it.
    type: str
    required: true
  new:
    description: The configuration that is to run.
    type: dict
    required: true
author: The scratchd developers
"""

EXAMPLES = r"""
keys: "{{ slurped.content | scratchd.scratchd.waiting_for_restart({'journal': {'sync': 'always'}}) }}"
"""

RETURN = r"""
_value:
  description: Keys such as C(journal.sync), sorted. One that is left out differs from one that has its default.
  type: list
  elements: str
"""

KEYS = (
    "file.enabled",
    "file.flush_interval_s",
    "http.admin_listen",
    "http.listen",
    "instance",
    "journal.directory",
    "journal.segment_bytes",
    "journal.sync",
    "journal.sync_interval_s",
    "kafka.bootstrap_servers",
    "kafka.enabled",
    "kafka.key_parameter",
    "kafka.librdkafka",
)


def waiting_for_restart(content: str, new: Mapping[str, object]) -> list[str]:
    """The keys, sorted; `content` is base64 of a file that may be broken, and is then about to be repaired."""
    try:
        old = json.loads(base64.b64decode(content))
    except ValueError:
        old = None
    if not isinstance(old, Mapping):
        return list(KEYS)
    return [key for key in KEYS if _at(old, key) != _at(new, key)]


def _at(config: Mapping[str, object], key: str) -> object:
    value: object = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Names to functions."""
        return {"waiting_for_restart": waiting_for_restart}
