#!/usr/bin/python
"""haproxy_server: takes a server out of HAProxy's backends and puts it back, by the runtime socket.

Knows nothing of what the server is. Nobody is cut off: a server that drains gets no new requests and answers those it
has.
"""

from __future__ import annotations

import csv
import fnmatch
import socket
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: haproxy_server
short_description: Drains a server in HAProxy, or puts it back
version_added: 0.1.0
description:
  - Sets the state of one server in every backend that has it, and waits until it is in effect.
  - A server is not drained where no other one of its kind is up, so that a deployment in a wrong order changes nothing.
  - Where HAProxy does not run or does not know the server, nothing is done; C(backends) is empty then.
options:
  name:
    description: The server, as it is called in haproxy.cfg.
    type: str
    required: true
  state:
    description:
      - C(drain) takes no new requests and answers those that are under way.
      - C(ready) takes requests, as soon as its health checks succeed.
    type: str
    choices: [drain, ready]
    required: true
  backends:
    description: A shell pattern for the backends that matter.
    type: str
    default: scratchd_*
  strangers:
    description: A shell pattern for servers that do not count as others of its kind.
    type: str
    default: legacy-*
  alone:
    description: Drain it also where no other one is up.
    type: bool
    default: false
  socket:
    description: HAProxy's runtime socket, level admin.
    type: path
    default: /run/haproxy/admin.sock
  timeout_s:
    description: For answers that are under way (C(drain)) or health checks (C(ready)).
    type: int
    default: 30
attributes:
  check_mode:
    description: Says what would be done.
    support: full
  diff_mode:
    description: Shows the states.
    support: full
author: The scratchd developers
"""

EXAMPLES = r"""
- name: Send nobody to the secondary any more
  scratchd.scratchd.haproxy_server:
    name: secondary
    state: drain
"""

RETURN = r"""
backends:
  description: Backend to the server's state afterwards.
  type: dict
  returned: always
  sample: {scratchd_gr: "UP"}
"""

Rows = dict[str, dict[str, dict[str, str]]]


def ask(path: str, command: str) -> str:
    """One command's answer on the runtime socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")


def rows(path: str, pattern: str) -> Rows:
    """Backend to server to its row of `show stat`, of the backends that `pattern` names."""
    found: Rows = {}
    for row in csv.DictReader(ask(path, "show stat").removeprefix("# ").splitlines()):
        if row["svname"] not in {"FRONTEND", "BACKEND"} and fnmatch.fnmatchcase(row["pxname"], pattern):
            found.setdefault(row["pxname"], {})[row["svname"]] = row
    return found


def alone(backends: Rows, name: str, strangers: str) -> list[str]:
    """The backends in which `name` is up and no other one is, `strangers` apart."""

    def up(servers: dict[str, dict[str, str]]) -> set[str]:
        return {
            server
            for server, row in servers.items()
            if row["status"] == "UP" and not fnmatch.fnmatchcase(server, strangers)
        }

    return [backend for backend, servers in backends.items() if up(servers) == {name}]


def run(module: AnsibleModule) -> dict[str, Any]:
    """What the module does; its result."""
    wanted = module.params
    path, name = wanted["socket"], wanted["name"]
    if not Path(path).is_socket():
        return {"changed": False, "backends": {}}
    before = {backend: servers for backend, servers in rows(path, wanted["backends"]).items() if name in servers}
    drains = wanted["state"] == "drain"
    if drains and not wanted["alone"]:
        for backend in alone(before, name, wanted["strangers"]):
            module.fail_json(msg=f"{backend}: {name} is the only server that is up; nothing was changed")
    states = {backend: servers[name]["status"] for backend, servers in before.items()}
    # A server whose checks fail is DOWN whatever it was told: it is told again, which does no harm.
    changing = [backend for backend, state in states.items() if (state == "DRAIN") != drains]
    after = {**states, **dict.fromkeys(changing, "DRAIN" if drains else "UP")}
    result = {"changed": bool(changing), "backends": after, "diff": {"before": _shown(states), "after": _shown(after)}}
    if module.check_mode:
        return result
    for backend in before:
        said = ask(path, f"set server {backend}/{name} state {wanted['state']}").strip()
        if said:
            module.fail_json(msg=f"{backend}/{name}: haproxy said: {said}")
    return {**result, "backends": _wait(module, list(before))}


def _wait(module: AnsibleModule, backends: list[str]) -> dict[str, str]:
    """The states, once what was asked for is so."""
    wanted = module.params
    name, deadline = wanted["name"], time.monotonic() + wanted["timeout_s"]
    while True:
        now = rows(wanted["socket"], wanted["backends"])
        states = {backend: now[backend][name]["status"] for backend in backends}
        busy = sum(int(now[backend][name]["scur"] or 0) for backend in backends)
        if busy == 0 if wanted["state"] == "drain" else all(state == "UP" for state in states.values()):
            return states
        if time.monotonic() > deadline:
            module.fail_json(msg=f"{name}: after {wanted['timeout_s']} s: {states}, {busy} requests under way")
        time.sleep(0.05)


def _shown(states: dict[str, str]) -> str:
    return "".join(f"{backend}: {state}\n" for backend, state in sorted(states.items()))


def main() -> None:
    """Ansible's entry."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["drain", "ready"], "required": True},
            "backends": {"type": "str", "default": "scratchd_*"},
            "strangers": {"type": "str", "default": "legacy-*"},
            "alone": {"type": "bool", "default": False},
            "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
            "timeout_s": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except OSError as error:
        module.fail_json(msg=f"{module.params['socket']}: {error.strerror or error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
