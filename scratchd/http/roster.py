"""The roster: the status page's table of flavors, of which there may be hundreds.

Owns which are shown and in what order, by what the page is asked with; without being asked, those with trouble first
and `MOST_FLAVORS` at most. Sorting and searching are links and a form, so that they work without JavaScript.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scratchd.history import History
from scratchd.http.condition import Condition
from scratchd.http.markup import backend_badge, badge, duration, number, rate, sparkline, spoken, text

MOST_FLAVORS = 50
"""Shown unless all are asked for."""

_SEARCHED = 10
"""With fewer flavors there is nothing to search."""

_ROWS = 8
"""In a piece: about a millisecond's work."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What of the flavors is asked for.

    Attributes:
        search: part of their names.
        sort: `trouble`, `name`, `rate` or `pending`.
        everything: whether more than `MOST_FLAVORS`.
    """

    search: str = ""
    sort: str = "trouble"
    everything: bool = False

    @classmethod
    def parse(cls, query: bytes) -> Asked:
        """From a query string; what it should not say counts as not said."""
        given = dict(urllib.parse.parse_qsl(query.decode("ascii", "replace")))
        sort = given.get("sort", "")
        return cls(given.get("flavor", ""), sort if sort in _ORDERS else "trouble", "all" in given)

    def link(self, **changed: str) -> str:
        """The query string for the same with something changed, escaped for an attribute."""
        said = {"flavor": self.search, "sort": "" if self.sort == "trouble" else self.sort}
        said["all"] = "1" if self.everything else ""
        return text("?" + urllib.parse.urlencode({name: value for name, value in (said | changed).items() if value}))


@dataclass(frozen=True, slots=True)
class _Flavor:
    name: str
    figures: Mapping[str, Any]
    troubled: bool
    per_s: float
    pending: int


_ORDERS: Mapping[str, Callable[[_Flavor], tuple[object, ...]]] = {
    "trouble": lambda flavor: (not flavor.troubled, flavor.name),
    "name": lambda flavor: (flavor.name,),
    "rate": lambda flavor: (-flavor.per_s, flavor.name),
    "pending": lambda flavor: (-flavor.pending, flavor.name),
}


class Roster:
    """The table of one page.

    Args:
        flavors: the figures of `/stats`.
        history: what was before.
        found: who has trouble.
        backends: names of the enabled ones.
        asked: what of it is asked for.
    """

    def __init__(
        self,
        flavors: Mapping[str, Any],
        history: History,
        found: Condition,
        backends: Sequence[str],
        asked: Asked,
    ) -> None:
        self._history = history
        self._backends = backends
        self._asked = asked
        self._total = len(flavors)
        rates, wanted = history.rates(), asked.search.casefold()
        matching = [
            _Flavor(name, figures, name in found.flavors, rates.get(name, 0.0), _pending(figures))
            for name, figures in flavors.items()
            if wanted in name.casefold()
        ]
        self._matching = len(matching)
        self._shown = _chosen(matching, asked)

    def count(self) -> str:
        """How many are shown, of how many."""
        if len(self._shown) < self._matching:
            return f"{number(len(self._shown))} of {number(self._matching)}"
        total = number(self._total)
        return total if self._matching == self._total else f"{number(self._matching)} of {total}"

    def search(self) -> str:
        """The form."""
        if self._total < _SEARCHED:
            return ""
        kept = "".join(
            f'<input type="hidden" name="{name}" value="{text(value)}">'
            for name, value in (("sort", self._asked.sort), ("all", "1" if self._asked.everything else ""))
            if value not in ("", "trouble")
        )
        return (
            '<form method="get" action="/" role="search"><label for="search">Name has</label>'
            f'<input type="search" id="search" name="flavor" value="{text(self._asked.search)}" autocomplete="off">'
            f"{kept}<button>Search</button></form>"
        )

    def columns(self) -> str:
        """The headings, which sort."""
        by_backend = [("pending", name.capitalize()) for name in self._backends]
        headings = [("name", "Flavor"), ("", "Last hour"), ("rate", "Events/s"), *by_backend, ("", "Received")]
        return "".join(self._heading(key, heading) for key, heading in headings)

    def pieces(self) -> Iterator[str]:
        """The rows, a few at a time."""
        for first in range(0, len(self._shown), _ROWS):
            yield "".join(self._row(flavor) for flavor in self._shown[first : first + _ROWS])
        if not self._shown:
            yield f'<tr><td colspan="{4 + len(self._backends)}" class="badges">No flavor matches.</td></tr>'

    def more(self) -> str:
        """The link to all of them, or back."""
        if len(self._shown) < self._matching:
            return f'<p><a href="{self._asked.link(all="1")}">Show all {number(self._matching)} flavors</a></p>'
        if self._asked.everything and self._matching > MOST_FLAVORS:
            return f'<p><a href="{self._asked.link(all="")}">Show {MOST_FLAVORS} flavors</a></p>'
        return ""

    def _heading(self, key: str, heading: str) -> str:
        if not key:
            return f'<th scope="col">{heading}</th>'
        sorted_now = self._asked.sort == key
        direction, mark = ("ascending", " \u25b4") if key == "name" else ("descending", " \u25be")
        aria = f' aria-sort="{direction}"' if sorted_now else ""
        side = ' class="badges"' if key == "pending" else ""
        order = self._asked.link(sort="" if sorted_now else key)
        return f'<th scope="col"{side}{aria}><a href="{order}">{text(heading)}{mark if sorted_now else ""}</a></th>'

    def _row(self, flavor: _Flavor) -> str:
        points, figures = self._history.flavor(flavor.name), flavor.figures
        refuses = "" if figures["takes_lines"] else f"<small>{badge('trouble', 'refuses events')}</small>"
        left_s = figures["quota_full_in_s"]
        quota = "" if left_s is None else f"<small>quota full in {duration(left_s)}</small>"
        return (
            f'<tr{" class=trouble" if flavor.troubled else ""}><th scope="row">{text(flavor.name)}{refuses}{quota}</th>'
            f"<td>{sparkline(points, spoken('events a second', points, rate))}</td>"
            f"<td>{rate(flavor.per_s)}</td>"
            + "".join(_feed(figures.get(name)) for name in self._backends)
            + f"<td>{number(figures['received_lines'])}</td></tr>\n"
        )


def _chosen(matching: list[_Flavor], asked: Asked) -> list[_Flavor]:
    order = _ORDERS[asked.sort]
    if asked.everything or len(matching) <= MOST_FLAVORS:
        return sorted(matching, key=order)
    if asked.sort != "trouble":
        return sorted(matching, key=order)[:MOST_FLAVORS]
    # The few that are shown are to be those that matter, and by name again, so that they keep their places.
    matter = sorted(matching, key=lambda flavor: (not flavor.troubled, -flavor.figures["received_lines"], flavor.name))
    return sorted(matter[:MOST_FLAVORS], key=order)


def _pending(figures: Mapping[str, Any]) -> int:
    feeds = (feed for feed in figures.values() if isinstance(feed, dict) and "pending_lines" in feed)
    return max((feed["pending_lines"] for feed in feeds), default=0)


def _feed(feed: Mapping[str, Any] | None) -> str:
    if feed is None:
        return '<td class="badges">-</td>'
    waiting = feed["pending_lines"]
    lacking = [
        f"{number(feed[f'{what}_lines'])} {word}"
        for what, word in (("gap", "in gaps"), ("set_aside", "set aside"))
        if feed[f"{what}_lines"]
    ]
    notes = ", ".join([f"{number(waiting)} wait"] * bool(waiting) + lacking)
    return f'<td class="badges">{backend_badge(feed["state"])}<small>{notes}</small></td>'
