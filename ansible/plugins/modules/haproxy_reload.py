#!/usr/bin/python
"""haproxy_reload: reloads HAProxy and waits until the new process answers.

`systemctl reload` succeeds as soon as the master process was told: one that then cannot start a worker with a valid
configuration (a limit of the machine, an address that is taken) goes on with the old one, and says so in its status.
"""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: haproxy_reload
short_description: Reloads HAProxy and makes sure that it did
version_added: 0.1.0
description:
  - Reloads the unit, and waits until another worker answers at the runtime socket than before.
  - Where the old configuration has no such socket, until one answers.
options:
  socket:
    description: HAProxy's runtime socket in the new configuration.
    type: path
    default: /run/haproxy/admin.sock
  unit:
    description: The unit.
    type: str
    default: haproxy.service
  timeout_s:
    description: How long it may take.
    type: int
    default: 20
attributes:
  check_mode:
    description: Does nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author: The scratchd developers
"""

EXAMPLES = r"""
- name: Reload HAProxy
  scratchd.scratchd.haproxy_reload:
"""

RETURN = r"""
worker:
  description: The new worker's process id.
  type: str
  returned: success
"""


def worker(path: str) -> str:
    """The process id of the worker that answers; empty where none does."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(path)
            connection.sendall(b"show info\n")
            said = b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
    except OSError:
        return ""
    found = re.search(r"^Pid: (\d+)$", said, re.MULTILINE)
    return found[1] if found else ""


def run(module: AnsibleModule) -> dict[str, Any]:
    """What the module does; its result."""
    wanted = module.params
    if module.check_mode:
        return {"changed": True}
    before = worker(wanted["socket"]) if Path(wanted["socket"]).exists() else ""
    status, _, said = module.run_command(["systemctl", "reload", wanted["unit"]])
    if status != 0:
        module.fail_json(msg=f"systemctl reload {wanted['unit']}: {said.strip()}")
    began_s = time.monotonic()
    deadline = began_s + wanted["timeout_s"]
    while True:
        now = worker(wanted["socket"])
        if now not in ("", before):
            return {"changed": True, "worker": now}
        _, state, _ = module.run_command(["systemctl", "show", "--value", "--property=StatusText", wanted["unit"]])
        # At first it may still be the status of a reload before this one.
        if ("failed" in state and time.monotonic() > began_s + 2) or time.monotonic() > deadline:
            _, log, _ = module.run_command(
                ["journalctl", "--no-pager", "--output=cat", "--lines=10", f"--unit={wanted['unit']}"]
            )
            module.fail_json(msg=f"{wanted['unit']} goes on with the old configuration: {state.strip()}\n{log.strip()}")
        time.sleep(0.1)


def main() -> None:
    """Ansible's entry."""
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
            "unit": {"type": "str", "default": "haproxy.service"},
            "timeout_s": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    module.exit_json(**run(module))


if __name__ == "__main__":
    main()
