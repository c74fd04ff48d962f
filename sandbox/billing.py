"""One Stripe account: its customers, prices, subscriptions, invoices and events, and what may happen to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from sandbox import listing, objects
from sandbox.objects import API_VERSION, Record, whole
from sandbox.parameters import Form
from sandbox.refusals import Refused, declined, missing, no_card, no_such
from sandbox.world import Clock, Ids

_PREFIXES = {
    "customer": "cus",
    "event": "evt",
    "invoice": "in",
    "line_item": "il",
    "payment_method": "pm",
    "price": "price",
    "product": "prod",
    "subscription": "sub",
    "subscription_item": "si",
}
_DECLINING = "pm_card_chargeCustomerFail"
_CARDS = {"pm_card_visa", "pm_card_mastercard", _DECLINING}


class Account:
    """The account's objects by kind and id, and the operations on them; every change is an event.

    Args:
        clock: Tells the time.
        ids: Gives ids.
        publish: Takes each new event.
    """

    def __init__(self, clock: Clock, ids: Ids, publish: Callable[[Record], None]) -> None:
        self._clock = clock
        self._ids = ids
        self._publish = publish
        self._objects: dict[str, dict[str, Record]] = {kind: {} for kind in _PREFIXES}
        self._cards: dict[str, str] = {}
        self._request: Record = {"id": None, "idempotency_key": None}
        self._observed = True

    @contextmanager
    def request(self, request_id: str, idempotency_key: str | None) -> Iterator[None]:
        """Within this block, events say that this request caused them."""
        before, self._request = self._request, {"id": request_id, "idempotency_key": idempotency_key}
        try:
            yield
        finally:
            self._request = before

    @contextmanager
    def unobserved(self) -> Iterator[None]:
        """Within this block nothing is an event: it is history, and Stripe keeps events for 30 days only."""
        self._observed = False
        try:
            yield
        finally:
            self._observed = True

    # --- reading ------------------------------------------------------------------------------------------------

    def get(self, kind: str, id_: str) -> Record:
        """The object that a URL names."""
        return self._find(kind, id_, "id")

    def page(self, kind: str, form: Form) -> Record:
        """One page of the kind's objects, newest first."""
        return listing.page(kind, self._objects[kind].values(), form)

    def expanded(self, record: Record, paths: list[str]) -> Record:
        """A copy of the object with the ids at these paths replaced by what they name."""
        return listing.expanded(record, paths, self._by_id)

    # --- customers ----------------------------------------------------------------------------------------------

    def create_customer(self, form: Form) -> Record:
        """A new customer, with a card if one is given (`pm_card_visa`; `pm_card_chargeCustomerFail` declines)."""
        _check_email(form)
        id_ = self._new("customer")
        customer = whole(
            "customer",
            **_fields(form, "email", "name", "phone", "description"),
            id=id_,
            created=self._clock.now(),
            balance=0,
            delinquent=False,
            invoice_prefix=id_[-8:].upper(),
            invoice_settings={
                "custom_fields": None,
                "default_payment_method": self._default_card_in(form),
                "footer": None,
                "rendering_options": None,
            },
            metadata=_merged({}, form),
            next_invoice_sequence=1,
            preferred_locales=[],
            tax_exempt="none",
        )
        return self._keep(customer, "customer.created")

    def update_customer(self, id_: str, form: Form) -> Record:
        """A customer with other values; an empty one unsets."""
        customer = self._living_customer(id_, "id")
        _check_email(form)
        changes = _fields(form, "email", "name", "phone", "description")
        metadata = _merged(customer["metadata"], form)
        return self._change(customer, "customer.updated", **changes, metadata=metadata)

    def delete_customer(self, id_: str) -> Record:
        """Deletes a customer for good; its subscriptions end."""
        customer = self._living_customer(id_, "id")
        for subscription in list(self._objects["subscription"].values()):
            if subscription["customer"] == id_ and subscription["status"] != "canceled":
                self.cancel_subscription(subscription["id"], {})
        self._emit("customer.deleted", customer)
        self._objects["customer"][id_] = {"id": id_, "object": "customer", "deleted": True}
        return self._objects["customer"][id_]

    # --- products and prices ------------------------------------------------------------------------------------

    def create_product(self, form: Form) -> Record:
        """A new product."""
        now = self._clock.now()
        product = whole(
            "product",
            **_fields(form, "name", "description"),
            id=self._new("product"),
            active=True,
            created=now,
            updated=now,
            metadata=_merged({}, form),
            type="service",
        )
        return self._keep(product, "product.created")

    def create_price(self, form: Form) -> Record:
        """A new price of a product, in minor units of its currency."""
        for name in ("product", "unit_amount"):
            if name not in form:
                raise missing(name)
        self._find("product", form["product"], "product")
        if not re.fullmatch("[a-z]{3}", form["currency"]):
            raise Refused(f"Invalid currency: {form['currency']}.", param="currency")
        recurring = form.get("recurring")
        usage = {"interval_count": 1, "meter": None, "trial_period_days": None, "usage_type": "licensed"}
        price = whole(
            "price",
            **_fields(form, "product", "currency", "unit_amount", "nickname"),
            id=self._new("price"),
            active=form.get("active", True),
            billing_scheme="per_unit",
            created=self._clock.now(),
            metadata=_merged({}, form),
            recurring=usage | recurring if recurring else None,
            tax_behavior="unspecified",
            type="recurring" if recurring else "one_time",
            unit_amount_decimal=str(form["unit_amount"]),
        )
        return self._keep(price, "price.created")

    # --- subscriptions ------------------------------------------------------------------------------------------

    def create_subscription(self, form: Form) -> Record:
        """A new subscription with its first invoice, charged to the customer's card unless there is a trial."""
        if "customer" not in form:
            raise missing("customer")
        customer = self._living_customer(form["customer"], "customer")
        chosen = self._chosen(form)
        trial = form.get("trial_period_days", 0)
        card = self._card_for(customer, form)
        must_pay = _must_pay(form)
        fails = card is not None and not trial and self._declines(card)
        if fails and must_pay:
            raise declined()
        subscription = self._start(customer, form, chosen, trial)
        customer["currency"] = customer["currency"] or subscription["currency"]
        invoice = self._bill(subscription, "subscription_create", free=bool(trial))
        if fails:
            subscription["status"] = "incomplete"
            self._emit("invoice.payment_failed", invoice)
        elif card is not None or trial:
            self._paid(invoice)
        return self._keep(subscription, "customer.subscription.created")

    def cancel_subscription(self, id_: str, form: Form) -> Record:
        """Ends a subscription now."""
        subscription = self.get("subscription", id_)
        if subscription["status"] == "canceled":
            raise no_such("subscription", id_)
        now = self._clock.now()
        details = subscription["cancellation_details"] | form.get("cancellation_details", {})
        return self._change(
            subscription,
            "customer.subscription.deleted",
            status="canceled",
            canceled_at=now,
            ended_at=now,
            cancellation_details=details | {"reason": "cancellation_requested"},
        )

    def renew_subscription(self, id_: str) -> Record:
        """Starts a subscription's next period and bills it: what Stripe does by itself when a period ends."""
        subscription = self.get("subscription", id_)
        for item in subscription["items"]["data"]:
            item["current_period_start"] = item["current_period_end"]
            item["current_period_end"] = objects.period_end(item["current_period_start"], item["price"])
        subscription["status"] = "active"
        self._emit("customer.subscription.updated", subscription)
        invoice = self._bill(subscription, "subscription_cycle")
        if subscription["collection_method"] == "charge_automatically":
            self._paid(invoice)
        return subscription

    # --- invoices -----------------------------------------------------------------------------------------------

    def pay_invoice(self, id_: str, form: Form) -> Record:
        """Pays an open invoice, by the customer's card or out of band."""
        invoice = self.get("invoice", id_)
        if invoice["status"] != "open":
            raise Refused(f"Invoice is already {invoice['status']}")
        if not form.get("paid_out_of_band"):
            self._charge(invoice)
        self._paid(invoice)
        subscription = self._objects["subscription"][listing.subscription_of(invoice)]
        if subscription["status"] == "incomplete":
            self._change(subscription, "customer.subscription.updated", status="active")
        return invoice

    # --- helpers ------------------------------------------------------------------------------------------------

    def _new(self, kind: str) -> str:
        return f"{_PREFIXES[kind]}_{self._ids.new(kind, 14 if kind in {'customer', 'product'} else 24)}"

    def _find(self, kind: str, id_: str, param: str) -> Record:
        if id_ not in self._objects[kind]:
            raise no_such(kind, id_, param=param)
        return self._objects[kind][id_]

    def _by_id(self, id_: str) -> Record | None:
        return next((known[id_] for known in self._objects.values() if id_ in known), None)

    def _living_customer(self, id_: str, param: str) -> Record:
        customer = self._find("customer", id_, param)
        if customer.get("deleted"):
            raise no_such("customer", id_, param=param)
        return customer

    def _keep(self, record: Record, event: str) -> Record:
        self._objects[record["object"]][record["id"]] = record
        self._emit(event, record)
        return record

    def _change(self, record: Record, event: str, **changes: Any) -> Record:  # noqa: ANN401  (JSON)
        previous = {name: record[name] for name, value in changes.items() if record[name] != value}
        record.update(changes)
        self._emit(event, record, previous if event.endswith(".updated") else None)
        return record

    def _emit(self, kind: str, record: Record, previous: Record | None = None) -> None:
        if not self._observed:
            return
        data = {"object": record} | ({} if previous is None else {"previous_attributes": previous})
        event = whole(
            "event",
            id=self._new("event"),
            type=kind,
            created=self._clock.now(),
            api_version=API_VERSION,
            data=deepcopy(data),
            pending_webhooks=0,
            request=self._request,
        )
        self._objects["event"][event["id"]] = event
        self._publish(event)

    def _default_card_in(self, form: Form) -> str | None:
        token, wanted = form.get("payment_method"), form.get("invoice_settings", {}).get("default_payment_method")
        if token is not None and token not in _CARDS:
            raise no_such("PaymentMethod", token, param="payment_method")
        if wanted is None:
            return None
        if wanted != token:
            message = f"The customer does not have a payment method with the ID {wanted}."
            raise Refused(message, param="invoice_settings[default_payment_method]", code="resource_missing")
        card = self._new("payment_method")
        self._cards[card] = wanted
        return card

    def _card_of(self, customer: Record) -> str | None:
        card: str | None = customer["invoice_settings"]["default_payment_method"]
        return card

    def _declines(self, card: str) -> bool:
        return self._cards[card] == _DECLINING

    def _card_for(self, customer: Record, form: Form) -> str | None:
        if form.get("collection_method") == "send_invoice":
            if "days_until_due" not in form:
                raise missing("days_until_due")
            return None
        card = self._card_of(customer)
        if card is None and not form.get("trial_period_days"):
            raise no_card()
        return card

    def _charge(self, invoice: Record) -> None:
        card = self._card_of(self._living_customer(invoice["customer"], "customer"))
        if card is None:
            raise no_card()
        if self._declines(card):
            self._change(invoice, "invoice.payment_failed", attempt_count=invoice["attempt_count"] + 1)
            raise declined()

    def _chosen(self, form: Form) -> list[tuple[Record, Form]]:
        if not form.get("items"):
            raise missing("items")
        chosen: list[tuple[Record, Form]] = []
        for index, item in enumerate(form["items"]):
            param = f"items[{index}][price]"
            if "price" not in item:
                raise missing(param)
            price = self._find("price", item["price"], param)
            _check_price(price, chosen[0][0] if chosen else price, param)
            chosen.append((price, item))
        return chosen

    def _start(self, customer: Record, form: Form, chosen: list[tuple[Record, Form]], trial: int) -> Record:
        id_, now = self._new("subscription"), self._clock.now()
        trial_end = now + trial * 86_400 if trial else None
        items = [
            objects.subscription_item(
                self._new("subscription_item"), id_, price, item, (now, trial_end or objects.period_end(now, price))
            )
            for price, item in chosen
        ]
        return objects.subscription(id_, customer["id"], form, items, trial_end)

    def _bill(self, subscription: Record, reason: str, *, free: bool = False) -> Record:
        id_ = self._new("invoice")
        customer = self._objects["customer"][subscription["customer"]]
        lines = [
            objects.line_item(
                self._new("line_item"), id_, item, self.get("product", item["price"]["product"])["name"], free=free
            )
            for item in subscription["items"]["data"]
        ]
        invoice = objects.invoice(id_, customer, subscription, lines, reason, self._clock.now())
        customer["next_invoice_sequence"] += 1
        subscription["latest_invoice"] = id_
        self._keep(invoice, "invoice.created")
        self._emit("invoice.finalized", invoice)
        return invoice

    def _paid(self, invoice: Record) -> None:
        invoice.update(
            status="paid",
            amount_paid=invoice["amount_due"],
            amount_remaining=0,
            attempted=True,
            auto_advance=False,
            status_transitions=invoice["status_transitions"] | {"paid_at": self._clock.now()},
        )
        self._emit("invoice.paid", invoice)
        self._emit("invoice.payment_succeeded", invoice)


def _fields(form: Form, *names: str) -> Form:
    return {name: None if form[name] == "" else form[name] for name in names if name in form}


def _merged(metadata: Record, form: Form) -> Record:
    if form.get("metadata") == "":
        return {}
    return {name: value for name, value in {**metadata, **form.get("metadata", {})}.items() if value != ""}


def _must_pay(form: Form) -> bool:
    behavior = form.get("payment_behavior", "allow_incomplete")
    if behavior not in {"allow_incomplete", "error_if_incomplete"}:
        message = f"The sandbox does not act on this payment_behavior of Stripe's: {behavior}"
        raise Refused(message, param="payment_behavior")
    return bool(behavior == "error_if_incomplete")


def _check_email(form: Form) -> None:
    email = form.get("email")
    if email and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", email):
        raise Refused(f"Invalid email address: {email}", param="email", code="email_invalid")


def _check_price(price: Record, first: Record, param: str) -> None:
    if price["type"] != "recurring":
        message = (
            "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`."
        )
        raise Refused(message, param=param)
    if not price["active"]:
        raise Refused("The price specified is inactive. This field only accepts active prices.", param=param)
    if price["currency"] != first["currency"]:
        message = (
            f"The price specified only supports `{price['currency']}`. This doesn't match the expected currency: "
            f"`{first['currency']}`."
        )
        raise Refused(message, param=param)
