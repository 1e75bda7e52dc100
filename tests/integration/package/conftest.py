"""What the tests of the package are given: the package, and machines in which it is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deb import NEWER, built
from image import depended_on
from installed import Installed
from machine import Machine


@pytest.fixture(scope="session")
def package() -> Path:
    """Scratchd's .deb, as this work tree makes it."""
    return built()


@pytest.fixture(scope="session")
def newer_package() -> Path:
    """The same with a higher version."""
    return built(version=NEWER)


@pytest.fixture(scope="session")
def dependencies(package: Path) -> tuple[str, ...]:
    """The names of the packages that it depends on."""
    return depended_on(package)


@pytest.fixture
def installed(boot: Callable[..., Machine], package: Path, dependencies: tuple[str, ...]) -> Installed:
    """A machine of the test's own, in which the package was installed."""
    return _install(boot, package, dependencies)


@pytest.fixture(scope="module")
def shared(boot_for_module: Callable[..., Machine], package: Path, dependencies: tuple[str, ...]) -> Installed:
    """The same for all tests of a module: each leaves it with the service running and the default configuration."""
    return _install(boot_for_module, package, dependencies)


def _install(boot: Callable[..., Machine], package: Path, dependencies: tuple[str, ...]) -> Installed:
    machine = Installed(boot(installed=dependencies, name="collector"))
    machine.install(package)
    return machine
