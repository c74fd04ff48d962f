"""What the sandbox's services send by themselves: signed webhooks, delivered in the background until they are taken."""

from __future__ import annotations

import asyncio
import base64
import hmac
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, Protocol
from urllib.parse import urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import BaseModel, ConfigDict

Service = Literal[
    "stripe",
    "sendgrid",
    "sendgrid-inbound",
    "twilio",
    "google",
    "google-login",
    "graph",
    "microsoft-login",
    "registry",
    "s3",
]

_TIMEOUT = 10.0
_ATTEMPTS = 12
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_AT_ONCE = 8


def may_be_told(url: str) -> bool:
    """Whether an address is one that a service calls: https only; but a receiver on this machine has no certificate."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost"})


class Endpoint(BaseModel):
    """Where a service's webhooks go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: Service
    url: str


@dataclass(slots=True)
class Delivery:
    """One webhook on its way to one endpoint.

    Args:
        service: Who sends it.
        url: Where to.
        events: Ids of the events in it.
        attempts: What came of each try: an HTTP status, or the name of the error.
        state: Where it stands.
    """

    service: Service
    url: str
    events: list[str]
    attempts: list[str] = field(default_factory=list)
    state: Literal["pending", "delivered", "failed"] = "pending"


class Signer(Protocol):
    """How a service proves that a webhook is its own."""

    def headers(self, body: bytes) -> dict[str, str]:
        """The headers that prove it, for a delivery now."""
        ...


class StripeSigner:
    """Stripe's HMAC over timestamp and body, by an endpoint's secret (https://docs.stripe.com/webhooks/signature).

    Args:
        secret: `whsec_...`, as the receiver has it.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def headers(self, body: bytes) -> dict[str, str]:
        """`Stripe-Signature`."""
        from stripe import WebhookSignature

        return {"Stripe-Signature": WebhookSignature.generate_signature_header(body.decode(), self._secret)}


class SendGridSigner:
    """SendGrid's ECDSA (P-256, SHA-256) over timestamp and body.

    Args:
        key: The private key; a new one if not given.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self._key = key or ec.generate_private_key(ec.SECP256R1())

    @property
    def public_key(self) -> str:
        """What the receiver verifies with: DER in base64, as SendGrid's settings show it."""
        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()

    def headers(self, body: bytes) -> dict[str, str]:
        """`X-Twilio-Email-Event-Webhook-Signature` and `-Timestamp`."""
        timestamp = str(int(time.time()))
        signature = self._key.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))
        return {
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        }


class TwilioSigner:
    """Twilio's HMAC-SHA1 over the URL and the form's parameters (https://www.twilio.com/docs/usage/security).

    Args:
        auth_token: The account's auth token, as the receiver has it.
    """

    def __init__(self, auth_token: str) -> None:
        self._auth_token = auth_token

    def headers(self, url: str, params: Mapping[str, str]) -> dict[str, str]:
        """`X-Twilio-Signature`, and the type of the form."""
        signed = url + "".join(name + params[name] for name in sorted(params))
        digest = hmac.digest(self._auth_token.encode(), signed.encode(), "sha1")
        signature = base64.b64encode(digest).decode()
        return {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": signature}


class Webhooks:
    """The endpoints, and what is on its way to them.

    Args:
        signers: How each service signs that sends JSON.
    """

    def __init__(self, signers: dict[Service, Signer]) -> None:
        self._signers = signers
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False)
        self._free = asyncio.Semaphore(_AT_ONCE)
        self.endpoints: list[Endpoint] = []
        self.deliveries: list[Delivery] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within this block webhooks are delivered; at its end, what is still on its way is given up."""
        async with self._client:
            yield
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def count(self, service: Service) -> int:
        """How many endpoints a webhook of this service goes to."""
        return sum(endpoint.service == service for endpoint in self.endpoints)

    def send(self, service: Service, body: bytes, events: list[str]) -> None:
        """Sends the body to each of the service's endpoints, in the background.

        Args:
            service: Who sends it.
            body: JSON; these very bytes are signed.
            events: Ids of the events in it.
        """
        for endpoint in self.endpoints:
            if endpoint.service == service:
                self.post(service, endpoint.url, body, events)

    def post(
        self, service: Service, url: str, body: bytes, events: list[str], headers: Mapping[str, str] | None = None
    ) -> None:
        """Sends the body to one address, in the background.

        Args:
            service: Who sends it.
            url: Where to.
            body: These very bytes are sent.
            events: Ids of the events in it.
            headers: What proves it; None: it is JSON, and signed as the service signs.
        """
        delivery = Delivery(service, url, events)
        self.deliveries.append(delivery)
        task = asyncio.get_running_loop().create_task(self._deliver(delivery, body, headers))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, delivery: Delivery, body: bytes, headers: Mapping[str, str] | None) -> None:
        for failures in count():
            async with self._free:
                delivery.attempts.append(await self._post(delivery, body, headers))
            if delivery.attempts[-1].startswith("2"):
                delivery.state = "delivered"
                return
            if failures + 1 == _ATTEMPTS:
                delivery.state = "failed"
                return
            await asyncio.sleep(min(_LONGEST_WAIT, _FIRST_WAIT * 2**failures))

    async def _post(self, delivery: Delivery, body: bytes, headers: Mapping[str, str] | None) -> str:
        if headers is None:
            headers = {"Content-Type": "application/json", **self._signers[delivery.service].headers(body)}
        try:
            answer = await self._client.post(delivery.url, content=body, headers=headers)
        except httpx.HTTPError as error:
            return type(error).__name__
        return str(answer.status_code)
