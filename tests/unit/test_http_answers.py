"""Answers: their bytes, as h11 reads them and as the contract says."""

from __future__ import annotations

import h11
import pytest

from scratchd.http.answers import GIF, Answers
from scratchd.refusal import Reason, Refusal
from scratchd.track import Duplicate, HeadOnly, Outcome

NOON_MS = 1_795_435_200_123
REFUSAL = Refusal(Reason.EMPTY_QUERY, "there is no query")
IMAGE = Duplicate("gr")


def read(data: bytes, method: str = "GET") -> tuple[h11.Response, dict[str, str], bytes]:
    """An answer as a client reads it, which must leave nothing over."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    response = connection.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data[0] == b""
    return response, {name.decode(): value.decode() for name, value in response.headers}, body


def answer(outcome: Outcome, *, bodiless: bool = False, closes: bool = False) -> bytes:
    return Answers(lambda: NOON_MS).answer(outcome, bodiless=bodiless, closes=closes)


def test_an_event_gets_the_image() -> None:
    response, fields, body = read(answer(IMAGE))
    assert response.status_code == 200
    assert body == GIF
    assert fields == {
        "date": "Mon, 23 Nov 2026 12:00:00 GMT",
        "content-type": "image/gif",
        "content-length": "43",
        "cache-control": "no-store",
    }


def test_the_image_is_a_gif_of_one_pixel_and_at_most_43_bytes() -> None:
    assert len(GIF) <= 43
    assert GIF[:10] == b"GIF89a\x01\x00\x01\x00"
    assert GIF[-1:] == b";"
    assert GIF[19:23] == b"!\xf9\x04\x01"


def test_a_refusal_is_one_line_of_text() -> None:
    response, fields, body = read(answer(REFUSAL))
    assert response.status_code == 400
    assert body == b"empty_query: there is no query\n"
    assert fields == {
        "date": "Mon, 23 Nov 2026 12:00:00 GMT",
        "content-type": "text/plain; charset=utf-8",
        "content-length": "31",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }


@pytest.mark.parametrize("outcome", [HeadOnly("gr"), REFUSAL], ids=["image", "refusal"])
def test_head_gets_the_head_of_its_get(outcome: Outcome) -> None:
    whole, bodiless = answer(outcome), answer(outcome, bodiless=True)
    assert whole.startswith(bodiless)
    assert bodiless.endswith(b"\r\n\r\n")
    _, fields, body = read(bodiless, "HEAD")
    assert body == b""
    assert int(fields["content-length"]) == len(whole) - len(bodiless)


@pytest.mark.parametrize("outcome", [IMAGE, REFUSAL], ids=["image", "refusal"])
def test_a_closing_answer_says_so(outcome: Outcome) -> None:
    _, fields, _ = read(answer(outcome, closes=True))
    assert fields["connection"] == "close"
    assert "connection" not in read(answer(outcome))[1]


def test_a_refused_method_is_told_which_are_allowed() -> None:
    response, fields, _ = read(answer(Refusal(Reason.METHOD_NOT_ALLOWED, "no")))
    assert response.status_code == 405
    assert fields["allow"] == "GET, HEAD"


def test_who_shall_come_again_is_told_when() -> None:
    _, fields, _ = read(answer(Refusal(Reason.RATE_LIMITED, "no", retry_after_s=17)))
    assert fields["retry-after"] == "17"


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_status(reason: Reason) -> None:
    response, fields, body = read(answer(Refusal(reason, "why")))
    assert response.status_code == reason.status
    assert response.reason
    assert body == f"{reason.word}: why\n".encode()
    assert "server" not in fields


def test_the_date_goes_with_the_clock() -> None:
    now_ms = [NOON_MS]
    answers = Answers(lambda: now_ms[0])
    first = answers.answer(IMAGE, bodiless=False, closes=False)
    now_ms[0] += 800
    assert answers.answer(IMAGE, bodiless=False, closes=False) == first
    now_ms[0] += 100
    assert b"Date: Mon, 23 Nov 2026 12:00:01 GMT\r\n" in answers.answer(IMAGE, bodiless=False, closes=False)
    now_ms[0] -= 5000
    assert b"Date: Mon, 23 Nov 2026 11:59:56 GMT\r\n" in answers.answer(IMAGE, bodiless=False, closes=False)
