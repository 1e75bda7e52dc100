"""What integration tests are given: a daemon, and a real Kafka in Docker (pytest-docker), each made when asked for.

`start_daemon(**sections)` starts a `daemon.Daemon`; `kafka` is the session's `kafka_client.Broker`; `make_topic()` and
`topic` give topics that live as long as the test; `cluster` is three brokers, for one module's tests; `disks` makes
small file systems; `boot` and `boot_for_module` boot machines with systemd. Nothing is skipped: what is missing on a
machine fails and says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from pytest_docker.plugin import Services

from cluster import Cluster, cluster_of
from daemon import Daemon, daemons, free_port
from disks import Disks, enter_namespace
from engine import NoEngine, compose_command, docker, engine
from kafka_client import Broker, with_ports
from machine import Machine, machines
from rollout_bed import Bed
from turns import turn
from visitors import Account

HERE = Path(__file__).parent
SERVER_PROPERTIES = HERE / "kafka" / "server.properties"
_STATED = pytest.StashKey[list[str]]()
IMAGE_FILES = ("build.sh", "pom.xml", "log4j2.yaml", "server.properties")


def pytest_configure() -> None:
    """Lets Ctrl-C reach what tests start: in a shell's background it is ignored, and they would inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes and starts a daemon for one test: `start_daemon(flavors=[…], kafka={…}, …)`, see `daemon.daemons`."""
    with daemons(tmp_path) as start:
        yield start


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Boots machines for one test: `boot(installed=["python3"], at_hand=[…], …)`, see `machine.machines`."""
    with machines(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def boot_for_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Machine]]:
    """The same for all tests of a module, which share what they boot."""
    with machines(tmp_path_factory.mktemp("machines")) as start:
        yield start


@pytest.fixture
def state(request: pytest.FixtureRequest) -> Callable[[str, Account], None]:
    """States what visitors had to endure, in the summary behind the tests: `state("20 restarts", account)`."""
    stated = request.config.stash.setdefault(_STATED, [])
    return lambda what, account: stated.append(f"{what}: {account}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints what was stated."""
    stated = config.stash.get(_STATED, [])
    if stated:
        terminalreporter.section("what visitors had to endure")
        for line in stated:
            terminalreporter.write_line(line)


# Rollouts: one bed for all tests, as its machines are a minute's work.


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


@pytest.fixture(scope="session")
def mount_namespace() -> None:
    """Mounts that nobody else sees, for the rest of the session."""
    if os.geteuid() != 0:
        pytest.fail("only root can mount the file systems of this test", pytrace=False)
    enter_namespace()


@pytest.fixture
def disks(mount_namespace: None, tmp_path: Path) -> Iterator[Disks]:
    """File systems of the test's own; ask for it before `start_daemon`, so that they outlive the daemon."""
    with contextlib.closing(Disks(tmp_path / "disks")) as made:
        yield made


# Kafka: pytest-docker asks for the fixtures named docker_*.


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Docker engine that answers."""
    try:
        with engine(tmp_path_factory.mktemp("docker") / "dockerd.log"):
            yield
    except NoEngine as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def kafka_image(docker_engine: None) -> str:
    """The broker's image: `$SCRATCHD_KAFKA_IMAGE`, else ours, built when its files have changed."""
    named = os.environ.get("SCRATCHD_KAFKA_IMAGE")
    if named:
        return named
    content = hashlib.sha256(b"".join((HERE / "kafka" / name).read_bytes() for name in IMAGE_FILES))
    image = f"scratchd-kafka:{content.hexdigest()[:12]}"
    with turn("kafka-image"):
        _build(image)
    return image


def _build(image: str) -> None:
    if docker("images", "--quiet", image):
        return
    built = subprocess.run(
        [str(HERE / "kafka" / "build.sh"), image],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        pytest.fail(f"kafka/build.sh failed:\n{built.stdout[-3000:]}", pytrace=False)


@pytest.fixture(scope="session")
def kafka_ports(kafka_image: str, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, int]:
    """The broker's ports; its configuration, with these in it, is where docker-compose.yml looks for it."""
    ports = {name: free_port() for name in ("PLAINTEXT", "SASL", "CONTROLLER")}
    directory = tmp_path_factory.mktemp("kafka")
    directory.chmod(0o755)  # Apache's own image reads it as a user of its own
    (directory / "server.properties").write_text(with_ports(SERVER_PROPERTIES.read_text(), **ports))
    os.environ["SCRATCHD_KAFKA_IMAGE"] = kafka_image
    os.environ["SCRATCHD_KAFKA_CONFIG"] = str(directory)
    return ports


@pytest.fixture(scope="session")
def docker_setup(kafka_ports: Mapping[str, int]) -> list[str]:
    """How pytest-docker starts the broker."""
    return ["up --detach --no-build"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    """How pytest-docker ends it."""
    return ["down --volumes --timeout 5"]


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    """What pytest-docker calls."""
    return compose_command()


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    """What it is called with."""
    return str(HERE / "docker-compose.yml")


@pytest.fixture(scope="session")
def kafka(kafka_ports: Mapping[str, int], docker_services: Services, docker_compose_project_name: str) -> Broker:
    """The session's broker, ready for an idempotent producer."""
    container = docker(
        "ps",
        "--quiet",
        f"--filter=label=com.docker.compose.project={docker_compose_project_name}",
        "--filter=label=com.docker.compose.service=kafka",
    )
    broker = Broker(f"127.0.0.1:{kafka_ports['PLAINTEXT']}", container, f"127.0.0.1:{kafka_ports['SASL']}")
    broker.wait_ready()
    return broker


@pytest.fixture
def make_topic(kafka: Broker) -> Iterator[Callable[..., str]]:
    """Makes topics, `make_topic(partitions=1, max_message_bytes="1000")`, deleted at the test's end."""
    with contextlib.ExitStack() as topics:
        yield lambda partitions=1, **config: topics.enter_context(kafka.topic(partitions, **config))


@pytest.fixture
def topic(make_topic: Callable[..., str]) -> str:
    """One topic of one partition."""
    return make_topic()


@pytest.fixture(scope="module")
def cluster(kafka_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three brokers, whose leaders may go."""
    with cluster_of(kafka_image, SERVER_PROPERTIES.read_text(), tmp_path_factory.mktemp("cluster")) as brokers:
        yield brokers
