"""Ranges of sequences, first and last inclusive: adding, taking away, and a set of many single ones. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Range = tuple[int, int]

_CHUNK = 1 << 16


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same sequences as ranges in order that neither touch nor overlap; empty ones vanish."""
    result: list[Range] = []
    for first, last in sorted(ranges):
        if last < first:
            continue
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result


def without(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """What of `ranges` is in none of `taken`."""
    holes = merged(taken)
    result: list[Range] = []
    for first, last in merged(ranges):
        start = first
        for hole_first, hole_last in holes:
            if hole_last < start:
                continue
            if hole_first > last:
                break
            result.append((start, hole_first - 1))
            start = hole_last + 1
        result.append((start, last))
    return merged(result)


def common(ranges: Iterable[Range], others: Iterable[Range]) -> list[Range]:
    """What is in both."""
    mine = merged(ranges)
    return without(mine, without(mine, others))


def count(ranges: Iterable[Range]) -> int:
    """How many sequences; `ranges` must not overlap."""
    return sum(last - first + 1 for first, last in ranges)


def shown(ranges: Iterable[Range], most: int = 5) -> str:
    """For people: `3-7, 9`, and how many more there are."""
    found = list(ranges)
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in found[:most]]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(texts) + more


class Sequences:
    """A set of sequences that come in any order: one bit each, in chunks, so that a billion fit into memory."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, sequence: int) -> bool:
        """Adds one; False where it was there."""
        number, index = divmod(sequence, _CHUNK)
        chunk = self._chunks.setdefault(number, bytearray(_CHUNK // 8))
        bit = 1 << (index & 7)
        if chunk[index >> 3] & bit:
            return False
        chunk[index >> 3] |= bit
        self._count += 1
        return True

    def __contains__(self, sequence: int) -> bool:
        number, index = divmod(sequence, _CHUNK)
        chunk = self._chunks.get(number)
        return chunk is not None and bool(chunk[index >> 3] & (1 << (index & 7)))

    def missing(self, ranges: Iterable[Range]) -> list[Range]:
        """What of `ranges` is not in the set."""
        return merged(self._missing(ranges))

    def _missing(self, ranges: Iterable[Range]) -> Iterator[Range]:
        for first, last in ranges:
            sequence = first
            while sequence <= last:
                number, index = divmod(sequence, _CHUNK)
                end = min(last, sequence - index + _CHUNK - 1)
                chunk = self._chunks.get(number)
                if chunk is None:
                    yield sequence, end
                elif chunk.count(0xFF) != _CHUNK // 8:
                    yield from ((one, one) for one in range(sequence, end + 1) if one not in self)
                sequence = end + 1
