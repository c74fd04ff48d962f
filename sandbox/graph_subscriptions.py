"""Microsoft Graph's subscriptions, as the sandbox plays them: handshake, notifications with their secret, an end."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox import graph_events as events
from sandbox.agenda import after
from sandbox.graph_events import Refused
from sandbox.webhooks import Webhooks
from sandbox.world import Clock

Json = dict[str, Any]

LONGEST = 10_080
"""Minutes that a subscription to events may last."""


@dataclass(slots=True)
class _Subscription:
    """Who is told of changes in the mailbox."""

    about: Json
    client_state: str | None
    expires: datetime


class Subscriptions:
    """Who is told of what happens in a user's mailbox.

    Args:
        user: Whose.
        clock: Tells the time.
        webhooks: Takes the notifications.
    """

    def __init__(self, user: str, clock: Clock, webhooks: Webhooks) -> None:
        self._user, self._clock, self._webhooks = user, clock, webhooks
        self._subscriptions: dict[str, _Subscription] = {}

    def clear(self) -> None:
        """Forgets all of them."""
        self._subscriptions.clear()

    async def create(self, _: Request, raw: bytes) -> Response:
        """POST: the receiver is asked first."""
        asked = events.read(events.Subscription, raw, "subscription")
        kinds, url = asked["changeType"].split(","), asked["notificationUrl"]
        if not {*kinds} <= {"created", "updated", "deleted"}:
            raise Refused("InvalidRequest", f"Invalid 'changeType': '{asked['changeType']}'.")
        if asked["resource"].replace("%40", "@").strip("/") != f"users/{self._user}/events":
            raise Refused("ExtensionError", "Resource is not supported: the sandbox tells of a user's events only.")
        expires = self._expiry(asked["expirationDateTime"])
        if not _may_be_told(url):
            raise Refused("InvalidRequest", "Notification URL must be an HTTPS URL.")
        await _validate(url)
        id_ = f"{secrets.token_hex(4)}-{secrets.token_hex(2)}-4{secrets.token_hex(6)}"
        about = {name: asked[name] for name in ("changeType", "notificationUrl", "resource")}
        subscription = _Subscription({"id": id_, **about}, asked.get("clientState"), expires)
        self._subscriptions[id_] = subscription
        return JSONResponse(_subscription(subscription), 201)

    def renew(self, request: Request, raw: bytes) -> Response:
        """PATCH: until when."""
        asked = events.read(events.Renewal, raw, "subscription")
        subscription = self._subscription(request)
        subscription.expires = self._expiry(asked["expirationDateTime"])
        return JSONResponse(_subscription(subscription))

    def delete(self, request: Request, _: bytes) -> Response:
        """DELETE."""
        del self._subscriptions[self._subscription(request).about["id"]]
        return Response(status_code=204)

    def _subscription(self, request: Request) -> _Subscription:
        found = self._subscriptions.get(request.path_params["id"])
        if found is None or found.expires <= after(self._clock.now(), 0):
            raise Refused("ResourceNotFound", "The object was not found.", 404)
        return found

    def _expiry(self, text: str) -> datetime:
        now = after(self._clock.now(), 0)
        try:
            expires = datetime.fromisoformat(text).astimezone(UTC)
        except ValueError:
            raise Refused("InvalidRequest", "Invalid 'expirationDateTime'.") from None
        if expires <= now:
            raise Refused("InvalidRequest", "Subscription expiration must be in the future.")
        if expires > after(self._clock.now(), LONGEST * 60 + 60):
            raise Refused("InvalidRequest", f"Subscription expiration can only be {LONGEST} minutes in the future.")
        return expires

    def tell(self, event: Json, what: str) -> None:
        """Tells of what has happened to an event."""
        for subscription in self._subscriptions.values():
            if what in subscription.about["changeType"].split(",") and subscription.expires > after(
                self._clock.now(), 0
            ):
                self._notify(subscription, event, what)

    def _notify(self, subscription: _Subscription, event: Json, what: str) -> None:
        resource = f"Users/{self._user}/Events/{event['id']}"
        about = {"@odata.type": "#Microsoft.Graph.Event", "@odata.id": resource, "@odata.etag": event["@odata.etag"]}
        notification = {
            "subscriptionId": subscription.about["id"],
            "subscriptionExpirationDateTime": subscription.expires.isoformat(),
            "changeType": what,
            "resource": resource,
            "resourceData": {**about, "id": event["id"]},
            "clientState": subscription.client_state,
            "tenantId": "11111111-2222-3333-4444-555555555555",
        }
        url, body = subscription.about["notificationUrl"], json.dumps({"value": [notification]}).encode()
        self._webhooks.post("graph", url, body, [event["id"]], {"Content-Type": "application/json; charset=utf-8"})


async def _validate(url: str) -> None:
    """Graph's handshake: the receiver must send back, as plain text, what it is given."""
    token = f"Validation: {secrets.token_urlsafe(16)} & more"
    try:
        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
            answer = await client.post(url, params={"validationToken": token}, headers={"Content-Type": "text/plain"})
        plain = answer.headers.get("Content-Type", "").startswith("text/plain")
        if plain and (answer.status_code, answer.text) == (200, token):
            return
        reason = f"answered {answer.status_code}"
    except httpx.HTTPError as failure:
        reason = type(failure).__name__
    message = f"Subscription validation request failed ({reason}). Notification endpoint must respond with 200 OK."
    raise Refused("ValidationError", message)


def _subscription(subscription: _Subscription) -> Json:
    expires = f"{subscription.expires:%Y-%m-%dT%H:%M:%S.%fZ}"
    return {**subscription.about, "expirationDateTime": expires, "clientState": subscription.client_state}


def _may_be_told(url: str) -> bool:
    """Graph takes https only; a receiver on this machine has no certificate."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost"})
