"""What happens on the wire before a service sees a call: calls are counted, and some of them go wrong on request."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.webhooks import Service

TRANSPORT = "sandbox.transport"
"""The ASGI extension by which the server lends the app its connection (see `sandbox.serve`)."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that came in, without its secrets."""

    service: Service
    method: str
    path: str
    idempotency_key: str | None
    api_version: str | None


class Misbehaviour(BaseModel):
    """How the next calls of a service go wrong.

    `error` answers in the service's own shape; `html` as a proxy in front of it would; `reset` cuts the connection;
    `cut` promises a body and sends half of it; `slow` answers rightly, after `delay`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: Service
    kind: Literal["error", "html", "reset", "cut", "slow"]
    calls: int = Field(1, ge=1, description="How many calls.")
    rate: float = Field(1.0, gt=0, le=1, description="Which share of these calls, by chance; the others go right.")
    seed: int = Field(0, description="With the same seed and rate, the same ones of the calls go wrong.")
    status: int = Field(500, ge=400, le=599)
    retry_after: str | None = Field(None, description="Retry-After header: seconds or an HTTP date.")
    delay: float = Field(0.0, ge=0, description="Seconds before anything happens.")
    done: bool = Field(False, description="The service does its work first: only its answer goes wrong.")


class Wire:
    """The calls so far, and how the next ones go wrong."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._plan: dict[Service, list[Misbehaviour | None]] = {service: [] for service in get_args(Service)}

    def reset(self) -> None:
        """Forgets all."""
        self.calls.clear()
        for rules in self._plan.values():
            rules.clear()

    def misbehave(self, rule: Misbehaviour) -> None:
        """The service's next calls, after those that rules are there for already, go wrong by this one."""
        dice = random.Random(rule.seed)  # noqa: S311
        self._plan[rule.service] += [rule if dice.random() < rule.rate else None for _ in range(rule.calls)]

    def guard(self, service: Service, app: ASGIApp, error: Callable[[int], Response]) -> ASGIApp:
        """The service's app behind this wire.

        Args:
            service: The service.
            app: Its app.
            error: Its answer to an HTTP status, in its own shape.
        """

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            self.calls.append(_call(service, scope))
            rules = self._plan[service]
            rule = rules.pop(0) if rules else None
            if rule is None:
                await app(scope, receive, send)
                return
            body = await _body(receive)
            if await _gone(receive, rule.delay):
                return
            again = _replay(body, receive)
            if rule.kind == "slow":
                await app(scope, again, send)
                return
            if rule.done:
                await app(scope, again, _nowhere)
            await _fail(rule, error, scope, receive, send)

        return guarded


def own_path(scope: Scope) -> str:
    """The path as the service knows it, without the prefix that the sandbox serves it under."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


async def _fail(
    rule: Misbehaviour, error: Callable[[int], Response], scope: Scope, receive: Receive, send: Send
) -> None:
    if rule.kind == "reset":
        await _reset(scope, receive)
        return
    if rule.kind == "cut":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b'{"half": ', "more_body": True})
        await _reset(scope, receive, after=0.02)
        return
    page = f"<html><body><h1>{rule.status} Bad Gateway</h1></body></html>"
    answer = HTMLResponse(page, rule.status) if rule.kind == "html" else error(rule.status)
    if rule.retry_after is not None:
        answer.headers["Retry-After"] = rule.retry_after
    await answer(scope, receive, send)


async def _reset(scope: Scope, receive: Receive, *, after: float = 0.0) -> None:
    await asyncio.sleep(after)
    transport = scope["extensions"][TRANSPORT]
    if transport.is_closing():  # the peer was quicker
        return
    # Lingering for no time at all: the peer gets RST instead of FIN.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await receive()


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _gone(receive: Receive, delay: float) -> bool:
    if not delay:
        return False
    try:
        async with asyncio.timeout(delay):
            await receive()  # the body is read: all that can come is that the caller gives up
            return True
    except TimeoutError:
        return False


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


async def _nowhere(_: Message) -> None:
    """Takes an answer that never arrives."""


def _call(service: Service, scope: Scope) -> Call:
    headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
    return Call(
        service, scope["method"], own_path(scope), headers.get("idempotency-key"), headers.get("stripe-version")
    )
