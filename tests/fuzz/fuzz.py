"""Coverage-guided fuzzing of the claims, by atheris (libFuzzer): `make fuzz`.

    python tests/fuzz/fuzz.py CLAIM [libFuzzer's options] [directories of inputs]

CLAIM is the name of one in claims.py. What breaks it is written to a file by libFuzzer. It belongs, under a name that
says what it is, into tests/unit/fuzz_corpus/CLAIM, from where a unit test replays it for ever.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["scratchd"]):
    import claims


def main() -> None:
    """Fuzzes until an input breaks the claim or libFuzzer has had enough."""
    claim = getattr(claims, sys.argv.pop(1))
    atheris.enabled_hooks.add("RegEx")
    atheris.Setup(sys.argv, claim)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
