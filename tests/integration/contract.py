"""Contract: what clients are promised, as assertions on one answer.

Owns the exact form of the track listener's answers, taken from the public contract and not from the code that makes
them; knows nothing of how a request got there. Over HTTP/2 the same fields are compared, but for `Connection`.
"""

from __future__ import annotations

import email.utils
import time

from wire import Response

REFUSALS: dict[str, tuple[int, bool]] = {
    "bad_request": (400, True),
    "head_too_large": (431, True),
    "head_timeout": (408, True),
    "bad_host": (400, True),
    "not_found": (404, False),
    "method_not_allowed": (405, False),
    "unknown_host": (421, False),
    "query_too_long": (414, False),
    "too_many_parameters": (400, False),
    "empty_query": (400, False),
    "rate_limited": (429, False),
    "journal_full": (503, False),
}
"""Each reason's word, status code, and whether HTTP/1.1 closes behind it; in the order in which they are tested."""

CLOCKS_DIFFER_S = 5
"""Between the daemon's Date and our look at it: a busy machine, not a wrong clock."""


def assert_image(answer: Response, *, closes: bool = False, bodiless: bool = False) -> None:
    """Asserts that `answer` is the image, whole, with exactly its fields; `bodiless` for HEAD."""
    assert answer.status == 200, answer
    expected = {"content-type": "image/gif", "cache-control": "no-store"}
    _assert_fields(answer, expected, closes=closes)
    length = answer.field("content-length")
    assert length is not None
    assert 0 < int(length) <= 43
    if not bodiless:
        assert len(answer.body) == int(length)
        assert_transparent_pixel(answer.body)


def assert_refused(answer: Response, word: str, *, closes: bool | None = None, bodiless: bool = False) -> None:
    """Asserts that `answer` is the refusal `word`, whole, with exactly its fields.

    Args:
        answer: what came.
        word: the reason.
        closes: whether the connection is to be closed behind it; None: as the contract says for HTTP/1.1.
        bodiless: whether the request was a HEAD.
    """
    status, usually_closes = REFUSALS[word]
    assert answer.status == status, answer
    expected = {
        "content-type": "text/plain; charset=utf-8",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    if word == "method_not_allowed":
        expected["allow"] = "GET, HEAD"
    if word == "journal_full":
        expected["retry-after"] = "1"
    retry_after = answer.field("retry-after")
    if word == "rate_limited":
        assert retry_after is not None, answer
        assert 1 <= int(retry_after) <= 60, answer
        expected["retry-after"] = retry_after
    _assert_fields(answer, expected, closes=usually_closes if closes is None else closes)
    if bodiless:
        assert int(answer.field("content-length") or 0) > 0
    else:
        assert_sentence(answer.body, word)


def assert_sentence(body: bytes, word: str) -> None:
    """Asserts that a refusal's body is one line: the reason, a colon, a sentence in printable ASCII."""
    assert body.startswith(f"{word}: ".encode()), body
    assert body.endswith(b"\n"), body
    assert len(body) > len(word) + 3, body
    assert all(0x20 <= byte <= 0x7E for byte in body[:-1]), body


def assert_transparent_pixel(body: bytes) -> None:
    """Asserts that `body` is a whole GIF of one transparent pixel."""
    assert len(body) <= 43
    assert body[:6] in (b"GIF87a", b"GIF89a")
    assert body[6:10] == b"\x01\x00\x01\x00", "not 1x1"
    assert body[10] & 0x80, "no global colour table"
    colours = 2 << (body[10] & 7)
    rest = body[13 + 3 * colours :]
    assert rest[:3] == b"!\xf9\x04", "no graphic control extension, so nothing is transparent"
    assert rest[3] & 1, "no transparent colour"
    transparent, rest = rest[6], rest[8:]
    assert rest[:1] == b",", "no image"
    assert rest[1:10] == b"\x00\x00\x00\x00\x01\x00\x01\x00\x00", "the image is not the one pixel"
    minimum_bits, size, data = rest[10], rest[11], rest[12:]
    assert data[size:] == b"\x00;", "not ended"
    assert _first_pixel(minimum_bits, data[:size]) == transparent, "the pixel has another colour"


def _first_pixel(minimum_bits: int, data: bytes) -> int:
    """The first colour that LZW's codes say: the first code behind the one that clears the table."""
    bits, width = int.from_bytes(data, "little"), minimum_bits + 1
    clear, mask = 1 << minimum_bits, (1 << width) - 1
    assert bits & mask == clear
    pixel, end = bits >> width & mask, bits >> 2 * width & mask
    assert end == clear + 1, "more than one pixel"
    return pixel


def _assert_fields(answer: Response, expected: dict[str, str], *, closes: bool) -> None:
    names = [name for name, _ in answer.fields]
    assert len(names) == len(set(names)), f"a repeated field: {answer.head!r}"
    fields = dict(answer.fields)
    date = fields.pop("date", None)
    assert date is not None, answer.head
    then = email.utils.parsedate_to_datetime(date)
    assert abs(then.timestamp() - time.time()) < CLOCKS_DIFFER_S, date
    assert date == email.utils.format_datetime(then, usegmt=True), "not the form that HTTP wants"
    assert "server" not in fields
    fields.pop("content-length")
    if closes:
        expected = {**expected, "connection": "close"}
    assert fields == expected
