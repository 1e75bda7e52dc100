"""Crowd: visitors with cookies and tenants, and which side answered each of them.

Owns the account of sides; how visitors come and go is `visitors`. Who answered is seen at the answer: the legacy
service says `Server:`, scratchd never does. Events go to the tenants in turn. Each attempt is made by the next visitor
in turn, so that one who flips between the sides is seen within a second or two.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from network import Network
from visitors import Visitors

LEGACY, SCRATCHD = "legacy", "scratchd"
HOSTS = ("track.example.gr", "www.example.it", "anything.test")
"""One of each tenant's of the example inventory."""

PEOPLE = 997
"""How many visitors there are; with a prime all of them ask for all tenants."""


@dataclass(frozen=True, slots=True)
class Move:
    """A visitor who was answered by another side than before.

    Attributes:
        at_s: monotonic.
        person: who.
        to: the side.
    """

    at_s: float
    person: int
    to: str


class Crowd(Visitors):
    """Visitors of all tenants.

    Attributes:
        sides: each visitor's side at his last visit.
        moves: in order.
        last_s: side to when it answered last, monotonic.
    """

    def __init__(self, network: Network, address: str, *, source: str, people: int = PEOPLE, rate: int = 300) -> None:
        """`rate`: requests a second; a fifth of the clients makes a connection for each."""
        super().__init__(network, address, keeping=40, fleeting=10, pace_s=50 / rate, source=source)
        self._people = people
        self.sides: dict[int, str] = {}
        self.moves: list[Move] = []
        self.last_s = {LEGACY: 0.0, SCRATCHD: 0.0}
        self._asked_s: dict[int, float] = {}

    def whom(self, number: int) -> tuple[str, str]:
        """The next visitor, the next tenant."""
        self._asked_s[number] = time.monotonic()
        return HOSTS[number % len(HOSTS)], f"Cookie: visitor=person-{number % self._people}\r\n"

    def told(self, number: int, head: bytes) -> None:
        """Notes the side, and when the request left that it answered."""
        person, side = number % self._people, LEGACY if b"\r\nserver:" in head.lower() else SCRATCHD
        asked_s = self._asked_s.pop(number)
        self.last_s[side] = max(self.last_s[side], asked_s)
        if self.sides.get(person, side) != side:
            self.moves.append(Move(asked_s, person, side))
        self.sides[person] = side

    def round(self) -> None:
        """Returns after every visitor has been here once more."""
        self.wait_answered(self._people + 50)

    def share(self) -> float:
        """The part of the visitors whose last visit scratchd answered."""
        return sum(side == SCRATCHD for side in self.sides.values()) / len(self.sides)

    def flipped_back(self) -> list[Move]:
        """Those who went from scratchd to the legacy service."""
        return [move for move in self.moves if move.to == LEGACY]
