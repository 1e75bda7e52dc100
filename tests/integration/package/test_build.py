"""Whether the package is built the same everywhere, and has in it what it should, with the modes that it should.

Nothing is booted: the packages are built, looked at and installed below a directory.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import SOURCE
from deb import built

CONTENTS = (
    "-rw-r----- root/root ./etc/scratchd/config.json",
    "-rwxr-xr-x root/root ./usr/bin/scratchd",
    "-rw-r--r-- root/root ./usr/lib/python3/dist-packages/scratchd/service.py",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/scratchd-admin.socket",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/scratchd.service",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/scratchd.slice",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/scratchd.socket",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/scratchd@.service",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/scratchd@.service.d/sockets.conf",
    "-rw-r--r-- root/root ./usr/lib/sysusers.d/scratchd.conf",
    "-rw-r--r-- root/root ./usr/lib/tmpfiles.d/scratchd.conf",
    "-rw-r--r-- root/root ./usr/share/bash-completion/completions/scratchd",
    "-rw-r--r-- root/root ./usr/share/doc/scratchd/changelog.Debian.gz",
    "-rw-r--r-- root/root ./usr/share/doc/scratchd/copyright",
    "-rw-r--r-- root/root ./usr/share/doc/scratchd/examples/annotated.jsonc",
    "-rw-r--r-- root/root ./usr/share/doc/scratchd/install.md",
    "-rw-r--r-- root/root ./usr/share/doc/scratchd/monitor.md",
    "-rw-r--r-- root/root ./usr/share/doc/scratchd/examples/haproxy.cfg",
    "-rw-r--r-- root/root ./usr/share/doc/scratchd/examples/kafka-tls-sasl.json",
    "-rw-r--r-- root/root ./usr/share/doc/scratchd/examples/logs-on-nfs.conf",
    "-rw-r--r-- root/root ./usr/share/doc/scratchd/examples/multitenant.json",
    "-rw-r--r-- root/root ./usr/share/doc/scratchd/examples/tenant/scratchd@gr.socket",
    "-rw-r--r-- root/root ./usr/share/man/man1/scratchd-backfill.1.gz",
    "-rw-r--r-- root/root ./usr/share/man/man1/scratchd.1.gz",
    "-rw-r--r-- root/root ./usr/share/man/man5/scratchd.json.5.gz",
    "drwxr-x--- root/root ./etc/scratchd/",
)


@pytest.fixture(scope="module")
def listing(package: Path) -> list[str]:
    """The package's files as `MODE OWNER PATH`."""
    shown = subprocess.run(["dpkg-deb", "--contents", str(package)], check=True, capture_output=True, text=True).stdout
    rows = (line.split() for line in shown.splitlines())
    return [f"{mode} {owner} {path}" for mode, owner, _size, _date, _time, path, *_ in rows]


def test_a_second_build_gives_the_same_bytes_and_lintian_finds_nothing(package: Path, tmp_path: Path) -> None:
    """Elsewhere, with another umask, locale and time zone; lintian is pedantic, a warning is a failure."""
    before = os.umask(0o077)
    try:
        done = subprocess.run(
            [sys.executable, str(SOURCE / "scripts/deb"), "--without", "tests", "--into", str(tmp_path)],
            env={**os.environ, "TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "7"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stdout[-4000:]
    found = [line for line in done.stdout.splitlines() if line.startswith(("E: ", "W: "))]
    assert found == []

    def digests(directory: Path) -> dict[str, str]:
        built = [path for path in directory.iterdir() if path.suffix in {".deb", ".dsc", ".xz"}]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built}

    assert len(digests(tmp_path)) >= 4  # source: .dsc and two archives
    assert digests(tmp_path) == digests(package.parent)


@pytest.mark.parametrize("row", CONTENTS, ids=lambda row: row.split()[-1])
def test_package_contains(listing: list[str], row: str) -> None:
    assert row in listing, "\n".join(listing)


def test_nobody_but_root_may_write_to_what_is_installed(listing: list[str]) -> None:
    writable = [row for row in listing if row[5] == "w" or row[8] == "w" or row.split()[1] != "root/root"]
    assert writable == []


def test_package_has_no_file_of_its_tests_caches_or_of_quickstart(listing: list[str]) -> None:
    stray = [
        row for row in listing if any(word in row for word in ("__pycache__", ".hypothesis", "tests", "quickstart"))
    ]
    assert stray == []


def test_package_depends_on_debians_own_packages(package: Path) -> None:
    """Those of pyproject.toml, and time zones; nothing comes with it."""
    shown = subprocess.run(["dpkg-deb", "--field", str(package), "Depends"], check=True, capture_output=True, text=True)
    names = {entry.split()[0] for entry in shown.stdout.split(",")}
    assert names == {
        "python3-cachetools",
        "python3-confluent-kafka",
        "python3-hypercorn",
        "python3-msgspec",
        "python3-prometheus-client",
        "python3-sdnotify",
        "python3-trio",
        "python3:any",
        "systemd",
        "tzdata",
    }


def test_monitoring_package_has_everything_where_its_tools_look_and_brings_python_alone() -> None:
    monitoring = built("scratchd-monitoring")
    shown = subprocess.run(["dpkg-deb", "--contents", str(monitoring)], check=True, capture_output=True, text=True)
    share = {path.partition("scratchd-monitoring/")[2] for path in shown.stdout.split() if "/share/scratchd-" in path}
    expected = {"grafana/scratchd.json", "icinga2/icinga2.conf", "prometheus/prometheus.yml"}
    modules = (SOURCE / "monitoring/scratchd_monitoring").glob("*.py")
    expected |= {f"scratchd_monitoring/{path.name}" for path in modules}
    expected |= {f"prometheus/rules/{path.name}" for path in (SOURCE / "monitoring/prometheus/rules").iterdir()}
    assert {path for path in share if path and not path.endswith("/")} == expected
    paths = set(shown.stdout.split())
    assert paths >= {
        "./etc/default/scratchd-graphite",
        "./usr/bin/scratchd-graphite",
        "./usr/lib/nagios/plugins/check_scratchd",
        "./usr/lib/systemd/system/scratchd-graphite.service",
        "./usr/lib/systemd/system/scratchd-graphite.timer",
        "./usr/share/doc/scratchd-monitoring/examples/scratchd-graphite.cron",
        "./usr/share/man/man8/check_scratchd.8.gz",
        "./usr/share/man/man8/scratchd-graphite.8.gz",
        "./usr/share/munin/plugins/scratchd_",
    }
    depends = subprocess.run(["dpkg-deb", "--field", str(monitoring), "Depends"], check=True, capture_output=True)
    assert depends.stdout.strip() == b"python3:any"
