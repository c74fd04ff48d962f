from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from errors import DestinationError
from etl.destinations.warehouse import Warehouse, open_warehouse
from events.envelope import Event
from events.log import EventLog, open_log
from events.sqlite import SqliteEventLog
from projections import TABLES, apply, project, stripe
from projections.apply import SUBSCRIPTION, Applied, apply_range, portions, position, replay
from tests.projections.samples import (
    NOON,
    calendar_event,
    event,
    invoice,
    sendgrid_event,
    stripe_event,
    subscription,
    twilio_event,
    twilio_inbound,
)

Rows = Callable[[str], list[dict[str, Any]]]


def read_duckdb(path: Path, table: str) -> list[dict[str, Any]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        cursor = connection.execute(f"SELECT * FROM {table} ORDER BY ALL")
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def read_sqlite(path: Path, table: str) -> list[dict[str, Any]]:
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchone()
        rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table}")] if found else []
    connection.close()
    return rows


def read_postgres(url: str, table: str) -> list[dict[str, Any]]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()


@pytest.fixture(params=["duckdb", "sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if kind == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"{kind}:///{tmp_path / 'warehouse.db'}"


@pytest.fixture
def warehouse(url: str) -> Warehouse:
    return open_warehouse(url)


@pytest.fixture
def rows(kind: str, url: str, tmp_path: Path) -> Rows:
    if kind == "postgresql":
        return lambda table: read_postgres(url, table)
    reader = {"duckdb": read_duckdb, "sqlite": read_sqlite}[kind]
    return lambda table: reader(tmp_path / "warehouse.db", table)


def land(log: EventLog, *events: Event) -> None:
    log.publish(events)


def catch_up(log: EventLog, warehouse: Warehouse, **how: Any) -> Applied:
    return apply_range(log, warehouse, None, log.head(), run_id="run", **how)


def updated(status: str, key: str = "evt_1", at: int = NOON, **changes: Any) -> Event:
    return stripe_event("customer.subscription.updated", key, at, subscription(status, **changes))


def poisoned(key: str = "evt_bad", at: int = NOON) -> Event:
    return stripe_event("customer.subscription.updated", key, at, {"id": "sub_1", "status": "past_due"})


def test_landed_events_become_rows(log: EventLog, warehouse: Warehouse, rows: Rows) -> None:
    land(log, updated("active"), sendgrid_event("delivered", "e1"), sendgrid_event("bounce", "e2"))
    land(log, stripe_event("invoice.paid", "evt_2", NOON, invoice("paid")))
    applied = catch_up(log, warehouse)
    assert [row["status"] for row in rows("subscriptions")] == ["active"]
    assert [row["amount_paid_minor"] for row in rows("invoices")] == [1099]
    assert [row["status"] for row in rows("email_messages")] == ["bounce"]
    assert [row["suppression"] for row in rows("email_suppressions")] == ["bounces"]
    assert (applied.events, applied.position, list(applied.dead)) == (4, 4, [])


def test_what_happened_to_each_table_is_told(log: EventLog, warehouse: Warehouse) -> None:
    land(log, updated("trialing"), sendgrid_event("open", "e1"), updated("active", "evt_2", NOON + 1))
    change = catch_up(log, warehouse).tables["subscriptions"]
    assert (change.loaded.inserted, change.loaded.updated, change.loaded.deduplicated) == (1, 0, 1)
    assert (change.first, change.last) == (1, 3)
    assert [row["status"] for row in change.preview] == ["trialing", "active"]


def test_the_counts_of_portions_add_up(log: EventLog, warehouse: Warehouse) -> None:
    land(log, *(updated("active", f"evt_{n}", NOON + n, id=f"sub_{n % 3}") for n in range(7)))
    applied = catch_up(log, warehouse, portion=2)
    change = applied.tables["subscriptions"]
    assert change.loaded.inserted == 3
    assert change.loaded.inserted + change.loaded.updated + change.loaded.deduplicated == applied.events == 7
    assert (change.first, change.last, applied.position) == (1, 7, 7)


@pytest.mark.parametrize("kind", ["duckdb", "postgresql"])
def test_times_and_money_are_exact(log: EventLog, warehouse: Warehouse, rows: Rows) -> None:
    land(log, stripe_event("invoice.paid", "evt_1", NOON + 9, invoice("paid", amount_due=9_007_199_254_740_993)))
    catch_up(log, warehouse)
    (row,) = rows("invoices")
    assert row["amount_due_minor"] == 9_007_199_254_740_993
    assert row["paid_at"] == datetime.fromtimestamp(NOON + 5, UTC)
    assert row["event_at"] == datetime.fromtimestamp(NOON + 9, UTC)


def test_applying_again_changes_nothing(log: EventLog, warehouse: Warehouse, rows: Rows) -> None:
    land(log, updated("active"), sendgrid_event("click", "e1"))
    catch_up(log, warehouse)
    before = rows("subscriptions") + rows("email_messages")
    again = apply_range(log, warehouse, 0, 2, run_id="again")
    assert rows("subscriptions") + rows("email_messages") == before
    assert {change.loaded.deduplicated for change in again.tables.values()} == {1}


def test_an_older_event_that_comes_late_does_not_win(log: EventLog, warehouse: Warehouse, rows: Rows) -> None:
    land(log, updated("active", "evt_2", NOON + 1))
    catch_up(log, warehouse)
    land(log, updated("incomplete", "evt_1", NOON))
    catch_up(log, warehouse)
    assert [row["status"] for row in rows("subscriptions")] == ["active"]


def test_a_start_beyond_the_warehouses_position_leaves_no_gap(log: EventLog, warehouse: Warehouse, rows: Rows) -> None:
    land(log, updated("active", id="sub_1"), updated("active", "evt_2", id="sub_2"))
    assert apply_range(log, warehouse, 1, 2, run_id="run").events == 2
    assert {row["stripe_subscription_id"] for row in rows("subscriptions")} == {"sub_1", "sub_2"}


def test_a_range_that_was_applied_does_not_set_the_position_back(log: EventLog, warehouse: Warehouse) -> None:
    land(log, updated("active"), updated("active", "evt_2"))
    catch_up(log, warehouse)
    assert apply_range(log, warehouse, 0, 1, run_id="run").position == 2
    assert position(log, warehouse) == 2


def test_of_several_at_once_one_applies_each_event_and_the_position_only_moves_forward(
    log: EventLog, warehouse: Warehouse, rows: Rows
) -> None:
    land(log, *(sendgrid_event("open", f"e{n}", email=f"{n}@x.de") for n in range(60)))

    def work(number: int) -> list[Applied]:
        return list(portions(log, warehouse, None, 60, run_id=f"run-{number}", portion=7))

    with ThreadPoolExecutor(3) as pool:
        done = [one for worker in pool.map(work, range(3)) for one in worker]
    assert sum(one.events for one in done) == 60
    assert sorted(one.position for one in done) == [7, 14, 21, 28, 35, 42, 49, 56, 60]
    assert len(rows("email_messages")) == 60
    assert position(log, warehouse) == 60


def test_a_start_where_the_tables_stand_goes_on_behind_what_others_have_applied_meanwhile(
    log: EventLog, warehouse: Warehouse
) -> None:
    land(log, *(sendgrid_event("open", f"e{n}") for n in range(6)))
    mine = portions(log, warehouse, None, 6, run_id="mine", portion=2)
    assert next(mine).position == 2
    assert apply_range(log, warehouse, None, 5, run_id="other").position == 5
    assert [(one.events, one.position) for one in mine] == [(1, 6)]


def test_large_events_make_small_portions(log: EventLog, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "SLICE", 2)
    monkeypatch.setattr(apply, "LARGEST", 3_000)
    land(log, *(sendgrid_event("open", f"e{n}", response="x" * 1_000) for n in range(9)))
    assert [one.position for one in portions(log, warehouse, None, 9, run_id="run")] == [4, 8, 9]


def test_what_becomes_no_row_is_not_read(log: EventLog, warehouse: Warehouse) -> None:
    mail = event("sendgrid.inbound.received", "m1", NOON, {"raw": "x" * 1_000_000})
    land(log, mail, stripe_event("charge.succeeded", "evt_1", NOON, {"id": "ch_1"}), updated("active", "evt_2"))
    applied = catch_up(log, warehouse)
    assert (applied.events, applied.position) == (1, 3)


def test_events_of_other_kinds_only_move_the_position(log: EventLog, warehouse: Warehouse) -> None:
    land(log, event("pivotal.pipeline.completed", "p1", NOON, {}))
    applied = catch_up(log, warehouse)
    assert (applied.events, applied.tables, position(log, warehouse)) == (0, {}, 1)


def test_a_log_that_started_anew_is_applied_from_its_start(
    log: EventLog, warehouse: Warehouse, rows: Rows, tmp_path: Path
) -> None:
    land(log, updated("trialing"), sendgrid_event("open", "e1"))
    catch_up(log, warehouse)
    anew = open_log(f"sqlite:///{tmp_path / 'anew.db'}")
    land(anew, updated("active", "evt_9", NOON + 1))
    assert catch_up(anew, warehouse).position == 1
    assert [row["status"] for row in rows("subscriptions")] == ["active"]
    anew.close()


def test_a_poisoned_event_is_a_dead_letter_and_stops_no_other(log: EventLog, warehouse: Warehouse, rows: Rows) -> None:
    land(log, updated("trialing"), poisoned(at=NOON + 1), updated("active", "evt_2", NOON + 2))
    applied = catch_up(log, warehouse)
    assert [(dead.sequence, dead.type) for dead in applied.dead] == [(2, "stripe.customer.subscription.updated")]
    assert "data.data.object.customer" in applied.dead[0].error
    assert [letter.recorded.sequence for letter in log.dead(SUBSCRIPTION)] == [2]
    assert [row["status"] for row in rows("subscriptions")] == ["active"]
    assert applied.position == 3


def test_a_projection_that_breaks_down_poisons_one_event(
    log: EventLog, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(event: Event) -> object:
        raise KeyError(event.metadata.dedupe_key)

    monkeypatch.setattr(stripe.Invoice, "of", broken)
    land(log, stripe_event("invoice.paid", "evt_1", NOON, invoice("paid")), updated("active", "evt_2"))
    applied = catch_up(log, warehouse)
    assert [dead.error for dead in applied.dead] == ["KeyError: 'evt_1'"]
    assert "Traceback" in log.dead(SUBSCRIPTION)[0].error
    assert applied.tables.keys() == {"subscriptions"}


def test_a_dead_letter_raises_one_alert(log: EventLog, warehouse: Warehouse) -> None:
    land(log, poisoned())
    catch_up(log, warehouse)
    apply_range(log, warehouse, 0, 1, run_id="again")
    (alert,) = log.read(0, 10, types=["pivotal.event.dead_lettered"])
    assert alert.event.data["sequence"] == 1
    assert alert.event.metadata.causation_id == log.read(0, 1)[0].event.id


def test_a_dead_letter_that_is_replayed_in_vain_is_alerted_of_again(log: EventLog, warehouse: Warehouse) -> None:
    land(log, poisoned())
    catch_up(log, warehouse)
    replay(log, warehouse, run_id="replay")

    alerts = log.read(0, 10, types=["pivotal.event.dead_lettered"])
    assert [one.event.data["sequence"] for one in alerts] == [1, 1]


def test_what_events_mean_is_announced_once(log: EventLog, warehouse: Warehouse) -> None:
    land(log, stripe_event("invoice.paid", "evt_1", NOON, invoice("paid")))
    catch_up(log, warehouse)
    apply_range(log, warehouse, 0, 1, run_id="again")
    assert [one.event.type for one in log.read(1, 10)] == ["pivotal.invoice.paid"]


@pytest.fixture
def mended(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The fix of the projection that could not read an event without its customer."""

    def mend() -> None:
        whole = stripe.Subscription.of

        def of(event: Event, **known: object) -> stripe.Subscription:
            event.data["data"]["object"] = subscription("past_due") | event.data["data"]["object"]
            return whole(event, **known)

        monkeypatch.setattr(stripe.Subscription, "of", of)

    return mend


def test_a_replay_after_a_fix_applies_the_dead_letters(
    log: EventLog, warehouse: Warehouse, rows: Rows, mended: Callable[[], None]
) -> None:
    land(log, updated("active"), poisoned(at=NOON + 1))
    catch_up(log, warehouse)
    mended()
    assert not replay(log, warehouse, run_id="replay").dead
    assert [row["status"] for row in rows("subscriptions")] == ["past_due"]
    assert log.dead(SUBSCRIPTION) == []


def test_a_replay_goes_portion_by_portion(
    log: EventLog, warehouse: Warehouse, rows: Rows, mended: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.apply.SLICE", 2)
    land(log, *(poisoned(f"evt_{n}", at=NOON + n) for n in range(5)))
    catch_up(log, warehouse)
    mended()
    replayed = replay(log, warehouse, run_id="replay")
    assert (replayed.events, replayed.dead, log.dead(SUBSCRIPTION)) == (5, [], [])
    assert [row["status"] for row in rows("subscriptions")] == ["past_due"]


def test_a_replay_does_not_overwrite_what_is_newer(
    log: EventLog, warehouse: Warehouse, rows: Rows, mended: Callable[[], None]
) -> None:
    land(log, poisoned(at=NOON), updated("active", "evt_2", NOON + 1))
    catch_up(log, warehouse)
    mended()
    replay(log, warehouse, run_id="replay")
    assert [row["status"] for row in rows("subscriptions")] == ["active"]


def test_a_replay_of_what_is_still_poisoned_leaves_it_dead(log: EventLog, warehouse: Warehouse) -> None:
    land(log, poisoned("evt_1"), poisoned("evt_2"), poisoned("evt_3"))
    catch_up(log, warehouse)
    replayed = replay(log, warehouse, [2, 99], run_id="replay")
    assert [dead.sequence for dead in replayed.dead] == [2]
    assert len(log.dead(SUBSCRIPTION)) == 3
    assert position(log, warehouse) == 3


def test_a_log_that_was_set_back_is_applied_anew_even_if_it_has_more_events_by_now(
    warehouse: Warehouse, rows: Rows, tmp_path: Path
) -> None:
    with closing(SqliteEventLog(tmp_path / "first.db")) as log:
        land(log, updated("active"))
    shutil.copy(tmp_path / "first.db", tmp_path / "backup.db")
    with closing(SqliteEventLog(tmp_path / "first.db")) as log:
        land(log, sendgrid_event("open", "e1"), sendgrid_event("open", "e2"))
        catch_up(log, warehouse)
    with closing(SqliteEventLog(tmp_path / "backup.db")) as log:
        land(log, *(updated("active", f"evt_{n}", id=f"sub_{n}") for n in range(2, 6)))
        assert (position(log, warehouse), catch_up(log, warehouse).events) == (0, 5)
        assert (position(log, warehouse), catch_up(log, warehouse).events) == (5, 0)

    assert len(rows("subscriptions")) == 5


def test_a_warehouse_that_refuses_keeps_what_was_committed_before(log: EventLog, tmp_path: Path) -> None:
    path = tmp_path / "warehouse.db"
    warehouse = open_warehouse(f"sqlite:///{path}")
    land(log, updated("active"), sendgrid_event("open", "e1"), updated("active", "evt_2", id="sub_2"))
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE VIEW email_messages AS SELECT 1 AS message_id")
    connection.close()
    with pytest.raises(DestinationError):
        catch_up(log, warehouse, portion=1)
    assert position(log, warehouse) == 1
    with sqlite3.connect(path) as connection:
        connection.execute("DROP VIEW email_messages")
    connection.close()
    assert catch_up(log, warehouse).position == 3
    assert len(read_sqlite(path, "subscriptions")) == 2


# --- any order, any portions ----------------------------------------------------------------------------------------

SECONDS = st.integers(NOON, NOON + 3)
SUBSCRIPTIONS = st.builds(
    lambda step, status, number, at: (f"customer.subscription.{step}", at, subscription(status, id=f"sub_{number}")),
    st.sampled_from(["created", "updated", "paused", "deleted"]),
    st.sampled_from(["incomplete", "trialing", "active", "past_due", "canceled", "unheard_of"]),
    st.integers(1, 2),
    SECONDS,
)
INVOICES = st.builds(
    lambda step, status, tries, at: (f"invoice.{step}", at, invoice(status, attempt_count=tries)),
    st.sampled_from(["created", "finalized", "updated", "paid", "payment_failed", "deleted"]),
    st.sampled_from(["draft", "open", "paid", "void", "uncollectible"]),
    st.integers(0, 2),
    SECONDS,
)
MAILS = st.tuples(
    st.sampled_from(
        ["processed", "deferred", "delivered", "dropped", "bounce", "open", "click", "spamreport", "unsubscribe",
         "group_unsubscribe", "group_resubscribe"]
    ),
    SECONDS,
    st.fixed_dictionaries({"email": st.sampled_from(["a@x.de", "B@x.de"]), "asm_group_id": st.just(7)}),
)  # fmt: skip
MESSAGES = st.tuples(
    st.sampled_from(["accepted", "queued", "sent", "delivered", "undelivered", "failed", "read", "unheard_of"]),
    SECONDS,
    st.fixed_dictionaries({"MessageSid": st.sampled_from(["SM1", "SM2"])}),
)
ANSWERS = st.tuples(
    st.just("received"),
    SECONDS,
    st.fixed_dictionaries(
        {"Body": st.sampled_from(["STOP", "START", "Thanks"]), "From": st.sampled_from(["+1", "+2"])}
    ),
)
MEETINGS = st.tuples(
    st.sampled_from(["updated", "deleted"]),
    SECONDS,
    st.fixed_dictionaries(
        {
            "service": st.sampled_from(["google", "outlook"]),
            "calendar_event_id": st.sampled_from(["e1", "e2"]),
            "read_at": SECONDS.map(lambda at: datetime.fromtimestamp(at, UTC).isoformat()),
        }
    ),
)
TOLD = st.lists(st.one_of(SUBSCRIPTIONS, INVOICES, MAILS, MESSAGES, ANSWERS, MEETINGS), min_size=1, max_size=14)


def made(told: Sequence[tuple[str, int, dict[str, Any]]]) -> list[Event]:
    return [one_event(kind, str(number), at, about) for number, (kind, at, about) in enumerate(told)]


def one_event(kind: str, key: str, at: int, about: dict[str, Any]) -> Event:
    if "id" in about:
        return stripe_event(kind, f"evt_{key}", at, about)
    if "MessageSid" in about:
        return twilio_event(kind, f"sms_{key}", at, **about)
    if "Body" in about:
        return twilio_inbound(about["Body"], f"sms_{key}", at, From=about["From"])
    if "calendar_event_id" in about:
        return calendar_event(kind, f"meeting_{key}", at, **about)
    return sendgrid_event(kind, f"mail_{key}", at, **about)


def newest(events: Sequence[Event]) -> dict[str, set[tuple[object, ...]]]:
    """What the tables must hold, told without a database: of each key, the event with the highest version."""
    held: dict[str, dict[tuple[object, ...], dict[str, object]]] = {table.table: {} for table in TABLES}
    for row in (row for one in events for row in project(one)):
        record, rows = row.record(), held[row.table]
        key = tuple(record[name] for name in row.key)
        rows[key] = max(rows.get(key, record), record, key=lambda one: str(one["version"]))
    return {
        table: {(*key, row["event_id"], row["version"]) for key, row in rows.items()} for table, rows in held.items()
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(told=TOLD, data=st.data())
def test_any_order_duplication_and_portions_give_the_same_tables(
    told: list[tuple[str, int, dict[str, Any]]], data: st.DataObject
) -> None:
    events = made(told)
    arrivals = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=5))))
    bounds = st.integers(0, len(events))
    ranges = data.draw(st.lists(st.tuples(bounds, bounds), max_size=4))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "warehouse.db"
        warehouse = open_warehouse(f"sqlite:///{path}")
        log = open_log(f"sqlite:///{folder}/events.db")
        for arrival in arrivals:
            log.publish([arrival])
        for after, until in ranges:
            apply_range(log, warehouse, after, until, run_id="run", portion=3)
        catch_up(log, warehouse)
        log.close()
        held = {
            table.table: {
                tuple(row[name] for name in (*table.key, "event_id", "version"))
                for row in read_sqlite(path, table.table)
            }
            for table in TABLES
        }
    assert held == newest(events)
