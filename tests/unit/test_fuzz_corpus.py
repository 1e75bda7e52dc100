"""What fuzzing has found, or was begun with, replayed: a fixed corpus, so that a claim that once broke stays mended."""

from __future__ import annotations

from pathlib import Path

import pytest

import claims

CORPUS = Path(__file__).with_name("fuzz_corpus")
CASES = [
    pytest.param(path.parent.name, path, id=f"{path.parent.name}-{path.name}") for path in sorted(CORPUS.glob("*/*"))
]


@pytest.mark.parametrize(("claim", "path"), CASES)
def test_the_claim_holds(claim: str, path: Path) -> None:
    getattr(claims, claim)(path.read_bytes())


def test_every_claim_that_is_fuzzed_has_a_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {"head", "conversation", "query"}
