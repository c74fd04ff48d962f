"""Stripe's webhooks: one event at a time, signed by HMAC-SHA256 (https://docs.stripe.com/webhooks/signature)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from events.cause import new_event
from events.envelope import Event
from gateway.mapping import moment, parse_object, required, text, type_name
from gateway.provider import JSON, Hook, Received
from gateway.refusal import RefusedError
from gateway.verify import check_age, header, in_utf8, require, seconds
from settings import Settings, several

if TYPE_CHECKING:
    from stripe import SignatureVerificationError, WebhookSignature

_VARIABLE = "PIVOTAL_STRIPE_WEBHOOK_SECRETS"
_HEADER = "Stripe-Signature"
_TIME = re.compile(r"(?:^|,)t=([^,]*)")
"""The first `t`, as in the SDK."""


class Stripe:
    """See `Provider`.

    Args:
        settings: Stripe's secrets, any of which may have signed, and the tolerance.
    """

    name, path, content_types = "stripe", "/webhooks/stripe", JSON

    def __init__(self, settings: Settings) -> None:
        self.body_limit = settings.webhook_body_limit
        self._secrets = several(settings.stripe_webhook_secrets)
        self._tolerance = settings.webhook_tolerance

    def prepare(self) -> None:
        """See `Provider.prepare`."""
        require(self._secrets, _VARIABLE)
        _sdk()

    def receive(self, hook: Hook) -> Received:
        """See `Provider.receive`."""
        self._verify(hook)
        return Received(stripe_events(hook.body))

    def _verify(self, hook: Hook) -> None:
        require(self._secrets, _VARIABLE)
        signature = header(hook.headers, _HEADER)
        found = _TIME.search(signature)
        sent_at = seconds(found[1] if found else "", _HEADER)
        if "v1=" not in signature:
            raise RefusedError(400, f"{_HEADER} has no v1 signature")
        body = in_utf8(hook.body)
        if not any(_signed(body, signature, secret) for secret in self._secrets):
            raise RefusedError(401, f"no secret matched; {len(self._secrets)} tried")
        check_age(sent_at, self._tolerance)


def stripe_events(body: bytes) -> list[Event]:
    """The one event that Stripe sends at a time (https://docs.stripe.com/api/events/object).

    Args:
        body: The request's body, verified.

    Raises:
        RefusedError: It is not an event of Stripe's (400).
    """
    told = parse_object(body)
    event_id = required(told, "id")
    return [
        new_event(
            type_name("stripe", required(told, "type")),
            _aggregate(told, event_id),
            told,
            source="stripe",
            dedupe_key=event_id,
            timestamp=moment(told.get("created")),
        )
    ]


def _signed(body: str, signature: str, secret: str) -> bool:
    sdk, wrong = _sdk()
    try:
        # No tolerance here: the SDK lets any future pass.
        return bool(sdk.verify_header(body, signature, secret, tolerance=None))
    except wrong:
        return False


@cache
def _sdk() -> tuple[type[WebhookSignature], type[SignatureVerificationError]]:
    """Kept, for the SDK looks its own names up anew at each import."""
    from stripe import SignatureVerificationError, WebhookSignature

    return WebhookSignature, SignatureVerificationError


def _aggregate(told: Mapping[str, Any], event_id: str) -> tuple[str, str]:
    """What the event's order matters for: its object; but for an invoice of a subscription, the subscription.

    Payments change the state of the subscription, so its events and those of its invoices are one sequence. Objects
    without an id (a balance, an upcoming invoice) have no sequence: each of their events stands for itself.
    """
    data = told.get("data")
    thing = data.get("object") if isinstance(data, dict) else None
    if not isinstance(thing, dict):
        thing = told.get("related_object")  # a "thin" event names its object, and does not carry it
    if not isinstance(thing, dict):
        return "event", event_id
    kind = text(thing.get("object") or thing.get("type"))
    if kind == "invoice" and (subscription := _subscription(thing)):
        return "subscription", subscription
    thing_id = text(thing.get("id"))
    return (kind, thing_id) if kind and thing_id else ("event", event_id)


def _subscription(invoice: Mapping[str, Any]) -> str:
    """The id of an invoice's subscription: under `parent` since API version 2025-03-31, at the top before."""
    parent = invoice.get("parent")
    details = parent.get("subscription_details") if isinstance(parent, dict) else None
    found = details.get("subscription") if isinstance(details, dict) else invoice.get("subscription")
    return text(found.get("id") if isinstance(found, dict) else found)
