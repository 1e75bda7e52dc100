"""Http2: connections with prior knowledge, frame by frame where a test wants it so.

Owns one HTTP/2 connection as a client; knows nothing of scratchd. Header blocks go out as given, unchecked, so that a
test may send what no client library would.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset

from wire import TIMEOUT_S, Response

Fields = Sequence[tuple[bytes, bytes]]


class StreamFailedError(Exception):
    """The stream or the connection was ended by the peer without a whole answer."""


class Http2Connection:
    """One connection to `host:port`; its preface is sent at once."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)
        self._h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._events: list[Event] = []
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def get(self, target: bytes, host: bytes, *fields: tuple[bytes, bytes], method: bytes = b"GET") -> Response:
        """Sends one well-formed request without a body and reads its answer."""
        return self.response(self.send(target, host, *fields, method=method))

    def send(
        self, target: bytes, host: bytes, *fields: tuple[bytes, bytes], method: bytes = b"GET", ends: bool = True
    ) -> int:
        """Sends a request's head, with `ends` the whole request; returns its stream."""
        pseudo = [(b":method", method), (b":scheme", b"http"), (b":authority", host), (b":path", target)]
        return self.send_fields([*pseudo, *fields], ends=ends)

    def send_fields(self, fields: Fields, *, ends: bool = True) -> int:
        """Sends a header block as it is; returns its stream."""
        stream: int = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, list(fields), end_stream=ends)
        self._flush()
        return stream

    def send_body(self, stream: int, data: bytes, *, ends: bool = True) -> None:
        """Sends a part of a request's body; with `ends` its last."""
        self._h2.send_data(stream, data, end_stream=ends)
        self._flush()

    def send_raw(self, data: bytes) -> None:
        """Sends bytes that are no frames of ours."""
        self.socket.sendall(data)

    def response(self, stream: int) -> Response:
        """Reads the answer on `stream`, whole.

        Raises:
            StreamFailedError: there will be none.
        """
        fields: tuple[tuple[str, str], ...] = ()
        body = b""
        while True:
            event = self._next_of(stream)
            match event:
                case ResponseReceived():
                    fields = tuple((name.decode(), value.decode()) for name, value in event.headers or ())
                case DataReceived():
                    body += event.data or b""
                    self._h2.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                    self._flush()
                case StreamEnded():
                    break
        return Response(int(dict(fields)[":status"]), b"", tuple(f for f in fields if f[0] != ":status"), body)

    def rest(self) -> bytes:
        """Everything up to the end of the connection, which the peer must close."""
        received = b""
        while True:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return received
            if not data:
                return received
            received += data

    def _next_of(self, stream: int) -> Event:
        while True:
            for at, event in enumerate(self._events):
                if isinstance(event, ConnectionTerminated):
                    raise StreamFailedError(f"connection ended: {event.error_code}")
                if getattr(event, "stream_id", None) == stream:
                    del self._events[at]
                    if isinstance(event, StreamReset):
                        raise StreamFailedError(f"stream reset: {event.error_code}")
                    return event
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise StreamFailedError("connection closed")
            self._events += self._h2.receive_data(data)
            self._flush()

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self.socket.sendall(data)
