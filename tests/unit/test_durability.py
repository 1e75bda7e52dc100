"""Whether the page on durability names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_promise_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "durability.md").read_text()
    table = page.partition("## Promises")[2].partition("\n## ")[0]
    promises = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert promises
    paths = list((ROOT / "tests").glob("*/test_*.py"))
    known = {path.name for path in paths}
    known |= {name for path in paths for name in re.findall(r"def (test_\w+)\(", path.read_text())}
    for promise in promises:
        named = re.findall(r"`(test_\w+(?:\.py)?)`", promise)
        assert named, f"a promise without a test: {promise}"
        assert set(named) <= known, f"no such test: {set(named) - known}"
