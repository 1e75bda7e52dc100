"""The Grafana dashboard: `python monitoring/grafana/dashboard.py > monitoring/grafana/scratchd.json`.

Owns the JSON that Grafana imports; what is shown is in `rows`. A test fails when the two differ; every query, every
metric in it and the JSON's schema are tried by tests/integration/test_dashboard.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rows import COLUMNS, OURS, ROWS, Panel, Row

UID = "scratchd"

SCHEMA_VERSION = 38
"""Of Grafana 10's dashboards; later ones read it."""

_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    """What Grafana imports."""
    return {
        "uid": UID,
        "title": "scratchd",
        "description": "Do events flow, what waits, and how long until something is lost. See docs/monitor.md.",
        "tags": ["scratchd"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": list(_variables())},
        "annotations": {"list": [_restarts()]},
        "panels": list(_placed(ROWS)),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    yield {
        "name": "job",
        "label": "Job",
        "type": "query",
        "datasource": _DATASOURCE,
        "query": "label_values(scratchd_build_info, job)",
        "refresh": 1,
    }
    for name, query in (
        ("instance", 'label_values(scratchd_build_info{job="$job"}, instance)'),
        ("flavor", 'label_values(scratchd_received_lines_total{job="$job"}, flavor)'),
    ):
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": _DATASOURCE,
            "query": query,
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "current": {"selected": True, "text": "All", "value": "$__all"},
        }


def _restarts() -> dict[str, Any]:
    return {
        "name": "Starts",
        "datasource": _DATASOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": f"changes(process_start_time_seconds{{{OURS}}}[1m]) > 0",
    }


def _placed(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Panels from left to right and top to bottom, numbered."""
    number, top = 0, 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        left, top, tallest = 0, top + 1, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                left, top, tallest = 0, top + tallest, 0
            number += 1
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest


def _panel(panel: Panel) -> dict[str, Any]:
    instant = panel.kind in ("stat", "table")
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                **({"instant": True, "range": False} if instant else {"range": True}),
                **({"format": "table"} if panel.kind == "table" else {}),
            }
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": color} for value, color in panel.good],
        },
    }
    if panel.names:
        named = {value: {"text": text, "color": color} for value, (text, color) in panel.names.items()}
        defaults["mappings"] = [{"type": "value", "options": named}]
        defaults["custom"] = {"fillOpacity": 70, "lineWidth": 0}
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {
            "fillOpacity": 30 if panel.stacked else 5,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    match panel.kind:
        case "stat":
            return {
                "colorMode": "background",
                "graphMode": "none",
                "justifyMode": "auto",
                "textMode": "auto",
                "orientation": "auto",
                "reduceOptions": {"calcs": ["lastNotNull"]},
            }
        case "table":
            return {"showHeader": True, "cellHeight": "sm"}
        case "state-timeline":
            return {
                "showValue": "auto",
                "rowHeight": 0.9,
                "mergeValues": True,
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
                "tooltip": {"mode": "single", "sort": "none"},
            }
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=2) + "\n")
