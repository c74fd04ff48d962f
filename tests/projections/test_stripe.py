from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from events.envelope import Event
from projections import project
from projections.tables import ProjectionError
from tests.projections.samples import NOON, event, invoice, stripe_event, subscription


def row(event: Event) -> dict[str, Any]:
    (only,) = project(event)
    return only.record()


def updated(**changes: Any) -> dict[str, Any]:
    return row(stripe_event("customer.subscription.updated", "evt_1", NOON, subscription(**changes)))


def billed(**changes: Any) -> dict[str, Any]:
    return row(stripe_event("invoice.updated", "evt_1", NOON, invoice(**changes)))


def test_a_subscription_knows_our_own_id_of_it() -> None:
    assert updated()["local_subscription_id"] == "local-1"
    assert updated(metadata={})["local_subscription_id"] is None


def test_a_period_ends_with_its_earliest_item() -> None:
    late, early = {"current_period_end": NOON + 9}, {"current_period_end": NOON + 5}
    assert updated(items={"data": [late, early]})["current_period_end"] == datetime.fromtimestamp(NOON + 5, UTC)


def test_a_period_end_is_read_where_older_api_versions_have_it() -> None:
    old = updated(items={"data": [{"id": "si_1"}]}, current_period_end=NOON + 7)
    assert old["current_period_end"] == datetime.fromtimestamp(NOON + 7, UTC)


@pytest.mark.parametrize("customer", ["cus_1", {"id": "cus_1", "object": "customer"}])
def test_a_reference_may_be_expanded(customer: object) -> None:
    assert updated(customer=customer)["stripe_customer_id"] == "cus_1"


def test_a_deleted_subscription_keeps_its_row() -> None:
    gone = subscription("canceled", ended_at=NOON)
    assert row(stripe_event("customer.subscription.deleted", "evt_1", NOON, gone))["status"] == "canceled"


def test_an_invoice_belongs_to_its_subscription() -> None:
    assert billed()["stripe_subscription_id"] == "sub_1"
    assert billed()["local_subscription_id"] == "local-1"


def test_an_invoices_subscription_is_read_where_older_api_versions_have_it() -> None:
    old = invoice(subscription="sub_9", subscription_details={"metadata": {"local_subscription_id": "local-9"}})
    del old["parent"]
    told = row(stripe_event("invoice.updated", "evt_1", NOON, old))
    assert (told["stripe_subscription_id"], told["local_subscription_id"]) == ("sub_9", "local-9")


def test_an_invoice_without_a_subscription_has_none() -> None:
    assert billed(parent=None)["stripe_subscription_id"] is None


def test_money_stays_in_minor_units_whatever_the_currency() -> None:
    yen = billed(currency="jpy", amount_due=5000)
    assert (yen["currency"], yen["amount_due_minor"]) == ("jpy", 5000)


def test_a_deleted_draft_keeps_its_row() -> None:
    assert row(stripe_event("invoice.deleted", "evt_1", NOON, invoice("draft")))["status"] == "deleted"


@pytest.mark.parametrize("kind", ["invoice.upcoming", "customer.created", "charge.succeeded", "invoiceitem.created"])
def test_an_event_of_something_else_has_no_row(kind: str) -> None:
    assert project(stripe_event(kind, "evt_1", NOON, {"id": "x"})) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount_due": "10.99"}, "data.data.object.amount_due: Input should be a valid integer"),
        ({"amount_due": 10.99}, "data.data.object.amount_due: Input should be a valid integer"),
        ({"amount_due": True}, "data.data.object.amount_due: Input should be a valid integer"),
        ({"amount_due": 2**63}, "data.data.object.amount_due: Input should be less than"),
        ({"created": 10**18}, "data.data.object.created: Value error, not a time"),
        ({"created": "yesterday"}, "data.data.object.created: Input should be a valid datetime"),
        ({"id": ""}, "data.data.object.id: String should have at least 1 character"),
        ({"id": "x" * 256}, "data.data.object.id: String should have at most 255 characters"),
        ({"number": "A\x001"}, "data.data.object.number: Value error, has a NUL character"),
        ({"number": "\ud800"}, "data.data.object.number: Value error"),
        ({"livemode": None}, "data.data.object.livemode: Input should be a valid boolean"),
    ],
)
def test_a_value_that_no_column_holds_exactly_is_refused_by_name(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ProjectionError) as refused:
        billed(**changes)
    assert reason in str(refused.value)


def test_a_refusal_does_not_tell_the_values() -> None:
    with pytest.raises(ProjectionError) as refused:
        billed(currency=["ann@example.com"])
    assert "ann@example.com" not in str(refused.value)


@pytest.mark.parametrize("data", [{}, {"data": {}}, {"data": {"object": None}}, {"data": []}])
def test_an_event_without_its_object_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ProjectionError, match="Field required"):
        project(event("stripe.invoice.paid", "evt_1", NOON, data))


def versions(*events: Event) -> list[str]:
    return [str(row(one)["version"]) for one in events]


def test_a_later_second_is_newer_whatever_happened_in_it() -> None:
    ended = stripe_event("customer.subscription.deleted", "evt_1", NOON, subscription("canceled"))
    begun = stripe_event("customer.subscription.created", "evt_2", NOON + 1, subscription("incomplete"))
    earlier, later = versions(ended, begun)
    assert earlier < later


def test_within_a_second_the_status_that_is_further_in_life_is_newer() -> None:
    steps = [("created", "incomplete"), ("updated", "trialing"), ("updated", "active"), ("updated", "past_due"),
             ("updated", "a_status_of_tomorrow"), ("updated", "canceled"), ("deleted", "canceled")]  # fmt: skip
    life = versions(
        *(
            stripe_event(f"customer.subscription.{step}", f"evt_{9 - number}", NOON, subscription(status))
            for number, (step, status) in enumerate(steps)
        )
    )
    assert life == sorted(set(life))


def test_within_a_second_an_invoice_with_more_payment_attempts_is_newer() -> None:
    life = versions(
        stripe_event("invoice.created", "evt_9", NOON, invoice("draft")),
        stripe_event("invoice.finalized", "evt_8", NOON, invoice("open")),
        stripe_event("invoice.payment_failed", "evt_7", NOON, invoice("open", attempt_count=1)),
        stripe_event("invoice.paid", "evt_6", NOON, invoice("paid", attempt_count=1)),
    )
    assert life == sorted(set(life))


def test_no_two_events_have_one_version_and_all_versions_have_one_length() -> None:
    found = versions(
        *(
            stripe_event("invoice.updated", f"evt_{n}", NOON * (1 + n % 2), invoice(attempt_count=n))
            for n in range(2000)
        )
    )
    assert len(set(found)) == 2000
    assert len({len(version) for version in found}) == 1
