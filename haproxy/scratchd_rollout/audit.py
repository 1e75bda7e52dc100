"""The audit log's entries as a page that people read. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scratchd_rollout.table import columns


def page(entries: Sequence[Mapping[str, Any]]) -> str:
    """A line for each entry, oldest first."""
    if not entries:
        return "nothing was changed yet"
    rows = [["AT", "WHO", "TENANT", "ACTION", "FROM", "TO", "WHY"]]
    rows += [
        [
            str(entry.get("at", "-")).replace("T", " ")[:19],
            *(str(entry.get(name, "-")) for name in ("who", "tenant", "action")),
            _place(entry.get("from")),
            _place(entry.get("to")),
            str(entry.get("why", "")),
        ]
        for entry in entries
    ]
    return columns(rows, "<<<<<<<")


def _place(place: object) -> str:
    if place is None:
        return "-"
    if not isinstance(place, dict):
        return str(place)
    return f"{place.get('step')} ({place.get('percent'):g} %)"
