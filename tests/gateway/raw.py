"""Requests as bytes on a socket, with no client's opinion of what is allowed."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from tests.gateway.signing import body_of, stripe_event, stripe_headers

Headers = Mapping[str, str | bytes | None]


def request(
    method: str, path: str | bytes, headers: Headers, body: bytes = b"", *, version: str = "1.1", host: str = "test"
) -> bytes:
    """A request. A header that is None is left out; `Content-Length` and `Host` are given by themselves."""
    target = path if isinstance(path, bytes) else path.encode()
    lines = [b"%s %s HTTP/%s" % (method.encode(), target, version.encode())]
    for name, value in {"Host": host, "Content-Length": str(len(body)), **headers}.items():
        if value is not None:
            lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    return b"\r\n".join([*lines, b"", body])


def stripe(
    body: bytes | None = None,
    *,
    method: str = "POST",
    path: str | bytes = "/webhooks/stripe",
    **changed: str | bytes | None,
) -> bytes:
    """A request that Stripe signed, with some headers changed: `Content_Type=None`."""
    body = body_of(stripe_event()) if body is None else body
    headers = {name.replace("_", "-"): value for name, value in changed.items()}
    return request(method, path, {**stripe_headers(body), **headers}, body)


def chunked(body: bytes, *, size: int = 1000, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """A request that Stripe signed, in chunks."""
    head = request(
        "POST", "/webhooks/stripe", {**stripe_headers(body), "Content-Length": None, "Transfer-Encoding": "chunked"}
    )
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    return (
        head
        + b"".join(b"%x%s\r\n%s\r\n" % (len(one), extension, one) for one in chunks)
        + b"0\r\n"
        + trailers
        + b"\r\n"
    )


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A connection to a receiver."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        yield connection


def answer(connection: socket.socket) -> tuple[http.client.HTTPResponse, str]:
    """The next answer on a connection, and its body."""
    with closing(http.client.HTTPResponse(connection)) as response:
        response.begin()
        return response, response.read().decode()


def exchange(port: int, raw: bytes) -> tuple[http.client.HTTPResponse, str]:
    """What a request on a connection of its own is answered."""
    with connected(port) as connection:
        connection.sendall(raw)
        return answer(connection)


def statuses(answers: bytes) -> list[int]:
    """Of all answers in these bytes."""
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", answers)]


def rest(connection: socket.socket) -> bytes:
    """All that comes until the receiver ends the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))
