"""HTTP as the gateway takes it from the open Internet: uvicorn's protocol, with limits before the app is asked.

uvicorn bounds neither the headers nor the time that they take, and answers what it cannot read at once, even if the
answer to an earlier request on the same connection is still to come.
"""

from __future__ import annotations

import logging
from asyncio import Transport
from asyncio.events import TimerHandle
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar

import httptools
from pydantic_core import to_json
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway import metrics
from gateway.refusal import RETRY_AFTER, RefusedError
from settings import Settings

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

logger = logging.getLogger(__name__)


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `settings` are set by a subclass: uvicorn makes the instances."""

    settings: ClassVar[Settings]

    _deadline: TimerHandle | None = None
    _in_head = False
    _deaf = False
    _head = 0
    """Bytes of the request line and the headers so far."""
    _unparsed = 0
    """Bytes since the parser last handed something on: what it keeps."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Above the limit a connection is heard, and told to come back."""
        super().connection_made(transport)
        if len(self.connections) > self.settings.gateway_connection_limit:
            self.app = _too_many
        self._start_clock(self.settings.gateway_header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the clock with the connection."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses; what cannot be parsed, or is too much, is refused."""
        self._unset_keepalive_if_required()
        if self._deaf:
            return
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
            self._bound(self._unparsed)
        except httptools.HttpParserUpgrade:
            pass  # of a GET, which is answered as if it had not asked
        except httptools.HttpParserError as error:
            ours = error.__context__
            self._refuse(ours if isinstance(ours, RefusedError) else RefusedError(400, f"not HTTP: {error}"))
        except RefusedError as refusal:
            self._refuse(refusal)
        if self.cycle is None or self.cycle.response_complete:
            self._start_clock(self.settings.gateway_header_timeout)
        elif self.cycle.more_body:
            self._start_clock(self.settings.gateway_body_timeout)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._count(len(url), status=414)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._count(len(name) + len(value))
        if not self._in_head:
            return  # a trailer is no header, whatever it is called
        if len(self.headers) == self.settings.gateway_header_count:
            raise RefusedError(431, f"more than {self.settings.gateway_header_count} headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Refuses what proxies and servers are known to read in different ways, then asks the app."""
        self._in_head, self._unparsed = False, 0
        self._stop_clock()
        self._check_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has arrived."""
        self._stop_clock()
        super().on_message_complete()

    def _check_head(self) -> None:
        names = [name for name, _ in self.headers]
        if names.count(b"host") != 1 and self.parser.get_http_version() == "1.1":
            raise RefusedError(400, f"{names.count(b'host')} Host headers")
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            raise RefusedError(400, "a transfer encoding that is not chunked alone")
        if self.parser.should_upgrade() and self.parser.get_method() != b"GET":
            raise RefusedError(400, "an upgrade to another protocol, which would take the body with it")

    def _count(self, size: int, status: int = 431) -> None:
        self._head, self._unparsed = self._head + size, 0
        self._bound(self._head, status)

    def _bound(self, size: int, status: int = 431) -> None:
        if size > self.settings.gateway_header_limit:
            raise RefusedError(status, f"more than {self.settings.gateway_header_limit} bytes of headers")

    def _start_clock(self, seconds: float) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(seconds, self._is_late)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_late(self) -> None:
        if self._in_head:
            self._refuse(RefusedError(408, f"no whole headers within {self.settings.gateway_header_timeout:g} s"))
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._refuse(RefusedError(408, f"no whole body within {self.settings.gateway_body_timeout:g} s"))

    def _refuse(self, refusal: RefusedError) -> None:
        logger.warning("request refused", extra={"status": refusal.status, "reason": refusal.message})
        metrics.answered("", refusal.status).inc()
        self._deaf = True
        if self._owes_an_answer():
            self.cycle.keep_alive = False  # the connection ends behind that answer: this one would be taken for it
            return
        phrase = HTTPStatus(refusal.status).phrase
        body = to_json({"error": phrase})
        self.transport.write(
            STATUS_LINE[refusal.status]
            + b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            + body
        )
        self.transport.close()

    def _owes_an_answer(self) -> bool:
        """Whether a request that arrived whole waits for its answer."""
        waits = self.cycle is not None and not self.cycle.response_complete
        return waits and (bool(self.pipeline) or not self.cycle.more_body)


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    logger.error("request refused", extra={"status": 503, "reason": "too many connections"})
    metrics.answered("", 503).inc()
    headers = {"Retry-After": RETRY_AFTER, "Connection": "close"}
    refused = Response(to_json({"error": "try again later"}), 503, headers, media_type="application/json")
    await refused(scope, receive, send)
