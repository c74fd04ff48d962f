"""The sandbox's Stripe, as the official SDK sees it; and without the SDK, where the SDK is too well-behaved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import stripe
from stripe.params import CustomerCreateParams, SubscriptionCreateParams

from sandbox.objects import API_VERSION
from sandbox.serve import Running

pytestmark = pytest.mark.usefixtures("served")

CARD: CustomerCreateParams = {
    "payment_method": "pm_card_visa",
    "invoice_settings": {"default_payment_method": "pm_card_visa"},
}
BAD_CARD: CustomerCreateParams = {
    "payment_method": "pm_card_chargeCustomerFail",
    "invoice_settings": {"default_payment_method": "pm_card_chargeCustomerFail"},
}


@pytest.fixture
def sdk(served: Running) -> stripe.StripeClient:
    client = stripe.RequestsClient()
    return stripe.StripeClient(
        "sk_test_of_the_tests", base_addresses={"api": served.stripe_base}, http_client=client, max_network_retries=0
    )


@pytest.fixture
def price(sdk: stripe.StripeClient) -> stripe.Price:
    product = sdk.v1.products.create({"name": "Team"})
    return sdk.v1.prices.create(
        {"product": product.id, "currency": "usd", "unit_amount": 2900, "recurring": {"interval": "month"}}
    )


def subscribe(
    sdk: stripe.StripeClient,
    price: stripe.Price,
    card: CustomerCreateParams = CARD,
    more: SubscriptionCreateParams | None = None,
) -> stripe.Subscription:
    customer = sdk.v1.customers.create({"email": "ada@example.com", **card})
    wanted: SubscriptionCreateParams = {"customer": customer.id, "items": [{"price": price.id, "quantity": 2}]}
    return sdk.v1.subscriptions.create({**wanted, **(more or {})})


def plain(told: Any) -> dict[str, Any]:
    return json.loads(str(told))  # type: ignore[no-any-return]


def test_a_customer_is_created_changed_read_and_deleted(sdk: stripe.StripeClient) -> None:
    created = sdk.v1.customers.create({"email": "ada@example.com", "metadata": {"plan": "team", "old": "x"}})
    assert created.id.startswith("cus_")
    sdk.v1.customers.update(created.id, {"name": "Ada", "metadata": {"old": ""}})
    read = sdk.v1.customers.retrieve(created.id)
    assert (read.name, read.email, plain(read.metadata)) == ("Ada", "ada@example.com", {"plan": "team"})
    assert sdk.v1.customers.delete(created.id).deleted
    assert sdk.v1.customers.retrieve(created.id).deleted
    assert sdk.v1.customers.list().data == []


def test_a_subscription_has_its_period_on_the_item_and_its_invoice_names_it_under_parent(
    sdk: stripe.StripeClient, price: stripe.Price
) -> None:
    subscription = subscribe(sdk, price, more={"expand": ["latest_invoice.customer"]})
    item = subscription["items"].data[0]
    invoice = subscription.latest_invoice
    assert isinstance(invoice, stripe.Invoice)
    assert subscription.status == "active"
    assert item.current_period_end > item.current_period_start == subscription.created
    assert invoice.parent is not None
    assert invoice.parent.subscription_details is not None
    assert invoice.parent.subscription_details.subscription == subscription.id
    assert (invoice.status, invoice.total, invoice.amount_paid, invoice.amount_remaining) == ("paid", 5800, 5800, 0)
    assert isinstance(invoice.customer, stripe.Customer)
    assert invoice.customer.email == "ada@example.com"


def test_a_trial_costs_nothing_yet(sdk: stripe.StripeClient, price: stripe.Price) -> None:
    subscription = subscribe(sdk, price, {}, {"trial_period_days": 14, "expand": ["latest_invoice"]})
    assert isinstance(subscription.latest_invoice, stripe.Invoice)
    assert (subscription.status, subscription.latest_invoice.total) == ("trialing", 0)
    assert (
        subscription.trial_end == subscription["items"].data[0].current_period_end == subscription.created + 1_209_600
    )


def test_a_declined_card_leaves_the_subscription_incomplete_until_its_invoice_is_paid(
    sdk: stripe.StripeClient, price: stripe.Price
) -> None:
    subscription = subscribe(sdk, price, BAD_CARD)
    assert subscription.status == "incomplete"
    with pytest.raises(stripe.CardError) as declined:
        sdk.v1.invoices.pay(str(subscription.latest_invoice))
    assert (declined.value.http_status, declined.value.code) == (402, "card_declined")
    paid = sdk.v1.invoices.pay(str(subscription.latest_invoice), {"paid_out_of_band": True})
    assert paid.status == "paid"
    assert sdk.v1.subscriptions.retrieve(subscription.id).status == "active"


def test_a_declined_card_creates_nothing_if_the_caller_says_so(sdk: stripe.StripeClient, price: stripe.Price) -> None:
    with pytest.raises(stripe.CardError):
        subscribe(sdk, price, BAD_CARD, {"payment_behavior": "error_if_incomplete"})
    assert sdk.v1.subscriptions.list({"status": "all"}).data == []


def test_a_canceled_subscription_cannot_be_canceled_again_and_leaves_the_usual_list(
    sdk: stripe.StripeClient, price: stripe.Price
) -> None:
    subscription = subscribe(sdk, price)
    ended = sdk.v1.subscriptions.cancel(subscription.id, {"cancellation_details": {"comment": "too dear"}})
    assert ended.cancellation_details is not None
    assert (ended.status, ended.cancellation_details.comment) == ("canceled", "too dear")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        sdk.v1.subscriptions.cancel(subscription.id)
    assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")
    assert sdk.v1.subscriptions.list().data == []
    assert len(sdk.v1.subscriptions.list({"status": "canceled"}).data) == 1


def test_a_card_is_made_attached_listed_and_detached_for_good(sdk: stripe.StripeClient) -> None:
    ada = sdk.v1.customers.create({}).id
    card = sdk.v1.payment_methods.create({"type": "card", "card": {"token": "tok_visa"}})
    assert (card.customer, card.card and card.card.last4) == (None, "4242")
    assert sdk.v1.payment_methods.attach(card.id, {"customer": ada}).customer == ada
    sdk.v1.customers.update(ada, {"invoice_settings": {"default_payment_method": card.id}})
    assert [each.id for each in sdk.v1.payment_methods.list({"customer": ada, "type": "card"}).data] == [card.id]
    assert sdk.v1.payment_methods.detach(card.id).customer is None
    assert sdk.v1.payment_methods.list({"customer": ada}).data == []
    settings = sdk.v1.customers.retrieve(ada).invoice_settings
    assert settings is not None
    assert settings.default_payment_method is None
    with pytest.raises(stripe.InvalidRequestError, match="was detached from a Customer"):
        sdk.v1.payment_methods.attach(card.id, {"customer": ada})
    with pytest.raises(stripe.CardError):
        sdk.v1.payment_methods.attach("pm_card_chargeDeclined", {"customer": ada})


def test_a_subscription_changes_its_items_and_ends_with_its_period(
    served: Running, sdk: stripe.StripeClient, price: stripe.Price
) -> None:
    subscription = subscribe(sdk, price)
    item = subscription["items"].data[0]
    changed = sdk.v1.subscriptions.update(
        subscription.id, {"items": [{"id": item.id, "quantity": 5}, {"price": price.id}], "metadata": {"seats": "5"}}
    )
    assert [each.quantity for each in changed["items"].data] == [5, 1]
    fewer = sdk.v1.subscriptions.update(subscription.id, {"items": [{"id": item.id, "deleted": True}]})
    assert [each.quantity for each in fewer["items"].data] == [1]
    assert fewer["items"].data[0].current_period_end == item.current_period_end
    ending = sdk.v1.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    assert (ending.status, ending.cancel_at) == ("active", item.current_period_end)
    assert sdk.v1.subscriptions.update(subscription.id, {"cancel_at_period_end": False}).cancel_at is None
    sdk.v1.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    served.sandbox.stripe.account.renew_subscription(subscription.id)
    assert sdk.v1.subscriptions.retrieve(subscription.id).status == "canceled"
    events = sdk.v1.events.list({"types": ["customer.subscription.updated"], "limit": 100}).data
    assert plain(events[-1].data.previous_attributes)["metadata"] == {}


def test_an_invoice_is_drafted_filled_finalized_and_paid(sdk: stripe.StripeClient) -> None:
    product = sdk.v1.products.create({"name": "Chair"})
    once = sdk.v1.prices.create({"product": product.id, "currency": "usd", "unit_amount": 500})
    ada = sdk.v1.customers.create({**CARD}).id
    draft = sdk.v1.invoices.create({"customer": ada, "description": "Thank you", "metadata": {"order": "7"}})
    assert (draft.status, draft.number, draft.total, draft.parent) == ("draft", None, 0, None)
    filled = sdk.v1.invoices.add_lines(
        draft.id,
        {"lines": [{"amount": 1200, "description": "Advice"}, {"pricing": {"price": once.id}, "quantity": 3}]},
    )
    assert [(line.description, line.amount) for line in filled.lines.data] == [("Advice", 1200), ("Chair", 1500)]
    opened = sdk.v1.invoices.finalize_invoice(draft.id)
    assert (opened.status, opened.total, opened.amount_remaining) == ("open", 2700, 2700)
    assert opened.number
    paid = sdk.v1.invoices.pay(draft.id)
    assert (paid.status, paid.amount_paid, paid.amount_remaining) == ("paid", 2700, 0)
    kinds = [event.type for event in sdk.v1.events.list({"type": "invoice.*"}).data]
    assert kinds == [f"invoice.{what}" for what in ("payment_succeeded", "paid", "finalized", "updated", "created")]


def test_an_invoice_that_asks_for_nothing_is_paid_when_it_is_finalized(sdk: stripe.StripeClient) -> None:
    draft = sdk.v1.invoices.create({"customer": sdk.v1.customers.create({}).id})
    assert sdk.v1.invoices.finalize_invoice(draft.id).status == "paid"


def test_an_open_invoice_is_voided_and_another_card_can_pay(sdk: stripe.StripeClient) -> None:
    ada = sdk.v1.customers.create({**BAD_CARD}).id
    card = sdk.v1.payment_methods.attach("pm_card_visa", {"customer": ada}).id
    ids = []
    for _ in range(2):
        draft = sdk.v1.invoices.create({"customer": ada, "collection_method": "send_invoice", "days_until_due": 30})
        sdk.v1.invoices.add_lines(draft.id, {"lines": [{"amount": 100}]})
        ids.append(sdk.v1.invoices.finalize_invoice(draft.id).id)
    voided = sdk.v1.invoices.void_invoice(ids[0])
    assert (voided.status, voided.due_date) == ("void", voided.created + 30 * 86_400)
    with pytest.raises(stripe.CardError):
        sdk.v1.invoices.pay(ids[1])
    assert sdk.v1.invoices.pay(ids[1], {"payment_method": card}).status == "paid"


def test_deleting_a_customer_ends_its_subscriptions(sdk: stripe.StripeClient, price: stripe.Price) -> None:
    subscription = subscribe(sdk, price)
    sdk.v1.customers.delete(str(subscription.customer))
    assert sdk.v1.subscriptions.retrieve(subscription.id).status == "canceled"


def test_every_change_is_an_event_with_what_was_before_and_which_request_did_it(sdk: stripe.StripeClient) -> None:
    customer = sdk.v1.customers.create({"name": "Ada"}, {"idempotency_key": "key-1"})
    sdk.v1.customers.update(customer.id, {"name": "Grace"})
    updated, created = sdk.v1.events.list({"types": ["customer.created", "customer.updated"]}).data
    assert created.data.object["name"] == "Ada"
    assert updated.data.object["name"] == "Grace"
    assert plain(updated.data.previous_attributes) == {"name": "Ada"}
    assert created.request is not None
    assert created.request.idempotency_key == "key-1"
    assert created.api_version == API_VERSION
    assert [event.type for event in sdk.v1.events.list({"type": "customer.*"}).data] == [
        "customer.updated",
        "customer.created",
    ]


def test_lists_page_to_the_end_without_repeating_or_missing_one(served: Running, sdk: stripe.StripeClient) -> None:
    served.sandbox.seed(230)
    ids = [customer.id for customer in sdk.v1.customers.list({"limit": 100}).auto_paging_iter()]
    assert len(ids) == len(set(ids)) == 230
    assert [call.path for call in served.sandbox.wire.calls] == ["/v1/customers"] * 3
    back = sdk.v1.customers.list({"limit": 10, "ending_before": ids[30]})
    assert [customer.id for customer in back.data] == ids[20:30]
    assert back.has_more


def test_lists_filter_by_when_things_were_created(served: Running, sdk: stripe.StripeClient) -> None:
    served.sandbox.seed(50)
    everyone = sdk.v1.customers.list({"limit": 50}).data
    edge = everyone[20].created
    newer = sdk.v1.customers.list({"limit": 50, "created": {"gte": edge}}).data
    older = sdk.v1.customers.list({"limit": 50, "created": {"lt": edge}}).data
    assert [each.id for each in (*newer, *older)] == [each.id for each in everyone]
    assert [each.id for each in sdk.v1.customers.list({"created": edge}).data] == [everyone[20].id]


def test_invoices_are_listed_by_subscription(served: Running, sdk: stripe.StripeClient) -> None:
    served.sandbox.seed(30)
    subscription = sdk.v1.subscriptions.list({"status": "active"}).data[-1]
    invoices = sdk.v1.invoices.list({"subscription": subscription.id, "limit": 100}).data
    assert invoices[0].id == subscription.latest_invoice
    assert {invoice.customer for invoice in invoices} == {subscription.customer}
    assert [invoice.created for invoice in invoices] == sorted((each.created for each in invoices), reverse=True)


def test_the_same_key_and_parameters_give_the_same_answer_once(stripe_http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "key-1"}
    first = stripe_http.post("/v1/customers", data={"name": "Ada"}, headers=headers)
    again = stripe_http.post("/v1/customers", data={"name": "Ada"}, headers=headers)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Original-Request"] == first.headers["Request-Id"] != again.headers["Request-Id"]
    assert "Idempotent-Replayed" not in first.headers
    assert len(stripe_http.get("/v1/customers").json()["data"]) == 1


def test_a_refusal_of_the_work_itself_is_replayed_but_a_wrong_parameter_is_not(stripe_http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "key-1"}
    stripe_http.post("/v1/customers", data={"nmae": "Ada"}, headers=headers)
    assert stripe_http.post("/v1/customers", data={"name": "Ada"}, headers=headers).status_code == 200
    headers = {"Idempotency-Key": "key-2"}
    params = {"customer": "cus_0", "items[0][price]": "price_0"}
    stripe_http.post("/v1/subscriptions", data=params, headers=headers)
    again = stripe_http.post("/v1/subscriptions", data=params, headers=headers)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (400, "true")


def test_the_version_that_was_asked_for_is_recorded(served: Running, sdk: stripe.StripeClient) -> None:
    sdk.v1.customers.list()
    assert served.sandbox.wire.calls[-1].api_version == API_VERSION


def test_the_sandbox_speaks_the_version_that_the_sdk_was_made_for() -> None:
    assert stripe.api_version == API_VERSION


def test_ids_repeat_with_the_same_seed_only() -> None:
    from sandbox.app import Sandbox

    def first_id(seed: str | None) -> str:
        sandbox = Sandbox(id_seed=seed)
        sandbox.seed(1)
        return str(sandbox.stripe.account.page("customer", {})["data"][0]["id"])

    assert first_id("demo") == first_id("demo") != first_id(None)


ONE_TIME, ENDED = "(one-time price)", "(ended subscription)"
PAID, CARDLESS = "(paid invoice)", "(customer without a card)"
PRICE, CUSTOMER, PRODUCT = "(price)", "(customer)", "(product)"
OLD, EURO = "(inactive price)", "(price in euros)"
ACTIVE, ITEM, DRAFT = "(active subscription)", "(its item)", "(draft)"
CARD_OF_ANOTHER, LOOSE_CARD = "(another's card)", "(card of nobody)"

UNKNOWN, MISSING, NOTHING = "parameter_unknown", "parameter_missing", "resource_missing"
NO_INTEGER = "parameter_invalid_integer"

# method, path, parameters -> status, code, param, a part of the message
WRONG: list[tuple[str, str, dict[str, str], tuple[int, str | None, str | None, str]]] = [
    ("POST", "/v1/customers", {"emial": "a@b.co"}, (400, UNKNOWN, "emial", "Received unknown")),
    ("POST", "/v1/customers", {"email": "no address"}, (400, "email_invalid", "email", "Invalid email address")),
    ("POST", "/v1/customers", {"email": ""}, (400, "parameter_invalid_empty", "email", "You passed an empty string")),
    ("POST", "/v1/customers", {"email[a]": "b"}, (400, None, "email", "Invalid string")),
    ("POST", "/v1/customers", {"email": "a@b.co", "email[a]": "b"}, (400, None, "email", "Invalid object")),
    ("POST", "/v1/customers", {"balance": "10"}, (400, None, "balance", "The sandbox does not act on this parameter")),
    ("POST", "/v1/customers", {"metadata": "x"}, (400, None, "metadata", "Invalid object")),
    ("POST", "/v1/customers", {"metadata[a][b]": "x"}, (400, None, "metadata[a]", "Invalid string")),
    ("POST", "/v1/customers", {"balance": "ten"}, (400, NO_INTEGER, "balance", "Invalid integer: ten")),
    ("POST", "/v1/customers", {"tax_exempt": "some"}, (400, None, "tax_exempt", "one of exempt, none or reverse")),
    ("POST", "/v1/customers", {"validate": "perhaps"}, (400, "parameter_invalid_boolean", "validate", "Invalid b")),
    ("POST", "/v1/customers", {"shipping[name]": "A"}, (400, MISSING, "shipping[address]", "Missing required")),
    ("POST", "/v1/customers", {"address[town]": "Bath"}, (400, UNKNOWN, "address[town]", "unknown parameter")),
    ("POST", "/v1/customers", {"preferred_locales": "en"}, (400, None, "preferred_locales", "Invalid array")),
    ("POST", "/v1/customers", {"payment_method": "pm_0"}, (400, NOTHING, "payment_method", "No such Payment")),
    ("POST", "/v1/customers", {"invoice_settings[default_payment_method]": "pm_0"},
     (400, NOTHING, "invoice_settings[default_payment_method]", "does not have a payment method")),
    ("POST", "/v1/customers", {"coupon": "SPRING"}, (400, UNKNOWN, "coupon", "Received unknown")),
    ("POST", "/v1/customers", {"phone": "1", "expand[]": "subscriptoins"}, (400, None, "expand", "cannot be expanded")),
    ("GET", "/v1/customers/cus_0", {}, (404, NOTHING, "id", "No such customer: 'cus_0'")),
    ("POST", "/v1/customers/cus_0", {"name": "A"}, (404, NOTHING, "id", "No such customer")),
    ("DELETE", "/v1/customers/cus_0", {}, (404, NOTHING, "id", "No such customer")),
    ("GET", "/v1/customers", {"limit": "101"}, (400, NO_INTEGER, "limit", "less than or equal to 100")),
    ("GET", "/v1/customers", {"limit": "0"}, (400, NO_INTEGER, "limit", "greater than or equal to 1")),
    ("GET", "/v1/customers", {"limit": "all"}, (400, NO_INTEGER, "limit", "Invalid integer: all")),
    ("GET", "/v1/customers", {"starting_after": "cus_0"}, (400, NOTHING, "starting_after", "No such customer")),
    ("GET", "/v1/customers", {"starting_after": CUSTOMER, "ending_before": CUSTOMER}, (400, None, None, "both")),
    ("GET", "/v1/customers", {"created[since]": "1"}, (400, UNKNOWN, "created[since]", "unknown parameter")),
    ("GET", "/v1/customers", {"page": "2"}, (400, UNKNOWN, "page", "Received unknown")),
    ("POST", "/v1/products", {}, (400, MISSING, "name", "Missing required param: name")),
    ("POST", "/v1/prices", {"currency": "usd"}, (400, MISSING, "product", "Missing required param: product")),
    ("POST", "/v1/prices", {"currency": "usd", "product": "prod_0", "unit_amount": "1"},
     (400, NOTHING, "product", "No such product")),
    ("POST", "/v1/prices", {"currency": "dollars", "product": PRODUCT, "unit_amount": "1"},
     (400, None, "currency", "Invalid currency: dollars")),
    ("POST", "/v1/prices", {"currency": "usd", "recurring[interval]": "fortnight"},
     (400, None, "recurring[interval]", "must be one of day, month, week or year")),
    ("POST", "/v1/subscriptions", {"items[0][price]": PRICE}, (400, MISSING, "customer", "Missing required")),
    ("POST", "/v1/subscriptions", {"customer": CUSTOMER}, (400, MISSING, "items", "Missing required")),
    ("POST", "/v1/subscriptions", {"customer": CUSTOMER, "items[0][quantity]": "1"},
     (400, MISSING, "items[0][price]", "Missing required param")),
    ("POST", "/v1/subscriptions", {"customer": CUSTOMER, "items[0][price]": "price_0"},
     (400, NOTHING, "items[0][price]", "No such price")),
    ("POST", "/v1/subscriptions", {"customer": CUSTOMER, "items[0][price]": ONE_TIME},
     (400, None, "items[0][price]", "only accepts prices with `type=recurring`")),
    ("POST", "/v1/subscriptions", {"customer": CUSTOMER, "items[0][price]": OLD},
     (400, None, "items[0][price]", "The price specified is inactive")),
    ("POST", "/v1/subscriptions", {"customer": CUSTOMER, "items[0][price]": PRICE, "items[1][price]": EURO},
     (400, None, "items[1][price]", "doesn't match the expected currency: `usd`")),
    ("POST", "/v1/subscriptions", {"customer": CUSTOMER, "items[0][discounts][0][coupon]": "SPRING"},
     (400, None, "items.discounts.coupon", "The sandbox does not act on this parameter")),
    ("POST", "/v1/subscriptions",
     {"customer": CUSTOMER, "items[0][price]": PRICE, "payment_behavior": "default_incomplete"},
     (400, None, "payment_behavior", "The sandbox does not act on this payment_behavior")),
    ("POST", "/v1/subscriptions", {"customer": "cus_0", "items[0][price]": PRICE},
     (400, NOTHING, "customer", "No such customer")),
    ("POST", "/v1/subscriptions", {"customer": CARDLESS, "items[0][price]": PRICE},
     (400, NOTHING, None, "no attached payment source")),
    ("POST", "/v1/subscriptions", {"customer": CUSTOMER, "items[0][price]": PRICE, "collection_method": "send_invoice"},
     (400, MISSING, "days_until_due", "Missing required")),
    ("POST", "/v1/subscriptions", {"customer": CUSTOMER, "items[0][price]": PRICE, "quantity": "2"},
     (400, UNKNOWN, "quantity", "Received unknown")),
    ("POST", "/v1/customers", {"invoice_settings[default_payment_method]": CARD_OF_ANOTHER},
     (400, NOTHING, "invoice_settings[default_payment_method]", "does not have a payment method")),
    ("POST", f"/v1/customers/{CARDLESS}", {"invoice_settings[default_payment_method]": CARD_OF_ANOTHER},
     (400, NOTHING, "invoice_settings[default_payment_method]", "must be attached to the customer")),
    ("POST", "/v1/payment_methods", {}, (400, MISSING, "type", "Missing required param: type")),
    ("POST", "/v1/payment_methods", {"type": "card"}, (400, MISSING, "card", "Missing required param: card")),
    ("POST", "/v1/payment_methods", {"type": "cheque"}, (400, None, "type", "must be one of")),
    ("POST", "/v1/payment_methods", {"type": "sepa_debit"}, (400, None, "type", "The sandbox does not act on")),
    ("POST", "/v1/payment_methods", {"type": "card", "card[number]": "4242424242424242"},
     (402, None, None, "Sending credit card numbers directly")),
    ("POST", "/v1/payment_methods", {"type": "card", "card[token]": "tok_0"},
     (400, NOTHING, "card[token]", "No such token: 'tok_0'")),
    ("POST", "/v1/payment_methods/pm_card_visa/attach", {}, (400, MISSING, "customer", "Missing required")),
    ("POST", "/v1/payment_methods/pm_card_visa/attach", {"customer": "cus_0"},
     (400, NOTHING, "customer", "No such customer")),
    ("POST", "/v1/payment_methods/pm_0/attach", {"customer": CUSTOMER}, (404, NOTHING, "id", "No such PaymentMethod")),
    ("POST", f"/v1/payment_methods/{CARD_OF_ANOTHER}/attach", {"customer": CARDLESS},
     (400, None, None, "has already been attached to a customer")),
    ("POST", f"/v1/payment_methods/{LOOSE_CARD}/detach", {}, (400, None, None, "is not attached to a customer")),
    ("POST", f"/v1/payment_methods/{LOOSE_CARD}/detach", {"customer": CUSTOMER},
     (400, UNKNOWN, "customer", "Received unknown")),
    ("POST", f"/v1/subscriptions/{ENDED}", {"description": "x"}, (400, None, None, "A canceled subscription can only")),
    ("POST", f"/v1/subscriptions/{ACTIVE}", {"quantity": "2"}, (400, UNKNOWN, "quantity", "Received unknown")),
    ("POST", f"/v1/subscriptions/{ACTIVE}", {"items[0][id]": "si_0", "items[0][quantity]": "2"},
     (400, NOTHING, "items[0][id]", "No such subscription_item: 'si_0'")),
    ("POST", f"/v1/subscriptions/{ACTIVE}", {"items[0][quantity]": "2"},
     (400, MISSING, "items[0][price]", "Missing required")),
    ("POST", f"/v1/subscriptions/{ACTIVE}", {"items[0][id]": ITEM, "items[0][deleted]": "true"},
     (400, None, "items", "must have at least one active plan")),
    ("POST", f"/v1/subscriptions/{ACTIVE}", {"items[0][id]": ITEM, "items[0][price]": EURO},
     (400, None, "items[0][price]", "doesn't match the expected currency")),
    ("POST", f"/v1/subscriptions/{ACTIVE}", {"proration_behavior": "always_invoice"},
     (400, None, "proration_behavior", "The sandbox makes no prorations")),
    ("POST", f"/v1/subscriptions/{ACTIVE}", {"cancel_at_period_end": "soon"},
     (400, "parameter_invalid_boolean", "cancel_at_period_end", "Invalid boolean")),
    ("POST", "/v1/subscriptions/sub_0", {"description": "x"}, (404, NOTHING, "id", "No such subscription: 'sub_0'")),
    ("POST", "/v1/invoices", {}, (400, MISSING, "customer", "Missing required")),
    ("POST", "/v1/invoices", {"customer": CUSTOMER, "collection_method": "send_invoice"},
     (400, MISSING, "days_until_due", "Missing required")),
    ("POST", "/v1/invoices", {"customer": CUSTOMER, "lines[0][amount]": "5"},
     (400, UNKNOWN, "lines", "Received unknown")),
    ("POST", f"/v1/invoices/{DRAFT}/add_lines", {}, (400, MISSING, "lines", "Missing required")),
    ("POST", f"/v1/invoices/{DRAFT}/add_lines", {"lines[0][description]": "x"},
     (400, None, "lines[0]", "either `amount` or `pricing[price]`")),
    ("POST", f"/v1/invoices/{DRAFT}/add_lines", {"lines[0][pricing][price]": PRICE},
     (400, None, "lines[0][pricing][price]", "only accepts prices with `type=one_time`")),
    ("POST", f"/v1/invoices/{PAID}/add_lines", {"lines[0][amount]": "5"},
     (400, "invoice_not_editable", None, "no longer editable")),
    ("POST", f"/v1/invoices/{PAID}/finalize", {}, (400, None, None, "already finalized")),
    ("POST", f"/v1/invoices/{PAID}/void", {}, (400, None, None, "This invoice isn't open")),
    ("POST", f"/v1/invoices/{DRAFT}/void", {}, (400, None, None, "This invoice isn't open")),
    ("POST", f"/v1/invoices/{DRAFT}/pay", {}, (400, None, None, "This invoice is a draft")),
    ("POST", "/v1/invoices/in_0/void", {}, (404, NOTHING, "id", "No such invoice: 'in_0'")),
    ("GET", "/v1/invoices", {"status": "late"}, (400, None, "status", "must be one of")),
    ("DELETE", f"/v1/subscriptions/{ENDED}", {}, (404, NOTHING, "id", "No such subscription")),
    ("POST", f"/v1/invoices/{PAID}/pay", {}, (400, None, None, "Invoice is already paid")),
    ("GET", "/v1/events", {"type": "a", "types[]": "b"}, (400, None, "type", "You may only specify one")),
    ("GET", "/v1/custmers", {}, (404, None, None, "Unrecognized request URL (GET: /v1/custmers)")),
    ("PUT", "/v1/customers", {}, (404, None, None, "Unrecognized request URL (PUT: /v1/customers)")),
]  # fmt: skip


@pytest.fixture
def things(served: Running) -> dict[str, str]:
    """What the wrong requests are wrong about."""
    account = served.sandbox.stripe.account
    product = account.create_product({"name": "Team"})["id"]
    money = {"product": product, "currency": "usd", "unit_amount": 2900}
    monthly = {**money, "recurring": {"interval": "month"}}
    price = account.create_price(monthly)["id"]
    customer = account.create_customer({**CARD})["id"]
    subscription = account.create_subscription({"customer": customer, "items": [{"price": price}]})
    account.cancel_subscription(subscription["id"], {})
    active = account.create_subscription({"customer": customer, "items": [{"price": price}]})
    return {
        ACTIVE: active["id"],
        ITEM: active["items"]["data"][0]["id"],
        DRAFT: account.create_invoice({"customer": customer})["id"],
        CARD_OF_ANOTHER: account.get("customer", customer)["invoice_settings"]["default_payment_method"],
        LOOSE_CARD: account.create_payment_method({"type": "card", "card": {"token": "tok_visa"}})["id"],
        CUSTOMER: customer,
        CARDLESS: account.create_customer({})["id"],
        PRODUCT: product,
        PRICE: price,
        OLD: account.create_price({**monthly, "active": False})["id"],
        EURO: account.create_price({**monthly, "currency": "eur"})["id"],
        ONE_TIME: account.create_price(money)["id"],
        ENDED: subscription["id"],
        PAID: subscription["latest_invoice"],
    }


@pytest.mark.parametrize(("method", "path", "params", "refusal"), WRONG)
def test_a_wrong_request_is_refused_as_stripe_refuses_it(
    stripe_http: httpx.Client,
    things: dict[str, str],
    method: str,
    path: str,
    params: dict[str, str],
    refusal: tuple[int, str | None, str | None, str],
) -> None:
    for name, id_ in things.items():
        path = path.replace(name, id_)
    form = {name: things.get(value, value) for name, value in params.items()}
    sent = {"data": form} if method == "POST" else {"params": form}
    answer = stripe_http.request(method, path, **sent)  # type: ignore[arg-type]
    status, code, param, message = refusal
    error = answer.json()["error"]
    assert (answer.status_code, error.get("code"), error.get("param")) == (status, code, param)
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"
    if "Unrecognized" not in message:
        assert answer.headers["Request-Id"].startswith("req_")


@pytest.mark.parametrize(
    ("headers", "status", "kind", "message"),
    [
        ({"Authorization": ""}, 401, "invalid_request_error", "You did not provide an API key"),
        ({"Authorization": "Bearer sk_live_a_real_one"}, 401, "invalid_request_error", "Invalid API Key provided"),
        ({"Stripe-Version": "2020-08-27"}, 400, "invalid_request_error", "Invalid Stripe API version: 2020-08-27"),
        ({"Content-Type": "application/json"}, 400, "invalid_request_error", "check that your POST content type"),
        ({"Idempotency-Key": "k" * 256}, 400, "idempotency_error", "at most 255 characters"),
        ({"Idempotency-Key": "used"}, 400, "idempotency_error", "same parameters they were first used with"),
        ({"Idempotency-Key": "used-elsewhere"}, 400, "idempotency_error", "same endpoint they were first used for"),
    ],
)  # fmt: skip
def test_a_request_with_wrong_headers_is_refused_as_stripe_refuses_it(
    stripe_http: httpx.Client, headers: dict[str, str], status: int, kind: str, message: str
) -> None:
    stripe_http.post("/v1/customers", data={"name": "Ada"}, headers={"Idempotency-Key": "used"})
    stripe_http.post("/v1/products", data={"name": "Ada"}, headers={"Idempotency-Key": "used-elsewhere"})
    answer = stripe_http.post("/v1/customers", content="name=Grace", headers=FORM | headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert message in answer.json()["error"]["message"]
    assert "real_one" not in answer.text


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(autouse=True)
def _no_telemetry() -> Iterator[None]:
    before, stripe.enable_telemetry = stripe.enable_telemetry, False
    yield
    stripe.enable_telemetry = before
