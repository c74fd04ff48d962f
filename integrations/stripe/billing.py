"""Stripe's subscriptions and invoices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from errors import PivotalError
from integrations.calls import idempotency_key
from integrations.stripe.client import Client, id_of

if TYPE_CHECKING:
    import stripe
    from stripe.params import (
        InvoiceAddLinesParamsLine,
        InvoiceCreateParams,
        InvoiceListParams,
        InvoicePayParams,
        InvoiceRetrieveParams,
        SubscriptionCancelParams,
        SubscriptionCreateParams,
        SubscriptionListParams,
        SubscriptionRetrieveParams,
        SubscriptionUpdateParams,
    )


def subscription_of(invoice: stripe.Invoice) -> str | None:
    """The id of an invoice's subscription, where it has one: under `parent` since API version 2025-03-31."""
    details = invoice.parent.subscription_details if invoice.parent else None
    return None if details is None else str(id_of(details.subscription))


def period_end(subscription: stripe.Subscription) -> datetime:
    """When a subscription is renewed next, in UTC: the earliest end among its items', since API version 2025-03-31."""
    ends = (item.current_period_end for item in subscription["items"].data)
    return datetime.fromtimestamp(min(ends), UTC)


class Subscriptions:
    """Stripe's subscriptions. Every method raises `StripeIntegrationError` if Stripe refuses or cannot be reached."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def _sdk(self) -> stripe.SubscriptionService:
        return self._client.sdk.v1.subscriptions

    def create(self, params: SubscriptionCreateParams, *, operation_id: str) -> stripe.Subscription:
        """Creates a subscription.

        Args:
            params: In Stripe's words: `{"customer": "cus_...", "items": [{"price": "price_...", "quantity": 2}],
                "trial_period_days": 14, "metadata": {...}, "expand": ["latest_invoice"]}`.
            operation_id: The caller's own name of this one doing; the same id never creates a second subscription.
        """
        return self._client.change(
            "subscriptions.create", operation_id, lambda once: self._sdk.create(params, once), "subscription.created"
        )

    def update(
        self,
        id_: str,
        params: SubscriptionUpdateParams | None = None,
        *,
        operation_id: str,
        quantity: int | None = None,
    ) -> stripe.Subscription:
        """Changes a subscription.

        Args:
            id_: The subscription's id (`sub_...`).
            params: What changes, in Stripe's words; an item is named by its id (`si_...`).
            operation_id: The caller's own name of this one doing.
            quantity: The new quantity of the only item there is.

        Raises:
            PivotalError: `quantity` is given, and there are several items.
        """
        asked: SubscriptionUpdateParams = {**(params or {})}
        if quantity is not None:
            asked["items"] = [{"id": self._only_item(id_), "quantity": quantity}]
        return self._client.change(
            "subscriptions.update",
            operation_id,
            lambda once: self._sdk.update(id_, asked, once),
            "subscription.updated",
        )

    def cancel(self, id_: str, params: SubscriptionCancelParams | None = None) -> stripe.Subscription:
        """Ends a subscription now; one that has ended already stays as it is.

        Args:
            id_: The subscription's id (`sub_...`).
            params: Why, in Stripe's words.
        """
        ended = self._client.end(
            "subscriptions.cancel", lambda: self._sdk.cancel(id_, params), look=lambda: self._sdk.retrieve(id_)
        )
        self._client.tell("subscription.canceled", ended, idempotency_key("stripe.subscriptions.cancel", id_))
        return ended

    def cancel_at_period_end(self, id_: str, *, operation_id: str) -> stripe.Subscription:
        """Lets a subscription run until the end of what is paid; `update` with `cancel_at_period_end` takes it back.

        Args:
            id_: The subscription's id (`sub_...`).
            operation_id: The caller's own name of this one doing.
        """
        return self._client.change(
            "subscriptions.cancel_at_period_end",
            operation_id,
            lambda once: self._sdk.update(id_, {"cancel_at_period_end": True}, once),
            "subscription.cancel_scheduled",
        )

    def get(self, id_: str, params: SubscriptionRetrieveParams | None = None) -> stripe.Subscription:
        """A subscription, whatever its status.

        Args:
            id_: The subscription's id (`sub_...`).
            params: `{"expand": [...]}`.
        """
        return self._client.call("subscriptions.get", lambda: self._sdk.retrieve(id_, params))

    def list(self, params: SubscriptionListParams | None = None) -> Iterator[stripe.Subscription]:
        """Every subscription, newest first; read page by page.

        Args:
            params: Filters, in Stripe's words: without `{"status": "all"}`, the ended ones are left out.
        """
        return self._client.every("subscriptions.list", self._sdk.list, params or {})

    def _only_item(self, id_: str) -> str:
        items = self.get(id_)["items"].data
        if len(items) != 1:
            raise PivotalError(
                f"Stripe subscriptions.update: {id_} has {len(items)} items, not one",
                hint='name the item: {"items": [{"id": "si_...", "quantity": 3}]}',
            )
        return str(items[0].id)


class Invoices:
    """Stripe's invoices. Every method raises `StripeIntegrationError` if Stripe refuses or cannot be reached."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def _sdk(self) -> stripe.InvoiceService:
        return self._client.sdk.v1.invoices

    def create(
        self,
        params: InvoiceCreateParams,
        *,
        operation_id: str,
        lines: Sequence[InvoiceAddLinesParamsLine] = (),
    ) -> stripe.Invoice:
        """Creates a draft.

        Args:
            params: In Stripe's words: `{"customer": "cus_...", "collection_method": "send_invoice",
                "days_until_due": 30}`.
            operation_id: The caller's own name of this one doing; the same id never creates a second invoice.
            lines: What is asked for, in Stripe's words: `{"description": "Consulting", "amount": 9900}`.
        """
        draft = self._client.change(
            "invoices.create", operation_id, lambda once: self._sdk.create(params, once), "invoice.created"
        )
        if not lines:
            return draft
        return self._client.change(
            "invoices.add_lines",
            operation_id,
            lambda once: self._sdk.add_lines(str(draft.id), {"lines": [*lines]}, once),
            "invoice.lines_added",
        )

    def finalize(self, id_: str, *, operation_id: str) -> stripe.Invoice:
        """Makes a draft an invoice: it has a number now, is open, and cannot be changed any more.

        Args:
            id_: The invoice's id (`in_...`).
            operation_id: The caller's own name of this one doing.
        """
        return self._client.change(
            "invoices.finalize",
            operation_id,
            lambda once: self._sdk.finalize_invoice(id_, None, once),
            "invoice.finalized",
        )

    def pay(self, id_: str, params: InvoicePayParams | None = None, *, operation_id: str) -> stripe.Invoice:
        """Charges an open invoice.

        Args:
            id_: The invoice's id (`in_...`).
            params: In Stripe's words: `{"payment_method": "pm_..."}`, `{"paid_out_of_band": True}`.
            operation_id: The caller's own name of this one doing. What Stripe answered to it, it answers again: a
                new attempt after a refused one needs another.
        """
        return self._client.change(
            "invoices.pay", operation_id, lambda once: self._sdk.pay(id_, params, once), "invoice.paid"
        )

    def void(self, id_: str, *, operation_id: str) -> stripe.Invoice:
        """Voids an open invoice, for good.

        Args:
            id_: The invoice's id (`in_...`).
            operation_id: The caller's own name of this one doing.
        """
        return self._client.change(
            "invoices.void", operation_id, lambda once: self._sdk.void_invoice(id_, None, once), "invoice.voided"
        )

    def get(self, id_: str, params: InvoiceRetrieveParams | None = None) -> stripe.Invoice:
        """An invoice.

        Args:
            id_: The invoice's id (`in_...`).
            params: `{"expand": [...]}`.
        """
        return self._client.call("invoices.get", lambda: self._sdk.retrieve(id_, params))

    def list(self, params: InvoiceListParams | None = None) -> Iterator[stripe.Invoice]:
        """Every invoice, newest first; read page by page.

        Args:
            params: Filters, in Stripe's words: `{"customer": "cus_...", "status": "open"}`.
        """
        return self._client.every("invoices.list", self._sdk.list, params or {})
