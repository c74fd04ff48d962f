"""The gateway's one ASGI app. REST, WebSocket, authentication and rate limits move in as routes and middleware."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from errors import EventLogError
from events.log import EventLog
from gateway import metrics
from gateway.correlation import Correlation
from gateway.webhooks import Receiver
from settings import Settings

logger = logging.getLogger(__name__)


def create_app(settings: Settings, log: EventLog) -> Starlette:
    """The app: `POST /webhooks/...`, `GET /healthz`, `GET /metrics`.

    Args:
        settings: Secrets and limits.
        log: Where events go; the caller closes it.
    """
    receiver = Receiver(settings, log)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        receiver.prepare()
        yield

    app = Starlette(
        routes=[Route("/healthz", _health(log)), Route("/metrics", _metrics(receiver, log))],
        middleware=[Middleware(Correlation), Middleware(receiver.before)],
        exception_handlers={HTTPException: _no_such_door},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # no sender of webhooks follows
    return app


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
