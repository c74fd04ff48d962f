"""Microsoft Graph's subscriptions, as the sandbox plays them: handshake, notifications with their secret, an end."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox import graph_events as events
from sandbox.agenda import after
from sandbox.graph_events import Refused
from sandbox.webhooks import Webhooks, may_be_told
from sandbox.world import Clock

Json = dict[str, Any]

LONGEST = 10_080
"""Minutes that a subscription to events may last."""


class Lifecycle(BaseModel):
    """What becomes of the subscriptions."""

    model_config = ConfigDict(extra="forbid")

    event: Literal["missed", "reauthorizationRequired", "subscriptionRemoved"]


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
        also = asked.get("lifecycleNotificationUrl") or url
        for each in dict.fromkeys([url, also]):
            if not may_be_told(each):
                raise Refused("InvalidRequest", "Notification URL must be an HTTPS URL.")
            await _validate(each)
        id_ = f"{secrets.token_hex(4)}-{secrets.token_hex(2)}-4{secrets.token_hex(6)}"
        names = ("changeType", "notificationUrl", "lifecycleNotificationUrl", "resource")
        about = {name: asked[name] for name in names if name in asked}
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

    def tell_of_lifecycle(self, happened: Lifecycle) -> None:
        """Tells each subscription that asked for it what has become of it; a removed one tells nothing more."""
        for subscription in [*self._subscriptions.values()]:
            if url := subscription.about.get("lifecycleNotificationUrl"):
                self._send(subscription, url, happened.event, {"lifecycleEvent": happened.event})
            if happened.event == "subscriptionRemoved":
                del self._subscriptions[subscription.about["id"]]

    def _notify(self, subscription: _Subscription, event: Json, what: str) -> None:
        resource = f"Users/{self._user}/Events/{event['id']}"
        about = {"@odata.type": "#Microsoft.Graph.Event", "@odata.id": resource, "@odata.etag": event["@odata.etag"]}
        told = {"changeType": what, "resource": resource, "resourceData": {**about, "id": event["id"]}}
        self._send(subscription, subscription.about["notificationUrl"], event["id"], told)

    def _send(self, subscription: _Subscription, url: str, name: str, told: Json) -> None:
        notification = {
            "subscriptionId": subscription.about["id"],
            "subscriptionExpirationDateTime": subscription.expires.isoformat(),
            "clientState": subscription.client_state,
            "tenantId": "11111111-2222-3333-4444-555555555555",
            **told,
        }
        body = json.dumps({"value": [notification]}).encode()
        self._webhooks.post("graph", url, body, [name], {"Content-Type": "application/json; charset=utf-8"})


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
