"""`systemctl reload`: a new configuration without a dropped connection, and a broken one that changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from installed import CONFIG, SERVICE, Installed
from visitors import Account, Visitors, assert_exactly_once, assert_no_failure

FLAVORS = [{"name": "site", "hosts": ["*"]}]


@pytest.fixture
def collector(shared: Installed) -> Iterator[Installed]:
    """The module's machine; afterwards the service runs again as it was installed."""
    yield shared
    shared.configure({"flavors": FLAVORS})
    shared.systemctl("restart", SERVICE)


def test_reload_adopts_flavors_limits_and_log_level_and_drops_no_connection(
    collector: Installed, state: Callable[[str, Account], None]
) -> None:
    pid = collector.pid()
    long_query = "/track?q=" + "x" * 300
    with Visitors(collector.machine.network) as visitors, collector.connect() as kept:
        assert kept.get(long_query, "www.example.gr").status == 200
        for step in range(5):
            collector.configure(
                {
                    "flavors": [{"name": "gr", "hosts": ["*.example.gr"], "time_zone": "Europe/Athens"}, *FLAVORS],
                    "http": {"max_query_bytes": 100 + step},
                    "log": {"level": "warning"},
                }
            )
            collector.systemctl("reload", SERVICE)  # which returns when it is in effect
            assert kept.get(long_query, "www.example.gr").status == 414
            assert kept.get("/track?q=gr", "www.example.gr").status == 200
            visitors.wait_answered(50)
        assert collector.pid() == pid
        answers = sum(1 for line in collector.log() if "request refused" in line)
        collector.configure({"flavors": FLAVORS, "log": {"level": "debug"}})
        collector.systemctl("reload", SERVICE)
        assert kept.get("/elsewhere", "www.example.gr").status == 404
        assert sum(1 for line in collector.log() if "request refused" in line) > answers
    state("six reloads", visitors.account)
    assert_no_failure(visitors.account)
    assert visitors.account.announced == 0, "a connection was closed"
    collector.wait_persisted()
    assert_exactly_once(visitors.account, collector.lines())
    assert collector.machine.run("sh", "-c", "cat /var/log/scratchd/gr/*.log") == '{"q":"gr"}\n' * 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"flavors": [{"name": "site", "hosts": ["*"]', "line 1, column"),
        (
            '{"flavors": [{"name": "site", "hosts": ["*"]}], "http": {"max_hed_bytes": 1}}',
            'did you mean "max_head_bytes"',
        ),
        ('{"flavors": []}', "flavors"),
    ],
    ids=["half a file", "mistyped key", "no flavor"],
)
def test_reload_of_a_broken_configuration_fails_and_the_process_goes_on_as_it_was(
    collector: Installed, content: str, said: str
) -> None:
    pid = collector.pid()
    with collector.connect() as kept:
        assert kept.get("/track?n=before", "any.test").status == 200
        collector.configure(content)
        assert collector.machine.attempt("systemctl", "reload", SERVICE).returncode != 0
        assert kept.get("/track?n=after", "any.test").status == 200
    assert (collector.pid(), collector.is_active()) == (pid, True)
    assert any(CONFIG.rpartition("/")[2] in line and said in line for line in collector.log())


def test_reload_names_what_waits_for_a_restart(collector: Installed) -> None:
    collector.configure({"flavors": FLAVORS, "journal": {"segment_bytes": 1 << 20}, "http": {"keep_alive_s": 60}})
    collector.systemctl("reload", SERVICE)
    assert any("this key waits for a restart key=journal.segment_bytes" in line for line in collector.log())
