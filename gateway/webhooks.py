"""The webhook receiver: verify, commit, and only then say 2xx.

A provider that hears 2xx forgets the event. So our own troubles are a 503 with Retry-After, after which most send it
again, and a 4xx means that this very request will never do: some then give up at once (see docs/webhooks.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache

from pydantic_core import to_json
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from errors import EventLogError
from events.group import GroupCommit
from events.log import EventLog, UnwritableError
from gateway import metrics
from gateway.provider import Hook, Provider, media_type
from gateway.providers import providers
from gateway.refusal import RETRY_AFTER, RefusedError
from settings import Settings

logger = logging.getLogger(__name__)

_LARGE_AT_ONCE = 4


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
        self._large = 0
        self._providers = {each.path: each for each in providers(settings)}

    def before(self, app: ASGIApp) -> ASGIApp:
        """Middleware that answers webhooks: to find their route and their method takes longer than to check them.

        Args:
            app: What answers everything else.
        """

        async def receive_or_hand_on(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and (provider := self._providers.get(scope["path"])):
                answer = await self._answer(provider, scope, receive)
                await answer(scope, receive, send)
            else:
                await app(scope, receive, send)

        return receive_or_hand_on

    def prepare(self) -> None:
        """Starts to import the providers' SDKs, in a thread: until it is done, webhooks wait, other requests do not."""
        self._preparing = asyncio.create_task(asyncio.to_thread(self._prepare))

    @property
    def waiting(self) -> int:
        """How many events are not on disk yet, nor acknowledged."""
        return self._commit.waiting

    def _prepare(self) -> None:
        for provider in self._providers.values():
            metrics.answered(provider.name, 200)
            try:
                provider.prepare()
            except RefusedError as refusal:
                _log("webhooks cannot be verified", provider, refusal, logging.WARNING)  # not all providers are used

    async def _answer(self, provider: Provider, scope: Scope, receive: Receive) -> Response:
        try:
            answer = await self._taken(provider, scope, receive)
        except Exception as error:  # noqa: BLE001  (whatever it is, the provider must send the event again)
            answer = _refuse(provider, error)
        metrics.answered(provider.name, answer.status_code).inc()
        return answer

    async def _taken(self, provider: Provider, scope: Scope, receive: Receive) -> Response:
        headers = Headers(scope=scope)
        if scope["method"] != "POST":
            raise RefusedError(405, f"{scope['method']} for POST")
        if provider.content_types and media_type(headers) not in provider.content_types:
            raise RefusedError(415, f"the content type is not {' or '.join(sorted(provider.content_types))}")
        with ExitStack() as held:
            body = await self._body(headers, receive, provider, held)
            return await self._received(provider, Hook(self._url(scope, headers), headers, body))

    async def _body(self, headers: Headers, receive: Receive, provider: Provider, held: ExitStack) -> bytes:
        limit, body, more, large = provider.body_limit, bytearray(), True, False
        _check_size(int(headers.get("content-length", 0)), limit)
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, f"the sender went away after {len(body)} bytes of the body")
            body += message["body"]
            _check_size(len(body), limit)
            if not large and len(body) > self._settings.webhook_body_limit:
                held.enter_context(self._room())
                large = True
            more = message["more_body"]
        return bytes(body)

    async def _received(self, provider: Provider, hook: Hook) -> Response:
        if self._preparing and not self._preparing.done():
            await asyncio.shield(self._preparing)
        large = len(hook.body) > self._settings.webhook_body_limit
        received = await asyncio.to_thread(provider.receive, hook) if large else provider.receive(hook)
        new = sum(await self._commit.publish(received.events)) if received.events else 0
        return received.answer or _thanks(len(received.events), new)

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Few bodies above the usual limit at a time: until its event is on disk, each is in memory several times.

        Taken only once that much has come: to say that more will come costs nothing.
        """
        if self._large == _LARGE_AT_ONCE:
            usual = self._settings.webhook_body_limit
            raise RefusedError(503, f"{self._large} bodies of more than {usual} bytes are being received")
        self._large += 1
        try:
            yield
        finally:
            self._large -= 1

    def _url(self, scope: Scope, headers: Headers) -> str:
        """What was called, letter by letter: Twilio signs it."""
        base = self._settings.gateway_url or f"{scope['scheme']}://{headers.get('host', '')}"
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        return f"{base.rstrip('/')}{path}" + (query and f"?{query}")


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RefusedError(413, f"the body has more than {limit} bytes")


_ANSWERS = {
    400: "malformed",
    401: "not genuine or not fresh",
    405: "method not allowed",
    413: "too large",
    415: "unsupported content type",
    503: "try again later",
}
"""All that a sender is told; the reason is for our log."""


def _refuse(provider: Provider, error: Exception) -> Response:
    refusal = _as_refusal(error)
    _log("webhook refused", provider, refusal, logging.ERROR if refusal.status == 503 else logging.WARNING)
    headers = {405: {"Allow": "POST"}, 503: {"Retry-After": RETRY_AFTER}}
    return _json(refusal.status, {"error": _ANSWERS[refusal.status]}, headers.get(refusal.status))


@lru_cache(maxsize=64)
def _thanks(received: int, new: int) -> Response:
    return _json(200, {"received": received, "new": new})


def _json(status: int, told: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Response:
    """As JSONResponse, at half the cost."""
    return Response(to_json(told), status, headers, media_type="application/json")


def _as_refusal(error: Exception) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, UnwritableError):  # its message names what the sender sent
        return RefusedError(400, "the body holds a number beyond all measure, or is nested too deep")
    if isinstance(error, EventLogError):
        return RefusedError(503, error.message, hint=error.hint)
    logger.error("webhook failed", exc_info=error)
    return RefusedError(503, f"unexpected {type(error).__name__}", hint="this is a bug; its traceback stands above")


def _log(message: str, provider: Provider, refusal: RefusedError, level: int) -> None:
    told = {"provider": provider.name, "status": refusal.status, "reason": refusal.message}
    logger.log(level, message, extra=told | ({"hint": refusal.hint} if refusal.hint else {}))
