"""Events as the receiver puts them on the log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from events.envelope import Event, Metadata

NOON = 1_750_000_000


def event(kind: str, key: str, at: int, data: dict[str, Any]) -> Event:
    source = kind.partition(".")[0]
    return Event(
        type=kind,
        aggregate_type="thing",
        aggregate_id="one",
        data=data,
        timestamp=datetime.fromtimestamp(at, UTC),
        metadata=Metadata(source=source, dedupe_key=key, correlation_id=key),
    )


def stripe_event(kind: str, key: str, at: int, subject: dict[str, Any], **data: Any) -> Event:
    whole = {"id": key, "type": kind, "created": at, "data": {"object": subject, **data}}
    return event(f"stripe.{kind}", key, at, whole)


def subscription(status: str = "active", **changes: Any) -> dict[str, Any]:
    item = {"id": "si_1", "quantity": 3, "price": {"id": "price_1"}, "current_period_end": NOON + 2_592_000}
    whole = {
        "id": "sub_1", "object": "subscription", "status": status, "customer": "cus_1", "currency": "usd",
        "cancel_at_period_end": False, "cancel_at": None, "canceled_at": None, "ended_at": None, "trial_end": None,
        "created": NOON, "livemode": False, "metadata": {"local_subscription_id": "local-1"},
        "items": {"object": "list", "data": [item]},
    }  # fmt: skip
    return {**whole, **changes}


def invoice(status: str = "open", **changes: Any) -> dict[str, Any]:
    details = {"subscription": "sub_1", "metadata": {"local_subscription_id": "local-1"}}
    paid = 1099 if status == "paid" else 0
    whole = {
        "id": "in_1", "object": "invoice", "status": status, "customer": "cus_1", "currency": "usd", "number": "A-1",
        "amount_due": 1099, "amount_paid": paid, "amount_remaining": 1099 - paid, "attempt_count": 0,
        "next_payment_attempt": None, "due_date": None, "created": NOON, "livemode": False, "metadata": {},
        "status_transitions": {"paid_at": NOON + 5 if status == "paid" else None},
        "parent": {"type": "subscription_details", "subscription_details": details},
    }  # fmt: skip
    return {**whole, **changes}


def twilio_event(status: str, key: str, at: int = NOON, **data: Any) -> Event:
    told = {"MessageSid": "SM1", "MessageStatus": status, "From": "+15005550006", "To": "+14155550100", **data}
    return event(f"twilio.message.{status}", key, at, told)


def twilio_inbound(body: str, key: str, at: int = NOON, **data: Any) -> Event:
    told = {"MessageSid": key, "SmsStatus": "received", "From": "+14155550100", "To": "+15005550006", "Body": body}
    return event("twilio.message.received", key, at, {**told, **data})


def sendgrid_event(kind: str, key: str, at: int = NOON, **data: Any) -> Event:
    told = {
        "email": "Ann@Example.com", "timestamp": at, "event": kind, "sg_event_id": key,
        "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0", **data,
    }  # fmt: skip
    return event(f"sendgrid.{kind}", key, at, told)


def calendar_event(what: str, key: str, at: int = NOON, service: str = "google", **changes: Any) -> Event:
    """An event of a calendar as it was read: `updated` or `deleted`; `at` is when the service last changed it."""
    changed = datetime.fromtimestamp(at, UTC).isoformat()
    told = {
        "calendar_id": "primary", "calendar_event_id": "e1", "title": "Demo", "starts_at": "2027-03-01T08:00:00+00:00",
        "ends_at": "2027-03-01T09:00:00+00:00", "all_day": False, "zone": "Europe/Berlin", "series_id": None,
        "organizer": "Ann@Example.com", "attendees": 3, "accepted": 1, "online": False, "etag": '"1"',
        "updated_at": changed, "read_at": changed, **changes,
    }  # fmt: skip
    return event(f"{service}.calendar.event.{what}", key, at, told)
