r"""The legacy application's stand-in: a small WSGI service that reads queries as Rack does and writes JSON lines.

Start it with

    python tests/integration/rollout/legacy.py --listen 127.0.0.1:9100 --directory /var/log/legacy \
        --tenant gr=www.example.gr --tenant de=www.example.de

and it says `listening on 127.0.0.1:9100` on standard output once it takes connections (port 0: any free one). It needs
nothing but Python's standard library. `GET /track?…` with a tenant's host is answered with a GIF after its parameters
were appended to `DIRECTORY/TENANT.log`, one JSON object a line; bytes that are no UTF-8 stay as they are, as with
Ruby's quick encoders. Without `--tenant` every host is of the tenant `any`. Rack's errors are 400, an unknown host or
path is 404, `HEAD` writes nothing.

`GET /health/ready` is 200, or 503 while it is switched to be unready. Switches, on the command line or at run time by
`POST /control?fail=0.1&slow=0.5`, which answers with all of them (as does `GET /control`) and the counts so far:

- `fail=SHARE`: that share of the events is answered 500 and not written,
- `lose=SHARE`: that share is answered 200 and not written,
- `slow=SECONDS`: every answer to an event takes so much longer,
- `ready=0`: `/health/ready` says 503.

Parameters are read as Rack 3 documents it for `Rack::Utils.parse_nested_query`; `--separators '&;'` is Rack 2's and 1's
way. test_rack.py holds this against the real thing.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, unquote_to_bytes

# Rack's parameters.

DEPTH_LIMIT = 32
_STRAY_PERCENT_SIGN = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NO_TEXT = re.compile("[\ud800-\udfff]")


class ParameterError(ValueError):
    """What Rack answers with 400: `%` without two digits, names that contradict each other, nesting without end."""


def parse_nested_query(query: str, separators: str = "&") -> dict[str, Any]:
    """A query's parameters: strings (surrogates stand for bytes that are no UTF-8), None, lists and dicts.

    Raises:
        ParameterError: Rack raises one.
    """
    parameters: dict[str, Any] = {}
    for piece in re.split(f"[{re.escape(separators)}] *", query):
        name, equals, value = piece.partition("=")
        if piece:
            _put(parameters, _unescaped(name), _unescaped(value) if equals else None)
    return parameters


def _unescaped(text: str) -> str:
    if _STRAY_PERCENT_SIGN.search(text):
        raise ParameterError(f"invalid %-encoding ({text})")
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "surrogateescape")


def _put(parameters: dict[str, Any], name: str, value: str | None) -> None:
    """Sets a top-level name; what stands before its first bracket (but one that it begins with) is the key."""
    start = name.find("[", 1)
    if start < 0:
        if name:
            parameters[name] = value
    else:
        _descend(parameters, name[:start], name[start:], value, 0)


def _nested(parameters: dict[str, Any], name: str, value: str | None, depth: int) -> dict[str, Any] | list[Any] | None:
    """Sets what stands behind a key: `[]…`, `[key]…`, or anything else, which is a key as it stands."""
    if depth >= DEPTH_LIMIT:
        raise ParameterError("nested too deep")
    end = name.find("]", 1)
    if name.startswith("[]"):
        key, rest = "[]", name[2:]
    elif name.startswith("[") and end > 0:
        key, rest = name[1:end], name[end + 1 :]
    else:
        key, rest = name, ""
    if not key:
        return None
    if not rest and key == "[]":
        return [value]
    if rest == "[":  # Rack keeps such a name as it came
        key, rest = name, ""
    return _descend(parameters, key, rest, value, depth)


def _descend(parameters: dict[str, Any], key: str, rest: str, value: str | None, depth: int) -> dict[str, Any]:
    """Sets `key` to what `rest` makes of `value`."""
    if rest in ("", "["):
        parameters[key + rest] = value
    elif rest.startswith("[]"):
        items = _present(parameters, key, [])
        inner = rest[2:]
        if not inner:
            items.append(value)
            return parameters
        child = inner[1:-1] if inner[:1] == "[" and inner[-1:] == "]" else ""
        if not child or "[" in child or "]" in child:
            child = inner
        last = items[-1] if items else None
        if isinstance(last, dict) and not _has(last, child):
            _nested(last, child, value, depth + 1)
        else:
            items.append(_nested({}, child, value, depth + 1))
    else:
        inside = _present(parameters, key, {})
        parameters[key] = _nested(inside, rest, value, depth + 1)
    return parameters


def _present(parameters: dict[str, Any], key: str, empty: Any) -> Any:  # noqa: ANN401 - a list or a dict, as `empty` is
    """The list or dict below `key`, made where there is none; nil gives way, anything else does not."""
    if parameters.get(key) is None:
        parameters[key] = empty
    if not isinstance(parameters[key], type(empty)):
        raise ParameterError(f"expected {type(empty).__name__} (got {type(parameters[key]).__name__}) for `{key}'")
    return parameters[key]


def _has(parameters: dict[str, Any], name: str) -> bool:
    """Whether the last element of an array has what `name` says already, so that a new element begins."""
    if _NO_TEXT.search(name):
        raise ParameterError("invalid byte sequence in UTF-8")  # of the regular expression that takes the name apart
    if "[]" in name:
        return False
    inside: Any = parameters
    for part in filter(None, re.split(r"[\[\]]+", name)):
        if not isinstance(inside, dict) or part not in inside:
            return False
        inside = inside[part]
    return True


# The service.

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
Environ = Mapping[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Legacy:
    """The WSGI application.

    Args:
        directory: where the tenants' logs are.
        tenants: by host, `*` for any other.
        separators: of parameters.
        switches: `fail`, `lose`, `slow`, `ready`.
    """

    def __init__(
        self, directory: Path, tenants: Mapping[str, str], separators: str, switches: Mapping[str, float]
    ) -> None:
        self._directory = directory
        self._tenants = dict(tenants)
        self._separators = separators
        self._switches = {"fail": 0.0, "lose": 0.0, "slow": 0.0, "ready": 1.0, **switches}
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._random = random.Random(1)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        path = environ["PATH_INFO"]
        if path == "/health/ready":
            ready = self._switches["ready"] > 0
            return _answer(start_response, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, b"ready\n")
        if path == "/control":
            if environ["REQUEST_METHOD"] == "POST":
                wanted = {name: float(value) for name, value in parse_qsl(environ["QUERY_STRING"])}
                self._switches.update({name: wanted[name] for name in wanted.keys() & self._switches.keys()})
            document = {**self._switches, "answers": dict(self._counts)}
            return _answer(start_response, HTTPStatus.OK, json.dumps(document).encode() + b"\n")
        status = self._track(environ) if path == "/track" else HTTPStatus.NOT_FOUND
        with self._lock:
            self._counts[str(status.value)] += 1
        if status is HTTPStatus.OK:
            return _answer(start_response, status, GIF, "image/gif")
        return _answer(start_response, status, status.phrase.encode() + b"\n")

    def _track(self, environ: Environ) -> HTTPStatus:
        time.sleep(self._switches["slow"])
        host = environ.get("HTTP_HOST", "").rpartition(":")[0] or environ.get("HTTP_HOST", "")
        tenant = self._tenants.get(host.lower(), self._tenants.get("*"))
        if tenant is None:
            return HTTPStatus.NOT_FOUND
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED
        with self._lock:
            chance = self._random.random()
        if chance < self._switches["fail"]:
            return HTTPStatus.INTERNAL_SERVER_ERROR
        try:
            parameters = parse_nested_query(environ["QUERY_STRING"], self._separators)
        except ParameterError:
            return HTTPStatus.BAD_REQUEST
        if environ["REQUEST_METHOD"] == "GET" and chance >= self._switches["lose"]:
            self._write(tenant, parameters)
        return HTTPStatus.OK

    def _write(self, tenant: str, parameters: Mapping[str, Any]) -> None:
        line = json.dumps(parameters, ensure_ascii=False, separators=(",", ":")) + "\n"
        with self._lock, (self._directory / f"{tenant}.log").open("ab") as log:
            log.write(line.encode("utf-8", "surrogateescape"))


def _answer(start_response: StartResponse, status: HTTPStatus, body: bytes, kind: str = "text/plain") -> list[bytes]:
    start_response(f"{status.value} {status.phrase}", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


class _Handler(BaseHTTPRequestHandler):
    """Runs the application for each request of a connection, which stays open; wsgiref's own closes it each time."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Any method."""
        path, _, query = self.path.partition("?")
        environ = {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "HTTP_HOST": self.headers.get("Host", ""),
            "wsgi.input": io.BytesIO(),
        }
        self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            code, _, phrase = status.partition(" ")
            self.send_response(int(code), phrase)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()

        body = b"".join(cast("_Server", self.server).application(environ, start_response))
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_GET  # noqa: N815 - the base's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base
        """Nothing: the tenants' logs are the log."""


class _Server(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], application: Legacy) -> None:
        self.application = application
        super().__init__(address, _Handler)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until it is killed or interrupted."""
    parser = argparse.ArgumentParser(description="Stands in for a legacy application on Rack.")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--directory", type=Path, required=True, help="for a log a tenant")
    parser.add_argument(
        "--tenant", action="append", default=[], metavar="NAME=HOST", help="several; host * is any other"
    )
    parser.add_argument("--separators", default="&", help="of parameters: & (Rack 3) or &; (before)")
    for switch in ("fail", "lose", "slow", "ready"):
        parser.add_argument(f"--{switch}", type=float, help="see the module's docstring")
    chosen = parser.parse_args(arguments)
    chosen.directory.mkdir(parents=True, exist_ok=True)
    tenants = {host.lower(): name for name, _, host in (tenant.partition("=") for tenant in chosen.tenant)}
    switches = {name: getattr(chosen, name) for name in ("fail", "lose", "slow", "ready")}
    application = Legacy(
        chosen.directory,
        tenants or {"*": "any"},
        chosen.separators,
        {name: value for name, value in switches.items() if value is not None},
    )
    host, _, port = chosen.listen.rpartition(":")
    with _Server((host, int(port)), application) as server:
        sys.stdout.write(f"listening on {host}:{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(os.EX_OK)
