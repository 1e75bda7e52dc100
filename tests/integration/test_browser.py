"""Whether a browser that opens a page with the beacon makes the event: a real Chromium, two sites, files and topics."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser

from browser import chromium
from daemon import Daemon
from kafka_client import Broker

# The page's title and the beacon's host are those of the site that is asked for.
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>{title}</title>
<p>What is measured here is invisible.</p>
<script>
  const beacon = new Image(1, 1);
  beacon.id = "beacon";
  beacon.src = "http://track.{site}.example.test:{port}/track?" + new URLSearchParams(
    {{page: location.pathname, title: document.title, width: innerWidth, quote: '"a" & b=c'}});
  document.body.append(beacon);
</script>
"""
TITLES = {"gr": "Καλημέρα 😀", "tr": "İyi günler"}


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A headless Chromium, the distribution's own."""
    with chromium() as browser:
        yield browser


@contextlib.contextmanager
def _site_server(track_port: str) -> Iterator[int]:
    """Serves each site's page on a free port, which it gives."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site = self.headers["Host"].split(".")[1]
            body = PAGE.format(title=TITLES[site], site=site, port=track_port).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_pages_of_two_sites_make_an_event_in_each_flavors_file_and_topic(
    start_daemon: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str], browser: Browser
) -> None:
    topics = {site: make_topic() for site in TITLES}
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        flavors=[
            {"name": "gr", "hosts": ["*.gr.example.test"], "time_zone": "Europe/Athens", "kafka_topic": topics["gr"]},
            {
                "name": "tr",
                "hosts": ["track.tr.example.test"],
                "time_zone": "Europe/Istanbul",
                "kafka_topic": topics["tr"],
            },
        ],
    )

    with _site_server(daemon.address.rpartition(":")[2]) as port:
        for site in TITLES:
            page = browser.new_page(viewport={"width": 1234, "height": 800})
            page.goto(f"http://www.{site}.example.test:{port}/shop/{site}", wait_until="load")
            page.wait_for_function("document.getElementById('beacon').complete")
            assert page.evaluate("document.getElementById('beacon').naturalWidth") == 1, "the image is not valid"
            page.close()

    daemon.wait_drained()
    for site, title in TITLES.items():
        event = {"page": f"/shop/{site}", "title": title, "width": "1234", "quote": '"a" & b=c'}
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
        assert daemon.lines(site) == [line]
        assert [message.value for message in kafka.messages(topics[site], 1)] == [line]
