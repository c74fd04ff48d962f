"""HTTP as the gateway takes it from the open Internet: uvicorn's protocol, with limits before the app is asked.

uvicorn bounds neither the headers nor the time that they take, nor the time until an answer is read, and answers what
it cannot read at once, even if the answer to an earlier request on the same connection is still to come.
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
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway import metrics
from gateway.refusal import RETRY_AFTER, RefusedError
from settings import Settings

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send
    from uvicorn._types import ASGI3Application

logger = logging.getLogger(__name__)

_PROGRESS = 1_048_576
"""Bytes of a body with which its clock starts anew."""


class _Whole(Transport):
    """Where uvicorn writes one answer: its head waits for its body, to be one packet with it.

    Written apart they are two, and two calls of the system: nothing may wait to be written (see `connection_made`).
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._head is None and not bytes(data).startswith(b"HTTP/1.1 100 "):
            self._head = bytes(data)
        else:
            self._transport.write((self._head or b"") + data)
            self._head = b""

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `settings` are set by a subclass: uvicorn makes the instances."""

    settings: ClassVar[Settings]

    url = b""
    _deadline: TimerHandle | None = None
    _unread: TimerHandle | None = None
    _in_head = False
    _deaf = False
    _unparsed = 0
    """Bytes of headers, of trailers, or around chunks since something was handed on: what is kept of them."""
    _progress = 0
    """Bytes of the body since its clock started."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Above the limit a connection is heard, and told to come back."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that any byte that the other side leaves to us is told
        if len(self.connections) > self.settings.gateway_connection_limit:
            self.app = _too_many
        self._start_clock(self.settings.gateway_header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the clock with the connection."""
        self._stop_clock()
        self._all_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Who does not read its answers is cut off: closed alone, a connection would wait for them to be read."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.settings.gateway_body_timeout, self._is_not_reading)

    def resume_writing(self) -> None:
        """All that was written is on its way."""
        self._all_read()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parses; what cannot be parsed, or is too much, is refused."""
        self._unset_keepalive_if_required()
        if self._deaf:
            return
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
            if self._unparsed > self.settings.gateway_header_limit:
                raise self._too_large()
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
        else:
            self._stop_clock()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._unparsed = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Refuses what proxies and servers are known to read in different ways, then asks the app."""
        self._in_head, self._unparsed, self._progress = False, 0, 0
        self._stop_clock()
        self._check_head()
        super().on_headers_complete()
        self.headers = []  # what follows the body are no headers, whatever they are called

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if cycle.scope["method"] != "HEAD":  # whose answer is a head alone
            cycle.transport = _Whole(cycle.transport)
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._unparsed = 0
        self._progress += len(body)
        if self._progress >= _PROGRESS and not self.cycle.response_complete:
            self._progress = 0
            self._stop_clock()
        super().on_body(body)

    def _check_head(self) -> None:
        size, hosts, codings = len(self.url), 0, []
        for name, value in self.headers:
            size += len(name) + len(value)
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                codings.append(value.lower())
        if size > self.settings.gateway_header_limit:
            raise self._too_large()
        if len(self.headers) > self.settings.gateway_header_count:
            raise RefusedError(431, f"more than {self.settings.gateway_header_count} headers")
        if hosts != 1 and self.parser.get_http_version() == "1.1":
            raise RefusedError(400, f"{hosts} Host headers")
        if codings not in ([], [b"chunked"]):
            raise RefusedError(400, "a transfer encoding that is not chunked alone")
        if self.parser.should_upgrade() and self.parser.get_method() != b"GET":
            raise RefusedError(400, "an upgrade to another protocol, which would take the body with it")

    def _too_large(self) -> RefusedError:
        limit = self.settings.gateway_header_limit
        if len(self.url) > limit:
            return RefusedError(414, f"more than {limit} bytes of target")
        return RefusedError(431, f"more than {limit} bytes of headers")

    def _start_clock(self, seconds: float) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(seconds, self._is_late)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _all_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _is_not_reading(self) -> None:
        reason = f"an answer was not read within {self.settings.gateway_body_timeout:g} s"
        logger.warning("connection ended", extra={"reason": reason})
        self.transport.abort()

    def _is_late(self) -> None:
        if self._in_head:
            self._refuse(RefusedError(408, f"no whole headers within {self.settings.gateway_header_timeout:g} s"))
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            # Not 408: after a 4xx some senders give up, and the line may be better the next time.
            self._refuse(RefusedError(503, f"no whole body within {self.settings.gateway_body_timeout:g} s"))

    def _refuse(self, refusal: RefusedError) -> None:
        logger.warning("request refused", extra={"status": refusal.status, "reason": refusal.message})
        metrics.answered("", refusal.status).inc()
        self._deaf = True
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self.cycle.keep_alive = False  # the connection ends behind the answer that is due
            return
        if not self.pipeline:  # else this would be taken for the answer to an earlier request
            self._say(refusal.status)
        self.transport.close()

    def _say(self, status: int) -> None:
        body = to_json({"error": HTTPStatus(status).phrase})
        again = b"retry-after: %s\r\n" % RETRY_AFTER.encode() if status == 503 else b""
        self.transport.write(
            STATUS_LINE[status]
            + again
            + b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            + body
        )


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    logger.error("request refused", extra={"status": 503, "reason": "too many connections"})
    metrics.answered("", 503).inc()
    headers = {"Retry-After": RETRY_AFTER, "Connection": "close"}
    refused = Response(to_json({"error": "try again later"}), 503, headers, media_type="application/json")
    await refused(scope, receive, send)
