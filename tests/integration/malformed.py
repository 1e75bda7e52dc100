"""Malformed: heads that are to be refused before anybody asks what they want, by name.

Plain bytes, each with one thing wrong; knows nothing of how they are sent and answered.
"""

from __future__ import annotations


def head(*lines: bytes) -> bytes:
    """A head of these lines, as they are."""
    return b"\r\n".join([*lines, b"", b""])


GET = b"GET /track?a=1 HTTP/1.1"
HOST = b"Host: gr.test"

MALFORMED = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n",
    "socks": b"\x05\x01\x00\r\n\r\n",
    "words": head(b"hello"),
    "nul": head(b"\x00" * 20),
    "http 0.9": head(b"GET /track?a=1"),
    "http 1.2": head(b"GET /track?a=1 HTTP/1.2", HOST),
    "http 2.0": head(b"GET /track?a=1 HTTP/2.0", HOST),
    "http 1.10": head(b"GET /track?a=1 HTTP/1.10", HOST),
    "lower case http": head(b"GET /track?a=1 http/1.1", HOST),
    "no version": head(b"GET /track?a=1 ", HOST),
    "two spaces": head(b"GET  /track?a=1 HTTP/1.1", HOST),
    "tab": head(b"GET\t/track?a=1 HTTP/1.1", HOST),
    "space before": head(b" GET /track?a=1 HTTP/1.1", HOST),
    "space behind": head(b"GET /track?a=1 HTTP/1.1 ", HOST),
    "space in target": head(b"GET /track?a=1 2 HTTP/1.1", HOST),
    "control in target": head(b"GET /track?a=\x01 HTTP/1.1", HOST),
    "del in target": head(b"GET /track?a=\x7f HTTP/1.1", HOST),
    "utf-8 in target": head("GET /track?a=κ HTTP/1.1".encode(), HOST),
    "latin-1 in target": head(b"GET /track?a=\xe9 HTTP/1.1", HOST),
    "relative target": head(b"GET track?a=1 HTTP/1.1", HOST),
    "ftp target": head(b"GET ftp://gr.test/track?a=1 HTTP/1.1", HOST),
    "bad method": head(b"GE(T /track?a=1 HTTP/1.1", HOST),
    "bare lf": GET + b"\n" + HOST + b"\n\n",
    "bare lf in the request line": GET + b"\n" + HOST + b"\r\n\r\n",
    "bare lf in a field": GET + b"\r\n" + HOST + b"\nX: y\r\n\r\n",
    "bare cr in a field": head(GET, HOST, b"X: a\rb"),
    "nul in a field": head(GET, HOST, b"X: a\x00b"),
    "folded field": head(GET, HOST, b"X: a", b" b"),
    "folded by tab": head(GET, HOST, b"X: a", b"\tb"),
    "space before the first field": head(GET, b" X: a", HOST),
    "space before colon": head(GET, b"Host : gr.test"),
    "no colon": head(GET, HOST, b"X"),
    "no name": head(GET, HOST, b": x"),
    "bad name": head(GET, HOST, b"X(y): x"),
    "length and coding": head(GET, HOST, b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "coding and length": head(GET, HOST, b"Transfer-Encoding: chunked", b"Content-Length: 0") + b"0\r\n\r\n",
    "two lengths": head(GET, HOST, b"Content-Length: 1", b"Content-Length: 2") + b"ab",
    "signed length": head(GET, HOST, b"Content-Length: +1") + b"a",
    "negative length": head(GET, HOST, b"Content-Length: -1"),
    "length in words": head(GET, HOST, b"Content-Length: one"),
    "two empty lines": b"\r\n\r\n" + head(GET, HOST),
    "a lone cr before": b"\r" + head(GET, HOST),
    "http 2 preface's half": head(b"PRI * HTTP/2.0") + b"NO\r\n\r\n",
}

BAD_HOSTS = {
    "missing": head(GET),
    "missing in absolute form": head(b"GET http://gr.test/track?a=1 HTTP/1.1"),
    "repeated": head(GET, HOST, b"Host: other.test"),
    "repeated alike": head(GET, HOST, HOST),
    "repeated in http 1.0": head(b"GET /track?a=1 HTTP/1.0", HOST, HOST),
    "two dots behind": head(GET, b"Host: x.."),
    "two dots within": head(GET, b"Host: gr..test"),
    "dot": head(GET, b"Host: ."),
    "dot before": head(GET, b"Host: .gr.test"),
    "userinfo": head(GET, b"Host: me@gr.test"),
    "userinfo in absolute form": head(b"GET http://me@gr.test/track?a=1 HTTP/1.1", HOST),
    "path": head(GET, b"Host: gr.test/track"),
    "space": head(GET, b"Host: gr test"),
    "list": head(GET, b"Host: gr.test, gr.test"),
    "port in words": head(GET, b"Host: gr.test:http"),
    "port too large": head(GET, b"Host: gr.test:65536"),
    "half a bracket": head(GET, b"Host: [::1"),
    "no address": head(GET, b"Host: [gr.test]"),
    "bare ipv6": head(GET, b"Host: 2001:db8::1"),
    "not ascii": head(GET, b"Host: gr\xce\xba.test"),
}
