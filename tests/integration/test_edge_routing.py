"""Which side answers: the edge's HAProxy, 2.6 and 3.0, in front of two small servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import render
from daemon import SOURCE
from debian13 import NoTree, tree
from origin import Origin
from proxy import Proxy

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
            proxy = Proxy(tmp_path, {**given, **variables}, tree=debian13)
            running.callback(proxy.close)
            proxy.start()
            return proxy

        yield start


def test_the_example_is_the_template_rendered() -> None:
    assert (SOURCE / "haproxy" / "haproxy.cfg").read_text() == render.example(), "make it anew: haproxy/render.py"


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
