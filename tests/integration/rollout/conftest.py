"""What the tests of rollouts are given: one bed for all of them, as a few machines are a minute's work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bed import Bed


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Machines with nothing but SSH."""
    with Bed(tmp_path_factory.mktemp("rollout")) as bed:
        try:
            yield bed
        finally:
            for machine in (bed.edge, bed.primary.machine, bed.secondary.machine):
                print(f"--- journal of {machine.name} ---\n{machine.journal_text()}")  # noqa: T201 - pytest shows it


@pytest.fixture(scope="session")
def deployed(bare: Bed) -> Bed:
    """The same after `deploy` and `edge`."""
    bare.play("deploy")
    bare.play("edge")
    return bare


@pytest.fixture
def bed(deployed: Bed) -> Bed:
    """The same, with everyone at the legacy service and no rollout."""
    deployed.clear()
    return deployed
