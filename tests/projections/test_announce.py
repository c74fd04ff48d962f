from __future__ import annotations

import json
from typing import Any

import pytest

from events.envelope import Event
from events.log import EventLog
from projections import project
from projections.announce import announce
from tests.projections.samples import NOON, invoice, sendgrid_event, stripe_event, subscription


def told(event: Event) -> list[Event]:
    return announce(event, project(event))


def changed(status: str, before: str | None, kind: str = "updated", **changes: Any) -> Event:
    previous = {"previous_attributes": {"status": before}} if before else {}
    return stripe_event(f"customer.subscription.{kind}", "evt_1", NOON, subscription(status, **changes), **previous)


@pytest.mark.parametrize(
    ("event", "meaning"),
    [
        (changed("active", None, "created"), "pivotal.subscription.activated"),
        (changed("active", "incomplete"), "pivotal.subscription.activated"),
        (changed("past_due", "active"), "pivotal.subscription.past_due"),
        (changed("canceled", None, "deleted"), "pivotal.subscription.canceled"),
        (stripe_event("invoice.paid", "evt_1", NOON, invoice("paid")), "pivotal.invoice.paid"),
        (stripe_event("invoice.payment_failed", "evt_1", NOON, invoice()), "pivotal.invoice.payment_failed"),
    ],
)
def test_an_event_is_told_in_our_own_terms(event: Event, meaning: str) -> None:
    assert [one.type for one in told(event)] == [meaning]


@pytest.mark.parametrize(
    "event",
    [
        changed("active", None),
        changed("incomplete", None, "created"),
        stripe_event("invoice.payment_succeeded", "evt_1", NOON, invoice("paid")),
        sendgrid_event("open", "e1"),
    ],
)
def test_an_event_that_changes_nothing_of_ours_is_not_told(event: Event) -> None:
    assert told(event) == []


def test_an_announcement_names_its_cause_and_our_own_subscription() -> None:
    event = changed("active", "trialing")
    (announcement,) = told(event)
    assert announcement.metadata.causation_id == event.id
    assert announcement.metadata.correlation_id == event.metadata.correlation_id
    assert announcement.timestamp == event.timestamp
    assert (announcement.aggregate_type, announcement.aggregate_id) == ("subscription", "local-1")
    assert json.loads(announcement.model_dump_json())["data"]["status"] == "active"


def test_a_subscription_that_is_not_ours_is_named_by_stripes_id() -> None:
    (announcement,) = told(changed("active", "trialing", metadata={}))
    assert announcement.aggregate_id == "sub_1"


def test_an_announcement_is_published_once(log: EventLog) -> None:
    event = changed("active", "trialing")
    assert log.publish(told(event)) == [True]
    assert log.publish(told(event)) == [False]
