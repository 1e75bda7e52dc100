"""Conversations: what many requests on one connection amount to, whatever way they were cut."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd.http.client import Proxies
from scratchd.http.conversation import MAX_PASS_REQUESTS, Conversation, Http2, Pass, WithBody
from scratchd.http.head import HTTP2_PREFACE
from scratchd.http.hot import Recogniser
from scratchd.refusal import Reason
from scratchd.track import Request

GET = b"GET /track?a=%d HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE = b"GET /track?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST /track?a=b HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n"
BAD = b"GET /\r\n\r\n"


def conversation(trusted: str = "127.0.0.0/8") -> Conversation:
    peer = ipaddress.ip_address("127.0.0.1")
    return Conversation(peer, Proxies([trusted]), None, max_head_bytes=1000)


def passes(talk: Conversation, *, stopping: bool = False) -> list[Pass]:
    result = []
    while turn := talk.next_pass(stopping=stopping):
        result.append(turn)
        if turn.closes or turn.unusual:
            break
    return result


def queries(turns: list[Pass]) -> list[bytes | None]:
    return [request.query for turn in turns for request in turn.requests]


def test_all_that_is_there_is_one_pass() -> None:
    talk = conversation()
    talk.feed(GET % 1 + GET % 2 + (GET % 3)[:-1])
    (turn,) = passes(talk)
    assert queries([turn]) == [b"a=1", b"a=2"]
    assert not turn.closes
    assert talk.has_begun
    talk.feed(b"\n")
    assert queries(passes(talk)) == [b"a=3"]
    assert not talk.has_begun


def test_a_pass_is_bounded() -> None:
    talk = conversation()
    talk.feed(b"".join(GET % number for number in range(2 * MAX_PASS_REQUESTS + 1)))
    assert [len(turn.requests) for turn in passes(talk)] == [MAX_PASS_REQUESTS, MAX_PASS_REQUESTS, 1]


def test_what_closes_is_the_last_of_its_pass() -> None:
    talk = conversation()
    talk.feed(GET % 1 + CLOSE + GET % 2)
    (turn,) = passes(talk)
    assert turn.closes
    assert queries([turn]) == [b"a=1", b"a=b"]


def test_a_refused_head_is_the_last_of_its_pass() -> None:
    talk = conversation()
    talk.feed(GET % 1 + BAD + GET % 2)
    (turn,) = passes(talk)
    assert turn.closes
    assert len(turn.requests) == 1
    assert turn.refusal is not None
    assert turn.refusal.reason is Reason.BAD_REQUEST


def test_a_body_is_the_last_of_its_pass_and_handed_on() -> None:
    talk = conversation()
    talk.feed(GET % 1 + POST + b"x")
    (turn,) = passes(talk)
    assert len(turn.requests) == 1
    assert not turn.closes
    assert isinstance(turn.unusual, WithBody)
    assert turn.unusual.request.method == b"POST"
    assert turn.unusual.head == POST.replace(b"Upgrade: h2c\r\n", b"")
    assert turn.unusual.data == b"x"


def test_http2_is_the_first_thing_or_nothing() -> None:
    talk = conversation()
    talk.feed(HTTP2_PREFACE + b"frames")
    assert passes(talk) == [Pass(unusual=Http2(HTTP2_PREFACE + b"frames"))]
    talk = conversation()
    talk.feed(GET % 1 + HTTP2_PREFACE)
    (turn,) = passes(talk)
    assert turn.refusal is not None
    talk = conversation(trusted="10.0.0.0/8")
    talk.feed(HTTP2_PREFACE)
    (turn,) = passes(talk)
    assert turn.refusal is not None
    assert turn.refusal.reason is Reason.BAD_REQUEST


@pytest.mark.parametrize("ending", [b"", b"\r", b"\r\n"])
def test_an_end_between_requests_closes_without_a_word(ending: bytes) -> None:
    talk = conversation()
    talk.feed(GET % 1 + ending)
    passes(talk)
    assert not talk.has_begun
    talk.feed(b"")
    assert passes(talk) == [Pass(closes=True)]


def test_an_end_within_a_head_is_refused() -> None:
    talk = conversation()
    talk.feed(b"GET / HTTP/1.1\r\n")
    assert passes(talk) == []
    talk.feed(b"")
    (turn,) = passes(talk)
    assert turn.refusal is not None
    assert turn.refusal.reason is Reason.BAD_REQUEST


def test_stopping_closes_behind_the_answers_and_waits_for_what_has_begun() -> None:
    talk = conversation()
    assert passes(talk, stopping=True) == []
    talk.feed(GET % 1 + GET % 2 + b"GET")
    (turn,) = [talk.next_pass(stopping=True)]
    assert not turn.closes
    talk.feed((GET % 3)[3:])
    (turn,) = passes(talk, stopping=True)
    assert turn.closes
    assert queries([turn]) == [b"a=3"]


def test_a_head_that_takes_too_long_is_refused() -> None:
    talk = conversation()
    talk.feed(b"HEAD / HT")
    turn = talk.give_up(2.5)
    assert turn.closes
    assert turn.bodiless
    assert turn.refusal is not None
    assert turn.refusal.reason is Reason.HEAD_TIMEOUT
    assert "2.5" in turn.refusal.sentence


def test_clients_are_looked_for_where_they_are_wanted() -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"
    talk = conversation()
    talk.feed(data)
    assert passes(talk)[0].requests[0].client == "9.9.9.9"
    talk = Conversation(None, Proxies([]), Recogniser(100), max_head_bytes=100)
    talk.feed(data)
    assert passes(talk)[0].requests[0].client == ""


_SAID = st.lists(
    st.integers(0, 9).map(lambda number: GET % number)
    | st.sampled_from([b"\r\n", CLOSE, POST, BAD, b"HEAD http://y/track?x HTTP/1.1\r\nHost: x\r\n\r\n"]),
    max_size=8,
)


@given(_SAID, st.lists(st.integers(0, 600)))
def test_how_it_was_cut_changes_nothing(said: list[bytes], cuts: list[int]) -> None:
    data = b"".join(said)
    whole, parts = conversation(), conversation()
    if data:  # nothing would be the end
        whole.feed(data)
    expected = passes(whole)
    got: list[Pass] = []
    at = 0
    for cut in [*(cut for cut in sorted(cuts) if cut < len(data)), len(data)]:
        if cut > at and not (got and (got[-1].closes or got[-1].unusual)):
            parts.feed(data[at:cut])
            got += passes(parts)
            at = cut
    assert [request for turn in got for request in turn.requests] == [
        request for turn in expected for request in turn.requests
    ]
    assert [turn.closes for turn in got][-1:] == [turn.closes for turn in expected][-1:]
    assert [bool(turn.unusual) for turn in got][-1:] == [bool(turn.unusual) for turn in expected][-1:]


def test_a_head_that_comes_byte_by_byte_is_not_begun_anew_with_each() -> None:
    class Counting(Recogniser):
        calls = 0

        def recognise(self, data: bytes, start: int) -> tuple[Request, bool, int] | None:
            self.calls += 1
            return super().recognise(data, start)

    recogniser = Counting(1000)
    talk = Conversation(None, Proxies([]), recogniser, max_head_bytes=1000)
    for byte in GET % 1 + GET % 2:
        talk.feed(bytes([byte]))
        passes(talk)
    assert recogniser.calls <= 6
