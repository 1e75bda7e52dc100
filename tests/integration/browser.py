"""Browser: the distribution's Chromium, headless, without a way to anywhere but this machine."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

FLAGS = (
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Every site is on this machine, and nothing else is reachable.
    "--host-resolver-rules=MAP *.example.test 127.0.0.1, EXCLUDE localhost, EXCLUDE 127.0.0.1, MAP * ~NOTFOUND",
)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium of its own."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.fail("chromium is not installed", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()
