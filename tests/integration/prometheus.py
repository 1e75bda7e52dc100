"""Prometheus: the real server (Debian's package) as a process of one test, scraping every second.

Owns its configuration, port and data below one directory; knows nothing of what it scrapes. Times of the shipped rules
are minutes, so rules are loaded as they stand and evaluated every second.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from daemon import free_port
from deadline import wait_for
from promql import ROOT, RULES

MONITORING = ROOT / "monitoring"


class Prometheus:
    """A running server.

    Args:
        address: `127.0.0.1:port`.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON
        """The `data` of an answer of its API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return bool(self.get("query", query="1"))
        except OSError:
            return False

    def values(self, expression: str) -> dict[str, float]:
        """What an instant query finds: labels, as JSON, to value; NaN is nothing."""
        found = self.get("query", query=expression)["result"]
        values = {json.dumps(each["metric"], sort_keys=True): float(each["value"][1]) for each in found}
        return {labels: value for labels, value in values.items() if not math.isnan(value)}


@contextlib.contextmanager
def scraping(place: Path, jobs: Mapping[str, Sequence[str]]) -> Iterator[Prometheus]:
    """A server that scrapes `jobs` (name to addresses), with the shipped rules."""
    place.mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in RULES],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": list(targets)}]} for name, targets in jobs.items()
        ],
    }
    (place / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={place}/prometheus.yml",
                f"--storage.tsdb.path={place}/data",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    server = Prometheus(address)
    try:
        wait_for(server.ready, 30, "Prometheus answers")
        yield server
    finally:
        process.terminate()
        process.wait(20)
        print((place / "log").read_text())  # noqa: T201 - pytest shows it
