"""What Stripe told while the receiver was down is on the log after a reading, as its webhooks would have told it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from errors import EventLogError
from etl.destinations.warehouse import Warehouse, open_warehouse
from events.envelope import Event
from events.log import EventLog, open_log
from integrations.stripe import Stripe, StripeConfig
from projections.stripe import Subscription
from reconciliation.reading import remember
from reconciliation.stripe import reconcile_stripe, state_name
from sandbox.serve import Running
from sandbox.webhooks import Endpoint
from tests.gateway.conftest import serving
from tests.reconciliation.conftest import Rows

Read = Callable[..., tuple[int, int]]


@pytest.fixture
def stripe(served: Running) -> Stripe:
    return Stripe(StripeConfig(api_key=SecretStr("sk_test_x"), api_base=served.stripe_base))


@pytest.fixture
def read(stripe: Stripe, log: EventLog, warehouse: Warehouse) -> Read:
    def reading(*, hours: float = 0, **asked: Any) -> tuple[int, int]:
        now = datetime.now(UTC) + timedelta(hours=hours)
        found = reconcile_stripe(stripe, log, warehouse, run_id="run", now=now, **asked)
        return found.read, found.new

    return reading


def sign_up(stripe: Stripe, name: str) -> None:
    stripe.customers.create({"name": name}, operation_id=name)


def subscribe(served: Running) -> str:
    account = served.sandbox.stripe.account
    product = account.create_product({"name": "Plan"})["id"]
    price = account.create_price(
        {"product": product, "unit_amount": 1099, "currency": "usd", "recurring": {"interval": "month"}}
    )
    card = {"payment_method": "pm_card_visa", "invoice_settings": {"default_payment_method": "pm_card_visa"}}
    customer = account.create_customer(card)["id"]
    return str(account.create_subscription({"customer": customer, "items": [{"price": price["id"]}]})["id"])


def test_what_happened_while_nobody_listened_becomes_rows(served: Running, read: Read, rows: Rows) -> None:
    id_ = subscribe(served)
    told, new = read()
    assert told == new > 3
    assert [(row["stripe_subscription_id"], row["status"]) for row in rows(Subscription.table)] == [(id_, "active")]
    assert [row["status"] for row in rows("invoices")] == ["paid"]


def test_what_the_webhook_brought_is_a_duplicate_letter_by_letter(
    served: Running, stripe: Stripe, log: EventLog, read: Read, project: Path
) -> None:
    with serving(log, {"stripe_webhook_secrets": served.sandbox.stripe_webhook_secret}) as gateway:
        url = f"http://127.0.0.1:{gateway.port}/webhooks/stripe"
        served.sandbox.webhooks.endpoints.append(Endpoint(service="stripe", url=url))
        sign_up(stripe, "Ada")
        while not log.head():
            time.sleep(0.01)
    before = [recorded.event for recorded in log.read(0, 10)]
    assert read() == (len(before), 0)
    alone = open_log(f"sqlite:///{project / 'alone.db'}")
    reconcile_stripe(stripe, alone, open_warehouse(f"sqlite:///{project / 'w2.db'}"), run_id="run")
    changing = {"id": None, "metadata": None}
    assert [event.model_dump() | changing for event in before] == [
        recorded.event.model_dump() | changing for recorded in alone.read(0, 10)
    ]
    alone.close()


def test_a_reading_goes_on_where_the_last_one_began_with_an_overlap(
    served: Running, stripe: Stripe, read: Read, log: EventLog
) -> None:
    sign_up(stripe, "Ada")
    assert read() == (1, 1)
    httpx.post(f"{served.url}/_sandbox/clock", json={"seconds": 7200}).raise_for_status()
    sign_up(stripe, "Bob")
    assert read(hours=2) == (2, 1)
    assert read(hours=2) == (1, 0)
    assert [recorded.event.data["data"]["object"]["name"] for recorded in log.read(0, 10)] == ["Ada", "Bob"]


def test_what_the_log_does_not_keep_is_not_read_again(stripe: Stripe, read: Read, log: EventLog) -> None:
    sign_up(stripe, "Ada")
    sign_up(stripe, "Bob")
    assert read() == (2, 2)
    assert log.prune(log.head()) == 1
    week = timedelta(days=7)
    assert read(hours=7 * 24 + 1, keep=week) == (0, 0)
    assert read(hours=7 * 24 + 1, keep=week, since=datetime.now(UTC) - timedelta(days=3)) == (0, 0)


def test_an_account_in_which_nothing_happens_loses_nothing(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    for days in range(0, 60, 20):
        assert read(hours=24 * days) == (0, 0)
    assert "are lost" not in caplog.text


def test_another_account_is_read_from_its_own_beginning(
    served: Running, stripe: Stripe, read: Read, log: EventLog, warehouse: Warehouse
) -> None:
    sign_up(stripe, "Ada")
    read(hours=9)
    other = Stripe(StripeConfig(api_key=SecretStr("sk_test_other"), api_base=served.stripe_base))
    assert reconcile_stripe(other, log, warehouse, run_id="run").read == 1
    assert read(hours=9) == (0, 0)


def test_a_long_reading_that_breaks_off_goes_on_from_the_day_that_it_came_to(
    served: Running, stripe: Stripe, read: Read, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_up(stripe, "Ada")
    httpx.post(f"{served.url}/_sandbox/clock", json={"seconds": 86_400 * 2}).raise_for_status()
    sign_up(stripe, "Bob")
    publish, asked = type(log).publish, []

    def refusing(self: EventLog, events: Sequence[Event]) -> list[bool]:
        asked.append(events)
        if len(asked) == 2:
            raise EventLogError("the disk is full", retryable=True)
        return publish(self, events)

    monkeypatch.setattr(type(log), "publish", refusing)
    with pytest.raises(EventLogError):
        read(hours=84)
    assert read(hours=84) == (1, 1)


def test_events_are_published_oldest_first_page_after_page(stripe: Stripe, read: Read, log: EventLog) -> None:
    names = [f"Customer {number}" for number in range(120)]
    for name in names:
        sign_up(stripe, name)
    assert read() == (120, 120)
    assert [recorded.event.data["data"]["object"]["name"] for recorded in log.read(0, 200)] == names


def test_since_reads_further_back_never_less(served: Running, stripe: Stripe, read: Read) -> None:
    sign_up(stripe, "Ada")
    read()
    httpx.post(f"{served.url}/_sandbox/clock", json={"seconds": 7200}).raise_for_status()
    sign_up(stripe, "Bob")
    read(hours=2)
    assert read(hours=2) == (1, 0)
    assert read(hours=2, since=datetime.now(UTC) - timedelta(hours=1)) == (2, 0)
    assert read(hours=2, since=datetime.now(UTC) + timedelta(hours=9)) == (1, 0)


def test_since_leaves_no_gap_behind_a_first_reading(stripe: Stripe, read: Read) -> None:
    sign_up(stripe, "Ada")
    assert read(since=datetime.now(UTC) + timedelta(hours=9)) == (1, 1)


def test_a_gap_beyond_what_stripe_keeps_is_told(
    stripe: Stripe, read: Read, log: EventLog, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=40)
    remember(log, warehouse, state_name(stripe), "run", {"until": int(long_ago.timestamp())})
    with caplog.at_level(logging.WARNING):
        read()
    assert "are lost: 30 days are kept" in caplog.text
