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
        if name in named or not (name in _LEFT_OUT or typing.get_origin(hint) is typing.ClassVar)
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


def invoice(id_: str, customer: Record, subscription: Record, lines: list[Record], reason: str, now: int) -> Record:
    """A subscription's invoice, finalized and open; the subscription is under `parent` since 2025-03-31."""
    total = sum(line["amount"] for line in lines)
    due = subscription["days_until_due"]
    return whole(
        "invoice",
        id=id_,
        created=now,
        effective_at=now,
        number=f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04}",
        status="open",
        customer=customer["id"],
        **{f"customer_{name}": customer[name] for name in ("address", "email", "name", "phone", "tax_exempt")},
        account_country="US",
        account_name="Sandbox",
        currency=subscription["currency"],
        billing_reason=reason,
        collection_method=subscription["collection_method"],
        due_date=None if due is None else now + due * 86_400,
        period_start=now,
        period_end=now,
        lines=listed(f"/v1/invoices/{id_}/lines", lines) | {"total_count": len(lines)},
        parent={
            "quote_details": None,
            "subscription_details": {"metadata": subscription["metadata"], "subscription": subscription["id"]},
            "type": "subscription_details",
        },
        attempt_count=0 if due is not None else 1,
        attempted=due is None,
        auto_advance=True,
        **dict.fromkeys(("subtotal", "total", "amount_due", "amount_remaining"), total),
        **dict.fromkeys(("subtotal_excluding_tax", "total_excluding_tax"), total),
        **dict.fromkeys(("amount_paid", "amount_overpaid", "amount_shipping", "starting_balance"), 0),
        **dict.fromkeys(("post_payment_credit_notes_amount", "pre_payment_credit_notes_amount"), 0),
        ending_balance=0,
        automatic_tax=_none("disabled_reason", "liability", "provider", "status") | {"enabled": False},
        issuer={"type": "self"},
        payment_settings=_none("default_mandate", "payment_method_options", "payment_method_types"),
        status_transitions=_none("marked_uncollectible_at", "paid_at", "voided_at") | {"finalized_at": now},
    )


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
