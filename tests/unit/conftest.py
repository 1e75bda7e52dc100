"""What several unit tests of journal, backends and configuration are built on, and hypothesis' profile.

No deadline for an example or for making them: how long that takes says more about who else uses the machine than about
the code. Where `CI` is set, a commit's examples are the same each time: what is found there is found again by whoever
repairs it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from scratchd.config import Config, ConfigError, load
from scratchd.journal.flavor import FlavorJournal, Limits
from scratchd.log import Log
from scratchd.stats import FlavorStats, JournalStats

hypothesis.settings.register_profile(
    "scratchd",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("scratchd")


@pytest.fixture
def open_journal(tmp_path: Path) -> Callable[..., FlavorJournal]:
    """Opens flavor gr's journal below `tmp_path`, as a start does; figures go into what the test passes in."""

    def opened(
        *backends: str,
        stats: FlavorStats | None = None,
        totals: JournalStats | None = None,
        limits: Limits | None = None,
        directory: str = "gr",
    ) -> FlavorJournal:
        return FlavorJournal(
            tmp_path / directory,
            "gr",
            _names(backends),
            limits or Limits(segment_bytes=1 << 20, quota_bytes=1 << 24, sync="interval", sync_interval_s=1.0),
            stats=stats or FlavorStats(),
            totals=totals or JournalStats(),
            log=Log("journal"),
        )

    return opened


def _names(backends: Sequence[str]) -> Sequence[str]:
    return backends or ("file",)


@pytest.fixture
def load_text(tmp_path: Path) -> Callable[..., Config]:
    """Loads a text as the configuration."""

    def load_it(text: str | bytes, **kwargs: Any) -> Config:  # noqa: ANN401 - load's
        path = tmp_path / "config.json"
        path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
        return load(path, **kwargs)

    return load_it


@pytest.fixture
def errors_of(load_text: Callable[..., Config]) -> Callable[..., list[str]]:
    """The errors of a text, or of an object to which a flavor is added where it has none."""

    def errors(document: object, **kwargs: str) -> list[str]:
        if isinstance(document, Mapping):
            document = json.dumps({"flavors": [{"name": "gr", "hosts": ["www.example.gr"]}], **document})
        with pytest.raises(ConfigError) as refused:
            load_text(document, **kwargs)
        assert str(refused.value) == "\n".join(refused.value.errors)
        assert all(error.isprintable() for error in refused.value.errors)
        return refused.value.errors

    return errors
