"""What a Stripe account did, told by its events in any order, ends in what the account says it is."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from etl.destinations.warehouse import open_warehouse
from events.envelope import Event
from events.log import EventLog
from gateway.providers.stripe import stripe_events
from projections.apply import apply_range
from sandbox.billing import Account
from sandbox.refusals import Refused
from sandbox.world import Clock, Ids
from tests.projections.samples import NOON
from tests.projections.test_apply import read_sqlite


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def account(events: list[Event]) -> Account:
    """An account in whose busy second four subscriptions begin, renew, fail and end."""
    clock = Clock()
    account = Account(clock, Ids("one"), lambda told: events.extend(stripe_events(json.dumps(told).encode())))
    with clock.at(NOON):
        product = account.create_product({"name": "Plan"})
        price = {"product": product["id"], "unit_amount": 1099, "currency": "usd"}
        monthly = account.create_price(price | {"recurring": {"interval": "month"}})["id"]
        for number, card in enumerate(["pm_card_visa", "pm_card_visa", "pm_card_visa", "pm_card_chargeCustomerFail"]):
            customer = account.create_customer(
                {"payment_method": card, "invoice_settings": {"default_payment_method": card}}
            )
            begun = account.create_subscription(
                {"customer": customer["id"], "items": [{"price": monthly}], "metadata": _ours(number)}
            )
            _live(account, number, begun)
    return account


def _ours(number: int) -> dict[str, str]:
    return {"local_subscription_id": f"local-{number}"}


def _live(account: Account, number: int, begun: dict[str, Any]) -> None:
    if number == 1:
        account.renew_subscription(begun["id"])
    if number == 2:
        account.cancel_subscription(begun["id"], {})
    if number == 3:
        with pytest.raises(Refused):
            account.pay_invoice(begun["latest_invoice"], {})


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_its_events_ends_in_the_account_as_it_is(
    account: Account, events: list[Event], log: EventLog, tmp_path: Path, seed: int
) -> None:
    random.Random(seed).shuffle(events)
    log.publish(events)
    applied = apply_range(
        log, open_warehouse(f"sqlite:///{tmp_path / 'warehouse.db'}"), None, log.head(), run_id="run", portion=7
    )
    assert applied.dead == []
    held = {row["stripe_subscription_id"]: row for row in read_sqlite(tmp_path / "warehouse.db", "subscriptions")}
    billed = {row["stripe_invoice_id"]: row for row in read_sqlite(tmp_path / "warehouse.db", "invoices")}
    assert sorted(row["local_subscription_id"] for row in held.values()) == ["local-0", "local-1", "local-2", "local-3"]
    assert {id_: row["status"] for id_, row in held.items()} == {
        id_: account.get("subscription", id_)["status"] for id_ in held
    }
    assert {id_: _paid(row) for id_, row in billed.items()} == {
        id_: _as_told(account.get("invoice", id_)) for id_ in billed
    }
    assert len(billed) == 5


def _paid(row: dict[str, Any]) -> tuple[object, ...]:
    return row["status"], row["amount_paid_minor"], row["amount_remaining_minor"], row["attempt_count"]


def _as_told(invoice: dict[str, Any]) -> tuple[object, ...]:
    return tuple(invoice[name] for name in ("status", "amount_paid", "amount_remaining", "attempt_count"))
