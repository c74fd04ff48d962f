"""The sandbox: one ASGI app that stands in for outside services, each under its own prefix.

- `/stripe`: Stripe's API; the base address of the SDK is `http://host:port/stripe`.
- `/sendgrid`: SendGrid's API; the SDK's host is `http://host:port/sendgrid`.
- `/_sandbox`: what only a sandbox can do: see `_admin`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from sandbox import sendgrid, stripe
from sandbox.seed import seed_stripe
from sandbox.sendgrid import SendGridService
from sandbox.stripe import StripeService
from sandbox.webhooks import Endpoint, SendGridSigner, StripeSigner, Webhooks
from sandbox.wire import Misbehaviour, Wire
from sandbox.world import Clock, Ids


class Seed(BaseModel):
    """How much history the sandbox starts with."""

    model_config = ConfigDict(extra="forbid")

    customers: int = Field(230, ge=0, le=10_000)


Asked = TypeVar("Asked", bound=BaseModel)


class Sandbox:
    """The services and what they share.

    Args:
        stripe_webhook_secret: What Stripe's webhooks are signed with (`whsec_...`); a new one if not given.
        sendgrid_signer: What SendGrid's webhooks are signed with; a new key if not given.
        id_seed: With the same seed, the same calls in the same order are given the same ids; random if not given.
    """

    def __init__(
        self,
        *,
        stripe_webhook_secret: str | None = None,
        sendgrid_signer: SendGridSigner | None = None,
        id_seed: str | None = None,
    ) -> None:
        self.stripe_webhook_secret = stripe_webhook_secret or f"whsec_{secrets.token_urlsafe(24)}"
        self.sendgrid_signer = sendgrid_signer or SendGridSigner()
        self.clock = Clock()
        self.wire = Wire()
        self.webhooks = Webhooks({"stripe": StripeSigner(self.stripe_webhook_secret), "sendgrid": self.sendgrid_signer})
        self.stripe = StripeService(self.clock, self.webhooks)
        self.sendgrid = SendGridService(self.clock, self.webhooks, self.sendgrid_signer)
        self._id_seed = id_seed
        self.reset()

    def reset(self) -> None:
        """Empties the services and forgets calls, deliveries and misbehaviour; webhook endpoints stay."""
        ids = Ids(self._id_seed)
        self.stripe.reset(ids)
        self.sendgrid.reset(ids)
        self.wire.reset()
        self.webhooks.deliveries.clear()

    def seed(self, customers: int = 230) -> None:
        """Gives Stripe a history: the same one every time, but for ids, which follow `id_seed`."""
        seed_stripe(self.stripe.account, self.clock, customers)


def create_app(sandbox: Sandbox) -> Starlette:
    """The ASGI app over a sandbox. It has a lifespan: webhooks are delivered while it runs."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with sandbox.webhooks.running():
            yield

    return Starlette(
        lifespan=lifespan,
        routes=[
            Mount("/stripe", sandbox.wire.guard("stripe", sandbox.stripe.app(), stripe.error)),
            Mount("/sendgrid", sandbox.wire.guard("sendgrid", sandbox.sendgrid.app(), sendgrid.error)),
            Mount("/_sandbox", routes=_admin(sandbox)),
        ],
    )


def _admin(sandbox: Sandbox) -> list[Route]:
    async def show_calls(_: Request) -> Response:
        return JSONResponse([asdict(call) for call in sandbox.wire.calls])

    async def show_deliveries(_: Request) -> Response:
        return JSONResponse([asdict(delivery) for delivery in sandbox.webhooks.deliveries])

    async def reset(_: Request) -> Response:
        sandbox.reset()
        return Response(status_code=204)

    return [
        Route("/calls", show_calls, methods=["GET"]),
        Route("/deliveries", show_deliveries, methods=["GET"]),
        Route("/reset", reset, methods=["POST"]),
        Route("/seed", _taking(Seed, lambda asked: sandbox.seed(asked.customers)), methods=["POST"]),
        Route("/webhooks", _taking(Endpoint, sandbox.webhooks.endpoints.append), methods=["POST"]),
        Route("/misbehave", _taking(Misbehaviour, sandbox.wire.misbehave), methods=["POST"]),
    ]


def _taking(model: type[Asked], act: Callable[[Asked], None]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            asked = model.model_validate_json(await request.body() or b"{}")
        except ValidationError as error:
            return JSONResponse({"errors": error.errors(include_url=False, include_context=False)}, 422)
        act(asked)
        return Response(status_code=204)

    return endpoint
