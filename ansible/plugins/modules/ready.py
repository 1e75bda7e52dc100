#!/usr/bin/python
"""ready: waits until an instance of scratchd takes lines, and is the version that it is to be.

Asks the admin listener that the configuration names first; changes nothing.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: ready
short_description: Waits until scratchd takes lines
version_added: 0.1.0
description:
  - Asks C(/health/ready), and C(/stats) for the version that runs, until both are as they should be.
options:
  config:
    description: The instance's configuration, for its admin listener.
    type: path
    default: /etc/scratchd/config.json
  instance:
    description: The instance's name; empty for the one without.
    type: str
    default: ""
  version:
    description: What must run; a Debian revision behind it does not matter. Empty for any.
    type: str
    default: ""
  timeout_s:
    description: How long to wait.
    type: int
    default: 60
attributes:
  check_mode:
    description: Looks once, and fails on nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author: The scratchd developers
"""

EXAMPLES = r"""
- name: Wait until it takes lines
  scratchd.scratchd.ready:
    version: 0.1.0-1
"""

RETURN = r"""
version:
  description: What runs.
  type: str
  returned: always
health:
  description: Its word on itself, C(ready) at the end.
  type: str
  returned: always
"""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        """Connects to the path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def address_of(config: str, instance: str) -> str:
    """The first admin listener, `host:port` or `unix:/path`."""
    document = json.loads(Path(config).read_text(encoding="utf-8"))
    listed = document.get("http", {}).get("admin_listen", ["127.0.0.1:9007"])
    if not listed:
        raise ValueError(f"{config}: http.admin_listen is empty: nobody can be asked")
    return str(listed[0]).replace("{instance}", instance)


def ask(address: str, path: str) -> tuple[int, bytes]:
    """Status and body of one request."""
    if address.startswith("unix:"):
        connection: http.client.HTTPConnection = _UnixConnection(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        # Whoever listens on every address listens on loopback.
        host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 - read, not bound
        connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", path, headers={"Host": "localhost", "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def look(address: str) -> tuple[str, str]:
    """The health's word and the version; what keeps them from being told in the word's place."""
    try:
        health = ask(address, "/health/ready")[1].decode(errors="replace").strip()
        status, body = ask(address, "/stats")
        return health, str(json.loads(body)["version"]) if status == http.client.OK else f"/stats: {status}"
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return f"{address}: {error}", ""


def run(module: AnsibleModule) -> dict[str, Any]:
    """What the module does; its result."""
    wanted = module.params
    expected = wanted["version"].rpartition("-")[0] or wanted["version"]
    deadline = time.monotonic() + wanted["timeout_s"]
    while True:
        try:
            health, version = look(address_of(wanted["config"], wanted["instance"]))
        except (OSError, ValueError) as error:
            health, version = str(error), ""
        result = {"changed": False, "health": health, "version": version}
        if (health == "ready" and expected in ("", version)) or module.check_mode:
            return result
        if time.monotonic() > deadline:
            expectation = f"ready{' as ' + expected if expected else ''}"
            module.fail_json(
                msg=f"after {wanted['timeout_s']} s: expected {expectation}, got {health!r} as {version!r}", **result
            )
        time.sleep(0.1)


def main() -> None:
    """Ansible's entry."""
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "path", "default": "/etc/scratchd/config.json"},
            "instance": {"type": "str", "default": ""},
            "version": {"type": "str", "default": ""},
            "timeout_s": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    module.exit_json(**run(module))


if __name__ == "__main__":
    main()
