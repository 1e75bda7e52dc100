r"""The hot request: what nearly every client sends, recognised in one match of one pattern.

Pure. A second way to read what `head.parse` reads, and no second opinion: the pattern takes only what the parser takes,
with the same outcome, and says nothing about the rest, which then goes to the parser. Hot is GET over HTTP/1.1 or 1.0
for a path, with one Host, without a body, and with nothing to say on the connection but `keep-alive`.

Every repetition is possessive and every alternative is told by its first bytes, so a match costs what it reads and no
head makes it go back. The query, most of a head, is read up to the next space and looked at afterwards: what a pattern
asks of each byte costs more than both.
"""

from __future__ import annotations

import functools
import re

from scratchd.http.host import normalised
from scratchd.track import Request

KNOWN_HOSTS = 4096
"""Values of Host fields of which the normalised form is remembered; beyond it the least used is found anew."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+\r\n"

# As long as a host with a port can be, so that what is remembered of strangers' hosts is small.
_HOST = rb"[0-9A-Za-z_.\-:\[\]]{1,260}+"

# Few fields begin with one of these letters, so mostly one look is enough.
_TELLING = rb"(?![CcHhTt])" + _TOKEN + rb":" + _VALUE
_CAREFUL = (
    rb"(?!(?i:host|content-length|transfer-encoding):)"
    rb"(?!(?i:connection):(?![ \t]*+(?i:keep-alive)[ \t]*+\r))" + _TOKEN + rb":" + _VALUE
)
_OTHER_FIELDS = rb"(?:" + _TELLING + rb"|" + _CAREFUL + rb")*+"

_IN_QUERIES = bytes(range(0x21, 0x7F))

_HOT = re.compile(
    rb"GET (/[\x21-\x3e\x40-\x7e]*+)(?:\?([^ ]*+))? HTTP/1\.([01])\r\n"
    + _OTHER_FIELDS
    + rb"(?i:host):[ \t]*+("
    + _HOST
    + rb")[ \t]*+\r\n"
    + _OTHER_FIELDS
    + rb"\r\n"
)


class Recogniser:
    """Recognises hot requests.

    Args:
        max_head_bytes: limit of a head; a longer one is not hot.
    """

    def __init__(self, max_head_bytes: int) -> None:
        self._match = _HOT.match
        self._max_head_bytes = max_head_bytes
        self._host = functools.lru_cache(KNOWN_HOSTS)(normalised)

    def recognise(self, data: bytes, start: int) -> tuple[Request, bool, int] | None:
        """The hot request whose head begins at `start`, None where none does.

        Returns:
            The request, its client unknown; whether the connection stays open; offset of the first byte behind it.
        """
        match = self._match(data, start)
        if match is None:
            return None
        end = match.end()
        path, query, minor, value = match.groups()
        host = self._host(value)
        if host is None or end - start > self._max_head_bytes or (query and query.translate(None, _IN_QUERIES)):
            return None
        return Request(b"GET", path, query, host, ""), minor == b"1", end
