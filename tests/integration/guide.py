"""Guides: the shell commands of a page of docs, so that a test does what the page says, as it stands in it."""

from __future__ import annotations

import re

from daemon import SOURCE


def commands(page: str, heading: str) -> list[str]:
    """The shell commands of `docs/{page}` below a heading, up to the next heading, block by block."""
    text = (SOURCE / "docs" / page).read_text(encoding="utf-8")
    (chapter,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    return [
        re.sub(r"^ {3}", "", block, flags=re.MULTILINE) for block in re.findall(r"```sh\n(.*?)```", chapter, re.DOTALL)
    ]
