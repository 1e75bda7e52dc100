"""Which side answers: the edge's HAProxy, 2.6 and 3.0, in front of two small servers."""

from __future__ import annotations

import contextlib
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import render
from daemon import SOURCE
from deadline import wait_for
from debian13 import NoTree, tree
from origin import Origin
from proxy import Proxy, certificate
from wire import Connection

HEADQUARTERS, TESTER, OUTSIDE = "127.9.0.5", "127.8.0.5", "127.7.0.5"


@pytest.fixture(scope="module", params=["haproxy 2.6", "haproxy 3.0"])
def debian13(request: pytest.FixtureRequest) -> Path | None:
    """This machine's HAProxy, or Debian 13's."""
    if request.param == "haproxy 2.6":
        return None
    try:
        return tree(SOURCE / ".cache")
    except NoTree as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def origins() -> Iterator[Callable[[str], Origin]]:
    """Makes servers, killed at the test's end."""
    made: list[Origin] = []

    def make(name: str) -> Origin:
        made.append(Origin(name))
        return made[-1]

    yield make
    for origin in made:
        origin.kill()


@pytest.fixture
def start_proxy(tmp_path: Path, debian13: Path | None) -> Iterator[Callable[..., Proxy]]:
    """Starts HAProxy with the role's variables in front of one scratchd and one legacy server."""
    with contextlib.ExitStack() as running:

        def start(scratchd: Origin, legacy: Origin, *, secondary: Origin | None = None, **variables: Any) -> Proxy:  # noqa: ANN401
            servers: list[dict[str, Any]] = [
                {"name": "primary", "address": scratchd.address, "check": scratchd.address}
            ]
            if secondary is not None:
                servers.append(
                    {"name": "secondary", "address": secondary.address, "check": secondary.address, "backup": True}
                )
            tenant = {"name": "gr", "hosts": ["gr.test"], "legacy": [{"name": "old", "address": legacy.address}]}
            given: dict[str, Any] = {
                "edge_tenants": [tenant],
                "edge_servers": servers,
                "edge_headquarters": ["127.9.0.0/24"],
                "edge_testers": ["127.8.0.0/24"],
                "edge_visitor_cookie": "visitor",
            }
            pem = variables.pop("certificate", None)
            proxy = Proxy(tmp_path, {**given, **variables}, tree=debian13, certificate=pem)
            running.callback(proxy.close)
            proxy.start()
            return proxy

        yield start


def visitors(count: int, seed: int = 7) -> list[str]:
    """Cookies of so many visitors, always the same."""
    source = random.Random(seed)
    return [f"{source.getrandbits(64):016x}" for _ in range(count)]


def test_the_example_is_the_template_rendered() -> None:
    assert (SOURCE / "haproxy" / "haproxy.cfg").read_text() == render.example(), "make it anew: haproxy/render.py"


def test_the_example_is_valid_and_nothing_about_it_is_doubtful(tmp_path: Path, debian13: Path | None) -> None:
    variables = yaml.safe_load((SOURCE / "haproxy" / "example.yml").read_text())
    with contextlib.closing(Proxy(tmp_path, variables, tree=debian13)) as proxy:
        said = proxy.check()
    assert "WARNING" not in said, said


def test_each_path_and_host_has_its_backend(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    new, old, web, other = (origins(name) for name in ("new", "old", "web", "other"))
    tenants = [
        {"name": "gr", "hosts": ["gr.test", "*.gr.test"], "legacy": [{"name": "old", "address": old.address}]},
        {
            "name": "it",
            "hosts": ["it.gr.test", "*.it.test"],
            "legacy": [{"name": "old", "address": other.address}],
            "site": [{"name": "web", "address": web.address}],
        },
    ]
    proxy = start_proxy(new, old, edge_tenants=tenants)
    answered = {
        (host, target): proxy.origin(target, host)
        for host in ("gr.test", "GR.test:80", "a.gr.test", "it.gr.test", "a.b.it.test", "unknown.test")
        for target in ("/track?a=1", "/other")
    }
    assert answered == {
        ("gr.test", "/track?a=1"): "old",
        ("gr.test", "/other"): "old",
        ("GR.test:80", "/track?a=1"): "old",
        ("GR.test:80", "/other"): "old",
        ("a.gr.test", "/track?a=1"): "old",
        ("a.gr.test", "/other"): "old",
        ("it.gr.test", "/track?a=1"): "other",
        ("it.gr.test", "/other"): "web",
        ("a.b.it.test", "/track?a=1"): "other",
        ("a.b.it.test", "/other"): "web",
        ("unknown.test", "/track?a=1"): "haproxy 421",
        ("unknown.test", "/other"): "haproxy 421",
    }
    proxy.set(it=10000)
    assert proxy.origin("/track?a=1", "it.gr.test") == "new"
    assert proxy.origin("/track?a=1", "gr.test") == "old", "another tenant's share"
    for target in ("/Track?a=1", "/track/", "//track", "/%74rack", "/trackx", "/"):
        assert proxy.origin(target, "it.gr.test") == "web", target


def test_the_share_is_measured_sticky_and_only_adds_visitors(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    proxy = start_proxy(origins("new"), origins("old"))
    z = statistics.NormalDist().inv_cdf(0.99999)
    proxy.set(all=1000)
    part = proxy.visit(visitors(10_000)).count("new") / 10_000
    assert abs(part - 0.1) <= z * (0.1 * 0.9 / 10_000) ** 0.5, part

    cookies = visitors(1500)
    moved: set[str] = set()
    for share in (0, 1, 100, 1000, 5000, 10_000):
        proxy.set(all=share)
        now = {cookie for cookie, answer in zip(cookies, proxy.visit(cookies), strict=True) if answer == "new"}
        assert moved <= now, "a visitor flipped back"
        expected = share / 10_000
        bound = z * (expected * (1 - expected) / len(cookies)) ** 0.5
        assert abs(len(now) / len(cookies) - expected) <= bound + 3 / len(cookies), share
        moved = now
    assert len(moved) == len(cookies)


def test_a_step_of_a_hundredth_of_a_percent_moves_its_visitors_and_no_other(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    proxy = start_proxy(origins("new"), origins("old"))
    cookies = visitors(2000)
    buckets = {}
    proxy.visit(cookies)
    wait_for(lambda: sum("bucket=" in line for line in proxy.log) >= len(cookies), 30, "every log line")
    requests = [line for line in proxy.log if "bucket=" in line]
    for cookie, line in zip(cookies, requests, strict=True):
        buckets[cookie] = int(line.partition("bucket=")[2].split()[0])
    assert set(buckets.values()) <= set(range(10_000))
    for cookie in cookies[:20]:
        proxy.set(all=buckets[cookie])
        assert proxy.visit([cookie]) == ["old"]
        proxy.set(all=buckets[cookie] + 1)
        assert proxy.visit([cookie]) == ["new"]


def test_a_visitor_without_a_cookie_is_known_by_his_network(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    proxy = start_proxy(origins("new"), origins("old"))
    proxy.set(all=5000)
    by_network = {
        network: {proxy.origin(source=f"127.5.{network}.{host}") for host in (1, 77, 254)} for network in range(40)
    }
    assert all(len(answers) == 1 for answers in by_network.values()), by_network
    assert {answer for answers in by_network.values() for answer in answers} == {"new", "old"}


def test_headquarters_comes_first_and_the_kill_switch_before_everything(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    proxy = start_proxy(origins("new"), origins("old"))
    assert proxy.origin(source=HEADQUARTERS) == "old"
    proxy.set(all__headquarters=1)
    assert proxy.origin(source=HEADQUARTERS) == "new"
    assert proxy.origin(source=OUTSIDE) == "old"
    proxy.set(gr__headquarters=0)
    assert proxy.origin(source=HEADQUARTERS) == "old", "a tenant's own goes before all's"
    proxy.set(gr__headquarters=1, gr=10_000, kill=1)
    forced = "X-Scratchd-Side: scratchd"
    assert [proxy.origin(source=HEADQUARTERS), proxy.origin(source=OUTSIDE)] == ["old", "old"]
    assert proxy.origin("/track?a=1", "gr.test", forced, source=TESTER) == "old"
    proxy.set(kill=0)
    assert [proxy.origin(source=HEADQUARTERS), proxy.origin(source=OUTSIDE)] == ["new", "new"]


@pytest.mark.parametrize(
    "wish", ["X-Scratchd-Side: {}", "Cookie: scratchd_side={}", "Cookie: a=b; scratchd_side={}; visitor=c"]
)
def test_testers_choose_their_side_and_nobody_else_does(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin], wish: str
) -> None:
    new, old = origins("new"), origins("old")
    proxy = start_proxy(new, old)
    target, host = "/track?a=1", "gr.test"
    assert proxy.origin(target, host, wish.format("scratchd"), source=TESTER) == "new"
    assert proxy.origin(target, host, wish.format("scratchd"), source=OUTSIDE) == "old"
    assert proxy.origin(target, host, wish.format("nonsense"), source=TESTER) == "old"
    proxy.set(all=10_000)
    assert proxy.origin(target, host, wish.format("legacy"), source=TESTER) == "old"
    assert proxy.origin(target, host, wish.format("legacy"), source=OUTSIDE) == "new"
    heads = b"".join(new.requests() + old.requests())
    assert b"scratchd_side" not in heads
    assert b"x-scratchd-side" not in heads.lower()
    if "visitor" in wish:
        assert heads.lower().count(b"cookie: a=b; visitor=c") == 5


def test_what_a_client_claims_or_upgrades_to_reaches_nobody(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    new, old = origins("new"), origins("old")
    proxy = start_proxy(new, old)
    claims = (
        "X-Forwarded-For: 192.0.2.99",
        "X-Forwarded-For: 192.0.2.98",
        "X-Forwarded-Proto: https",
        "Forwarded: for=192.0.2.97",
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    )
    for share in (0, 10_000):
        proxy.set(all=share)
        proxy.origin("/track?a=1", "gr.test", *claims, source=OUTSIDE)
    for head in (*new.requests(), *old.requests()):
        fields = [line.lower() for line in head.split(b"\r\n")[1:]]
        assert [field for field in fields if field.startswith((b"x-forwarded", b"forwarded"))] == [
            f"x-forwarded-for: {OUTSIDE}".encode(),
            b"x-forwarded-proto: http",
        ]
        assert not [field for field in fields if b"upgrade" in field or b"http2-settings" in field], fields
    assert [len(new.requests()), len(old.requests())] == [1, 1]


def test_one_client_is_limited_and_headquarters_is_not(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    proxy = start_proxy(origins("new"), origins("old"), edge_client_requests_per_10s=5)
    assert [proxy.origin(source=OUTSIDE) for _ in range(7)] == ["old"] * 5 + ["haproxy 429"] * 2
    assert [proxy.origin(source=HEADQUARTERS) for _ in range(7)] == ["old"] * 7
    assert proxy.origin(source="127.7.0.6") == "old", "a neighbour is another client"


def test_the_primary_dies_under_load_and_nobody_notices(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    primary, secondary, old = origins("primary"), origins("secondary"), origins("old")
    proxy = start_proxy(primary, old, secondary=secondary)
    proxy.set(all=10_000)
    proxy.wait_up("scratchd_gr/primary", "scratchd_gr/secondary")
    answers: list[tuple[int, str | None]] = []
    took: list[float] = []
    with Connection(proxy.address) as connection:
        for number in range(400):
            if number == 100:
                primary.kill()
            if number == 250:
                secondary.kill()
            began = time.monotonic()
            answer = connection.get(f"/track?n={number}", "gr.test")
            took.append(time.monotonic() - began)
            answers.append((answer.status, answer.field("x-origin")))
    print(f"longest stall: {max(took):.2f} s")  # noqa: T201 - docs/rollout.md has it
    assert {status for status, _ in answers} == {200}
    order = [name for name, _ in dict.fromkeys((name, None) for _, name in answers)]
    assert order == ["primary", "secondary", "old"], "who is next answers, the legacy service last of all"
    primary.start()
    proxy.wait_up("scratchd_gr/primary")
    assert proxy.origin() == "primary"


def test_a_server_that_is_not_ready_is_not_asked(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    primary, secondary, old = origins("primary"), origins("secondary"), origins("old")
    proxy = start_proxy(primary, old, secondary=secondary)
    proxy.set(all=10_000)
    primary.ready = False
    proxy.wait_up("scratchd_gr/primary", state="DOWN")
    assert proxy.origin() == "secondary"
    assert not primary.requests()


def test_a_server_that_refuses_is_passed_by(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    primary, secondary, old = origins("primary"), origins("secondary"), origins("old")
    proxy = start_proxy(primary, old, secondary=secondary)
    proxy.set(all=10_000)
    primary.status = 503
    # 3.0 counts each attempt, so already the first visitor is answered by the next one; 2.6 counts what visitors got.
    assert [proxy.origin() for _ in range(6)][3:] == ["secondary"] * 3
    wait_for(lambda: "primary is DOWN" in "".join(proxy.log), 30, "the log says so")


def test_a_server_that_hangs_is_passed_by_and_nobody_fails(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    primary, secondary, old = origins("primary"), origins("secondary"), origins("old")
    proxy = start_proxy(primary, old, secondary=secondary, edge_scratchd_timeout="2s")
    proxy.set(all=10_000)
    proxy.wait_up("scratchd_gr/primary", "scratchd_gr/secondary")
    primary.hang()
    assert [proxy.origin() for _ in range(3)] == ["secondary"] * 3


def test_a_reload_and_a_restart_keep_the_share_that_is_in_the_file(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    proxy = start_proxy(origins("new"), origins("old"))
    cookies = visitors(500)
    proxy.share_map.write_text("all 3000\nkill 0\n")
    proxy.reload()
    before = proxy.visit(cookies)
    assert 100 < before.count("new") < 200
    proxy.reload()
    assert proxy.visit(cookies) == before
    proxy.stop()
    proxy.start()
    assert proxy.visit(cookies) == before


def test_tls_and_http2_in_front_are_http1_with_reuse_behind(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin], tmp_path: Path, debian13: Path | None
) -> None:
    new, old = origins("new"), origins("old")
    proxy = start_proxy(new, old, certificate=certificate(tmp_path, "gr.test"))
    proxy.set(all=10_000)
    assert proxy.tls_address is not None
    port = proxy.tls_address.rpartition(":")[2]
    url = f"https://gr.test:{port}/track?n="
    done = subprocess.run(
        [
            "curl",
            "--silent",
            "--show-error",
            "--http2",
            "--cacert",
            str(tmp_path / "cert.pem"),
            "--resolve",
            f"gr.test:{port}:127.0.0.1",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_version} %{response_code} %{num_connects}\\n",
            f"{url}[1-20]",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split("\n")[:-1] == ["2 200 1"] + ["2 200 0"] * 19
    heads = new.requests()
    assert len(heads) == 20
    assert all(head.split(b"\r\n")[0].endswith(b" HTTP/1.1") and b"x-forwarded-proto: https" in head for head in heads)
    assert any("alpn=h2" in line for line in proxy.log)
    (row,) = (line.split(",") for line in proxy.ask("show stat").splitlines() if line.startswith("scratchd_gr,primary"))
    header = proxy.ask("show stat").splitlines()[0].split(",")
    assert int(row[header.index("connect")]) <= 3, "connections behind are shared"


def test_the_log_says_who_answered_and_why(start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]) -> None:
    new, old = origins("new"), origins("old")
    proxy = start_proxy(new, old)
    proxy.set(all__headquarters=1)
    for source, fields in ((OUTSIDE, ()), (HEADQUARTERS, ()), (TESTER, ("X-Scratchd-Side: scratchd",))):
        proxy.origin("/track?a=1", "gr.test", *fields, source=source)
    new.kill()
    proxy.wait_up("scratchd_gr/primary", state="DOWN")
    proxy.origin(source=HEADQUARTERS)
    wait_for(lambda: sum("tenant=gr" in line for line in proxy.log) == 4, 30, "four lines")
    lines = [line for line in proxy.log if "tenant=gr" in line]
    said = [dict(word.split("=") for word in line.partition('HTTP/1.1" ')[2].split()) for line in lines]
    assert [(one["side"], one["why"], one["answered"]) for one in said] == [
        ("legacy", "share", "legacy"),
        ("scratchd", "headquarters", "scratchd"),
        ("scratchd", "tester", "scratchd"),
        ("scratchd", "headquarters", "legacy"),
    ]
    assert all(0 <= int(one["took_ms"]) < 10_000 and 0 <= int(one["bucket"]) < 10_000 for one in said)
    assert all('{gr.test} "GET /track?a=1 HTTP/1.1"' in line for line in lines), "the usual line, for who reads those"


def test_prometheus_is_told_of_each_side(start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]) -> None:
    proxy = start_proxy(origins("new"), origins("old"))
    proxy.origin()
    url = f"http://{proxy.metrics_address}/metrics"
    metrics = subprocess.run(["curl", "-sS", url], check=True, capture_output=True, text=True).stdout
    assert 'haproxy_backend_http_responses_total{proxy="legacy_gr",code="2xx"} 1' in metrics


def test_shadow_copies_reach_scratchd_under_their_own_host_and_hurt_nobody(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    new, old, shadow = origins("new"), origins("old"), origins("shadow")
    proxy = start_proxy(new, old, edge_shadow_address=shadow.address)
    targets = [f"/track?n={number}&x=%20+%22" for number in range(100)]

    def ask() -> None:
        with Connection(proxy.address, source=OUTSIDE) as connection:
            for target in targets:
                assert connection.get(target, "gr.test", "Cookie: secret=1").field("x-origin") == "old"

    ask()

    def came(number: int) -> bool:
        return len(shadow.heads) >= number

    assert not shadow.heads, "the shadow begins with its share"
    proxy.set(shadow=10_000)
    with Connection(proxy.address, source=OUTSIDE) as connection:
        # One by one: beyond a hundred under way, copies are not made, which is as it should be.
        for number, target in enumerate(targets, 1):
            assert connection.get(target, "gr.test", "Cookie: secret=1").field("x-origin") == "old"
            wait_for(partial(came, number), 30, "each copy")
    lines = [head.split(b"\r\n") for head in shadow.heads]
    assert sorted(line[0].decode() for line in lines) == sorted(f"GET {target} HTTP/1.1" for target in targets)
    assert {line[1] for line in lines} == {b"Host: gr.shadow.invalid"}
    assert all(b"X-Forwarded-For: " + OUTSIDE.encode() in line for line in lines)
    assert not any(b"secret" in head for head in shadow.heads)
    proxy.set(shadow=5000)
    shadow.heads.clear()
    ask()
    ask()
    wait_for(lambda: len(shadow.heads) > 50, 30, "half of the copies")
    assert len(shadow.heads) < 150

    # What the shadow does, visitors do not feel: slow, gone.
    proxy.set(shadow=10_000)
    shadow.delay_s = 30
    ask()
    shadow.kill()
    ask()
    assert len(old.requests()) == 7 * len(targets) - len(targets)


def test_only_events_of_the_legacy_side_are_copied(
    start_proxy: Callable[..., Proxy], origins: Callable[[str], Origin]
) -> None:
    new, old, shadow = origins("new"), origins("old"), origins("shadow")
    proxy = start_proxy(new, old, edge_shadow_address=shadow.address)
    proxy.set(shadow=10_000)
    proxy.origin("/other?n=1")
    with Connection(proxy.address) as connection:
        connection.get("/track?n=2", "gr.test", method="HEAD")
    proxy.set(all=10_000)
    proxy.origin("/track?n=3")
    proxy.set(all=0)
    proxy.origin("/track?n=4")
    wait_for(lambda: shadow.heads, 30, "one copy")
    assert [head.split(b" ")[1] for head in shadow.heads] == [b"/track?n=4"]
