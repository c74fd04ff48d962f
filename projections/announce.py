"""What landed events mean to us: told again in our own terms, on the same log, for those who follow our business.

Each announcement names the event that led to it and is published once, however often that event is applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from events.cause import Cause, caused_by, new_event
from events.envelope import Event
from events.log import Recorded
from projections.stripe import Invoice, Subscription
from projections.tables import Row

SOURCE = "pivotal/projections"

_SUBSCRIPTION = {"active": "activated", "past_due": "past_due", "canceled": "canceled"}
_INVOICE = {"stripe.invoice.paid": "paid", "stripe.invoice.payment_failed": "payment_failed"}


def announce(event: Event, rows: Sequence[Row]) -> list[Event]:
    """What an event means: `pivotal.subscription.activated`, `pivotal.invoice.payment_failed`, ...

    A status is announced by the event that changed it, with the time of that event: it says what happened then, also
    if it comes late and the table knows better by now.

    Args:
        event: The event.
        rows: What it tells of.
    """
    with caused_by(Cause.of(event)):
        return [
            new_event(
                name,
                aggregate,
                row.model_dump(mode="json", exclude={"event_id", "event_at", "event_type"}),
                source=SOURCE,
                dedupe_key=f"{event.metadata.source}/{event.metadata.dedupe_key}/{name}",
                timestamp=event.timestamp,
            )
            for row in rows
            for name, aggregate in _meaning(event, row)
        ]


def alert(recorded: Recorded, error: str) -> Event:
    """That an event is a dead letter: `pivotal.event.dead_lettered`.

    Args:
        recorded: The event.
        error: Why, in words.
    """
    event = recorded.event
    with caused_by(Cause.of(event)):
        return new_event(
            "pivotal.event.dead_lettered",
            ("event", event.id),
            {"sequence": recorded.sequence, "type": event.type, "error": error},
            source=SOURCE,
            dedupe_key=event.id,
        )


def _meaning(event: Event, row: Row) -> Iterator[tuple[str, tuple[str, str]]]:
    if isinstance(row, Subscription) and row.status in _SUBSCRIPTION and _changed_status(event):
        aggregate = ("subscription", row.local_subscription_id or row.stripe_subscription_id)
        yield f"pivotal.subscription.{_SUBSCRIPTION[row.status]}", aggregate
    if isinstance(row, Invoice) and row.event_type in _INVOICE:
        yield f"pivotal.invoice.{_INVOICE[row.event_type]}", ("invoice", row.stripe_invoice_id)


def _changed_status(event: Event) -> bool:
    """Stripe's updates say which fields had another value before."""
    before = event.data["data"].get("previous_attributes") or {}
    return event.type.endswith((".created", ".deleted")) or "status" in before
