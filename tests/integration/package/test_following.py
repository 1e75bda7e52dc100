"""Whether an operator follows events and refusals on a machine as it was installed: by the service's user, by root."""

from __future__ import annotations

from installed import Installed

INTERRUPTED = ("timeout", "--signal=INT", "3")
"""Ctrl-C after three seconds."""


def test_the_services_user_follows_events(shared: Installed) -> None:
    assert shared.get("/track?page=%2Fhome").status == 200
    done = shared.machine.attempt(
        "runuser", "-u", "scratchd", "--", *INTERRUPTED, "scratchd", "tail", "--json", "--filter", "page=/home"
    )
    assert (done.stdout, done.stderr) == ('{"page":"/home"}\n', "")


def test_somebody_else_is_told_who_may(shared: Installed) -> None:
    done = shared.machine.attempt("runuser", "-u", "nobody", "--", "scratchd", "tail")
    assert done.returncode == 78
    assert done.stderr.endswith("scratchd tail: run it as the service's user: sudo -u scratchd scratchd tail\n")


def test_root_follows_refusals_from_journald(shared: Installed) -> None:
    assert shared.get("/track").status == 400
    assert shared.get("/elsewhere?%1B%5B2J").status == 404
    done = shared.machine.attempt(*INTERRUPTED, "scratchd", "tail", "--refused", "--lines", "2", "--color", "never")
    first, second = done.stdout.splitlines()
    assert first.split(" ", 1)[1].startswith("empty_query the query ")
    assert second.split(" ", 1)[1].startswith('not_found the path "/elsewhere" is not known')
    assert done.stderr == ""


def test_refusals_that_come_are_followed(shared: Installed) -> None:
    follow = shared.machine.path("/root/followed")
    shared.machine.sh("timeout 8 scratchd tail --refused --lines 0 > /root/followed 2>&1 &")
    for number in range(5):
        assert shared.get(f"/elsewhere{number}").status == 404
        shared.machine.run("sleep", "1")
    assert "/elsewhere4" in follow.read_text()
