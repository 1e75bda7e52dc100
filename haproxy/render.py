"""Renders the edge role's haproxy.cfg for the inventory in example.yml, as Ansible's `template` would, to stdout."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

HERE = Path(__file__).parent
ROLE = HERE.parent / "ansible" / "roles" / "edge"


def render(variables: Mapping[str, Any]) -> str:
    """haproxy.cfg for the role's defaults and `variables`."""
    # As Ansible sets them.
    environment = jinja2.Environment(
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML
    )
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    template = environment.from_string((ROLE / "templates" / "haproxy.cfg.j2").read_text(encoding="utf-8"))
    return template.render({**defaults, **variables})


def example() -> str:
    """haproxy.cfg for the example inventory."""
    return render(yaml.safe_load((HERE / "example.yml").read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.stdout.write(example())
