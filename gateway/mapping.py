"""What providers send -> events. Everything that is verified is kept: of unknown types too, whole, in `data`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from pydantic_core import from_json, to_json

from events.cause import new_event
from events.envelope import Event
from gateway.refusal import RefusedError
from gateway.verify import Hook

_LONGEST_TYPE = 200


def stripe_events(body: bytes) -> list[Event]:
    """The one event that Stripe sends at a time (https://docs.stripe.com/api/events/object).

    Args:
        body: The request's body, verified.

    Raises:
        RefusedError: It is not an event of Stripe's (400).
    """
    told = _parse(body)
    if not isinstance(told, dict):
        raise RefusedError(400, "the body is not a JSON object")
    event_id = _required(told, "id")
    return [
        new_event(
            _type("stripe", _required(told, "type")),
            _stripe_aggregate(told, event_id),
            told,
            source="stripe",
            dedupe_key=event_id,
            timestamp=_moment(told.get("created")),
        )
    ]


def sendgrid_events(body: bytes) -> list[Event]:
    """The batch that SendGrid's event webhook sends.

    Args:
        body: The request's body, verified.

    Raises:
        RefusedError: It is not a list of events of SendGrid's (400).
    """
    told = _parse(body)
    if not isinstance(told, list) or not all(isinstance(item, dict) for item in told):
        raise RefusedError(400, "the body is not a JSON list of objects")
    return [_sendgrid_event(item) for item in told]


def twilio_events(hook: Hook) -> list[Event]:
    """What Twilio tells of one message: a new status of one that we sent, or one that somebody sent us.

    It has neither an id nor a time: a message comes to a status once, and it is now. The operation that the message
    was sent by stands in the URL (see `integrations.twilio`), and is kept beside what Twilio told.

    Args:
        hook: The request, verified; a form, or a JSON object with the same fields.

    Raises:
        RefusedError: It is not about a message (400).
    """
    told = _form_or_json(hook)
    sid, status = (
        _required(told, "MessageSid"),
        _required(told, "MessageStatus" if "MessageStatus" in told else "SmsStatus"),
    )
    operation = {name: value for name, value in hook.query.items() if name == "operation_key"}
    key = "/".join(part for part in (sid, status, _text(told.get("ErrorCode"))) if part)
    kind = _type("twilio", f"message.{status}")
    return [new_event(kind, ("message", sid), {**told, **operation}, source="twilio", dedupe_key=key)]


def _form_or_json(hook: Hook) -> dict[str, Any]:
    if hook.content_type != "application/json":
        return dict(parse_qsl(hook.body.decode(), keep_blank_values=True))
    told = _parse(hook.body)
    if not isinstance(told, dict):
        raise RefusedError(400, "the body is not a JSON object")
    return told


def _sendgrid_event(item: dict[str, Any]) -> Event:
    # Without an id of SendGrid's, the item is its own: sent again, it is the same.
    event_id = _text(item.get("sg_event_id")) or hashlib.sha256(to_json(item)).hexdigest()
    message_id, _, _ = _text(item.get("sg_message_id")).partition(".")
    return new_event(
        _type("sendgrid", _required(item, "event")),
        ("message", message_id) if message_id else ("event", event_id),
        item,
        source="sendgrid",
        dedupe_key=event_id,
        timestamp=_moment(item.get("timestamp")),
    )


def _stripe_aggregate(told: Mapping[str, Any], event_id: str) -> tuple[str, str]:
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
    kind = _text(thing.get("object") or thing.get("type"))
    if kind == "invoice" and (subscription := _subscription(thing)):
        return "subscription", subscription
    thing_id = _text(thing.get("id"))
    return (kind, thing_id) if kind and thing_id else ("event", event_id)


def _subscription(invoice: Mapping[str, Any]) -> str:
    """The id of an invoice's subscription: under `parent` since API version 2025-03-31, at the top before."""
    parent = invoice.get("parent")
    details = parent.get("subscription_details") if isinstance(parent, dict) else None
    found = details.get("subscription") if isinstance(details, dict) else invoice.get("subscription")
    return _text(found.get("id") if isinstance(found, dict) else found)


def _parse(body: bytes) -> object:
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from None


def _required(told: Mapping[str, Any], name: str) -> str:
    if not (value := _text(told.get(name))):
        raise RefusedError(400, f"the body has no {name!r}")
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


@lru_cache(maxsize=1024)
def _type(source: str, name: str) -> str:
    """A provider's type in the envelope's letters; as the provider writes it, it stands in `data`."""
    words = (re.sub(r"[^a-z0-9_]+", "_", word) for word in name.lower().split("."))
    return ".".join([source, *(word for word in words if word)])[:_LONGEST_TYPE].rstrip(".")


def _moment(value: object) -> datetime | None:
    """Seconds since 1970, or ISO 8601 (Stripe's thin events). None, which means now, rather than lose an event."""
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value).astimezone(UTC)
        return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else None
    except (ValueError, OverflowError, OSError):
        return None
