"""Stripe, through its official SDK: typed parameters and objects, one retry budget, one family of errors.

    stripe = Stripe(StripeConfig(api_key=SecretStr("sk_...")))
    customer = stripe.customers.create({"email": "ada@example.com"}, operation_id="signup-4711")

Parameters and objects are the SDK's own types, so that everything Stripe can do with an operation can be said. Every
change has an `operation_id`, the caller's own name of this one doing: however often it is tried or run again, it is
done once.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from integrations.stripe.billing import Invoices, Subscriptions, period_end, subscription_of
from integrations.stripe.client import API_VERSION, Client, StripeConfig
from integrations.stripe.customers import Customers, PaymentMethods
from integrations.stripe.errors import StripeIntegrationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import stripe
    from stripe.params import EventListParams

__all__ = ["API_VERSION", "Stripe", "StripeConfig", "StripeIntegrationError", "period_end", "subscription_of"]


class Stripe(Client):
    """Stripe's operations, by resource."""

    @cached_property
    def customers(self) -> Customers:
        """Customers."""
        return Customers(self)

    @cached_property
    def payment_methods(self) -> PaymentMethods:
        """Cards and other means of payment."""
        return PaymentMethods(self)

    @cached_property
    def subscriptions(self) -> Subscriptions:
        """Subscriptions."""
        return Subscriptions(self)

    @cached_property
    def invoices(self) -> Invoices:
        """Invoices."""
        return Invoices(self)

    @cached_property
    def events(self) -> Events:
        """Events."""
        return Events(self)


class Events:
    """What happened in Stripe, for the last 30 days."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, params: EventListParams | None = None) -> Iterator[stripe.Event]:
        """Every event, newest first.

        Args:
            params: Filters, in Stripe's words: `{"types": ["invoice.paid"]}`.

        Raises:
            StripeIntegrationError: Stripe refused it, or could not be reached within the budget.
        """
        return self._client.every("events.list", self._client.sdk.v1.events.list, params or {})
