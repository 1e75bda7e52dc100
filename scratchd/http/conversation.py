"""Conversations: what one HTTP/1 connection's bytes amount to. Pure: bytes in, passes out, bytes of answers back.

Owns the connection's protocol: keep-alive, pipelining, what closes it, what is handed on. Knows no socket and no time;
a driver feeds it, takes passes until one is empty, and sends what each renders to.

A pass is all the complete requests at hand, so that one append and one send serve them all. It ends early at what must
be the last of it: a refusal that closes, a client's `Connection: close`, a request with a body, HTTP/2's preface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scratchd.http.answers import Answers
from scratchd.http.body import Body
from scratchd.http.client import Address, Proxies
from scratchd.http.head import Head, Opening, parse, without_upgrade, worth_parsing
from scratchd.http.hot import Recogniser
from scratchd.refusal import Reason, Refusal
from scratchd.track import Outcome, Request

MAX_PASS_REQUESTS = 64
"""Bounds how long others wait for one client that pipelines."""

_NOTHING = (b"", b"\r", b"\r\n")
"""What may stand before a request and is no byte of it."""


@dataclass(frozen=True, slots=True)
class WithBody:
    """A request with a body, which is answered and closed apart.

    Attributes:
        request: the request.
        head: its head as it came, but for its Upgrade fields.
        body: where its body ends.
        data: what has come behind the head.
    """

    request: Request
    head: bytes
    body: Body
    data: bytes


@dataclass(frozen=True, slots=True)
class Http2:
    """HTTP/2 with prior knowledge; `data` is what has come, the preface first."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pass:
    """What is to be answered together.

    Attributes:
        requests: to be taken, in order.
        refusal: of a head behind them.
        bodiless: whether that head is one of HEAD.
        unusual: what stands behind the requests and is not answered here: the connection is given away with it.
        closes: whether the connection is closed behind the answers.
        has_more: whether it ended for its size: there may be another one already.
    """

    requests: tuple[Request, ...] = ()
    refusal: Refusal | None = None
    bodiless: bool = False
    unusual: WithBody | Http2 | None = None
    closes: bool = False
    has_more: bool = False

    def __bool__(self) -> bool:
        return bool(self.requests) or self.closes or self.unusual is not None

    def render(self, outcomes: Sequence[Outcome], answers: Answers) -> bytes:
        """The bytes of all answers.

        Args:
            outcomes: one for each of `requests`.
            answers: makes each.
        """
        last = len(outcomes) - 1 if self.closes and self.refusal is None else -1
        parts = [
            answers.answer(outcome, bodiless=request.method == b"HEAD", closes=index == last)
            for index, (request, outcome) in enumerate(zip(self.requests, outcomes, strict=True))
        ]
        if self.refusal is not None:
            parts.append(answers.answer(self.refusal, bodiless=self.bodiless, closes=True))
        return b"".join(parts)


class Conversation:
    """One connection's conversation.

    Args:
        peer: who holds the connection, None for a unix socket.
        proxies: tells clients, and who may speak HTTP/2.
        recogniser: of hot requests; None where every request needs its client's address.
        max_head_bytes: limit of a head.
    """

    __slots__ = ("_data", "_ended", "_http2", "_judged", "_max_head_bytes", "_peer", "_proxies", "_recogniser")

    def __init__(
        self, peer: Address | None, proxies: Proxies, recogniser: Recogniser | None, *, max_head_bytes: int
    ) -> None:
        self._peer = peer
        self._proxies = proxies
        self._recogniser = recogniser
        self._max_head_bytes = max_head_bytes
        self._http2 = proxies.trusts(peer)  # as long as nothing else was said
        self._data = b""
        self._judged = 0  # so many bytes of an incomplete head were parsed before
        self._ended = False

    def adopt(self, recogniser: Recogniser | None, max_head_bytes: int) -> None:
        """Goes on with these, from the next head on that is looked at."""
        self._recogniser = recogniser
        self._max_head_bytes = max_head_bytes
        self._judged = 0

    @property
    def has_begun(self) -> bool:
        """Whether bytes of a request are here, of which no pass was made yet."""
        return self._data not in _NOTHING

    def only_request(self, data: bytes) -> Request | None:
        """The request where what came is one hot request and nothing else is here, otherwise None.

        Of an open connection that stays open this is all there is to a pass; what it does not take is for `feed`.
        """
        if self._data or self._recogniser is None:
            return None
        hot = self._recogniser.recognise(data, 0)
        if hot is None or not hot[1] or hot[2] != len(data):
            return None
        self._http2 = False
        return hot[0]

    def feed(self, data: bytes) -> None:
        """Takes what came; nothing is the end: the peer sends no more."""
        self._data += data
        self._ended = not data

    def next_pass(self, *, stopping: bool) -> Pass:
        """Takes the complete requests that are here out of it.

        Args:
            stopping: whether the connection is to be closed as soon as nothing is owed to the peer.

        Returns:
            A pass; an empty one where there is nothing to answer until more comes.
        """
        requests: list[Request] = []
        data, at = self._data, 0
        # At the end of what is here it is not the size that ends a pass.
        while len(requests) < MAX_PASS_REQUESTS or at == len(data):
            # A head that was incomplete is left to the parser, which need not begin anew with each byte of it.
            hot = None if self._recogniser is None or self._judged else self._recogniser.recognise(data, at)
            if hot is not None:
                request, persistent, end = hot
            else:
                parsed = self._parse(at)
                if parsed is None:
                    return self._pause(requests, at, closes=stopping)
                if isinstance(parsed, Refusal):
                    return self._refuse(requests, at, parsed)
                if not isinstance(parsed, Head):
                    return Pass(tuple(requests), unusual=Http2(data[at:]))
                persistent, end = parsed.persistent, parsed.end
                if parsed.has_body:
                    # It is judged when its body has come, perhaps by a configuration that wants to know the client.
                    request = self._request(parsed, wants_client=True)
                    body = Body(parsed.content_length, chunked=parsed.chunked)
                    unusual = WithBody(request, without_upgrade(data[at:end]), body, data[end:])
                    return Pass(tuple(requests), unusual=unusual)
                request = self._request(parsed, wants_client=self._recogniser is None)
            self._http2 = False
            requests.append(request)
            at = end
            if not persistent:
                self._data = b""
                return Pass(tuple(requests), closes=True)
        self._data = data[at:]
        return Pass(tuple(requests), has_more=True)

    def _parse(self, at: int) -> Head | Opening | Refusal | None:
        """What the head that begins at `at` is, unless it is known to be incomplete."""
        judged, self._judged = self._judged, 0
        if at == len(self._data) or (judged and not worth_parsing(self._data, at, at + judged, self._max_head_bytes)):
            return None
        return parse(self._data, at, self._max_head_bytes, http2=self._http2)

    def give_up(self, head_timeout_s: float) -> Pass:
        """What is answered to a peer that took too long for the head that it has begun."""
        sentence = f"the head was not complete within {head_timeout_s:g} seconds"
        return self._refuse([], 0, Refusal(Reason.HEAD_TIMEOUT, sentence))

    def _pause(self, requests: list[Request], at: int, *, closes: bool) -> Pass:
        """Ends a pass where more bytes are needed, or where there are no more."""
        self._data = self._data[at:]
        self._judged = len(self._data)
        if self.has_begun and self._ended:
            return self._refuse(requests, 0, Refusal(Reason.BAD_REQUEST, "the connection ended within the head"))
        # A stopping connection closes behind an answer; one that waits for its last request may send it.
        return Pass(tuple(requests), closes=self._ended or (closes and bool(requests) and not self.has_begun))

    def _refuse(self, requests: list[Request], at: int, refusal: Refusal) -> Pass:
        bodiless = self._data.startswith(b"HEAD ", at + 2 * self._data.startswith(b"\r\n", at))
        self._data = b""
        return Pass(tuple(requests), refusal, bodiless, closes=True)

    def _request(self, head: Head, *, wants_client: bool) -> Request:
        client = self._proxies.client(self._peer, head.forwarded_for) if wants_client else ""
        return Request(head.method, head.path, head.query, head.host, client)
