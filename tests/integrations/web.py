"""A real HTTP server that answers as a test says and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest


@dataclass(frozen=True)
class Asked:
    """A request as it arrived; `target` is its path and query as they were written."""

    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    target: str = ""


@dataclass(frozen=True)
class Reply:
    """What to answer; `promised` is a Content-Length beyond the body: half a body. No status: the connection ends."""

    body: object = b""
    status: int | None = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    promised: int = 0

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Answer = Callable[[Asked], Reply]


class Web:
    """The server: `answer` is what it does, `asked` what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Answer = lambda _: Reply({})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def replies(self, replies: Sequence[Reply]) -> None:
        """Answers with these, one a request; the last one from then on."""
        waiting = list(replies)
        self.answer = lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else a body waits 40 ms for its headers to be acknowledged

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            params = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, parts.path, params, headers, body, self.path)
            web.asked.append(asked)
            self._reply(web.answer(asked))

        do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  (as http.server calls them)

        def _reply(self, reply: Reply) -> None:
            self.close_connection = reply.status is None or bool(reply.promised)
            if reply.status is None:
                return
            self.send_response_only(reply.status)
            usual = {"Content-Type": "application/json", "Date": self.date_time_string()}
            for name, value in {**usual, **reply.headers}.items():
                self.send_header(name, value)
            if self.command == "HEAD":  # whose length is that of what GET would give
                self.end_headers()
                return
            if reply.status != 204:
                self.send_header("Content-Length", str(len(reply.content) + reply.promised))
            self.end_headers()
            self.wfile.write(reply.content)

        def log_message(self, *_: Any) -> None:
            """Tests are quiet."""

    return Handler


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server of the test's own."""
    server = Web()
    try:
        yield server
    finally:
        server.stop()
