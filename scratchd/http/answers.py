"""Answers: the bytes that go back. Pure; the clock is passed in, and what is answered is decided elsewhere.

An `Answer` is what HTTP/1 and HTTP/2 have in common: status, fields and body. `Answers` makes HTTP/1's bytes of it.
`Date` is always there, `Server` never.
"""

from __future__ import annotations

import email.utils
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from scratchd.refusal import Reason, Refusal
from scratchd.track import Outcome

GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"  # 1x1, two colours
    b"!\xf9\x04\x01\x00\x00\x00\x00"  # of which the first is transparent
    b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"  # one pixel of it
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered.

    Attributes:
        status: the code.
        fields: pairs of name and value, without Date and Connection.
        body: for HEAD, what its GET would have got: it is not sent, but counts for Content-Length.
    """

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes


IMAGE = Answer(
    200,
    ((b"Content-Type", b"image/gif"), (b"Content-Length", b"%d" % len(GIF)), (b"Cache-Control", b"no-store")),
    GIF,
)


def status(outcome: Outcome) -> int:
    """The status code of the answer."""
    return outcome.reason.status if isinstance(outcome, Refusal) else IMAGE.status


def answer_to(outcome: Outcome) -> Answer:
    """What is answered to a request with this outcome: the image, or why not."""
    if not isinstance(outcome, Refusal):
        return IMAGE
    body = outcome.body
    fields = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        (b"X-Content-Type-Options", b"nosniff"),
    ]
    if outcome.reason is Reason.METHOD_NOT_ALLOWED:
        fields.append((b"Allow", b"GET, HEAD"))
    if outcome.retry_after_s is not None:
        fields.append((b"Retry-After", b"%d" % outcome.retry_after_s))
    return Answer(outcome.reason.status, tuple(fields), body)


class Answers:
    """Makes the bytes of answers over HTTP/1.

    Args:
        clock_ms: the wall clock, milliseconds since the epoch; read for each answer, formatted once a second.
    """

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._second = -1
        self._date = b""
        self._images: dict[tuple[bool, bool], bytes] = {}

    def answer(self, outcome: Outcome, *, bodiless: bool, closes: bool) -> bytes:
        """The bytes of the answer to one request.

        Args:
            outcome: of the request.
            bodiless: whether it was a HEAD: the head is that of a GET, the body is left out.
            closes: whether the connection is closed behind it.
        """
        second = self._clock_ms() // 1000
        if second != self._second:
            self._second = second
            self._date = email.utils.formatdate(second, usegmt=True).encode("ascii")
            self._images.clear()
        if isinstance(outcome, Refusal):
            return _rendered(answer_to(outcome), self._date, bodiless=bodiless, closes=closes)
        # Nearly all answers are alike for a second.
        image = self._images.get((bodiless, closes))
        if image is None:
            image = _rendered(IMAGE, self._date, bodiless=bodiless, closes=closes)
            self._images[bodiless, closes] = image
        return image


def _rendered(answer: Answer, date: bytes, *, bodiless: bool, closes: bool) -> bytes:
    fields = [(b"Date", date), *answer.fields]
    if closes:
        fields.append((b"Connection", b"close"))
    head = b"HTTP/1.1 %d %s\r\n" % (answer.status, HTTPStatus(answer.status).phrase.encode("ascii"))
    return head + b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n" + (b"" if bodiless else answer.body)
