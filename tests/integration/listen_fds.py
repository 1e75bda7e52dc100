"""Listen_fds: starts a program as systemd's socket activation would (sd_listen_fds(3)).

    python listen_fds.py track=7 admin=8 -- PROGRAM ARGUMENT...

The inherited descriptors 7 and 8 become 3 and 4, `LISTEN_FDS`, `LISTEN_FDNAMES` and `LISTEN_PID` say so, and the
program replaces this one: the process' id stays, as `LISTEN_PID` demands. Runs with any Python 3, without packages.
"""

from __future__ import annotations

import fcntl
import os
import sys

FIRST_FD = 3
CLEAR_FD = 100
"""The descriptors are first moved here and above, where none of them lies in another's way."""


def main(arguments: list[str]) -> None:
    """Never returns: the program takes this process over."""
    end = arguments.index("--")
    named = [argument.rpartition("=") for argument in arguments[:end]]
    moved = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, CLEAR_FD) for _, _, fd in named]
    for place, fd in enumerate(moved, FIRST_FD):
        os.dup2(fd, place, inheritable=True)
    os.environ.update(
        LISTEN_FDS=str(len(named)), LISTEN_FDNAMES=":".join(name for name, _, _ in named), LISTEN_PID=str(os.getpid())
    )
    program = arguments[end + 1 :]
    os.execvp(program[0], program)  # noqa: S606 - the caller names the program


if __name__ == "__main__":
    main(sys.argv[1:])
