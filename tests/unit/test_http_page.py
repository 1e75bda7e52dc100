"""The status page: what is on it, that nothing foreign becomes markup, and that hundreds of flavors do no harm."""

from __future__ import annotations

import html.parser
import re
import tomllib
from pathlib import Path

import pytest

from hour import Hour
from scratchd.history import POINTS
from scratchd.http import markup
from scratchd.http.page import MEANINGS, Page
from scratchd.http.roster import MOST_FLAVORS, Asked
from scratchd.refusal import Reason

SOURCE = Path(__file__).parents[2]
HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)>\"' \x1b[2J\u202egnp.\u2028"
VOID = {"meta", "link", "br", "input"}


class Outline(html.parser.HTMLParser):
    """Tags as a browser takes them, and that every one is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens and closes."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Closes what was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Text."""
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def words(self) -> str:
        """Everything that is read."""
        return " ".join(" ".join(self.text).split())


def rows(page: str) -> list[str]:
    """The flavors of the table, in order."""
    return re.findall(r'<th scope="row">([^<]*)', page)


@pytest.fixture(scope="module")
def hour() -> Hour:
    hour = Hour()
    hour.passes()
    return hour


def test_the_state_comes_first_as_word_and_shape_and_colour(hour: Hour) -> None:
    page = hour.page()
    outline = Outline(page)
    assert "Events: Flowing Events arrive and every backend keeps up with them." in outline.words()
    assert '<section id="state" class="state flowing"' in page
    assert re.search(r"<title>● Flowing, [\d,]+/s . scratchd</title>", page)
    assert page.index('id="state"') < page.index('id="backends"')


def test_trouble_is_told_with_what_is_wrong() -> None:
    hour = Hour()
    hour.passes(20)
    hour.passes(12, failing="kafka")
    page = hour.page()
    assert '<section id="state" class="state trouble"' in page
    words = Outline(page).words()
    assert "Trouble Events arrive and are safe in the journal." in words
    assert "The kafka backend fails for every flavor; its lines wait in the journal." in words
    assert page.count('class="badge trouble"') == 1 + len(hour.stats.flavors)
    assert "<title>▲ Trouble" in page


def test_everything_that_the_issue_names_is_there(hour: Hour) -> None:
    words = Outline(hour.page()).words()
    for word in ("File", "Kafka", "running", "events wait", "oldest waits for", "ledger balances", "unknown_host"):
        assert word in words, word
    for word in (
        "half within",
        "slowest",
        "set aside",
        "in gaps",
        "free 41.0 GiB",
        "a host of no flavor",
        "loop late by",
    ):
        assert word in words, word
    assert rows(hour.page()) == sorted(hour.stats.flavors)


def test_a_picture_has_words() -> None:
    hour = Hour({"gr": 5.0})
    hour.passes(60)
    pictures = [given for tag, given in Outline(hour.page()).tags if given.get("role") == "img" and tag == "svg"]
    assert len(pictures) == 1 + 2 + 2 + 1
    for picture in pictures:
        assert re.search(r", last 10 min: now .*, lowest .*, highest ", picture["aria-label"] or "")


def test_nothing_is_fetched_from_elsewhere(hour: Hour) -> None:
    outline = Outline(hour.page())
    links = [value for _, given in outline.tags for name, value in given.items() if name in ("href", "src", "action")]
    assert links
    assert [link for link in links if not (link or "").startswith(("/", "?", "data:image/svg+xml,"))] == []
    assert not [given for _, given in outline.tags if "style" in given or any(name.startswith("on") for name in given)]


def test_what_is_foreign_becomes_no_markup() -> None:
    hour = Hour({HOSTILE: 5.0, "gr": 1.0})
    hour.stats.instance = hour.stats.version = HOSTILE
    hour.passes(12, failing="kafka")
    hour.stats.flavors["gr"].takes_lines = False
    hour.stats.backends["kafka"].failed(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    hour.stats.http.refused(HOSTILE)
    plain = Hour({"aa": 5.0, "gr": 1.0})
    plain.stats.instance = plain.stats.version = "x"
    plain.passes(12, failing="kafka")
    plain.stats.flavors["gr"].takes_lines = False
    plain.stats.backends["kafka"].failed("x", "x", "x", "x")
    plain.stats.http.refused("x")
    query = "flavor=" + "".join(f"%{byte:02x}" for byte in HOSTILE.encode())
    for asked in ("", "sort=%3Cscript%3E&all=%22%3E"):
        page = hour.page(asked.encode())
        tags = [(tag, sorted(given)) for tag, given in Outline(page).tags]
        assert tags == [(tag, sorted(given)) for tag, given in Outline(plain.page(asked.encode())).tags]
        assert "<script>alert" not in page
        assert "\x1b" not in page
        assert "\u202e" not in page
    assert "<script>alert" not in hour.page(query.encode())


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain κείμενο 😀", "plain κείμενο 😀"),
        ("<b>&\"'", "&lt;b&gt;&amp;&quot;&#x27;"),
        ("\x00\x1b\x7f\x9b\n", "\\x00\\x1b\\x7f\\x9b\\n"),
        ("\u202e\u2066\u2028", "\\u202e\\u2066\\u2028"),
        ("\ud800", "\\ud800"),
        (3, "3"),
    ],
)
def test_text_is_printable_and_no_markup(given: object, shown: str) -> None:
    assert markup.text(given) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.000251, "0.251 ms"),
        (0.9, "900 ms"),
        (1, "1.0 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (3600, "1 h 0 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_a_duration_is_in_the_unit_that_fits(seconds: float, shown: str) -> None:
    assert markup.duration(seconds) == shown


@pytest.mark.parametrize(("per_s", "shown"), [(0, "0"), (0.05, "0.05"), (1.25, "1.2"), (12.6, "13"), (61234, "61,234")])
def test_a_rate_has_three_digits_or_so(per_s: float, shown: str) -> None:
    assert markup.rate(per_s) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 40, "3072.0 GiB")]
)
def test_bytes_are_in_the_unit_that_fits(count: int, shown: str) -> None:
    assert markup.size(count) == shown


def test_a_sparkline_has_no_bar_for_nothing_and_none_for_what_is_not_known() -> None:
    drawn = markup.sparkline([None, None, 0.0, 1.0, 200.0], "said")
    assert 'd="M30 100v-5h8V100zM40 100v-100h8V100z"' in drawn
    assert 'class="known" d="M20 102H50"' in drawn
    assert 'd=""' in markup.sparkline([None] * POINTS, "said")


def test_every_reason_has_a_meaning() -> None:
    assert set(MEANINGS) == {reason.word for reason in Reason}


# Hundreds of flavors.


@pytest.fixture(scope="module")
def crowd() -> Hour:
    """Three hundred flavors, of which one has trouble."""
    hour = Hour({f"site{number:03d}": 10_000.0 if number > 250 else 1.0 for number in range(300)} | {"site280": 9e5})
    hour.passes(3)
    hour.stats.flavors["site007"].takes_lines = False
    return hour


def test_of_hundreds_of_flavors_those_come_that_matter(crowd: Hour) -> None:
    page = crowd.page()
    assert rows(page) == ["site007", *(f"site{number:03d}" for number in range(251, 300))]
    assert "50 of 300" in Outline(page).words()
    assert len(page) < 200_000


@pytest.mark.parametrize(
    ("query", "first", "count"),
    [
        ("all=1", "site007", 300),
        ("all=1&sort=name", "site000", 300),
        ("sort=name", "site000", MOST_FLAVORS),
        ("sort=rate", "site280", MOST_FLAVORS),
        ("sort=pending", "site000", MOST_FLAVORS),
        ("flavor=SITE01", "site010", 10),
        ("flavor=nothing+like+it", None, 0),
        ("sort=nonsense&flavor=%ff%00&&=", None, 0),
    ],
)
def test_flavors_are_searched_and_sorted(crowd: Hour, query: str, first: str | None, count: int) -> None:
    shown = rows(crowd.page(query.encode()))
    assert len(shown) == count
    assert next(iter(shown), None) == first


def test_links_keep_what_was_asked() -> None:
    asked = Asked.parse(b"flavor=a%26b&sort=rate&all=1")
    assert asked == Asked("a&b", "rate", everything=True)
    assert asked.link(all="") == "?flavor=a%26b&amp;sort=rate"
    assert asked.link(sort="name") == "?flavor=a%26b&amp;sort=name&amp;all=1"


def test_a_large_page_comes_in_small_pieces(crowd: Hour) -> None:
    page = Page(crowd.stats.document, crowd.history, lambda: crowd.word, crowd.now)
    pieces = list(page.pieces(b"all=1"))
    assert len(pieces) > 300 / 10
    assert max(piece.count("<tr") for piece in pieces) < 10


def test_all_that_the_page_is_made_of_is_packaged() -> None:
    packaged = tomllib.loads((SOURCE / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["scratchd"]
    others = [path for path in (SOURCE / "scratchd").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    found = {str(path.relative_to(SOURCE / "scratchd")) for path in others if path.suffix not in (".py", ".pyc")}
    assert found == set(packaged)
