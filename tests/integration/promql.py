"""PromQL: the shipped rules, which metrics an expression names, and which ones docs/metrics.md has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "monitoring" / "prometheus" / "rules").glob("*.yml"))

OTHERS = {"up", "ALERTS"}
"""Prometheus' own."""


def rules(kind: str) -> list[dict[str, Any]]:
    """The rules that have the key `kind`, `alert` or `record`."""
    documents = [yaml.safe_load(path.read_text()) for path in RULES]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"] if kind in rule]


def metrics(expression: str) -> set[str]:
    """The families that an expression names: quoted text is labels, but for that of `__name__`."""
    named = re.findall(r'__name__=~"([^"]+)"', expression)
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\b(?:by|on|without|ignoring)\s*\([^)]*\)", "", bare)
    words = re.findall(r"[a-z_:][a-z0-9_:]*(?![a-z0-9_:]*\s*\()", bare)
    found = {word for word in words if ":" in word or "_" in word or word == "up"} - {"label_replace"}
    return found | {name for names in named for name in names.split("|")}


def documented() -> set[str]:
    """Every name that may be asked for: families of docs/metrics.md, with what histograms and summaries add."""
    rows = re.findall(r"^\| `(\w+)", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    return {f"{name}{suffix}" for name in rows for suffix in ("", "_bucket", "_sum", "_count")}
