"""Two ways for the same code to reach a service: one that blocks its thread, and one for asyncio.

What an HTTP client decides is written once, as coroutines over a `Wire`. Over the blocking one they never wait for an
event loop, so `finish` simply runs them to their end.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any, Protocol, TypeVar

import httpx

from integrations.calls import NO_ANSWER, NOT_SENT, UNREACHABLE

_MISTAKES = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL)
_NOT_REACHED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)

T = TypeVar("T")
Hook = Callable[[httpx.Request], Coroutine[Any, Any, None]]


class Wire(Protocol):
    """How requests get to a service.

    Args:
        hook: Sees every request before it is sent, those that follow a redirect, too.
        options: httpx's, for its client.
    """

    client: httpx.Client | httpx.AsyncClient

    def __init__(self, hook: Hook, **options: Any) -> None: ...  # noqa: ANN401

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Sends it; the answer's body is yet to be read."""
        ...

    def chunks(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        """The answer's body, decompressed."""
        ...

    async def end(self, answer: httpx.Response) -> None:
        """Frees what an answer holds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        ...

    def alone(self) -> AbstractAsyncContextManager[None]:
        """A block that one of the wire's users is in at a time."""
        ...

    async def close(self) -> None:
        """Frees the connections."""
        ...


class BlockingWire:
    """A `Wire` that blocks; threads may share it."""

    def __init__(self, hook: Hook, **options: Any) -> None:  # noqa: ANN401
        hooks = {"request": [lambda request: finish(hook(request))]}
        self.client = httpx.Client(event_hooks=hooks, verify=tls(), **options)
        self._lock = threading.Lock()

    async def send(self, request: httpx.Request) -> httpx.Response:
        """See `Wire`."""
        return self.client.send(request, stream=True)

    async def chunks(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        """See `Wire`."""
        for chunk in answer.iter_bytes():
            yield chunk

    async def end(self, answer: httpx.Response) -> None:
        """See `Wire`."""
        answer.close()

    async def sleep(self, seconds: float) -> None:
        """See `Wire`."""
        time.sleep(seconds)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """See `Wire`."""
        with self._lock:
            yield

    async def close(self) -> None:
        """See `Wire`."""
        self.client.close()


class LoopWire:
    """A `Wire` for asyncio; tasks of one event loop may share it."""

    def __init__(self, hook: Hook, **options: Any) -> None:  # noqa: ANN401
        self.client = httpx.AsyncClient(event_hooks={"request": [hook]}, verify=tls(), **options)
        self._lock = asyncio.Lock()

    async def send(self, request: httpx.Request) -> httpx.Response:
        """See `Wire`."""
        return await self.client.send(request, stream=True)

    def chunks(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        """See `Wire`."""
        return answer.aiter_bytes()

    async def end(self, answer: httpx.Response) -> None:
        """See `Wire`."""
        await answer.aclose()

    async def sleep(self, seconds: float) -> None:
        """See `Wire`."""
        await asyncio.sleep(seconds)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """See `Wire`."""
        async with self._lock:
            yield

    async def close(self) -> None:
        """See `Wire`."""
        await self.client.aclose()


def unanswered(error: Exception) -> str:
    """Why there is no answer: `NOT_SENT`, `UNREACHABLE` or `NO_ANSWER` of `integrations.calls`."""
    if isinstance(error, _MISTAKES):
        return NOT_SENT
    return UNREACHABLE if isinstance(error, _NOT_REACHED) else NO_ANSWER


@cache
def tls() -> ssl.SSLContext:
    """How servers prove who they are: the same for all clients, since reading the certificates takes a while."""
    return httpx.create_ssl_context()


def finish(work: Awaitable[T]) -> T:
    """Runs a coroutine over a blocking wire to its end."""
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as done:
        value: T = done.value
        return value
    raise AssertionError("a blocking wire never waits for an event loop")
