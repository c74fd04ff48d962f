"""One Stripe account: its customers, prices, subscriptions, invoices and events, and what may happen to them."""

from __future__ import annotations

import heapq
import re

from sandbox import objects
from sandbox.invoicing import Invoicing
from sandbox.ledger import fields, merged
from sandbox.objects import Record, whole
from sandbox.parameters import Form
from sandbox.refusals import Refused, declined, missing, no_card, no_such

_RENEWED = {"trialing", "active", "past_due"}


class Account(Invoicing):
    """Everything that can be done in the account. Arguments: see `Ledger`."""

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
            **fields(form, "name", "description"),
            id=self._new("product"),
            active=True,
            created=now,
            updated=now,
            metadata=merged({}, form),
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
            **fields(form, "product", "currency", "unit_amount", "nickname"),
            id=self._new("price"),
            active=form.get("active", True),
            billing_scheme="per_unit",
            created=self._clock.now(),
            metadata=merged({}, form),
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
        draft = self._draft(subscription, _items(subscription), "subscription_create", free=bool(trial))
        invoice = self._finalize(draft)
        subscription["latest_invoice"] = invoice["id"]
        if fails:
            subscription["status"] = "incomplete"
            self._emit("invoice.payment_failed", invoice)
        elif card is not None or trial:
            self._paid(invoice)
        return self._keep(subscription, "customer.subscription.created")

    def update_subscription(self, id_: str, form: Form) -> Record:
        """Changes a subscription's items, metadata and end. It makes no prorations."""
        subscription = self.get("subscription", id_)
        if subscription["status"] == "canceled":
            raise Refused("A canceled subscription can only update its cancellation_details and metadata.")
        if form.get("proration_behavior") == "always_invoice":
            raise Refused("The sandbox makes no prorations to invoice.", param="proration_behavior")
        changes = fields(form, "description", "days_until_due") | {"metadata": merged(subscription["metadata"], form)}
        if "items" in form:
            changes["items"] = self._changed_items(subscription, form["items"])
        if "cancel_at_period_end" in form:
            changes |= self._end_of(subscription, soon=form["cancel_at_period_end"])
        return self._change(subscription, "customer.subscription.updated", **changes)

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
            canceled_at=subscription["canceled_at"] or now,  # when it was asked for, not when it came into effect
            ended_at=now,
            cancellation_details=details | {"reason": "cancellation_requested"},
        )

    def renew_subscription(self, id_: str) -> Record:
        """Starts a subscription's next period and bills it, or ends it: what Stripe does itself when a period ends."""
        subscription = self.get("subscription", id_)
        if subscription["cancel_at_period_end"]:
            return self.cancel_subscription(id_, {})
        due = _period_end(subscription)
        items = [_next_period(item) if item["current_period_end"] == due else item for item in _items(subscription)]
        billed = [item for item in items if item["current_period_start"] == due]
        invoice = self._draft(subscription, billed, "subscription_cycle")
        self._change(
            subscription,
            "customer.subscription.updated",
            items={**subscription["items"], "data": items},
            latest_invoice=invoice["id"],
            status="active" if subscription["status"] == "trialing" else subscription["status"],
        )
        self._finalize(invoice)
        if subscription["collection_method"] == "charge_automatically":
            self._collect(subscription, invoice)
        return subscription

    def tick(self) -> None:
        """Renews or ends the subscriptions whose period is over, as often as it is: in order, each when it was due."""
        due = [
            (_period_end(subscription), number, subscription)
            for number, subscription in enumerate(self._objects["subscription"].values())
            if subscription["status"] in _RENEWED
        ]
        heapq.heapify(due)
        now = self._clock.now()
        while due and due[0][0] <= now:
            moment, number, subscription = due[0]
            with self._clock.at(moment):
                self.renew_subscription(subscription["id"])
            if subscription["status"] in _RENEWED:
                heapq.heapreplace(due, (_period_end(subscription), number, subscription))
            else:
                heapq.heappop(due)

    # --- helpers ------------------------------------------------------------------------------------------------

    def _collect(self, subscription: Record, invoice: Record) -> None:
        """Charges a renewal to the customer's card; without one that can be charged, the subscription is past due."""
        card = self._card_of(self._objects["customer"][subscription["customer"]])
        if invoice["amount_due"] and (card is None or self._declines(card)):
            self._emit("invoice.payment_failed", invoice)
            if subscription["status"] != "past_due":
                self._change(subscription, "customer.subscription.updated", status="past_due")
            return
        self._paid(invoice)
        self._settled(subscription)

    def _card_for(self, customer: Record, form: Form) -> str | None:
        if form.get("collection_method") == "send_invoice":
            if "days_until_due" not in form:
                raise missing("days_until_due")
            return None
        card = self._card_of(customer)
        if card is None and not form.get("trial_period_days"):
            raise no_card()
        return card

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

    def _changed_items(self, subscription: Record, wanted: list[Form]) -> Record:
        """The subscription's list of items, with what is wanted of them."""
        items = {item["id"]: dict(item) for item in subscription["items"]["data"]}
        for index, each in enumerate(wanted):
            param = f"items[{index}]"
            if "id" in each and each["id"] not in items:
                raise no_such("subscription_item", each["id"], param=f"{param}[id]")
            if each.get("deleted"):
                if "id" not in each:
                    raise missing(f"{param}[id]")
                del items[each["id"]]
                continue
            old = items.get(each.get("id", ""))
            item = self._item(subscription, old, each, param)
            items[item["id"]] = item
        if not items:
            raise Refused("A subscription must have at least one active plan.", param="items")
        return {**subscription["items"], "data": [*items.values()], "total_count": len(items)}

    def _item(self, subscription: Record, old: Record | None, form: Form, param: str) -> Record:
        """An item as it is to be: with what the form says, and the rest as it was."""
        if old is None and "price" not in form:
            raise missing(f"{param}[price]")
        like = old or subscription["items"]["data"][0]
        price = self._find("price", form["price"], f"{param}[price]") if "price" in form else like["price"]
        _check_price(price, like["price"], f"{param}[price]")
        given = {"quantity": old["quantity"], "metadata": old["metadata"]} if old else {}
        period = like["current_period_start"], like["current_period_end"]
        id_ = old["id"] if old else self._new("subscription_item")
        item = objects.subscription_item(id_, subscription["id"], price, given | form, period)
        return item | ({"created": old["created"]} if old else {})

    def _end_of(self, subscription: Record, *, soon: bool) -> Record:
        end = _period_end(subscription)
        details = subscription["cancellation_details"]
        return {
            "cancel_at_period_end": soon,
            "cancel_at": end if soon else None,
            "canceled_at": self._clock.now() if soon else None,
            "cancellation_details": details | {"reason": "cancellation_requested" if soon else None},
        }


def _items(subscription: Record) -> list[Record]:
    items: list[Record] = subscription["items"]["data"]
    return items


def _period_end(subscription: Record) -> int:
    return min(int(item["current_period_end"]) for item in _items(subscription))


def _next_period(item: Record) -> Record:
    start = item["current_period_end"]
    return item | {"current_period_start": start, "current_period_end": objects.period_end(start, item["price"])}


def _must_pay(form: Form) -> bool:
    behavior = form.get("payment_behavior", "allow_incomplete")
    if behavior not in {"allow_incomplete", "error_if_incomplete"}:
        message = f"The sandbox does not act on this payment_behavior of Stripe's: {behavior}"
        raise Refused(message, param="payment_behavior")
    return bool(behavior == "error_if_incomplete")


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
