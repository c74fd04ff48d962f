from __future__ import annotations

import asyncio
import logging

import pytest

from errors import EventLogError
from events.bus import Bus
from events.cause import Cause, caused_by, new_event
from events.envelope import Event
from events.failure import last_line
from events.sqlite import SqliteEventLog
from tests.events.samples import event


@pytest.fixture
def bus(log: SqliteEventLog) -> Bus:
    return Bus(log)


def test_a_subscriber_gets_the_new_events_of_its_types(bus: Bus) -> None:
    seen: list[Event] = []
    bus.subscribe("pipeline.*", seen.append)
    completed, failed = event(kind="pipeline.completed"), event(kind="pipeline.failed")

    assert bus.publish(completed, event(kind="invoice.paid"), failed, completed) == [True, True, True, False]

    assert seen == [completed, failed]


def test_an_event_is_on_the_log_before_a_subscriber_sees_it(bus: Bus, log: SqliteEventLog) -> None:
    heads: list[int] = []
    bus.subscribe("*", lambda _: heads.append(log.head()))

    bus.publish(event(), event())

    assert heads == [2, 2]


def test_an_unsubscribed_handler_is_not_called_again(bus: Bus) -> None:
    seen: list[Event] = []
    subscription = bus.subscribe("*", seen.append)
    bus.publish(event())
    subscription.unsubscribe()
    subscription.unsubscribe()

    bus.publish(event())

    assert len(seen) == 1


def test_a_handler_may_unsubscribe_itself(bus: Bus) -> None:
    seen: list[str] = []

    def once(_: Event) -> None:
        seen.append("once")
        subscription.unsubscribe()

    subscription = bus.subscribe("*", once)
    bus.subscribe("*", lambda _: seen.append("always"))

    bus.publish(event(), event())

    assert seen == ["once", "always", "always"]


def test_one_handler_may_have_two_subscriptions_that_end_by_themselves(bus: Bus) -> None:
    seen: list[Event] = []
    first, _ = bus.subscribe("*", seen.append), bus.subscribe("*", seen.append)
    first.unsubscribe()

    bus.publish(event())

    assert len(seen) == 1


def test_a_failing_handler_is_logged_and_hides_no_other_success(
    bus: Bus, log: SqliteEventLog, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    async def fail_later(_: Event) -> None:
        await asyncio.sleep(0)
        raise ValueError("later")

    async def succeed(made: Event) -> None:
        await asyncio.sleep(0)
        seen.append(made.id)

    def fail(_: Event) -> None:
        raise ValueError("postgresql://me:correct-horse@host is away")

    for handler in (fail, fail_later, succeed):
        bus.subscribe("*", handler)
    made = event()

    assert bus.publish(made) == [True]

    assert seen == [made.id]
    assert log.head() == 1
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    told = [vars(record)["error"] for record in failures]
    assert all(text.startswith("Traceback") for text in told)
    assert [last_line(text) for text in told] == ["ValueError: postgresql://***host is away", "ValueError: later"]
    assert "horse" not in caplog.text
    assert {vars(record)["event_id"] for record in failures} == {made.id}


def test_what_a_handler_publishes_names_the_event_as_its_cause(bus: Bus, log: SqliteEventLog) -> None:
    async def confirm(_: Event) -> None:
        confirmed = new_event("order.confirmed", ("order", "1"), {}, source="test")
        await asyncio.to_thread(bus.publish, confirmed)

    def bill(_: Event) -> None:
        bus.publish(new_event("invoice.sent", ("invoice", "1"), {}, source="test"))

    bus.subscribe("order.placed", confirm)
    bus.subscribe("order.confirmed", bill)
    with caused_by(Cause("request-1")):
        bus.publish(new_event("order.placed", ("order", "1"), {}, source="test"))

    placed, confirmed, sent = (recorded.event for recorded in log.read(0, 10))
    assert [placed.type, confirmed.type, sent.type] == ["order.placed", "order.confirmed", "invoice.sent"]
    assert {one.metadata.correlation_id for one in (placed, confirmed, sent)} == {"request-1"}
    assert placed.metadata.causation_id is None
    assert confirmed.metadata.causation_id == placed.id
    assert sent.metadata.causation_id == confirmed.id


def test_nobody_is_called_if_the_events_are_not_on_the_log(bus: Bus, log: SqliteEventLog) -> None:
    seen: list[Event] = []
    bus.subscribe("*", seen.append)
    log.close()

    with pytest.raises(EventLogError):
        bus.publish(event())

    assert seen == []


def test_a_coroutine_that_would_block_its_loop_is_told_how_to_publish(bus: Bus, log: SqliteEventLog) -> None:
    async def publish() -> None:
        bus.publish(event())

    with pytest.raises(EventLogError, match="was called by a coroutine"):
        asyncio.run(publish())

    assert log.head() == 0
