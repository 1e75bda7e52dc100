"""Two instances on two cores that share one socket, beside one alone: CPU for a request, and who gets how much.

And two that share nothing, each with half of the connections, for what the machine makes of two busy cores.

    make bench-instances        python bench/instances.py [--rounds N]

The socket is passed as systemd would (LISTEN_FDS); each instance has its own journal and files. The load has no core of
its own then, so throughput is not what is measured here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

import bed
from bed import LOAD_CORE, SERVER_CORE, SOURCE, Bed
from contenders import HOST, Server, scratchd_config
from deadline import wait_for
from measure import Load, Running
from query import TYPICAL
from run import numbered
from wire import Connection

LISTEN_FDS = SOURCE / "tests" / "integration" / "listen_fds.py"

MOST_CPU_RATIO = 1.25
LEAST_SHARE = 0.25


@contextlib.contextmanager
def instances(made: Bed, cores: tuple[int, ...], sockets: int) -> Iterator[list[Server]]:
    """An instance on each of the cores, all behind one socket or each with its own."""
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096)) for _ in range(sockets)]
        servers = []
        for number, core in enumerate(cores, 1):
            listener = listeners[number % sockets]
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            place = made.place / f"instance{number}"
            (place / "log").mkdir(parents=True)
            held.callback(shutil.rmtree, place)
            (place / "config.json").write_text(json.dumps(scratchd_config(place, [address], "", None)))
            passing = [sys.executable, str(LISTEN_FDS), f"track={listener.fileno()}", "--"]
            pinned = ["taskset", "--cpu-list", str(core), *made.python(SOURCE)]
            with (place / "stderr").open("wb") as log:
                process = subprocess.Popen(
                    [*passing, *pinned, "-m", "scratchd", "serve", "--config", str(place / "config.json")],
                    cwd=place,
                    env=made.environment(SOURCE),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[listener.fileno()],
                )
            held.callback(process.wait, 30)
            held.callback(process.terminate)
            servers.append(Server(address, process, place / "log", None))
            wait_for(lambda place=place: "ready" in _log(place), 30, "ready")  # type: ignore[misc]
        yield servers


def _log(place: Path) -> str:
    log = (place / "stderr").read_text()
    if "Traceback" in log or "cannot" in log:
        raise SystemExit(log)
    return log


def measured(made: Bed, cores: tuple[int, ...], sockets: int, load: Load) -> tuple[float, float]:
    """CPU seconds for 1,000 requests of all instances together, and the lesser's share of the lines."""
    with instances(made, cores, sockets) as servers:
        addresses = sorted({server.address for server in servers})
        for address in addresses:
            with Connection(address) as connection:
                connection.get("/track?begin=1", HOST)
        wait_for(lambda: sum(server.file_lines() for server in servers) == sockets, 10, "the first lines")
        cpu_s = sum(server.cpu_s() for server in servers)
        before = [server.file_lines() for server in servers]
        part = msgspec.structs.replace(load, connections=load.connections // sockets)
        loads = [Running(made, part, address) for address in addresses]
        answered = sum(running.answered().answered for running in loads)
        for running in loads:
            running.latency_ms()
        expected = answered + sum(before)
        wait_for(lambda: sum(server.file_lines() for server in servers) >= expected, 20, "every line")
        cpu_s = sum(server.cpu_s() for server in servers) - cpu_s
        lines = [server.file_lines() - begun for server, begun in zip(servers, before, strict=True)]
    return cpu_s / answered * 1000, min(lines) / sum(lines)


def main() -> None:
    """Measures in turns and prints the ratios and the share."""
    parser = argparse.ArgumentParser(description="Two instances that share a socket, beside one alone.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    load = Load(numbered(TYPICAL), 64, arguments.seconds, apart_ms=2)
    both = SERVER_CORE, LOAD_CORE
    beds = {"one alone": ((SERVER_CORE,), 1), "two, one socket": (both, 1), "two, nothing shared": (both, 2)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in beds}
    with bed.made(with_kafka=False) as made:
        for _ in range(arguments.rounds):
            for name, (cores, sockets) in beds.items():
                found[name].append(measured(made, cores, sockets, load))
    for name, samples in found.items():
        cpu_ms = statistics.median(cpu_s for cpu_s, _ in samples) * 1e3
        print(f"{name:20} {cpu_ms:.1f} ms of CPU for 1,000 requests")
    alone, shared, apart = ([cpu_s for cpu_s, _ in samples] for samples in found.values())
    for name, others, aim in (("one alone", alone, f", aim ≤ {MOST_CPU_RATIO}"), ("two that share nothing", apart, "")):
        ratios = [two / other for other, two in zip(others, shared, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"two at one socket, to {name}: {statistics.median(ratios):.2f} ({spread}){aim}")
    shares = [share for _, share in found["two, one socket"]]
    share, spread = statistics.median(shares), f"{min(shares):.0%} to {max(shares):.0%}"
    print(f"the lesser's share {share:.0%} ({spread}), aim ≥ {LEAST_SHARE:.0%}")


if __name__ == "__main__":
    main()
