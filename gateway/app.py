"""The gateway's one ASGI app. REST, WebSocket, authentication and rate limits move in as routes and middleware."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from errors import EventLogError
from events.log import EventLog
from gateway import metrics
from gateway.correlation import Correlation
from gateway.webhooks import Receiver
from settings import Settings

logger = logging.getLogger(__name__)

_YOUNG = 10_000
"""Objects that may be added before Python looks for cycles among them."""


def create_app(settings: Settings, log: EventLog) -> ASGIApp:
    """The app: `POST /webhooks/...`, `GET /healthz`, `GET /metrics`.

    Args:
        settings: Secrets and limits.
        log: Where events go; the caller closes it.
    """
    receiver = Receiver(settings, log)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        receiver.prepare()
        with _cycles_looked_for_rarely():
            yield

    app = Starlette(
        routes=[Route("/healthz", _health(log)), Route("/metrics", _metrics(receiver, log))],
        exception_handlers={HTTPException: _no_such_door},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # no sender of webhooks follows
    return Correlation(receiver.before(app))


@contextmanager
def _cycles_looked_for_rarely() -> Iterator[None]:
    """Python looks through all young objects whenever there are 700 more of them: those of a few requests that wait.

    That was a twentieth of the receiver's work, and found nothing: what a request leaves refers to itself nowhere.
    """
    usual = gc.get_threshold()
    gc.set_threshold(_YOUNG, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _health(log: EventLog) -> Callable[[Request], Awaitable[Response]]:
    """200 if the log can be read, 503 if not."""

    async def health(_: Request) -> Response:
        try:
            await asyncio.to_thread(log.head)
        except EventLogError as error:
            logger.error("not healthy", extra={"reason": error.message, "hint": error.hint})  # noqa: TRY400
            return JSONResponse({"status": "the event log cannot be read"}, 503)
        return JSONResponse({"status": "ok"})

    return health


def _metrics(receiver: Receiver, log: EventLog) -> Callable[[Request], Awaitable[Response]]:
    """For Prometheus."""

    async def told(_: Request) -> Response:
        try:
            head = await asyncio.to_thread(log.head)
        except EventLogError:
            head = None  # /healthz says why
        text, media_type = metrics.exposition(receiver.waiting, head)
        return Response(text, media_type=media_type)

    return told


async def _no_such_door(request: Request, error: Exception) -> Response:
    """404 and 405, by Starlette's routing."""
    assert isinstance(error, HTTPException)  # noqa: S101  (Starlette's signature is wider than its calls)
    told = {"status": error.status_code, "reason": error.detail, "method": request.method, "path": request.url.path}
    logger.warning("request refused", extra=told)
    metrics.answered("", error.status_code).inc()
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
