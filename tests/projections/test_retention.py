"""Pruning, and how far readers are, on every log."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from itertools import count
from pathlib import Path

import dagster as dg
import pytest

from etl.destinations.warehouse import Warehouse, open_warehouse
from events.deliveries import deliveries_of
from events.envelope import Event
from events.log import EventLog, open_log
from events.subscriptions import DurableSubscription, run
from projections.apply import SUBSCRIPTION, apply_range
from projections.retention import Reader, prune, readers
from resources.event_log import EventLogResource
from resources.warehouse import WarehouseResource
from schedules.retention import prune_events, retention_schedules
from tests.events.samples import event
from tests.projections.samples import NOON, invoice, stripe_event

NOW = timedelta(0)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def log(url: str) -> Iterator[EventLog]:
    with closing(open_log(url)) as log:
        yield log


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return open_warehouse(f"sqlite:///{tmp_path}/warehouse.db")


def land(log: EventLog, *names: str) -> None:
    log.publish([stripe_event("invoice.paid", f"evt_{name}", NOON, invoice("paid")) for name in names])


def work(log: EventLog, name: str, until: int) -> None:
    """Works a subscription until it has handled so many events."""
    stop, handled = threading.Event(), count(1)

    def handle(_: Event) -> None:
        if next(handled) == until:
            stop.set()

    run(log, [DurableSubscription(name=name, types=["*"], handler=handle)], stop)


def test_what_the_tables_do_not_hold_is_kept(log: EventLog, warehouse: Warehouse) -> None:
    land(log, "1", "2", "3")
    apply_range(log, warehouse, None, 2, run_id="test")

    assert prune(log, warehouse, NOW, dry_run=True).events == 2
    pruned = prune(log, warehouse, NOW)

    assert (pruned.events, pruned.until, pruned.stopped) == (2, 2, "the tables hold no more")
    assert [one.sequence for one in log.read(0, 1)] == [3]
    assert prune(log, warehouse, NOW).events == 0


def test_events_that_are_not_for_the_tables_do_not_hold_others(log: EventLog, warehouse: Warehouse) -> None:
    log.publish([event(str(n)) for n in range(5)])

    assert prune(log, warehouse, NOW).events == 4
    assert readers(log, warehouse) == [Reader(SUBSCRIPTION, 5, 0, None)]


def test_what_is_young_is_kept(log: EventLog, warehouse: Warehouse) -> None:
    log.publish([event(), event()])

    pruned = prune(log, warehouse, timedelta(days=30))

    assert (pruned.events, pruned.until) == (0, 0)
    assert pruned.stopped.startswith("what follows was recorded after ")


def test_dead_letters_are_kept(log: EventLog, warehouse: Warehouse) -> None:
    log.publish([event(kind="stripe.invoice.paid"), event()])
    apply_range(log, warehouse, None, 2, run_id="test")

    prune(log, warehouse, NOW)

    assert [letter.recorded.sequence for letter in log.dead(SUBSCRIPTION)] == [1]


def test_what_a_subscription_has_not_read_is_kept_until_it_is_forgotten(log: EventLog, warehouse: Warehouse) -> None:
    log.publish([event(str(n)) for n in range(3)])
    work(log, "mail", until=3)
    log.publish([event(str(n)) for n in range(3, 6)])
    first = log.read(3, 1)[0]

    assert readers(log, warehouse) == [
        Reader(SUBSCRIPTION, 6, 0, None), Reader("mail", 3, 3, first.recorded_at),
    ]  # fmt: skip
    pruned = prune(log, warehouse, NOW)
    assert (pruned.events, pruned.stopped) == (3, "the subscription 'mail' has read no more")

    deliveries_of(log).forget("mail")

    assert prune(log, warehouse, NOW).events == 2


def test_dagster_prunes_each_night_if_events_are_not_kept_for_ever(url: str, log: EventLog, tmp_path: Path) -> None:
    log.publish([event(), event()])
    [schedule] = retention_schedules(1)
    resources = {
        "event_log": EventLogResource(url=url),
        "warehouse": WarehouseResource(url=f"sqlite:///{tmp_path}/warehouse.db"),
    }
    context = dg.build_schedule_context(scheduled_execution_time=None)
    [request] = schedule.evaluate_tick(context).run_requests or []
    result = prune_events.execute_in_process(run_config=request.run_config, resources=resources)

    assert result.success
    assert log.head() == len(log.read(0, 10)) == 2, "they are from today"
    assert retention_schedules(None) == []
