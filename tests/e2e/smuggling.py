"""Raw requests whose end, or whose parts, two servers could see in different places: data only.

Most end in a whole call, HIDDEN, that a server which sees the end too early would answer as a
second request: it would cost money and reach the provider.
"""

from __future__ import annotations

from typing import Final

CHAT: Final = "/v1/chat/completions"
_CHUNKED: Final = "Transfer-Encoding: chunked"


def requests(key: str, model: str) -> dict[str, bytes]:
    """Return the requests by name, each with a key and a model that would be answered."""
    chat = b'{"model":"%b","messages":[{"role":"user","content":"x"}]}' % model.encode()
    host = ["Host: gateway", f"Authorization: Bearer {key}", "Content-Type: application/json"]

    def post(lines: list[str], body: bytes, start: str = f"POST {CHAT} HTTP/1.1") -> bytes:
        return "\r\n".join([start, *lines, "", ""]).encode("latin-1") + body

    def chunk(data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data)

    length = f"Content-Length: {len(chat)}"
    hidden = post([*host, length], chat)
    # What a server that goes by the chunks sees as a whole call, and then HIDDEN.
    chunks = chunk(chat) + b"0\r\n\r\n"
    found = {
        # ---- both lengths, or a coding that only one of two servers knows
        "CL.TE": post([*host, "Content-Length: 6", _CHUNKED], b"0\r\n\r\n" + hidden),
        "TE.CL": post([*host, _CHUNKED, "Content-Length: 4"], chunk(hidden) + b"0\r\n\r\n"),
        "CL.TE with a whole call in chunks": post([*host, length, _CHUNKED], chunks + hidden),
        "CL.0": post([*host, "Content-Length: 0", _CHUNKED], chunks + hidden),
        "TE twice": post([*host, _CHUNKED, "Transfer-Encoding: identity"], chunks + hidden),
        "TE twice the same": post([*host, _CHUNKED, _CHUNKED, length], chunks + hidden),
        "TE identity": post([*host, "Transfer-Encoding: identity", length], chat + hidden),
        "TE xchunked": post([*host, "Transfer-Encoding: xchunked"], chunks + hidden),
        "TE chunkedx with CL": post([*host, "Transfer-Encoding: chunkedx", length], chat + hidden),
        "TE chunked, identity": post([*host, _CHUNKED + ", identity"], chunks + hidden),
        "TE identity, chunked, chunked": post(
            [*host, "Transfer-Encoding: identity, chunked, chunked", length], chunks + hidden
        ),
        "TE gzip, chunked with CL": post(
            [*host, "Transfer-Encoding: gzip, chunked", length], chunks + hidden
        ),
        "TE quoted": post([*host, 'Transfer-Encoding: "chunked"', length], chat + hidden),
        "TE empty with CL": post([*host, "Transfer-Encoding:", length], chat + hidden),
        "TE behind a vertical tab": post(
            [*host, "Transfer-Encoding:\x0bchunked", "Content-Length: 3"], b"0\r\n" + hidden
        ),
        "TE before a vertical tab": post(
            [*host, "Transfer-Encoding: chunked\x0b", "Content-Length: 3"], b"0\r\n" + hidden
        ),
        "a space before the colon of TE": post(
            [*host, "Transfer-Encoding : chunked", "Content-Length: 3"], b"0\r\n" + hidden
        ),
        "a tab before the colon of CL": post([*host, "Content-Length\t: 3"], b"0\r\n" + hidden),
        "TE in HTTP/1.0 with CL": post(
            [*host, _CHUNKED, length], chunks + hidden, f"POST {CHAT} HTTP/1.0"
        ),
        # ---- one length, written in another way
        "CL twice": post([*host, "Content-Length: 2", length], chat + hidden),
        "CL twice, the longer one first": post([*host, length, "Content-Length: 2"], chat + hidden),
        "CL list": post([*host, f"Content-Length: 2, {len(chat)}"], chat + hidden),
        "CL +": post([*host, f"Content-Length: +{len(chat)}"], chat + hidden),
        "CL hexadecimal": post([*host, f"Content-Length: {len(chat):#x}"], chat + hidden),
        "CL negative": post([*host, "Content-Length: -2"], chat + hidden),
        "CL with a fraction": post([*host, f"Content-Length: {len(chat)}.0"], chat + hidden),
        "CL with an underscore": post([*host, "Content-Length: 1_0"], chat + hidden),
        "CL with a space inside": post([*host, "Content-Length: 1 0"], chat + hidden),
        "CL empty": post([*host, "Content-Length:"], chat + hidden),
        "CL beyond 64 bits": post([*host, f"Content-Length: {2**64 + len(chat)}"], chat + hidden),
        "CL in other digits": post(
            [*host, "Content-Length: \xc2\xb2"], chat + hidden
        ),  # ² in UTF-8
        # ---- chunks
        "a chunk size of 0x2": post([*host, _CHUNKED], b"0x2\r\n{}\r\n0\r\n\r\n" + hidden),
        "a chunk size with a plus": post([*host, _CHUNKED], b"+2\r\n{}\r\n0\r\n\r\n" + hidden),
        "a chunk size with a minus": post([*host, _CHUNKED], b"-2\r\n{}\r\n0\r\n\r\n" + hidden),
        "a chunk size behind a space": post([*host, _CHUNKED], b" 2\r\n{}\r\n0\r\n\r\n" + hidden),
        "a chunk size with an underscore": post(
            [*host, _CHUNKED], b"0_2\r\n{}\r\n0\r\n\r\n" + hidden
        ),
        "a chunk size beyond 64 bits": post([*host, _CHUNKED], b"f" * 17 + b"\r\n" + hidden),
        "no chunk size": post([*host, _CHUNKED], b"\r\n{}\r\n0\r\n\r\n" + hidden),
        "a chunk that is longer than it says": post(
            [*host, _CHUNKED], b"2\r\n{}xx0\r\n\r\n" + hidden
        ),
        "a bare LF behind a chunk size": post([*host, _CHUNKED], b"2\n{}\r\n0\r\n\r\n" + hidden),
        "a bare CR behind a chunk size": post([*host, _CHUNKED], b"2\r{}\r\n0\r\n\r\n" + hidden),
        "a bare LF behind a chunk": post([*host, _CHUNKED], b"2\r\n{}\n0\r\n\r\n" + hidden),
        "a bare LF behind the last chunk": post([*host, _CHUNKED], chunk(chat) + b"0\n\n" + hidden),
        "a bare LF in a chunk extension": post(
            [*host, _CHUNKED], b"2;a=\n1\r\n{}\r\n0\r\n\r\n" + hidden
        ),
        "a bare CR in a chunk extension": post(
            [*host, _CHUNKED], b"2;a=\r1\r\n{}\r\n0\r\n\r\n" + hidden
        ),
        # ---- lines of the head
        "a bare LF behind a header": post(host, b"").replace(b"gateway\r\n", b"gateway\n"),
        "a bare CR in a header": post(["Host: gate\rway", *host[1:]], b""),
        "a bare CR before TE": post(
            [*host, "X-A: 1\rTransfer-Encoding: chunked", length], chat + hidden
        ),
        "a folded header": post(
            [*host, "X-A: 1\r\n Transfer-Encoding: chunked", length], chat + hidden
        ),
        "a folded TE": post([*host, "Transfer-Encoding:\r\n chunked", length], chunks + hidden),
        "a folded first header": post([" X: 1", *host, length], chat + hidden),
        "NUL in a header": post([*host, "X-A: \x00", length], chat + hidden),
        "NUL in the name of a header": post([*host, "X\x00A: 1", length], chat + hidden),
        "a header without a name": post([*host, ": 1", length], chat + hidden),
        "a header without a colon": post([*host, "X-A", length], chat + hidden),
        "a name with a space": post([*host, "X A: 1", length], chat + hidden),
        # ---- the first line
        "no version": b"GET /v1/models\r\nHost: x\r\n\r\n" + hidden,
        "version 9": b"GET /v1/models HTTP/9.9\r\nHost: x\r\n\r\n" + hidden,
        "version 2.0": post([*host, length], chat + hidden, f"POST {CHAT} HTTP/2.0"),
        "a version in lower case": post([*host, length], chat + hidden, f"POST {CHAT} http/1.1"),
        "two spaces behind the method": post(
            [*host, length], chat + hidden, f"POST  {CHAT} HTTP/1.1\x0b"
        ),
        "the address of another host": (
            b"GET http://evil.example/v1/models HTTP/1.1\r\nHost: x\r\n\r\n" + hidden
        ),
        "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n" + hidden,
        "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n" + hidden,
        "a line break in the address": b"GET /v1/mo\r\ndels HTTP/1.1\r\nHost: x\r\n\r\n" + hidden,
        "a space in the address": post([*host, length], chat + hidden, f"POST {CHAT} x HTTP/1.1"),
        "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hidden,
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32) + b"\r\n\r\n" + hidden,
    }
    # ---- what is valid, but a careless server reads its body as the next request
    found |= {
        "GET with a body": post(
            [*host, f"Content-Length: {len(hidden)}"], hidden, "GET /v1/models HTTP/1.1"
        ),
        "HEAD with a body": post(
            [*host, f"Content-Length: {len(hidden)}"], hidden, "HEAD /v1/models HTTP/1.1"
        ),
        "a body without a key": post(
            ["Host: gateway", f"Content-Length: {len(hidden)}"], hidden
        ),
        "a body of another type": post(
            [*host[:2], "Content-Type: text/plain", f"Content-Length: {len(hidden)}"], hidden
        ),
        "Expect with a body": post(
            [*host, "Expect: 100-continue", f"Content-Length: {len(hidden)}"], hidden
        ),
        "Upgrade with a body": post(
            [*host, "Connection: upgrade", "Upgrade: h2c", f"Content-Length: {len(hidden)}"], hidden
        ),
        "a websocket": post(
            [
                *host, "Connection: upgrade", "Upgrade: websocket",
                "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
                f"Content-Length: {len(hidden)}",
            ],
            hidden,
            "GET /v1/models HTTP/1.1",
        ),
        "a body that is too large": post([*host, f"Content-Length: {(32 << 20) + 1}"], hidden),
    }  # fmt: skip
    return found


NAMES: Final = tuple(requests("k", "m"))
# Valid HTTP, and the status of what is asked for, which is never a call.
VALID: Final = {
    "GET with a body": 200,
    "HEAD with a body": 200,
    "a body without a key": 401,
    "a body of another type": 415,
    "Expect with a body": 400,
    "Upgrade with a body": 400,
    "a websocket": 200,
    "a body that is too large": 413,
}
