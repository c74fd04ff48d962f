"""The sandbox: one ASGI app that stands in for outside services, each under its own prefix.

- `/stripe`: Stripe's API; the base address of the SDK is `http://host:port/stripe`.
- `/sendgrid`: SendGrid's API; the SDK's host is `http://host:port/sendgrid`.
- `/twilio`: Twilio's API; the base address is `http://host:port/twilio`.
- `/google`: Google Calendar's API, and `/google/login/token`, which its credentials name as their `token_uri`.
- `/graph`: Microsoft Graph, and `/microsoft`, where its tokens are given.
- `/registry`: a schema registry; user and password are in `sandbox.registry`.
- `/s3`: S3, by moto; the endpoint is `http://host:port/s3`.
- `/_sandbox`: what only a sandbox can do: see `_admin`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from sandbox import google, graph, registry, s3, sendgrid, stripe, tokens, twilio
from sandbox.google import GoogleService
from sandbox.graph import GraphService
from sandbox.graph_subscriptions import Lifecycle
from sandbox.inbound_mail import InboundMail, ParseService
from sandbox.registry import SchemaRegistryService
from sandbox.s3 import S3Service
from sandbox.seed import seed_sendgrid, seed_stripe
from sandbox.seed_calendars import seed_calendars
from sandbox.sendgrid import SendGridService
from sandbox.stripe import StripeService
from sandbox.twilio import Inbound, TwilioService
from sandbox.webhooks import Endpoint, SendGridSigner, StripeSigner, TwilioSigner, Webhooks
from sandbox.wire import Misbehaviour, Wire
from sandbox.world import Clock, Ids


class Seed(BaseModel):
    """How much history the sandbox starts with."""

    model_config = ConfigDict(extra="forbid")

    customers: int = Field(230, ge=0, le=10_000)


class Moved(BaseModel):
    """How far the clock is moved."""

    model_config = ConfigDict(extra="forbid")

    seconds: int = Field(ge=0)


class Forgotten(BaseModel):
    """Whose sync tokens and delta links no longer hold."""

    model_config = ConfigDict(extra="forbid")

    service: Literal["google", "graph"]


Asked = TypeVar("Asked", bound=BaseModel)


class Sandbox:
    """The services and what they share.

    Args:
        stripe_webhook_secret: What Stripe's webhooks are signed with (`whsec_...`); a new one if not given.
        sendgrid_signer: What SendGrid's webhooks are signed with; a new key if not given.
        twilio_auth_token: What Twilio's webhooks are signed with; a new one if not given.
        id_seed: With the same seed, the same calls in the same order are given the same ids; random if not given.
    """

    def __init__(
        self,
        *,
        stripe_webhook_secret: str | None = None,
        sendgrid_signer: SendGridSigner | None = None,
        twilio_auth_token: str | None = None,
        id_seed: str | None = None,
    ) -> None:
        self.stripe_webhook_secret = stripe_webhook_secret or f"whsec_{secrets.token_urlsafe(24)}"
        self.sendgrid_signer = sendgrid_signer or SendGridSigner()
        self.twilio_auth_token = twilio_auth_token or secrets.token_hex(16)
        self.clock = Clock()
        self.wire = Wire()
        self.webhooks = Webhooks({"stripe": StripeSigner(self.stripe_webhook_secret), "sendgrid": self.sendgrid_signer})
        self.stripe = StripeService(self.clock, self.webhooks)
        self.sendgrid = SendGridService(self.clock, self.webhooks, self.sendgrid_signer)
        self.parse = ParseService(self.webhooks, self.sendgrid_signer)
        self.twilio = TwilioService(self.clock, self.webhooks, TwilioSigner(self.twilio_auth_token))
        google_tokens, graph_tokens = tokens.Tokens(self.clock, "ya29."), tokens.Tokens(self.clock, "eyJ0.")
        self.google_login, self.microsoft_login = tokens.GoogleLogin(google_tokens), tokens.MicrosoftLogin(graph_tokens)
        self.google = GoogleService(self.clock, google_tokens, self.webhooks)
        self.graph = GraphService(self.clock, graph_tokens, self.webhooks)
        self.registry = SchemaRegistryService()
        self.s3 = S3Service()
        self._id_seed = id_seed
        self.reset()

    def reset(self) -> None:
        """Empties the services and forgets calls, deliveries and misbehaviour; webhook endpoints stay."""
        ids = Ids(self._id_seed)
        self.clock.ahead = 0
        self.stripe.reset(ids)
        self.sendgrid.reset(ids)
        self.parse.reset(ids)
        self.twilio.reset(ids)
        self.google.reset(ids)
        self.graph.reset(ids)
        self.registry.reset()
        self.s3.reset()
        self.wire.reset()
        self.webhooks.deliveries.clear()

    def advance(self, moved: Moved) -> None:
        """Moves the clock; what is due by then happens."""
        self.clock.ahead += moved.seconds
        self.stripe.account.tick()
        self.sendgrid.tick()
        self.twilio.tick()

    def forget(self, forgotten: Forgotten) -> None:
        """Lets a calendar service forget what it has told whom: its sync tokens or delta links."""
        services: dict[str, GoogleService | GraphService] = {"google": self.google, "graph": self.graph}
        services[forgotten.service].expire()

    def seed(self, customers: int = 230) -> None:
        """Gives the services a history: the same one every time, but for ids, which follow `id_seed`."""
        seed_stripe(self.stripe.account, self.clock, customers)
        seed_sendgrid(self.sendgrid, self.clock, customers)
        self.twilio.seed(customers)
        seed_calendars(self.google, self.graph, customers)


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
            Mount("/twilio", sandbox.wire.guard("twilio", sandbox.twilio.app(), twilio.error)),
            Mount("/google/login", sandbox.wire.guard("google-login", sandbox.google_login.app(), tokens.error)),
            Mount("/google", sandbox.wire.guard("google", sandbox.google.app(), google.error)),
            Mount("/microsoft", sandbox.wire.guard("microsoft-login", sandbox.microsoft_login.app(), tokens.error)),
            Mount("/graph", sandbox.wire.guard("graph", sandbox.graph.app(), graph.error)),
            Mount("/registry", sandbox.wire.guard("registry", sandbox.registry.app(), registry.error)),
            Mount("/s3", sandbox.wire.guard("s3", sandbox.s3.app(), s3.error)),
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
        Route("/clock", _taking(Moved, sandbox.advance), methods=["POST"]),
        Route("/twilio/inbound", _taking(Inbound, sandbox.twilio.receive), methods=["POST"]),
        Route("/sendgrid/inbound", _taking(InboundMail, sandbox.parse.receive), methods=["POST"]),
        Route("/forget", _taking(Forgotten, sandbox.forget), methods=["POST"]),
        Route("/graph/lifecycle", _taking(Lifecycle, sandbox.graph.subscriptions.tell_of_lifecycle), methods=["POST"]),
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
