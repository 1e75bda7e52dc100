"""Growth: by how much counters have grown in the last hour, remembered from one run to the next.

A counter of lines that were lost never goes back, and a check that warns of it for ever is one that nobody reads. So a
small file keeps what was counted when; without it (the first run, a machine that was started) nothing has grown yet.

The same holds for each counter by itself: one that is seen for the first time has not grown, and one that is missing
stands where it stood. A service that starts tells of its flavors one after the other, as their journals are opened, and
a flavor that was removed may come back with all that it ever counted. Hence no sums: part of one that is missing would
be taken for a beginning.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

WINDOW_S = 3600


def directory() -> Path:
    """Where the files are: as for the Monitoring Plugins `MP_STATE_PATH`, otherwise this user's own below /tmp.

    Raises:
        OSError: it cannot be made, or is not this user's alone.
    """
    named = os.environ.get("MP_STATE_PATH")
    place = Path(named) if named else Path(tempfile.gettempdir()) / f"check_scratchd-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    found = place.lstat()
    if not named and (not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022):
        raise PermissionError(f"{place} belongs to somebody else; set MP_STATE_PATH")
    return place


def grown(address: str, counters: Mapping[str, int], now_s: float) -> dict[str, int]:
    """By how much each counter has grown within the last hour, at `address`; remembers what it is now.

    Returns:
        Growth by name, also of counters that are missing now.

    Raises:
        OSError: it cannot be remembered.
    """
    path = directory() / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}.json"
    since = now_s - WINDOW_S
    # A clock that was put back makes samples of the future: as good as none.
    samples = [sample for sample in _read(path) if sample[0] <= now_s]
    # The latest before the window is what it began with.
    before = [sample for sample in samples if sample[0] <= since][-1:]
    samples = before + [sample for sample in samples if sample[0] > since]
    latest = {**(samples[-1][1] if samples else {}), **counters}
    samples.append((now_s, latest))
    _write(path, samples)
    return {
        name: sum(
            _step(earlier[name], later[name])
            for (_, earlier), (_, later) in itertools.pairwise(samples)
            if name in earlier and name in later
        )
        for name in latest
    }


def _step(earlier: int, later: int) -> int:
    """A counter that is below what it was has begun anew, with the process or the journal."""
    return later - earlier if later >= earlier else later


def _read(path: Path) -> list[tuple[float, dict[str, int]]]:
    try:
        found = json.loads(path.read_bytes())
        return [(float(at), {str(name): int(value) for name, value in counted.items()}) for at, counted in found]
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def _write(path: Path, samples: list[tuple[float, dict[str, int]]]) -> None:
    # Two that differ in time alone are one: a quiet counter needs no more than its last time.
    kept = [
        sample
        for before, sample, after in zip([None, *samples], samples, [*samples[1:], None], strict=False)
        if before is None or after is None or not before[1] == sample[1] == after[1]
    ]
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(kept, file)
    Path(name).replace(path)
