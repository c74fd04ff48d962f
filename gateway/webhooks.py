"""The webhook receiver: verify, commit, and only then say 2xx.

A provider that hears 2xx forgets the event; whatever else it hears, it sends the event again. So our own troubles are
a 503 with Retry-After, and a 4xx means that this very request will never do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from errors import EventLogError
from events.group import GroupCommit
from events.log import EventLog
from gateway import metrics
from gateway.provider import Hook, Provider, Received
from gateway.providers import providers
from gateway.refusal import RETRY_AFTER, RefusedError
from settings import Settings

logger = logging.getLogger(__name__)


class Receiver:
    """Takes webhooks of all providers.

    Args:
        settings: Secrets and limits.
        log: Where the events go.
    """

    def __init__(self, settings: Settings, log: EventLog) -> None:
        self._settings = settings
        self._commit = GroupCommit(log, limit=settings.webhook_backlog_limit, committed=metrics.committed)
        self._preparing: asyncio.Task[None] | None = None
        self._providers = providers(settings)

    def routes(self) -> list[Route]:
        """One route a provider."""
        return [Route(each.path, self._endpoint(each), methods=["POST"]) for each in self._providers]

    def prepare(self) -> None:
        """Starts to import the providers' SDKs, in a thread: until it is done, webhooks wait, other requests do not."""
        self._preparing = asyncio.create_task(asyncio.to_thread(self._prepare))

    @property
    def waiting(self) -> int:
        """How many events are not on disk yet, nor acknowledged."""
        return self._commit.waiting

    def _prepare(self) -> None:
        for provider in self._providers:
            metrics.answered(provider.name, 200)
            try:
                provider.prepare()
            except RefusedError as refusal:
                _log("webhooks cannot be verified", provider, refusal)

    def _endpoint(self, provider: Provider) -> Callable[[Request], Awaitable[Response]]:
        async def receive(request: Request) -> Response:
            try:
                answer = await self._taken(provider, request)
            except Exception as error:  # noqa: BLE001  (whatever it is, the provider must send the event again)
                answer = _refuse(provider, error)
            metrics.answered(provider.name, answer.status_code).inc()
            return answer

        return receive

    async def _taken(self, provider: Provider, request: Request) -> Response:
        received = await self._received(provider, request)
        new = sum(await self._commit.publish(received.events)) if received.events else 0
        return received.answer or _answer(200, {"received": len(received.events), "new": new})

    async def _received(self, provider: Provider, request: Request) -> Received:
        hook = Hook(self._url(request), request.headers, b"")
        if provider.content_types and hook.content_type not in provider.content_types:
            raise RefusedError(415, f"the content type is not {' or '.join(sorted(provider.content_types))}")
        hook = Hook(hook.url, hook.headers, await self._body(request))
        if self._preparing:
            await asyncio.shield(self._preparing)
        return provider.receive(hook)

    def _url(self, request: Request) -> str:
        """What was called, letter by letter: Twilio signs it."""
        scope = request.scope
        base = self._settings.gateway_url or f"{scope['scheme']}://{request.headers.get('host', '')}"
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        return f"{base.rstrip('/')}{path}" + (query and f"?{query}")

    async def _body(self, request: Request) -> bytes:
        limit = self._settings.webhook_body_limit
        too_large = RefusedError(413, f"the body has more than {limit} bytes")
        if int(request.headers.get("content-length", 0)) > limit:
            raise too_large
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
        except ClientDisconnect:
            raise RefusedError(400, f"the sender went away after {len(body)} bytes of the body") from None
        return bytes(body)


_ANSWERS = {
    400: "malformed",
    401: "not genuine or not fresh",
    413: "too large",
    415: "unsupported content type",
    503: "try again later",
}
"""All that a sender is told; the reason is for our log."""


def _refuse(provider: Provider, error: Exception) -> Response:
    refusal = _as_refusal(error)
    _log("webhook refused", provider, refusal)
    headers = {"Retry-After": RETRY_AFTER} if refusal.status == 503 else None
    return _answer(refusal.status, {"error": _ANSWERS[refusal.status]}, headers)


def _answer(status: int, told: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Response:
    """As JSONResponse, at half the cost."""
    return Response(to_json(told), status, headers, media_type="application/json")


def _as_refusal(error: Exception) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, EventLogError):
        return RefusedError(503, error.message, hint=error.hint)
    logger.error("webhook failed", exc_info=error)
    return RefusedError(503, f"unexpected {type(error).__name__}", hint="this is a bug; its traceback stands above")


def _log(message: str, provider: Provider, refusal: RefusedError) -> None:
    level = logging.ERROR if refusal.status == 503 else logging.WARNING
    told = {"provider": provider.name, "status": refusal.status, "reason": refusal.message}
    logger.log(level, message, extra=told | ({"hint": refusal.hint} if refusal.hint else {}))
