"""Stripe's objects, each with every field that the official SDK's class of it has."""

from __future__ import annotations

import calendar
import typing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

Record = dict[str, Any]

API_VERSION = "2026-10-28.endive"
"""The one version of Stripe's API whose shapes these are."""

_CLASSES = {
    "customer": "Customer",
    "event": "Event",
    "invoice": "Invoice",
    "line_item": "InvoiceLineItem",
    "payment_method": "PaymentMethod",
    "plan": "Plan",
    "price": "Price",
    "product": "Product",
    "subscription": "Subscription",
    "subscription_item": "SubscriptionItem",
}
# Stripe leaves these out, unless they are asked for or something happened, instead of sending null.
_LEFT_OUT = {
    "account", "cash_balance", "confirmation_secret", "context", "currency_options", "current_trial", "deleted",
    "invoice_credit_balance", "managed_payments", "payments", "presentment_details", "previous_attributes", "sources",
    "status_details", "subscriptions", "tax", "tax_ids", "tiers",
}  # fmt: skip


_OF_A_CARD = {
    "id", "object", "allow_redisplay", "billing_details", "card", "created", "customer", "customer_account", "livemode",
    "metadata", "type",
}  # fmt: skip
"""What a payment method has that is a card: Stripe leaves out what belongs to other types."""

TOTALS = (
    "subtotal", "total", "amount_due", "amount_remaining", "subtotal_excluding_tax", "total_excluding_tax",
)  # fmt: skip
"""The fields of an invoice that are the sum of its lines, as long as nothing is paid and there are no taxes."""


def whole(kind: str, **values: Any) -> Record:  # noqa: ANN401  (JSON)
    """An object with the given values and, for the SDK's other fields, what Stripe sends where there is nothing.

    Raises:
        LookupError: The SDK knows a field that cannot be empty and was not given, or does not know one that was.
    """
    import stripe

    fields = getattr(stripe, _CLASSES[kind]).__annotations__
    if strange := values.keys() - fields.keys():
        raise LookupError(f"{kind} has no {sorted(strange)}")
    named = {"object": kind, "livemode": False, **values}
    return {
        name: named[name] if name in named else _nothing(kind, name, hint)
        for name, hint in fields.items()
        if name in named or not (_is_left_out(kind, name) or typing.get_origin(hint) is typing.ClassVar)
    }


def listed(url: str, data: list[Record], *, has_more: bool = False) -> Record:
    """A list as Stripe answers it."""
    return {"object": "list", "url": url, "has_more": has_more, "data": data}


def subscription_item(id_: str, subscription: str, price: Record, given: Record, period: tuple[int, int]) -> Record:
    """A price in a subscription; since API version 2025-03-31 the period is the item's, not the subscription's."""
    start, end = period
    return whole(
        "subscription_item",
        id=id_,
        created=start,
        current_period_start=start,
        current_period_end=end,
        metadata=given.get("metadata", {}),
        plan=_plan(price),
        price=price,
        quantity=given.get("quantity", 1),
        subscription=subscription,
    )


def subscription(id_: str, customer: str, given: Record, items: list[Record], trial_end: int | None) -> Record:
    """A subscription that starts now: trialing or active."""
    now = items[0]["created"]
    return whole(
        "subscription",
        id=id_,
        created=now,
        start_date=now,
        billing_cycle_anchor=trial_end or now,
        customer=customer,
        status="trialing" if trial_end else "active",
        items=listed(f"/v1/subscription_items?subscription={id_}", items) | {"total_count": len(items)},
        currency=items[0]["price"]["currency"],
        collection_method=given.get("collection_method", "charge_automatically"),
        days_until_due=given.get("days_until_due"),
        description=given.get("description"),
        metadata=given.get("metadata") or {},
        trial_start=now if trial_end else None,
        trial_end=trial_end,
        cancel_at_period_end=False,
        cancellation_details=_none("comment", "feedback", "feedback_option", "reason"),
        automatic_tax=_none("disabled_reason", "liability") | {"enabled": False},
        billing_mode=_none("flexible", "updated_at") | {"type": "flexible"},
        invoice_settings=_none("account_tax_ids", "custom_fields", "description", "footer")
        | {"issuer": {"type": "self"}},
        trial_settings={"end_behavior": {"missing_payment_method": "create_invoice"}},
    )


def invoice(id_: str, customer: Record, terms: Record, lines: list[Record], reason: str, now: int) -> Record:
    """A draft. The terms may be a subscription's, which is under `parent` since 2025-03-31."""
    total = sum(line["amount"] for line in lines)
    due = terms["days_until_due"]
    of_subscription = "id" in terms
    return whole(
        "invoice",
        id=id_,
        created=now,
        status="draft",
        customer=customer["id"],
        **{f"customer_{name}": customer[name] for name in ("address", "email", "name", "phone", "tax_exempt")},
        account_country="US",
        account_name="Sandbox",
        currency=terms["currency"],
        billing_reason=reason,
        collection_method=terms["collection_method"],
        due_date=None if due is None else now + due * 86_400,
        period_start=now,
        period_end=now,
        lines=listed(f"/v1/invoices/{id_}/lines", lines) | {"total_count": len(lines)},
        parent=_parent(terms) if of_subscription else None,
        attempt_count=1 if due is None and of_subscription else 0,
        attempted=due is None and of_subscription,
        auto_advance=True,
        **dict.fromkeys(TOTALS, total),
        **dict.fromkeys(("amount_paid", "amount_overpaid", "amount_shipping", "starting_balance"), 0),
        **dict.fromkeys(("post_payment_credit_notes_amount", "pre_payment_credit_notes_amount"), 0),
        ending_balance=0,
        automatic_tax=_none("disabled_reason", "liability", "provider", "status") | {"enabled": False},
        issuer={"type": "self"},
        payment_settings=_none("default_mandate", "payment_method_options", "payment_method_types"),
        status_transitions=_none("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at"),
    )


def _parent(subscription: Record) -> Record:
    return {
        "quote_details": None,
        "subscription_details": {"metadata": subscription["metadata"], "subscription": subscription["id"]},
        "type": "subscription_details",
    }


def line_item(id_: str, invoice: str, item: Record, product: str, *, free: bool) -> Record:
    """What an invoice asks for one item of a subscription; nothing while it is free."""
    price = item["price"]
    amount = 0 if free else price["unit_amount"] * item["quantity"]
    details = _none("invoice_item", "proration_details") | {"proration": False}
    return whole(
        "line_item",
        id=id_,
        invoice=invoice,
        amount=amount,
        subtotal=amount,
        currency=price["currency"],
        description=f"Trial period for {product}" if free else f"{item['quantity']} x {product}",
        discountable=True,
        period={"start": item["current_period_start"], "end": item["current_period_end"]},
        parent={
            "invoice_item_details": None,
            "subscription_item_details": details
            | {"subscription": item["subscription"], "subscription_item": item["id"]},
            "type": "subscription_item_details",
        },
        pricing={
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": "0" if free else price["unit_amount_decimal"],
        },
        quantity=item["quantity"],
        quantity_decimal=str(Decimal(item["quantity"])),
        subscription=item["subscription"],
    )


def manual_line(
    ids: tuple[str, str], draft: Record, given: Record, sum_of: tuple[int, int], price: Record | None, now: int
) -> Record:
    """A line that was added to a draft by hand; `ids` are its own and its item's, `sum_of` amount and quantity."""
    amount, quantity = sum_of
    of = _none("price", "product") if price is None else {"price": price["id"], "product": price["product"]}
    each = str(Decimal(amount) / quantity)
    return whole(
        "line_item",
        id=ids[0],
        invoice=draft["id"],
        amount=amount,
        subtotal=amount,
        currency=draft["currency"],
        description=given.get("description"),
        discountable=True,
        metadata=given.get("metadata") or {},
        period={"start": now, "end": now},
        parent={
            "invoice_item_details": _none("proration_details", "subscription")
            | {"invoice_item": ids[1], "proration": False},
            "subscription_item_details": None,
            "type": "invoice_item_details",
        },
        pricing={"price_details": of, "type": "price_details", "unit_amount_decimal": each},
        quantity=quantity,
        quantity_decimal=str(Decimal(quantity)),
    )


def period_end(start: int, price: Record) -> int:
    """When a period that starts at `start` ends (seconds since 1970); the 31st becomes a short month's last day."""
    interval, times = price["recurring"]["interval"], price["recurring"]["interval_count"]
    moment = datetime.fromtimestamp(start, UTC)
    if interval in {"day", "week"}:
        return int((moment + timedelta(**{f"{interval}s": times})).timestamp())
    years, month = divmod(moment.month - 1 + times * {"month": 1, "year": 12}[interval], 12)
    year, month = moment.year + years, month + 1
    day = min(moment.day, calendar.monthrange(year, month)[1])
    return int(moment.replace(year=year, month=month, day=day).timestamp())


def _plan(price: Record) -> Record:
    """The price in the words of Stripe's older API, which subscription items still carry."""
    names = ("id", "active", "billing_scheme", "created", "currency", "product", "metadata")
    recurring = {name: price["recurring"][name] for name in ("interval", "interval_count", "usage_type")}
    amounts = {"amount": price["unit_amount"], "amount_decimal": price["unit_amount_decimal"]}
    return whole("plan", **{name: price[name] for name in names}, **recurring, **amounts)


def _is_left_out(kind: str, name: str) -> bool:
    return name in _LEFT_OUT or (kind == "payment_method" and name not in _OF_A_CARD)


def _none(*names: str) -> Record:
    return dict.fromkeys(names)


def _nothing(kind: str, name: str, hint: object) -> object:
    if type(None) in typing.get_args(hint):
        return None
    if typing.get_origin(hint) is list:
        return []
    if name == "metadata":
        return {}
    raise LookupError(f"{kind} needs {name}")
