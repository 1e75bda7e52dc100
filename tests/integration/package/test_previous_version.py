"""What an earlier version wrote, taken over by this one.

`written-by-0.1.0.tar.gz` has the journal and the log files of a scratchd 0.1.0 (journal format 1) that was killed. Of
the twelve lines `{"n":"0",…}` to `{"n":"11",…}` eight are in the log file and four wait. When a release changes a
format, it adds an archive of its own here, and none is ever taken away.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from installed import SERVICE, Installed

ARCHIVES = sorted(Path(__file__).parent.glob("written-by-*.tar.gz"))


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def test_each_earlier_versions_lines_are_persisted_exactly_once(installed: Installed, archive: Path) -> None:
    units = ("scratchd.socket", "scratchd-admin.socket", SERVICE)
    machine = installed.machine
    installed.systemctl("stop", *units)
    machine.write("/root/written.tar.gz", archive.read_bytes())
    machine.sh(
        "rm -r /var/lib/scratchd/_; tar --directory=/ --extract --file=/root/written.tar.gz --no-same-owner; "
        "chown -R scratchd:scratchd /var/lib/scratchd; chown -R scratchd:scratchd-logs /var/log/scratchd"
    )
    assert len(installed.lines()) == 8

    installed.systemctl("start", *units)
    assert installed.get("/track?n=12&name=new").status == 200
    installed.wait_persisted()

    assert [json.loads(line)["n"] for line in installed.lines()] == [str(number) for number in range(13)]
    assert installed.stats()["flavors"]["site"]["received_lines"] == 13
    assert not [line for line in installed.log() if "cut" in line or "gap" in line]


def test_a_journal_of_a_later_version_ends_the_start_and_is_left_alone(installed: Installed) -> None:
    machine = installed.machine
    assert installed.get("/track?n=1").status == 200
    installed.wait_persisted()
    installed.systemctl("stop", "scratchd.socket", "scratchd-admin.socket", SERVICE)
    # The head of a segment with the version after this one, and a right checksum.
    later = machine.run(
        "python3",
        "-c",
        "import zlib, struct, pathlib\n"
        "path = max(pathlib.Path('/var/lib/scratchd/_/site').glob('*.segment'))\n"
        "data = path.read_bytes()\n"
        "head = data[:7] + bytes([data[7] + 1]) + data[8:36]\n"
        "path.write_bytes(head + struct.pack('<I', zlib.crc32(head)) + b'of another shape')\n"
        "print(path)",
    ).strip()
    before = machine.path(later).read_bytes()

    assert machine.attempt("systemctl", "start", SERVICE).returncode != 0
    assert any("written by a later scratchd" in line and later in line for line in installed.log())
    assert machine.path(later).read_bytes() == before
