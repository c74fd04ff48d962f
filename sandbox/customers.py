"""An account's customers, and the cards that they pay with."""

from __future__ import annotations

import re
from collections.abc import Callable

from sandbox.ledger import Ledger, fields, merged
from sandbox.objects import Record, whole
from sandbox.parameters import Form
from sandbox.refusals import Refused, declined, missing, no_card, no_such
from sandbox.world import Clock, Ids

_DECLINING = "pm_card_chargeCustomerFail"
"""Can be attached, and cannot be charged."""
_DEFAULT = "invoice_settings[default_payment_method]"
_UNATTACHABLE = "pm_card_chargeDeclined"
_CARDS = {
    "pm_card_visa": ("visa", "4242"),
    "pm_card_mastercard": ("mastercard", "4444"),
    _DECLINING: ("visa", "0341"),
    _UNATTACHABLE: ("visa", "0002"),
}
"""Stripe's test cards (https://docs.stripe.com/testing) -> brand and last four digits; `tok_visa` means the same."""


class Customers(Ledger):
    """The operations on customers and their cards. Arguments: see `Ledger`."""

    def __init__(self, clock: Clock, ids: Ids, publish: Callable[[Record], None]) -> None:
        super().__init__(clock, ids, publish)
        self._cards: dict[str, str] = {}
        """Payment method -> the test card that it is."""
        self._detached: set[str] = set()

    # --- customers ----------------------------------------------------------------------------------------------

    def create_customer(self, form: Form) -> Record:
        """A new customer, with a card if one is given (`pm_card_visa`; `pm_card_chargeCustomerFail` declines)."""
        _check_email(form)
        card = self._given_card(form)
        id_ = self._new("customer")
        customer = whole(
            "customer",
            **fields(form, "email", "name", "phone", "description"),
            id=id_,
            created=self._clock.now(),
            balance=0,
            delinquent=False,
            invoice_prefix=id_[-8:].upper(),
            invoice_settings={
                "custom_fields": None,
                "default_payment_method": card["id"] if card and "invoice_settings" in form else None,
                "footer": None,
                "rendering_options": None,
            },
            metadata=merged({}, form),
            next_invoice_sequence=1,
            preferred_locales=[],
            tax_exempt="none",
        )
        self._keep(customer, "customer.created")
        if card:
            self._change(card, "payment_method.attached", customer=id_)
        return customer

    def update_customer(self, id_: str, form: Form) -> Record:
        """A customer with other values; an empty one unsets."""
        customer = self._living_customer(id_, "id")
        _check_email(form)
        changes = fields(form, "email", "name", "phone", "description")
        changes["metadata"] = merged(customer["metadata"], form)
        if wanted := form.get("invoice_settings", {}).get("default_payment_method"):
            card = self._attached(wanted, customer, _DEFAULT)
            changes["invoice_settings"] = customer["invoice_settings"] | {"default_payment_method": card}
        return self._change(customer, "customer.updated", **changes)

    # --- payment methods ----------------------------------------------------------------------------------------

    def create_payment_method(self, form: Form) -> Record:
        """A new card, from a token (`tok_visa`)."""
        if form.get("type") != "card":
            raise missing("type") if "type" not in form else _not_acted_on("type", form["type"])
        card = form.get("card", {})
        if "number" in card:
            message = (
                "Sending credit card numbers directly to the Stripe API is generally unsafe. We suggest you use test "
                "tokens that map to the test card you are using, see https://docs.stripe.com/testing."
            )
            raise Refused(message, status=402)
        if "token" not in card:
            raise missing("card[token]" if card else "card")
        test_card = card["token"].replace("tok_", "pm_card_", 1)
        if test_card not in _CARDS:
            raise no_such("token", card["token"], param="card[token]")
        return self._new_card(test_card, form)

    def attach_payment_method(self, id_: str, form: Form) -> Record:
        """Attaches a card (or a test card: `pm_card_visa`) to a customer."""
        if "customer" not in form:
            raise missing("customer")
        customer = self._living_customer(form["customer"], "customer")
        card = self._attachable(self._payment_method(id_, "id"))
        return self._change(card, "payment_method.attached", customer=customer["id"])

    def detach_payment_method(self, id_: str) -> Record:
        """Takes a card from its customer, for good."""
        card = self.get("payment_method", id_)
        if card["customer"] is None:
            raise Refused("The payment method you provided is not attached to a customer so detachment is impossible.")
        customer = self._objects["customer"][card["customer"]]
        self._detached.add(id_)
        self._change(card, "payment_method.detached", customer=None)
        if not customer.get("deleted") and self._card_of(customer) == id_:
            settings = customer["invoice_settings"] | {"default_payment_method": None}
            self._change(customer, "customer.updated", invoice_settings=settings)
        return card

    # --- helpers ------------------------------------------------------------------------------------------------

    def _living_customer(self, id_: str, param: str) -> Record:
        customer = self._find("customer", id_, param)
        if customer.get("deleted"):
            raise no_such("customer", id_, param=param)
        return customer

    def _payment_method(self, id_: str, param: str) -> Record:
        """The card that an id names; a test card's name makes a new one."""
        if id_ in _CARDS:
            return self._new_card(id_, {})
        if id_ not in self._objects["payment_method"]:
            raise no_such("PaymentMethod", id_, param=param)
        return self._objects["payment_method"][id_]

    def _new_card(self, test_card: str, form: Form) -> Record:
        brand, last4 = _CARDS[test_card]
        card = whole(
            "payment_method",
            id=self._new("payment_method"),
            allow_redisplay="unspecified",
            billing_details=dict.fromkeys(("address", "email", "name", "phone", "tax_id"))
            | form.get("billing_details", {}),
            card={
                **dict.fromkeys(("generated_from", "networks", "three_d_secure_usage", "wallet")),
                "brand": brand,
                "checks": dict.fromkeys(("address_line1_check", "address_postal_code_check", "cvc_check")),
                "country": "US",
                "display_brand": brand,
                "exp_month": 12,
                "exp_year": 2040,
                "fingerprint": f"sandbox{last4}",
                "funding": "credit",
                "last4": last4,
            },
            created=self._clock.now(),
            customer=None,
            metadata=merged({}, form),
            type="card",
        )
        self._cards[card["id"]] = test_card
        self._objects["payment_method"][card["id"]] = card
        return card

    def _given_card(self, form: Form) -> Record | None:
        """The card that a new customer comes with."""
        token, wanted = form.get("payment_method"), form.get("invoice_settings", {}).get("default_payment_method")
        if wanted is not None and wanted != token:
            message = f"The customer does not have a payment method with the ID {wanted}."
            raise Refused(message, param=_DEFAULT, code="resource_missing")
        return None if token is None else self._attachable(self._payment_method(token, "payment_method"))

    def _attachable(self, card: Record) -> Record:
        if self._cards[card["id"]] == _UNATTACHABLE:
            raise declined()
        if card["customer"] is not None:
            raise Refused("The payment method you provided has already been attached to a customer.")
        if card["id"] in self._detached:
            message = (
                "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, "
                "shared with a connected account without Customer attachment, or was detached from a Customer. It may "
                "not be used again. To use a PaymentMethod multiple times, you must attach it to a Customer first."
            )
            raise Refused(message)
        return card

    def _card_of(self, customer: Record) -> str | None:
        card: str | None = customer["invoice_settings"]["default_payment_method"]
        return card

    def _declines(self, card: str) -> bool:
        return self._cards[card] == _DECLINING

    def _attached(self, id_: str, customer: Record, param: str) -> str:
        """A card's id, if the customer has it."""
        if self._objects["payment_method"].get(id_, {}).get("customer") != customer["id"]:
            message = (
                f"The customer does not have a payment method with the ID {id_}. The payment method must be attached "
                "to the customer."
            )
            raise Refused(message, param=param, code="resource_missing")
        return id_

    def _charge(self, invoice: Record, form: Form) -> None:
        customer = self._living_customer(invoice["customer"], "customer")
        chosen = form.get("payment_method")
        card = self._card_of(customer) if chosen is None else self._attached(chosen, customer, "payment_method")
        if card is None:
            raise no_card()
        if self._declines(card):
            self._change(invoice, "invoice.payment_failed", attempt_count=invoice["attempt_count"] + 1)
            raise declined()


def _not_acted_on(param: str, value: str) -> Refused:
    return Refused(f"The sandbox does not act on this {param} of Stripe's: {value}", param=param)


def _check_email(form: Form) -> None:
    email = form.get("email")
    if email and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", email):
        raise Refused(f"Invalid email address: {email}", param="email", code="email_invalid")
