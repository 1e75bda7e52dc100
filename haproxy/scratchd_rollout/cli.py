"""The command `scratchd-rollout`: arguments in, exit status out.

Exit status: 0 done; 1 refused, or failed in part; 2 wrong usage; 69 haproxy does not answer; 75 not yet, ask again;
78 the plan is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from scratchd_rollout import __version__, commands, plan
from scratchd_rollout.commands import BAD_PLAN, FAILED, NOT_RUNNING, NOT_YET, OK
from scratchd_rollout.edge import EdgeError
from scratchd_rollout.plan import ALL, PlanError
from scratchd_rollout.rollout import NotAllowed, NotYet
from scratchd_rollout.runtime import RuntimeSocketError
from scratchd_rollout.sharemap import ShareMapError
from scratchd_rollout.store import Store, StoreError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; wrong usage exits with 2."""
    chosen = command_line().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = chosen.command
    try:
        return command(chosen)
    except (PlanError, EdgeError) as error:
        for line in error.errors:
            commands.complain(line)
        return _status(error)
    except (NotYet, NotAllowed, StoreError, RuntimeSocketError, ShareMapError) as error:
        commands.complain(f"not yet: {error}" if isinstance(error, NotYet) else str(error))
        return _status(error)
    except BrokenPipeError:
        sys.stdout = None  # whoever read is gone; nothing is to be flushed at the end
        return OK
    except KeyboardInterrupt:
        return 130


def _status(error: Exception) -> int:
    if isinstance(error, RuntimeSocketError) or (isinstance(error, EdgeError) and "does not answer" in str(error)):
        return NOT_RUNNING
    return BAD_PLAN if isinstance(error, PlanError) else NOT_YET if isinstance(error, NotYet) else FAILED


# Name, what runs it, options that several have (tenant; reason, "reason?" where it may be left out), what it does.
COMMANDS: tuple[tuple[str, Callable[[argparse.Namespace], int], str, str], ...] = (
    ("status", commands.status, "", "show stage, share, both sides' numbers and the verdict"),
    ("start", commands.start, "tenant reason?", "begin a rollout with the plan's first step"),
    ("advance", commands.advance, "tenant", "go to the next step, when nothing is missing; 75 as long as it is"),
    ("skip", commands.skip, "tenant reason", "go to the next step whatever is missing, but not when a gate fails"),
    ("pause", commands.pause, "tenant reason", "hold a rollout; gates stay watched, nobody needs to be heard of"),
    ("resume", commands.resume, "tenant reason?", "go on with a rollout that is paused"),
    ("rollback", commands.rollback, "reason", "send everyone, or one tenant's visitors, to the legacy service"),
    ("heartbeat", commands.heartbeat, "tenant", "say that who drives it is there; 1 when there is nothing to drive"),
    ("dry-run", commands.dry_run, "tenant", "show what `start` would do, check everything, and change nothing"),
    ("guard", commands.watch_over, "", "look at everything once, and roll back what fails"),
    ("kill", commands.kill, "reason", "turn the kill switch on: everyone at the legacy service, testers too"),
    ("shadow", commands.shadow, "reason", "copy a share of the legacy service's requests to scratchd"),
    ("forget", commands.forget, "tenant reason", "remove a tenant's ended rollout: it follows `all` again"),
    ("audit", commands.audit, "", "show the last changes"),
    ("check", commands.check, "", "read the plan and print every error in it; 0 or 78"),
    ("init", commands.init, "", "make the map that HAProxy needs before its first start, if there is none"),
)


def command_line() -> argparse.ArgumentParser:
    """Everything that can be said on the command line; man page and completion are made from it."""
    parser = argparse.ArgumentParser(
        prog="scratchd-rollout",
        description="Moves visitors from a legacy service to scratchd, step by step, on the HAProxy in front of both.",
    )
    parser.add_argument("--version", action="version", version=f"scratchd-rollout {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--plan", metavar="PATH", type=Path, default=plan.PATH, help=f"default: {plan.PATH}")
    for name, default in (("state", Store().state), ("log", Store().log), ("run", Store().run)):
        common.add_argument(f"--{name}", metavar="DIRECTORY", type=Path, default=default, help=f"default: {default}")
    common.add_argument("--by", metavar="NAME", help="who is at work, where that is not who is logged in")
    choices = parser.add_subparsers(metavar="COMMAND", required=True)
    made = {}
    for name, run, options, what in COMMANDS:
        made[name] = choices.add_parser(
            name,
            aliases=["step"] if name == "advance" else [],
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            parents=[common],
        )
        made[name].set_defaults(command=run)
        if "tenant" in options:
            made[name].add_argument("--tenant", metavar="NAME", default=ALL, help=f"default: {ALL}")
        if "reason" in options:
            needed = "reason?" not in options
            made[name].add_argument(
                "--reason", metavar="TEXT", required=needed, default="", help="goes into the audit log"
            )
    made["status"].add_argument("--json", action="store_true", help="the same for programs")
    made["start"].add_argument("--auto", action="store_true", help="the guard goes on by itself, without a heartbeat")
    made["advance"].add_argument("--dry-run", action="store_true", help="say what is missing, and change nothing")
    made["rollback"].add_argument("--tenant", metavar="NAME", help="only this one; default: everyone")
    made["guard"].add_argument(
        "--watch", metavar="SECONDS", type=float, help="again and again, so often; ends when there is no rollout"
    )
    made["kill"].add_argument("--off", action="store_true", help="turn it off")
    made["shadow"].add_argument("percent", metavar="PERCENT", type=commands.share, help="0 to 100, in steps of 0.01")
    made["audit"].add_argument("--last", metavar="N", type=int, default=20, help="so many (default: 20)")
    return parser
