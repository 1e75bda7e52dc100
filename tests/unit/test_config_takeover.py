"""What of a new configuration a running service takes over, and what it leaves for a restart."""

from __future__ import annotations

import msgspec
import pytest

from scratchd.config import Canary, Checks, Config, File, Flavor, Http, Journal, Kafka, Log, Query
from scratchd.config.takeover import TakeoverError, take_over

GR, TR = Flavor(name="gr", hosts=("gr.test",)), Flavor(name="tr", hosts=("tr.test",))
BASE = Config(flavors=(GR,))

RESTART = """
    instance http.listen http.admin_listen journal.directory journal.sync journal.sync_interval_s journal.segment_bytes
    file.enabled file.flush_interval_s kafka.enabled kafka.bootstrap_servers kafka.key_parameter kafka.librdkafka
"""

OTHER = Config(
    instance="other",
    http=Http(
        listen=("127.0.0.1:1",),
        admin_listen=(),
        admin_allow=(),
        track_path="/t",
        trusted_proxies=(),
        max_head_bytes=1,
        max_query_bytes=1,
        max_parameters=1,
        head_timeout_s=1,
        write_timeout_s=1,
        keep_alive_s=1,
        max_connections=1,
        stop_timeout_s=1,
    ),
    query=Query(repeated="list"),
    checks=Checks(duplicate_window_s=1, client_requests_per_min=1, store_entries=1),
    journal=Journal(directory="/other", sync="always", sync_interval_s=7, segment_bytes=1 << 20, quota_bytes=1 << 30),
    file=File(enabled=False, path="/other/{flavor}/{date}", flush_interval_s=7),
    kafka=Kafka(
        enabled=True,
        bootstrap_servers="a:1",
        topic="other-{flavor}",
        key_parameter="k",
        librdkafka={"linger.ms": 7},
    ),
    canary=Canary(url="http://tr.test/", flavor="tr", interval_s=1, timeout_s=1),
    log=Log(level="error"),
    flavors=(TR,),
)


def test_every_key_differs_in_this_tests_other_configuration() -> None:
    """So that a key that is added later has to be decided upon."""
    same = [
        f"{section}.{key}"
        for section in BASE.__struct_fields__
        for key in getattr(getattr(BASE, section), "__struct_fields__", ())
        if getattr(getattr(BASE, section), key) == getattr(getattr(OTHER, section), key)
    ]
    assert same == []


def test_each_key_is_taken_over_or_waits_for_a_restart_and_is_named() -> None:
    takeover = take_over(BASE, OTHER)
    config, waiting = takeover.config, takeover.waiting
    assert waiting == tuple(RESTART.split())
    for section in ("http", "query", "checks", "journal", "file", "kafka", "canary", "log"):
        for key in getattr(config, section).__struct_fields__:
            source = BASE if f"{section}.{key}" in waiting else OTHER
            assert getattr(getattr(config, section), key) == getattr(getattr(source, section), key), key
    assert (config.instance, config.flavors) == ("", OTHER.flavors)


def test_what_does_not_fit_to_what_waits_is_refused() -> None:
    """Two segments of the size that is in effect do not fit into the new quota."""
    read = msgspec.structs.replace(BASE, journal=Journal(segment_bytes=65536, quota_bytes=131072))
    with pytest.raises(TakeoverError, match=r"journal\.segment_bytes.*journal\.quota_bytes: 131072 is too small"):
        take_over(BASE, read)


def test_nothing_changed_waits_for_nothing() -> None:
    assert take_over(BASE, BASE).config == BASE
    assert take_over(BASE, BASE).waiting == ()
