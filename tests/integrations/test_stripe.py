"""The Stripe client against the sandbox: the real SDK, over a real socket."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from errors import PivotalError
from events.cause import Cause, caused_by
from events.log import EventLog, open_log
from integrations.calls import RetryBudget
from integrations.stripe import Stripe, StripeConfig, StripeIntegrationError, period_end, subscription_of
from sandbox.serve import Running
from sandbox.wire import Call, Misbehaviour
from tests.integrations.web import Reply, Web

KEY = "sk_test_this_is_never_logged"
REFUSED_KEY = "sk_live_this_is_never_logged"
WRONG = "ada@@example.com"
TRIES = 3


@pytest.fixture
def stripe(served: Running) -> Stripe:
    return client(served.stripe_base)


def client(base: str, key: str = KEY, log: EventLog | None = None) -> Stripe:
    budget = RetryBudget(attempts=TRIES, first_wait=0.01, longest_wait=2)
    return Stripe(StripeConfig(api_key=SecretStr(key), api_base=base, retry=budget), log)


def price(served: Running) -> str:
    account = served.sandbox.stripe.account
    product = account.create_product({"name": "Team"})["id"]
    recurring = {"interval": "month"}
    money = {"product": product, "currency": "usd", "unit_amount": 2900, "recurring": recurring}
    return str(account.create_price(money)["id"])


def customer(served: Running) -> str:
    card = {"payment_method": "pm_card_visa", "invoice_settings": {"default_payment_method": "pm_card_visa"}}
    return str(served.sandbox.stripe.account.create_customer(card)["id"])


def calls(served: Running, method: str | None = None) -> list[Call]:
    return [each for each in served.sandbox.wire.calls if method in {None, each.method}]


# --- what works -------------------------------------------------------------------------------------------------


def test_a_customer_is_created_once_for_one_operation(served: Running, stripe: Stripe) -> None:
    first = stripe.customers.create({"email": "ada@example.com"}, operation_id="signup-1")
    again = stripe.customers.create({"email": "ada@example.com"}, operation_id="signup-1")
    other = stripe.customers.create({"email": "ada@example.com"}, operation_id="signup-2")
    assert first.id == again.id != other.id
    assert first.email == "ada@example.com"
    assert [each.api_version for each in calls(served)] == ["2026-10-28.endive"] * 3


def test_a_rerun_in_another_process_repeats_nothing(served: Running, stripe: Stripe) -> None:
    first = stripe.customers.create({"name": "Ada"}, operation_id="signup-1")
    assert client(served.stripe_base).customers.create({"name": "Ada"}, operation_id="signup-1").id == first.id


def test_a_subscription_is_created_and_canceled_and_canceling_it_again_changes_nothing(
    served: Running, stripe: Stripe
) -> None:
    created = stripe.subscriptions.create(
        {"customer": customer(served), "items": [{"price": price(served), "quantity": 2}]}, operation_id="order-1"
    )
    assert (created.status, created["items"].data[0].quantity) == ("active", 2)
    ended = stripe.subscriptions.cancel(created.id, {"cancellation_details": {"feedback": "unused"}})
    assert ended.status == "canceled"
    assert stripe.subscriptions.cancel(created.id).canceled_at == ended.canceled_at


def test_a_customer_is_changed_read_and_deleted_and_deleting_it_again_changes_nothing(
    served: Running, stripe: Stripe
) -> None:
    id_ = stripe.customers.create({"name": "Ada"}, operation_id="signup-1").id
    stripe.customers.update(id_, {"metadata": {"plan": "team"}}, operation_id="rename-1")
    read = stripe.customers.get(id_)
    assert (read.name, read.metadata and read.metadata["plan"]) == ("Ada", "team")
    served.sandbox.wire.misbehave(Misbehaviour(service="stripe", kind="reset", done=True))
    assert stripe.customers.delete(id_).deleted
    assert stripe.customers.delete(id_).deleted
    with pytest.raises(StripeIntegrationError, match="No such customer"):
        stripe.customers.delete("cus_0")


def test_a_customers_card_is_attached_and_made_the_default(stripe: Stripe) -> None:
    first = stripe.customers.create({"name": "Ada"}, operation_id="signup-1", payment_method="pm_card_visa")
    other = stripe.customers.create(operation_id="signup-2")
    card = stripe.payment_methods.create({"type": "card", "card": {"token": "tok_mastercard"}}, operation_id="card-1")
    other = stripe.customers.update(other.id, {"name": "Bob"}, operation_id="card-1", payment_method=card.id)
    for customer, brand in ((first, "visa"), (other, "mastercard")):
        (attached,) = stripe.payment_methods.list(customer.id, {"type": "card"})
        assert attached.card is not None
        assert customer.invoice_settings is not None
        assert (customer.invoice_settings.default_payment_method, attached.card.brand) == (attached.id, brand)
    assert other.name == "Bob"


def test_a_card_is_attached_and_detached_once_however_often_it_is_run(stripe: Stripe) -> None:
    id_ = stripe.customers.create(operation_id="signup-1").id
    for _ in range(2):
        card = stripe.payment_methods.attach("pm_card_visa", id_, operation_id="card-1")
    assert [each.id for each in stripe.payment_methods.list(id_)] == [card.id]
    for _ in range(2):
        assert stripe.payment_methods.detach(card.id, operation_id="card-1").customer is None
    assert list(stripe.payment_methods.list(id_)) == []


def test_a_subscription_begins_with_a_trial_and_what_it_refers_to(served: Running, stripe: Stripe) -> None:
    created = stripe.subscriptions.create(
        {
            "customer": customer(served),
            "items": [{"price": price(served), "quantity": 2}],
            "trial_period_days": 14,
            "metadata": {"local_subscription_id": "sub-7"},
            "expand": ["latest_invoice", "customer"],
        },
        operation_id="order-1",
    )
    invoice: Any = created.latest_invoice
    assert (created.status, created.metadata["local_subscription_id"]) == ("trialing", "sub-7")
    assert subscription_of(invoice) == created.id
    assert subscription_of(stripe.invoices.get(invoice.id, {"expand": ["customer"]})) == created.id
    assert period_end(created) == datetime.fromtimestamp(created.created, UTC) + timedelta(days=14)
    assert stripe.subscriptions.get(created.id).customer == created.customer.id  # type: ignore[union-attr]


def test_the_quantity_of_a_subscription_is_that_of_its_item(served: Running, stripe: Stripe) -> None:
    wish: Any = {"customer": customer(served), "items": [{"price": price(served)}]}
    id_ = stripe.subscriptions.create(wish, operation_id="order-1").id
    changed = stripe.subscriptions.update(id_, {"metadata": {"seats": "5"}}, operation_id="seats-1", quantity=5)
    assert ([item.quantity for item in changed["items"].data], changed.metadata["seats"]) == ([5], "5")
    stripe.subscriptions.update(id_, {"items": [{"price": price(served)}]}, operation_id="more-1")
    with pytest.raises(PivotalError, match=r"has 2 items, not one\n  hint: name the item"):
        stripe.subscriptions.update(id_, operation_id="seats-2", quantity=1)


def test_a_subscription_is_canceled_for_the_end_of_its_period_and_listed(served: Running, stripe: Stripe) -> None:
    wish: Any = {"customer": customer(served), "items": [{"price": price(served)}]}
    id_ = stripe.subscriptions.create(wish, operation_id="order-1").id
    ending = stripe.subscriptions.cancel_at_period_end(id_, operation_id="end-1")
    assert (ending.status, ending.cancel_at_period_end) == ("active", True)
    assert [each.id for each in stripe.subscriptions.list({"status": "active"})] == [id_]
    stripe.subscriptions.cancel(id_)
    assert list(stripe.subscriptions.list()) == []
    assert [each.id for each in stripe.subscriptions.list({"status": "all"})] == [id_]


def test_an_invoice_is_drafted_with_lines_once_finalized_and_paid_or_voided(served: Running, stripe: Stripe) -> None:
    payer = customer(served)

    def draft(operation_id: str) -> str:
        lines: Any = [{"description": "Advice", "amount": 9900}]
        return str(stripe.invoices.create({"customer": payer}, operation_id=operation_id, lines=lines).id)

    paid, voided = draft("invoice-1"), draft("invoice-2")
    assert draft("invoice-1") == paid
    for id_ in (paid, voided):
        opened = stripe.invoices.finalize(id_, operation_id=f"finalize-{id_}")
        assert (opened.status, opened.total, subscription_of(opened)) == ("open", 9900, None)
    assert stripe.invoices.pay(paid, operation_id="pay-1").amount_paid == 9900
    assert stripe.invoices.void(voided, operation_id="void-1").status == "void"
    assert stripe.invoices.get(voided).status == "void"
    assert [each.id for each in stripe.invoices.list({"status": "paid"})] == [paid]
    assert stripe.invoices.create({"customer": payer}, operation_id="empty-1").total == 0


def test_a_refused_payment_is_not_tried_again_and_another_doing_can_succeed(served: Running, stripe: Stripe) -> None:
    payer = stripe.customers.create(operation_id="signup-1", payment_method="pm_card_chargeCustomerFail").id
    lines: Any = [{"amount": 9900}]
    id_ = str(stripe.invoices.create({"customer": payer}, operation_id="invoice-1", lines=lines).id)
    stripe.invoices.finalize(id_, operation_id="invoice-1")
    before = len(calls(served))
    with pytest.raises(StripeIntegrationError, match="card was declined") as refused:
        stripe.invoices.pay(id_, operation_id="pay-1")
    assert (refused.value.status, refused.value.code, refused.value.retryable) == (402, "card_declined", False)
    assert "another payment method" in str(refused.value.hint)
    assert len(calls(served)) == before + 1
    card = stripe.payment_methods.attach("pm_card_visa", payer, operation_id="card-1").id
    assert stripe.invoices.pay(id_, {"payment_method": card}, operation_id="pay-2").status == "paid"


@pytest.mark.parametrize("count", [0, 101])
def test_every_list_is_read_to_its_end(served: Running, stripe: Stripe, count: int) -> None:
    payer = customer(served)
    account = served.sandbox.stripe.account
    for _ in range(count):
        account.attach_payment_method("pm_card_visa", {"customer": payer})
        account.create_invoice({"customer": payer})
    assert len(list(stripe.invoices.list({"customer": payer}))) == count
    assert len(list(stripe.payment_methods.list(payer))) == count + 1


# --- what is told -----------------------------------------------------------------------------------------------


def test_every_change_is_told_once_with_its_cause_and_nothing_personal(served: Running, tmp_path: Path) -> None:
    with closing(open_log(f"sqlite:///{tmp_path / 'events.db'}")) as log, caused_by(Cause("order-7")):
        stripe, monthly = client(served.stripe_base, log=log), price(served)
        for _ in range(2):  # a rerun
            ada = stripe.customers.create({"email": "ada@example.com"}, operation_id="a", payment_method="pm_card_visa")
            wish: Any = {"customer": ada.id, "items": [{"price": monthly}], "expand": ["customer"]}
            subscription = stripe.subscriptions.create(wish, operation_id="a")
            stripe.subscriptions.update(subscription.id, {"metadata": {"a": "b"}}, operation_id="a")
            stripe.subscriptions.cancel(subscription.id)
            draft = stripe.invoices.create({"customer": ada.id}, operation_id="a", lines=[{"amount": 100}])
            stripe.invoices.finalize(str(draft.id), operation_id="a")
            stripe.invoices.pay(str(draft.id), operation_id="a")
            stripe.payment_methods.attach("pm_card_visa", ada.id, operation_id="b")
        stripe.customers.delete(ada.id)
        events = [recorded.event for recorded in log.read(0, 100)]
    assert [event.type.removeprefix("pivotal.stripe.") for event in events] == [
        "customer.created",
        "subscription.created",
        "subscription.updated",
        "subscription.canceled",
        "invoice.created",
        "invoice.lines_added",
        "invoice.finalized",
        "invoice.paid",
        "payment_method.attached",
        "customer.deleted",
    ]
    assert {event.metadata.correlation_id for event in events} == {"order-7"}
    created = events[1]
    assert (created.aggregate_type, created.aggregate_id) == ("subscription", subscription.id)
    assert created.data == {"customer": ada.id, "status": "active", "livemode": False}
    assert "ada@" not in "".join(event.model_dump_json() for event in events)


def test_a_change_that_fails_is_not_told(served: Running, tmp_path: Path) -> None:
    with closing(open_log(f"sqlite:///{tmp_path / 'events.db'}")) as log:
        with pytest.raises(StripeIntegrationError):
            client(served.stripe_base, log=log).customers.create({"email": "no address"}, operation_id="a")
        assert log.head() == 0


def test_a_subscription_that_never_was_cannot_be_canceled(stripe: Stripe) -> None:
    with pytest.raises(StripeIntegrationError, match="No such subscription: 'sub_0'") as error:
        stripe.subscriptions.cancel("sub_0")
    assert (error.value.status, error.value.code) == (404, "resource_missing")


def test_a_list_is_read_page_by_page_to_its_end(served: Running, stripe: Stripe) -> None:
    served.sandbox.seed(230)
    ids = [each.id for each in stripe.customers.list()]
    assert len(set(ids)) == len(ids) == 230
    assert len(calls(served)) == 3


def test_a_page_that_fails_is_read_again_and_no_customer_is_missed(served: Running, stripe: Stripe) -> None:
    served.sandbox.seed(230)
    listed = stripe.customers.list({"limit": 50})
    ids = [next(listed).id for _ in range(50)]
    served.sandbox.wire.misbehave(Misbehaviour(service="stripe", kind="reset", calls=TRIES - 1))
    ids += [each.id for each in listed]
    assert len(set(ids)) == len(ids) == 230


def test_lists_take_filters(served: Running, stripe: Stripe) -> None:
    served.sandbox.seed(50)
    edge = next(stripe.customers.list()).created
    assert len(list(stripe.customers.list({"created": {"gte": edge}}))) == 1
    stripe.customers.create({"name": "Ada"}, operation_id="signup-1")
    assert [event.type for event in stripe.events.list({"type": "customer.*"})] == ["customer.created"]


# --- what fails -------------------------------------------------------------------------------------------------


def test_a_list_is_tried_as_often_as_a_change(served: Running, stripe: Stripe) -> None:
    served.sandbox.wire.misbehave(Misbehaviour(service="stripe", kind="error", status=500, calls=9))
    with pytest.raises(StripeIntegrationError):
        list(stripe.customers.list())
    assert len(calls(served, "GET")) == TRIES


@pytest.mark.parametrize("kind", ["reset", "cut", "html"])
def test_an_answer_that_gets_lost_does_not_make_a_second_customer(served: Running, stripe: Stripe, kind: Any) -> None:
    served.sandbox.wire.misbehave(Misbehaviour(service="stripe", kind=kind, done=True))
    created = stripe.customers.create({"name": "Ada"}, operation_id="signup-1")
    assert len(calls(served, "POST")) == 2
    assert [each.id for each in stripe.customers.list()] == [created.id]


def test_a_cancel_whose_answer_gets_lost_is_a_cancel(served: Running, stripe: Stripe) -> None:
    created = stripe.subscriptions.create(
        {"customer": customer(served), "items": [{"price": price(served)}]}, operation_id="order-1"
    )
    served.sandbox.wire.misbehave(Misbehaviour(service="stripe", kind="reset", done=True))
    assert stripe.subscriptions.cancel(created.id).status == "canceled"


@pytest.mark.parametrize(("status", "advice", "tries"), [(500, "false", 1), (400, "true", TRIES)])
def test_stripes_own_advice_whether_to_try_again_is_heeded(web: Web, status: int, advice: str, tries: int) -> None:
    error = {"error": {"type": "api_error", "message": "no"}}
    web.answer = lambda _: Reply(error, status, {"Stripe-Should-Retry": advice})
    with pytest.raises(StripeIntegrationError):
        client(web.url).customers.create({}, operation_id="signup-1")
    assert len(web.asked) == tries


def test_a_service_is_left_alone_until_the_date_it_names(
    served: Running, stripe: Stripe, caplog: pytest.LogCaptureFixture
) -> None:
    date = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    served.sandbox.wire.misbehave(Misbehaviour(service="stripe", kind="html", status=503, retry_after=date))
    stripe.customers.create({"name": "Ada"}, operation_id="signup-1")
    assert "stripe customers.create failed (503); attempt 2 in 0.0 s" in caplog.messages


def test_nobody_answers() -> None:
    with pytest.raises(StripeIntegrationError, match=r"no answer \(ConnectionError\)") as error:
        list(client("http://127.0.0.1:9").customers.list({"email": WRONG}))
    whole = "".join(traceback.format_exception(error.value))
    assert "Connection refused" in whole
    assert "ada" not in whole
    assert error.value.retryable
    assert "PIVOTAL_STRIPE_API_BASE" in str(error.value)


def test_a_refusal_says_what_is_wrong_and_names_the_request(stripe: Stripe) -> None:
    wrong: Any = {"emial": "ada@example.com"}
    with pytest.raises(StripeIntegrationError, match="400 Received unknown parameter: emial") as error:
        stripe.customers.create(wrong, operation_id="signup-1")
    assert error.value.request_id is not None
    assert error.value.request_id.startswith("req_")


def test_an_operation_id_that_is_used_for_something_else_is_explained(stripe: Stripe) -> None:
    stripe.customers.create({"name": "Ada"}, operation_id="signup-1")
    with pytest.raises(StripeIntegrationError, match="give every doing its own"):
        stripe.customers.create({"name": "Grace"}, operation_id="signup-1")


# --- what stays secret ------------------------------------------------------------------------------------------


def test_no_key_and_no_address_reaches_a_log_an_error_or_a_repr(
    served: Running, stripe: Stripe, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        stripe.customers.create({"email": "ada@example.com"}, operation_id="signup-1")
        served.sandbox.wire.misbehave(Misbehaviour(service="stripe", kind="reset"))
        list(stripe.customers.list({"email": "ada@example.com"}))
        with pytest.raises(StripeIntegrationError) as error:
            stripe.customers.create({"email": WRONG}, operation_id="signup-2")
        with pytest.raises(StripeIntegrationError) as refused:
            client(served.stripe_base, REFUSED_KEY).customers.create({}, operation_id="signup-3")
    told = "\n".join(caplog.messages) + "".join(capfd.readouterr())
    assert "attempt 2" in told
    assert "never_logged" not in told + repr(stripe.__dict__) + "".join(traceback.format_exception(refused.value))
    assert "Invalid email address" in str(error.value)
    assert "ada@" not in "".join(traceback.format_exception(error.value))
    assert "ada@" not in told
    assert "ada%40" not in told


def test_the_sdk_writes_no_id_into_the_home_folder_and_sends_no_timings(
    served: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("stripe.enable_telemetry", True)
    monkeypatch.setattr("stripe._telemetry_id._loaded", False)
    stripe = client(served.stripe_base)
    stripe.customers.create({}, operation_id="signup-1")
    assert list(tmp_path.iterdir()) == []


def test_importing_the_clients_imports_no_sdk() -> None:
    code = (
        "import sys, integrations, integrations.stripe, integrations.sendgrid;"
        "heavy = ('stripe', 'sendgrid', 'python_http_client', 'requests', 'prometheus_client', 'pydantic', 'httpx');"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
