"""Stripe's events -> `subscriptions` and `invoices`.

Every event carries the whole object as it was then, so the newest event alone makes the row. Stripe promises no order
and tells time in whole seconds; a second often holds several events (a first payment makes `created: incomplete` and
`updated: active` at once). Within a second the order is: `created` first, `deleted` last, then how far the status is in
the object's life, then (invoices) the number of payment attempts, then a digest of the event's id. The last is
arbitrary, but the same in every replay.

Fields that newer API versions moved are read where they are now, else where they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import AliasChoices, AliasPath, BeforeValidator, Field

from events.envelope import Event
from projections.tables import Id, Integer, Moment, Row, Text, rank

PATTERNS = ("stripe.customer.subscription.*", "stripe.invoice.*")
"""The types of the events that become rows."""

_PREVIEW = "stripe.invoice.upcoming"
"""Tells of an invoice that does not exist yet and has no lasting id."""

_DELETED = "stripe.invoice.deleted"
"""Tells of a draft that is gone, in its last state (a deleted subscription tells `canceled` by itself)."""

_UNKNOWN = 5
"""Where a status that Stripe adds one day stands: after those of a beginning, before those of an end."""

_SUBSCRIPTION_LIFE = {
    "incomplete": 0, "trialing": 1, "active": 2, "past_due": 3, "unpaid": 4, "paused": 5,
    "incomplete_expired": 8, "canceled": 9,
}  # fmt: skip
_INVOICE_LIFE = {"draft": 0, "open": 1, "uncollectible": 6, "void": 7, "paid": 8, "deleted": 9}


def project(event: Event) -> Sequence[Row]:
    """The rows that one of Stripe's events tells of; none for events of other things.

    Raises:
        ProjectionError: The event is not what its type promises.
    """
    if event.type.startswith("stripe.customer.subscription."):
        return [Subscription.of(event)]
    if event.type.startswith("stripe.invoice.") and event.type != _PREVIEW:
        invoice = Invoice.of(event)
        return [invoice.model_copy(update={"status": "deleted"}) if event.type == _DELETED else invoice]
    return []


def _at(*path: str | int) -> AliasPath:
    return AliasPath("data", "data", "object", *path)


def _id_of(name: str) -> AliasChoices:
    """A reference to another object: its id, or (expanded) the object itself."""
    return AliasChoices(_at(name, "id"), _at(name))


def _earliest(found: object) -> object:
    """The earliest end among a subscription's items, if it is items that were found."""
    return min(item["current_period_end"] for item in found) if isinstance(found, list) else found


class _StripeRow(Row):
    sources: ClassVar[tuple[str, ...]] = ("stripe",)
    life: ClassVar[Mapping[str, int]]

    status: Id
    livemode: bool = Field(validation_alias=_at("livemode"), description="False in Stripe's test mode.")
    event_type: Id = Field(validation_alias="type", description="The type of the event that told this.")

    def _version(self, *ranks: int) -> str:
        step = {"created": 0, "deleted": 2}.get(self.event_type.rpartition(".")[2], 1)
        return rank(self.event_at, step, self.life.get(self.status, _UNKNOWN), *ranks, event_id=self.event_id)


class Subscription(_StripeRow):
    """Subscriptions as Stripe last told of them; canceled ones stay."""

    table = "subscriptions"
    key = ("stripe_subscription_id",)
    life = _SUBSCRIPTION_LIFE

    stripe_subscription_id: Id = Field(validation_alias=_at("id"), description="sub_...")
    status: Id = Field(validation_alias=_at("status"), description="incomplete, trialing, active, past_due, ...")
    local_subscription_id: Text | None = Field(
        None, validation_alias=_at("metadata", "local_subscription_id"), description="Ours, from the metadata."
    )
    stripe_customer_id: Id = Field(validation_alias=_id_of("customer"), description="cus_...")
    stripe_price_id: Text | None = Field(
        None, validation_alias=_at("items", "data", 0, "price", "id"), description="The first item's price."
    )
    quantity: Integer | None = Field(
        None, validation_alias=_at("items", "data", 0, "quantity"), description="The first item's quantity."
    )
    currency: Text | None = Field(None, validation_alias=_at("currency"), description="ISO 4217, lower case.")
    current_period_end: Annotated[Moment, BeforeValidator(_earliest)] | None = Field(
        None,
        validation_alias=AliasChoices(_at("current_period_end"), _at("items", "data")),
        description="When the next renewal is due; the earliest of its items.",
    )
    cancel_at_period_end: bool = Field(
        validation_alias=_at("cancel_at_period_end"), description="Whether it ends with the period."
    )
    cancel_at: Moment | None = Field(None, validation_alias=_at("cancel_at"), description="When it will end.")
    canceled_at: Moment | None = Field(
        None, validation_alias=_at("canceled_at"), description="When its end was asked for."
    )
    ended_at: Moment | None = Field(None, validation_alias=_at("ended_at"), description="When it ended.")
    trial_end: Moment | None = Field(None, validation_alias=_at("trial_end"), description="When its trial ends.")
    created_at: Moment = Field(validation_alias=_at("created"), description="When it was made.")

    @property
    def version(self) -> str:
        """By second, step and status."""
        return self._version()


class Invoice(_StripeRow):
    """Invoices as Stripe last told of them. Amounts are whole numbers in the currency's minor unit.

    Not divided into major units: how many minor units make one differs (JPY: 1, USD: 100, KWD: 1000).
    """

    table = "invoices"
    key = ("stripe_invoice_id",)
    life = _INVOICE_LIFE

    stripe_invoice_id: Id = Field(validation_alias=_at("id"), description="in_...")
    status: Id = Field(validation_alias=_at("status"), description="draft, open, paid, void, uncollectible; deleted.")
    number: Text | None = Field(None, validation_alias=_at("number"), description="What the customer sees.")
    stripe_customer_id: Text | None = Field(None, validation_alias=_id_of("customer"), description="cus_...")
    stripe_subscription_id: Text | None = Field(
        None,
        validation_alias=AliasChoices(
            _at("parent", "subscription_details", "subscription", "id"),
            _at("parent", "subscription_details", "subscription"),
            _at("subscription", "id"),
            _at("subscription"),
        ),
        description="The subscription it is for.",
    )
    local_subscription_id: Text | None = Field(
        None,
        validation_alias=AliasChoices(
            _at("parent", "subscription_details", "metadata", "local_subscription_id"),
            _at("subscription_details", "metadata", "local_subscription_id"),
            _at("metadata", "local_subscription_id"),
        ),
        description="Ours, from the metadata of the subscription.",
    )
    currency: Id = Field(validation_alias=_at("currency"), description="ISO 4217, lower case.")
    amount_due_minor: Integer = Field(validation_alias=_at("amount_due"), description="In minor units.")
    amount_paid_minor: Integer = Field(validation_alias=_at("amount_paid"), description="In minor units.")
    amount_remaining_minor: Integer = Field(validation_alias=_at("amount_remaining"), description="In minor units.")
    attempt_count: Integer = Field(validation_alias=_at("attempt_count"), description="How often a payment was tried.")
    next_payment_attempt: Moment | None = Field(
        None, validation_alias=_at("next_payment_attempt"), description="When the next try is due."
    )
    due_date: Moment | None = Field(None, validation_alias=_at("due_date"), description="When it must be paid.")
    paid_at: Moment | None = Field(
        None, validation_alias=_at("status_transitions", "paid_at"), description="When it was paid."
    )
    created_at: Moment = Field(validation_alias=_at("created"), description="When it was made.")

    @property
    def version(self) -> str:
        """By second, step, status and payment attempts."""
        return self._version(self.attempt_count)
