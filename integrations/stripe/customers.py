"""Stripe's customers, and what they pay with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from integrations.calls import idempotency_key
from integrations.stripe.client import Client

if TYPE_CHECKING:
    import stripe
    from stripe.params import (
        CustomerCreateParams,
        CustomerListParams,
        CustomerRetrieveParams,
        CustomerUpdateParams,
        PaymentMethodCreateParams,
        PaymentMethodListParams,
    )


class Customers:
    """Stripe's customers. Every method raises `StripeIntegrationError` if Stripe refuses or cannot be reached."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def _sdk(self) -> stripe.CustomerService:
        return self._client.sdk.v1.customers

    def create(
        self, params: CustomerCreateParams | None = None, *, operation_id: str, payment_method: str | None = None
    ) -> stripe.Customer:
        """Creates a customer.

        Args:
            params: What the customer is, in Stripe's words.
            operation_id: The caller's own name of this one doing; the same id never creates a second customer.
            payment_method: `pm_...`; it is attached to the customer and becomes the default of the invoices.
        """
        asked: CustomerCreateParams = {**(params or {})}
        if payment_method is not None:
            settings = {**asked.get("invoice_settings", {}), "default_payment_method": payment_method}
            asked |= {"payment_method": payment_method, "invoice_settings": settings}  # type: ignore[typeddict-item]
        return self._client.change(
            "customers.create", operation_id, lambda once: self._sdk.create(asked, once), "customer.created"
        )

    def update(
        self,
        id_: str,
        params: CustomerUpdateParams | None = None,
        *,
        operation_id: str,
        payment_method: str | None = None,
    ) -> stripe.Customer:
        """Changes a customer.

        Args:
            id_: The customer's id (`cus_...`).
            params: What changes, in Stripe's words; an empty text unsets.
            operation_id: The caller's own name of this one doing.
            payment_method: `pm_...`; it is attached to the customer first and becomes the default of the invoices.
        """
        asked: CustomerUpdateParams = {**(params or {})}
        if payment_method is not None:
            attached = PaymentMethods(self._client).attach(payment_method, id_, operation_id=operation_id)
            settings = {**asked.get("invoice_settings", {}), "default_payment_method": attached.id}
            asked |= {"invoice_settings": settings}  # type: ignore[typeddict-item]
        return self._client.change(
            "customers.update", operation_id, lambda once: self._sdk.update(id_, asked, once), "customer.updated"
        )

    def delete(self, id_: str) -> stripe.Customer:
        """Deletes a customer for good, and ends its subscriptions; one that is deleted already stays as it is.

        Args:
            id_: The customer's id (`cus_...`).

        Returns:
            The id, and `deleted`.
        """
        gone = self._client.end("customers.delete", lambda: self._sdk.delete(id_), look=lambda: self._sdk.retrieve(id_))
        self._client.tell("customer.deleted", gone, idempotency_key("stripe.customers.delete", id_))
        return gone

    def get(self, id_: str, params: CustomerRetrieveParams | None = None) -> stripe.Customer:
        """A customer; of a deleted one there is only the id, and `deleted`.

        Args:
            id_: The customer's id (`cus_...`).
            params: `{"expand": [...]}`.
        """
        return self._client.call("customers.get", lambda: self._sdk.retrieve(id_, params))

    def list(self, params: CustomerListParams | None = None) -> Iterator[stripe.Customer]:
        """Every customer, newest first; read page by page.

        Args:
            params: Filters, in Stripe's words: `{"created": {"gte": 1767225600}}`.
        """
        return self._client.every("customers.list", self._sdk.list, params or {})


class PaymentMethods:
    """Cards and other means of payment. Every method raises `StripeIntegrationError`, as `Customers` do."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def _sdk(self) -> stripe.PaymentMethodService:
        return self._client.sdk.v1.payment_methods

    def create(self, params: PaymentMethodCreateParams, *, operation_id: str) -> stripe.PaymentMethod:
        """Makes a means of payment out of what Stripe's own form in the browser has handed out.

        Args:
            params: In Stripe's words: `{"type": "card", "card": {"token": "tok_..."}}`; never a card's number.
            operation_id: The caller's own name of this one doing.
        """
        return self._client.change(
            "payment_methods.create",
            operation_id,
            lambda once: self._sdk.create(params, once),
            "payment_method.created",
        )

    def attach(self, id_: str, customer: str, *, operation_id: str) -> stripe.PaymentMethod:
        """Attaches a means of payment to a customer; `Customers.update` makes it the default, too.

        Args:
            id_: `pm_...`.
            customer: `cus_...`.
            operation_id: The caller's own name of this one doing.
        """
        return self._client.change(
            "payment_methods.attach",
            operation_id,
            lambda once: self._sdk.attach(id_, {"customer": customer}, once),
            "payment_method.attached",
        )

    def detach(self, id_: str, *, operation_id: str) -> stripe.PaymentMethod:
        """Detaches a means of payment from its customer, for good.

        Args:
            id_: `pm_...`.
            operation_id: The caller's own name of this one doing.
        """
        return self._client.change(
            "payment_methods.detach",
            operation_id,
            lambda once: self._sdk.detach(id_, None, once),
            "payment_method.detached",
        )

    def list(self, customer: str, params: PaymentMethodListParams | None = None) -> Iterator[stripe.PaymentMethod]:
        """Every means of payment of a customer; read page by page.

        Args:
            customer: `cus_...`.
            params: Filters, in Stripe's words: `{"type": "card"}`.
        """
        return self._client.every("payment_methods.list", self._sdk.list, {"customer": customer, **(params or {})})
