"""What landed events mean to us: told again in our own terms, on the same log, for those who follow our business.

Each announcement names the event that led to it and is published once, however often that event is applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from events.cause import Cause, caused_by
from events.envelope import Event
from events.typed import EventData
from projections.stripe import Invoice, Subscription
from projections.tables import Row

SOURCE = "pivotal/projections"


class SubscriptionChanged(EventData):
    """A subscription, when its status changed. The fields are those of the table `subscriptions`."""

    stripe_subscription_id: str
    status: str
    livemode: bool
    local_subscription_id: str | None
    stripe_customer_id: str
    stripe_price_id: str | None
    quantity: int | None
    currency: str | None
    current_period_end: datetime | None
    cancel_at_period_end: bool
    cancel_at: datetime | None
    canceled_at: datetime | None
    ended_at: datetime | None
    trial_end: datetime | None
    created_at: datetime


class SubscriptionActivated(SubscriptionChanged, type="pivotal.subscription.activated"):
    """It is active from now on."""


class SubscriptionPastDue(SubscriptionChanged, type="pivotal.subscription.past_due"):
    """A payment is overdue."""


class SubscriptionCanceled(SubscriptionChanged, type="pivotal.subscription.canceled"):
    """It has ended."""


class InvoiceChanged(EventData):
    """An invoice, when something became of it. The fields are those of the table `invoices`."""

    stripe_invoice_id: str
    status: str
    livemode: bool
    number: str | None
    stripe_customer_id: str | None
    stripe_subscription_id: str | None
    local_subscription_id: str | None
    currency: str
    amount_due_minor: int
    amount_paid_minor: int
    amount_remaining_minor: int
    attempt_count: int
    next_payment_attempt: datetime | None
    due_date: datetime | None
    paid_at: datetime | None
    created_at: datetime


class InvoicePaid(InvoiceChanged, type="pivotal.invoice.paid"):
    """It is paid."""


class InvoicePaymentFailed(InvoiceChanged, type="pivotal.invoice.payment_failed"):
    """A payment was tried, and failed."""


_SUBSCRIPTION: Mapping[str, type[SubscriptionChanged]] = {
    "active": SubscriptionActivated,
    "past_due": SubscriptionPastDue,
    "canceled": SubscriptionCanceled,
}
_INVOICE: Mapping[str, type[InvoiceChanged]] = {
    "stripe.invoice.paid": InvoicePaid,
    "stripe.invoice.payment_failed": InvoicePaymentFailed,
}


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
            data.event(
                aggregate,
                source=SOURCE,
                dedupe_key=f"{event.metadata.source}/{event.metadata.dedupe_key}/{data.event_type}",
                timestamp=event.timestamp,
            )
            for row in rows
            for data, aggregate in _meaning(event, row)
        ]


def _meaning(event: Event, row: Row) -> Iterator[tuple[EventData, tuple[str, str]]]:
    if isinstance(row, Subscription) and row.status in _SUBSCRIPTION and _changed_status(event):
        aggregate = ("subscription", row.local_subscription_id or row.stripe_subscription_id)
        yield _SUBSCRIPTION[row.status].model_validate(dict(row)), aggregate
    if isinstance(row, Invoice) and row.event_type in _INVOICE:
        yield _INVOICE[row.event_type].model_validate(dict(row)), ("invoice", row.stripe_invoice_id)


def _changed_status(event: Event) -> bool:
    """Stripe's updates say which fields had another value before."""
    before = event.data["data"].get("previous_attributes") or {}
    return event.type.endswith((".created", ".deleted")) or "status" in before
