"""Whether an operator's browser shows at once how the instance is: a real Chromium before the real daemon.

axe-core, from npm, judges accessibility. It is put into the page by the browser's own debugger, which the page's policy
does not bind.
"""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from browser import chromium
from clients import Client
from daemon import SOURCE, Daemon
from disks import Disks
from hour import Hour
from kafka_client import Broker
from wire import request

AXE = "4.14.1"
DESK = {"width": 1180, "height": 900}
PHONE = {"width": 360, "height": 740}
REFRESHED_MS = 20_000
"""Within so much a change is seen: a refresh comes every 5 seconds."""

BLOCKED = "/proc/scratchd/{flavor}/{date}.log"
"""A path at which no file can be made."""

Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all of it."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Makes contexts, which end with the test."""
    made: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:  # noqa: ANN401 - Playwright's
        made.append(browser.new_context(**{"viewport": DESK, **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core as npm has it, kept below .cache."""
    place = SOURCE / ".cache" / "axe"
    archive = place / f"axe-core-{AXE}.tgz"
    if not archive.exists():
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"axe-core@{AXE}"], cwd=place, check=True, timeout=120)
    with tarfile.open(archive) as packed:
        script = packed.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


def opened(context: BrowserContext, daemon: Daemon, query: str = "") -> tuple[Page, list[str]]:
    """The status page, and what goes wrong on it from now on: messages of its console, requests to elsewhere."""
    page, wrong = context.new_page(), list[str]()
    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    origin = f"http://{daemon.admin_address}/"
    page.on("request", lambda asked: None if asked.url.startswith((origin, "data:")) else wrong.append(asked.url))
    answer = page.goto(origin + query)
    assert answer is not None
    assert answer.status == 200
    return page, wrong


def violations(page: Page, axe: str) -> list[str]:
    """What axe-core finds wrong, of every rule that it has."""
    page.evaluate(axe + "; undefined")
    found: list[dict[str, Any]] = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)"
    )
    return [f"{each['id']}: {json.dumps(each['nodes'][0]['html'])} {each['nodes'][0]['any'][:1]}" for each in found]


def send(daemon: Daemon, count: int, host: str = "any.test") -> None:
    """So many events, all answered."""
    with daemon.connect() as connection:
        for number in range(count):
            connection.send(request(f"/track?n={number}", host))
            assert connection.response().status == 200


def test_events_are_seen_while_one_looks(
    start_daemon: Callable[..., Daemon], context: Callable[..., BrowserContext]
) -> None:
    daemon = start_daemon()
    page, wrong = opened(context(), daemon)
    expect(page.locator("h1")).to_have_text("Events: Idle")
    assert page.title().startswith("■ Idle, 0/s")
    page.evaluate("window.stays = true; document.querySelector('h1').stays = true")
    page.locator("footer a").first.focus()
    send(daemon, 200)
    expect(page.locator("h1")).to_have_text("Events: Flowing", timeout=REFRESHED_MS)
    expect(page.locator("#state")).to_have_class("state flowing")
    expect(page.locator("#spoken")).to_contain_text("Flowing.")
    expect(page.locator("tbody tr td").last).to_have_text("200", timeout=REFRESHED_MS)
    assert page.title().startswith("● Flowing, ")
    assert page.evaluate("window.stays && document.querySelector('h1').stays"), "the page was loaded again"
    assert page.evaluate("document.activeElement.textContent") == "/stats", "the focus moved"
    assert wrong == []


def test_a_pause_lasts(start_daemon: Callable[..., Daemon], context: Callable[..., BrowserContext]) -> None:
    daemon = start_daemon()
    browsing = context()
    browsing.clock.install()
    page, wrong = opened(browsing, daemon)
    page.get_by_role("button", name="Pause").click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    assert asked == []
    with page.expect_response(lambda answer: answer.status == 200):
        page.get_by_role("button", name="Pause").click()
    expect(page.locator("#pause")).to_have_attribute("aria-pressed", "false")
    assert wrong == []


def test_without_javascript_it_says_the_same(
    start_daemon: Callable[..., Daemon], context: Callable[..., BrowserContext]
) -> None:
    daemon = start_daemon(flavors=[{"name": f"f{number:02d}", "hosts": [f"f{number}.test"]} for number in range(12)])
    send(daemon, 20, "f7.test")
    page, _ = opened(context(java_script_enabled=False), daemon)
    assert page.locator("h1").text_content() == "Events: Flowing"
    assert "reload it" in (page.locator("noscript").text_content() or "")
    assert not page.locator("#pause").is_visible()
    page.fill("#search", "F07")
    page.get_by_role("button", name="Search").click()
    assert page.locator("tbody th").all_text_contents() == ["f07"]
    assert page.locator("tbody td").last.text_content() == "20"
    page.get_by_role("link", name="Events/s").click()
    assert page.url.endswith("/?flavor=F07&sort=rate")
    assert page.locator("th[aria-sort]").text_content() == "Events/s ▾"


def test_the_search_finds_while_one_types(
    start_daemon: Callable[..., Daemon], context: Callable[..., BrowserContext]
) -> None:
    daemon = start_daemon(flavors=[{"name": f"f{number:03d}", "hosts": [f"f{number}.test"]} for number in range(300)])
    page, wrong = opened(context(), daemon)
    expect(page.locator("tbody tr")).to_have_count(50)
    page.locator("#search").press_sequentially("f29")
    expect(page.locator("tbody tr")).to_have_count(10)
    expect(page.locator("#search")).to_be_focused()
    expect(page.locator("#search")).to_have_value("f29")
    page.goto(f"http://{daemon.admin_address}/?all=1")
    expect(page.locator("tbody tr")).to_have_count(300)
    assert wrong == []


def test_an_instance_that_is_gone_is_seen(
    start_daemon: Callable[..., Daemon], context: Callable[..., BrowserContext]
) -> None:
    daemon = start_daemon()
    browsing = context()
    browsing.clock.install()
    page, _ = opened(browsing, daemon)
    expect(page.locator("#lost")).to_be_hidden()
    daemon.kill()
    page.clock.run_for(5000)
    expect(page.get_by_role("alert")).to_contain_text("No answer from scratchd")
    assert page.title().startswith("✕ No answer")
    daemon.start()
    page.clock.run_for(5000)
    expect(page.locator("#lost")).to_be_hidden()
    assert page.title().startswith("■ Idle")


def test_a_stopped_kafka_is_trouble(
    start_daemon: Callable[..., Daemon],
    kafka: Broker,
    topic: str,
    context: Callable[..., BrowserContext],
    axe: str,
) -> None:
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers, "topic": f"{topic}{{flavor}}"},
        flavors=[{"name": "any", "hosts": ["*"], "kafka_topic": topic}],
    )
    send(daemon, 10)
    daemon.wait_drained()
    page, wrong = opened(context(color_scheme="dark"), daemon)
    expect(page.locator("h1")).to_have_text("Events: Flowing")
    with kafka.stopped():
        send(daemon, 25)
        expect(page.locator("h1")).to_have_text("Events: Trouble", timeout=60_000)
        expect(page.locator(".problems li")).to_have_text(
            ["The kafka backend fails for every flavor; its lines wait in the journal."]
        )
        card = page.locator("article", has_text="kafka")
        expect(card.locator(".badge")).to_have_text("failing")
        expect(card.locator(".big")).to_have_text("25 events wait", timeout=REFRESHED_MS)
        expect(card.locator(".error")).to_contain_text("Last error at ")
        expect(page.locator("article", has_text="file").first.locator(".badge").first).to_have_text("running")
        assert violations(page, axe) == []
    daemon.wait_drained()
    expect(page.locator("#state")).not_to_have_class("state trouble", timeout=60_000)
    assert wrong == []


def test_a_full_journal_is_trouble(
    disks: Disks, start_daemon: Callable[..., Daemon], context: Callable[..., BrowserContext], axe: str
) -> None:
    disk = disks.tmpfs("journal", "size=4m")
    daemon = start_daemon(
        journal={"directory": str(disk.path), "segment_bytes": 65536},
        http={"stop_timeout_s": 1},
        flavors=[{"name": "any", "hosts": ["*"], "file_path": BLOCKED}],
    )
    disk.fill(leave_bytes=300_000)
    page, wrong = opened(context(), daemon)
    with Client(daemon.address, "any.test", pad=4000) as client:
        daemon.wait_for(lambda: client.has_sent(0) and client.refused, 30, "lines are refused")
        daemon.wait_for(lambda: daemon.admin("/health/ready").body == b"journal_full", 30)
        expect(page.locator(".problems li").first).to_have_text(
            "The journal takes no lines: every event is refused with 503.", timeout=REFRESHED_MS
        )
        expect(page.locator("h1")).to_have_text("Events: Trouble")
        expect(page.locator(".state .said p")).to_have_text("Events are refused.")
        expect(page.locator("tbody th")).to_contain_text("refuses events")
        assert violations(page, axe) == []
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_it_is_accessible_and_fits(
    context: Callable[..., BrowserContext],
    start_daemon: Callable[..., Daemon],
    axe: str,
    scheme: Scheme,
    viewport: dict[str, int],
) -> None:
    daemon = start_daemon(flavors=[{"name": f"f{number}", "hosts": [f"f{number}.test"]} for number in range(12)])
    send(daemon, 3, "f3.test")
    daemon.get("/track?n=1", host="nobody.test")
    page, wrong = opened(context(color_scheme=scheme, viewport=viewport), daemon)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 384) is (scheme == "light")
    assert violations(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], "one has to scroll sideways"
    assert page.evaluate("document.querySelector('#state').getBoundingClientRect().bottom") < viewport["height"]
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_hour_with_trouble_is_accessible(
    context: Callable[..., BrowserContext], axe: str, scheme: Scheme, tmp_path: Path
) -> None:
    hour = Hour()
    hour.passes(345)
    hour.passes(15, failing="kafka")
    hour.stats.backends["kafka"].failed("2026-11-23T14:01:00.000Z", "gr", "unreachable", "all brokers are down")
    page = context(color_scheme=scheme).new_page()
    page.set_content(hour.page())
    assert violations(page, axe) == []
    shapes = {
        state: page.evaluate(f"document.querySelector('.{state} .shape').innerHTML") for state in ("trouble", "flowing")
    }
    assert len(set(shapes.values())) == 2
