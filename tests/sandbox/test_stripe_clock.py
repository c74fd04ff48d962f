"""The sandbox's clock and Stripe: trials end, subscriptions renew or end, each when it was due."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest
import stripe
from stripe.params import SubscriptionCreateParams

from sandbox.serve import Running
from tests.sandbox.conftest import Receiver

DAY = 86_400
PAID = ["invoice.created", "customer.subscription.updated", "invoice.finalized", "invoice.paid",
        "invoice.payment_succeeded"]  # fmt: skip
UNPAID = [*PAID[:3], "invoice.payment_failed"]


@pytest.fixture
def sdk(served: Running) -> stripe.StripeClient:
    client = stripe.RequestsClient()
    return stripe.StripeClient(
        "sk_test_of_the_tests", base_addresses={"api": served.stripe_base}, http_client=client, max_network_retries=0
    )


def subscribe(
    sdk: stripe.StripeClient, more: SubscriptionCreateParams, *, card: str | None = "pm_card_visa"
) -> stripe.Subscription:
    """One seat, for 29 dollars a week."""
    product = sdk.v1.products.create({"name": "Team"})
    price = sdk.v1.prices.create(
        {"product": product.id, "currency": "usd", "unit_amount": 2900, "recurring": {"interval": "week"}}
    )
    customer = sdk.v1.customers.create({"email": "ada@example.com"})
    if card:
        attached = sdk.v1.payment_methods.attach(card, {"customer": customer.id}).id
        sdk.v1.customers.update(customer.id, {"invoice_settings": {"default_payment_method": attached}})
    return sdk.v1.subscriptions.create({"customer": customer.id, "items": [{"price": price.id}], **more})


def move(served: Running, seconds: int) -> None:
    httpx.post(f"{served.url}/_sandbox/clock", json={"seconds": seconds}).raise_for_status()


def since(sdk: stripe.StripeClient, moment: int) -> list[tuple[str, int]]:
    """The events after the moment, oldest first: type, and how many seconds after it."""
    events = sdk.v1.events.list({"limit": 100, "created": {"gt": moment + 60}}).data
    return [(event.type, event.created - moment) for event in reversed(events)]


def invoices(sdk: stripe.StripeClient, subscription: stripe.Subscription) -> list[tuple[str | None, int, int]]:
    listed = sdk.v1.invoices.list({"subscription": subscription.id}).data
    return [(each.status, each.total, each.created - subscription.created) for each in reversed(listed)]


def test_a_subscription_renews_once_for_each_period_that_passed_when_it_was_due(
    served: Running, sdk: stripe.StripeClient
) -> None:
    begun = subscribe(sdk, {})
    move(served, 7 * DAY - 60)
    assert invoices(sdk, begun) == [("paid", 2900, 0)]
    move(served, 7 * DAY + 60)
    now = sdk.v1.subscriptions.retrieve(begun.id, {"expand": ["latest_invoice"]})
    item = now["items"].data[0]
    period = item.current_period_start - begun.created, item.current_period_end - begun.created
    assert (now.status, period) == ("active", (14 * DAY, 21 * DAY))
    assert invoices(sdk, begun) == [("paid", 2900, days * DAY) for days in (0, 7, 14)]
    assert isinstance(now.latest_invoice, stripe.Invoice)
    assert now.latest_invoice.billing_reason == "subscription_cycle"
    assert now.latest_invoice.lines.data[0].period.end == item.current_period_end
    assert since(sdk, begun.created) == [(kind, days * DAY) for days in (7, 14) for kind in PAID]


def test_the_webhook_of_a_renewal_says_which_period_was_before(
    served: Running, sdk: stripe.StripeClient, receiver: Receiver, until: Callable[[Callable[[], bool]], None]
) -> None:
    begun = subscribe(sdk, {})
    body = {"service": "stripe", "url": receiver.url}
    httpx.post(f"{served.url}/_sandbox/webhooks", json=body).raise_for_status()
    move(served, 7 * DAY)
    until(lambda: len(receiver.taken) == len(PAID))
    events = {event["type"]: event for event in (json.loads(body) for _, body in receiver.taken)}
    updated = events["customer.subscription.updated"]
    before, after = updated["data"]["previous_attributes"], updated["data"]["object"]
    due = begun["items"].data[0].current_period_end
    assert before["items"]["data"][0]["current_period_end"] == due == after["items"]["data"][0]["current_period_start"]
    assert after["latest_invoice"] == events["invoice.paid"]["data"]["object"]["id"] != before["latest_invoice"]
    assert updated["request"] == {"id": None, "idempotency_key": None}
    assert {kind: event["data"]["object"]["status"] for kind, event in events.items()} == dict(
        zip(PAID, ("draft", "active", "open", "paid", "paid"), strict=True)
    )


def test_a_trial_that_is_over_becomes_an_active_subscription_that_is_paid_for(
    served: Running, sdk: stripe.StripeClient
) -> None:
    begun = subscribe(sdk, {"trial_period_days": 3})
    move(served, 3 * DAY)
    assert sdk.v1.subscriptions.retrieve(begun.id).status == "active"
    assert invoices(sdk, begun) == [("paid", 0, 0), ("paid", 2900, 3 * DAY)]


@pytest.mark.parametrize("card", ["pm_card_chargeCustomerFail", None])
def test_a_renewal_that_cannot_be_charged_leaves_its_invoice_open_and_the_subscription_past_due_until_it_is_paid(
    served: Running, sdk: stripe.StripeClient, card: str | None
) -> None:
    begun = subscribe(sdk, {"trial_period_days": 3}, card=card)
    move(served, 10 * DAY)
    late = sdk.v1.subscriptions.retrieve(begun.id)
    assert late.status == "past_due"
    assert invoices(sdk, begun)[1:] == [("open", 2900, days * DAY) for days in (3, 10)]
    first = [*UNPAID, "customer.subscription.updated"]
    assert since(sdk, begun.created) == [(kind, 3 * DAY) for kind in first] + [(kind, 10 * DAY) for kind in UNPAID]
    sdk.v1.invoices.pay(str(late.latest_invoice), {"paid_out_of_band": True})
    assert sdk.v1.subscriptions.retrieve(begun.id).status == "active"


def test_a_subscription_that_was_to_end_with_its_period_ends_then(served: Running, sdk: stripe.StripeClient) -> None:
    begun = subscribe(sdk, {})
    asked = sdk.v1.subscriptions.update(begun.id, {"cancel_at_period_end": True})
    move(served, 30 * DAY)
    ended = sdk.v1.subscriptions.retrieve(begun.id)
    assert (ended.status, ended.ended_at, ended.canceled_at) == ("canceled", asked.cancel_at, asked.canceled_at)
    assert since(sdk, begun.created) == [("customer.subscription.deleted", 7 * DAY)]


def test_what_is_due_first_happens_first_whosever_it_is(served: Running, sdk: stripe.StripeClient) -> None:
    subscribe(sdk, {})
    trial = subscribe(sdk, {"trial_period_days": 3})
    move(served, 18 * DAY)
    moments = [moment for _, moment in since(sdk, trial.created)]
    renewed = [event.created for event in reversed(sdk.v1.events.list({"type": "invoice.paid"}).data)]
    assert len(moments) == 5 * len(PAID)
    assert renewed == sorted(renewed)
