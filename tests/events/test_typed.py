from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from errors import PivotalError
from events.envelope import Event
from events.failure import DeadLettered
from events.typed import EventData
from projections.announce import SubscriptionActivated, announce
from projections.stripe import project
from tests.events.samples import event
from tests.projections.samples import NOON, stripe_event, subscription


def in_cents(data: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"order_id": data["order_id"], "cents": int(Decimal(data["amount"]) * 100)}


def with_currency(data: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**data, "currency": "usd"}


class OrderPaid(EventData, type="shop.order.paid", version=3, upcasts={1: in_cents, 2: with_currency}):
    order_id: str
    cents: int
    currency: str
    paid_at: datetime | None = None


def paid(version: int, **data: Any) -> Event:
    return event(kind="shop.order.paid", **data).model_copy(update={"version": version})


@pytest.mark.parametrize(
    "told",
    [
        paid(1, order_id="7", amount="9.90"),
        paid(2, order_id="7", cents=990),
        paid(3, order_id="7", cents=990, currency="usd", newer="is passed over"),
    ],
)
def test_every_version_is_read_as_the_latest(told: Event) -> None:
    before = dict(told.data)

    assert OrderPaid.of(told) == OrderPaid(order_id="7", cents=990, currency="usd")
    assert told.data == before


def test_what_is_published_says_its_version_and_is_read_again() -> None:
    data = OrderPaid(order_id="7", cents=990, currency="eur", paid_at=datetime(2026, 1, 1, tzinfo=UTC))

    told = data.event(("order", "7"), source="shop", dedupe_key="7-paid")

    assert (told.type, told.version, told.aggregate_id) == ("shop.order.paid", 3, "7")
    assert told.data["paid_at"] == "2026-01-01T00:00:00Z"
    assert OrderPaid.of(told) == data


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (event(kind="shop.order.sent"), "is what 'shop.order.paid' holds, and event .* is 'shop.order.sent'"),
        (paid(4, order_id="7"), r"version 4\) cannot be read: this program knows versions up to 3"),
        (paid(1, order_id="7"), r"version 1\) cannot be read: the upcast from version 1 failed with KeyError"),
        (
            paid(3, order_id="secret", cents="many"),
            "does not fit OrderPaid: cents: Input should be .*; currency: Field",
        ),
    ],
)
def test_what_cannot_be_read_is_told_without_its_values(told: Event, message: str) -> None:
    with pytest.raises(PivotalError, match=message) as raised:
        OrderPaid.of(told)

    assert "secret" not in str(raised.value)


def test_versions_that_are_no_longer_read_are_named() -> None:
    class Recent(EventData, type="shop.order.paid", version=3, upcasts={2: with_currency}):
        order_id: str

    with pytest.raises(PivotalError, match="Recent has no upcast from version 1"):
        Recent.of(paid(1, order_id="7"))


@pytest.mark.parametrize(
    "upcasts", [{1: in_cents}, {1: in_cents, 3: in_cents}, {0: in_cents, 1: in_cents, 2: in_cents}]
)
def test_upcasts_that_lead_nowhere_are_refused_where_they_are_declared(upcasts: Mapping[int, Any]) -> None:
    with pytest.raises(TypeError, match="Wrong: upcasts go from a version to the next, the last from 2"):

        class Wrong(EventData, type="shop.order.paid", version=3, upcasts=upcasts):
            pass


def test_our_own_announcements_are_read_as_what_they_are() -> None:
    source = stripe_event("customer.subscription.created", "evt_1", NOON, subscription("active"))
    (told,) = announce(source, project(source))

    read = SubscriptionActivated.of(told)

    assert (read.status, read.local_subscription_id) == ("active", "local-1")
    assert read.created_at.tzinfo is not None


def test_an_alert_of_the_first_version_tells_of_the_tables() -> None:
    told = event(kind="pivotal.event.dead_lettered", sequence=7, type="stripe.invoice.paid", error="no customer")

    assert DeadLettered.of(told) == DeadLettered(
        subscription="projections", sequence=7, type="stripe.invoice.paid", error="no customer"
    )
