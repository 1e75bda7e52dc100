"""Whether docs/operate.md has every message that scratchd logs, with its level, and none that it does not log."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error"}

_ROW = re.compile(r"^\| (debug|info|warning|error) \| `([^`]+)` \|", re.MULTILINE)


def logged(source: str) -> Iterator[tuple[str, str]]:
    """Level and message of each call that logs; one whose message is not written there is a failure.

    A log is called `log` or `_log`; `complain` of Kafka's producer logs a warning; a name may stand for one of a log's
    methods, then the level is that of the last one named.
    """
    tree = ast.parse(source)
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named = [level for part in ast.walk(node.value) if (level := _level(part))]
            if named:
                aliases[node.targets[0].id] = named[-1]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        level, message = _level(call.func), call.args[:1]
        if isinstance(call.func, ast.Name) and call.func.id in aliases:
            level = aliases[call.func.id]
        if isinstance(call.func, ast.Attribute) and call.func.attr == "complain":
            level, message = "warning", call.args[2:3]
        if level is not None and not _is_passed_on(message):
            text = message[0] if message else None
            assert isinstance(text, ast.Constant), (
                f"line {call.lineno}: a message is fixed text, got {ast.unparse(call)}"
            )
            assert isinstance(text.value, str)
            yield level, text.value


def _level(node: ast.AST) -> str | None:
    """The level, where `node` is a log's method."""
    if not isinstance(node, ast.Attribute) or node.attr not in LEVELS:
        return None
    name = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
    return node.attr if name in {"log", "_log"} else None


def _is_passed_on(message: list[ast.expr]) -> bool:
    """Whether the text is the parameter of `complain`, whose callers are looked at."""
    return bool(message) and isinstance(message[0], ast.Name) and message[0].id == "message"


def messages() -> set[tuple[str, str]]:
    """Every level and message in the package."""
    return {found for path in sorted((ROOT / "scratchd").rglob("*.py")) for found in logged(path.read_text())}


def test_the_page_has_every_message_with_its_level_and_no_other() -> None:
    page = {(level, message) for level, message in _ROW.findall((ROOT / "docs" / "operate.md").read_text())}
    found = messages()
    assert sorted(found - page) == [], "logged, and not in docs/operate.md"
    assert sorted(page - found) == [], "in docs/operate.md, and not logged"


def test_what_logs_is_recognised() -> None:
    source = """
self._log.info("a", x=1)
log.error("b", error=error)
write = self._log.debug if known else self._log.warning
write("c")
self.complain("", failed, "d")
self._log.warning(message, kind=kind)
raw.error()
"""
    assert set(logged(source)) == {("info", "a"), ("error", "b"), ("warning", "c"), ("warning", "d")}
