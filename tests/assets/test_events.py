from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import psycopg
import pytest

from assets.events import process_landed_events, table_specs
from events.log import EventLog
from resources.event_log import EventLogResource
from resources.warehouse import WarehouseResource
from tests.projections.samples import NOON, invoice, sendgrid_event, stripe_event, subscription


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield instance


@pytest.fixture
def resources(tmp_path: Path) -> dict[str, object]:
    return {
        "event_log": EventLogResource(url=f"sqlite:///{tmp_path / 'events.db'}"),
        "warehouse": WarehouseResource(url=f"duckdb:///{tmp_path / 'warehouse.duckdb'}"),
    }


@pytest.fixture
def log(resources: dict[str, object]) -> Iterator[EventLog]:
    event_log = resources["event_log"]
    assert isinstance(event_log, EventLogResource)
    with event_log.open() as log:
        yield log


def run(instance: dg.DagsterInstance, resources: dict[str, object], **config: int | None) -> dg.ExecuteInProcessResult:
    return process_landed_events.execute_in_process(
        instance=instance,
        resources=resources,
        run_config={"ops": {"apply_landed_events": {"config": config}}},
        raise_on_error=False,
    )


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    return {
        event.asset_key.to_user_string(): event.materialization
        for event in result.all_events
        if event.is_step_materialization and event.asset_key
    }


def test_a_run_applies_its_range_and_tells_of_each_table(
    instance: dg.DagsterInstance, resources: dict[str, object], log: EventLog, tmp_path: Path
) -> None:
    log.publish([stripe_event("customer.subscription.created", "evt_1", NOON, subscription("incomplete"))])
    log.publish([stripe_event("customer.subscription.updated", "evt_2", NOON, subscription("active"))])
    log.publish([sendgrid_event("delivered", "e1")])
    log.publish([stripe_event("invoice.paid", "evt_3", NOON, invoice("paid"))])
    result = run(instance, resources, after=0, until=3)
    assert result.success
    told = materialized(result)
    assert told.keys() == {"subscriptions", "email_messages"}
    metadata = {name: entry.value for name, entry in told["subscriptions"].metadata.items()}
    (preview,) = [value for name, value in metadata.items() if name == "preview"]
    assert [record.data["status"] for record in preview.records] == ["incomplete", "active"]  # type: ignore[union-attr]
    assert {name: value for name, value in metadata.items() if name != "preview"} == {
        "rows_inserted": 1,
        "rows_updated": 0,
        "rows_deduplicated": 1,
        "first_sequence": 1,
        "last_sequence": 2,
        "dead_letters": 0,
    }
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT status FROM subscriptions").fetchall() == [("active",)]


def test_log_and_warehouse_may_both_be_in_postgresql(instance: dg.DagsterInstance, postgres_url: str) -> None:
    event_log = EventLogResource(url=postgres_url)
    with event_log.open() as log:
        log.publish([sendgrid_event("delivered", "e1"), stripe_event("invoice.paid", "evt_1", NOON, {})])
    resources: dict[str, object] = {"event_log": event_log, "warehouse": WarehouseResource(url=postgres_url)}
    result = run(instance, resources)
    assert result.success
    assert materialized(result)["email_messages"].metadata["dead_letters"].value == 1
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT status FROM email_messages").fetchall() == [("delivered",)]
    with event_log.open() as log:
        assert [one.event.data["sequence"] for one in log.read(0, 9, types=["pivotal.event.dead_lettered"])] == [2]


def test_a_run_without_a_range_applies_all_that_is_missing(
    instance: dg.DagsterInstance, resources: dict[str, object], log: EventLog
) -> None:
    log.publish([sendgrid_event("delivered", "e1"), sendgrid_event("open", "e2")])
    assert materialized(run(instance, resources)).keys() == {"email_messages"}
    assert materialized(run(instance, resources)) == {}


def test_a_poisoned_event_does_not_fail_the_run(
    instance: dg.DagsterInstance, resources: dict[str, object], log: EventLog
) -> None:
    log.publish([stripe_event("invoice.paid", "evt_1", NOON, {}), sendgrid_event("open", "e1")])
    result = run(instance, resources)
    assert result.success
    assert materialized(result)["email_messages"].metadata["dead_letters"].value == 1
    warnings = [entry.user_message for entry in instance.all_logs(result.run_id) if entry.level == 30]
    assert [warning.partition(" is a dead letter")[0] for warning in warnings] == ["event 1 (stripe.invoice.paid)"]


def test_a_warehouse_that_cannot_be_opened_fails_the_run_with_a_message(
    instance: dg.DagsterInstance, resources: dict[str, object], log: EventLog
) -> None:
    log.publish([sendgrid_event("open", "e1")])
    resources["warehouse"] = WarehouseResource(url="mongodb://somewhere/else")
    result = run(instance, resources)
    assert not result.success
    error = result.failure_data_for_node("apply_landed_events")
    assert error
    assert error.error
    assert "write duckdb:///file" in error.error.message


def test_every_table_is_declared_with_its_columns() -> None:
    tables = {spec.key.to_user_string(): spec for spec in table_specs if not spec.key.has_prefix(["webhooks"])}
    assert tables.keys() == {
        "subscriptions",
        "invoices",
        "email_messages",
        "email_suppressions",
        "sms_messages",
        "sms_suppressions",
        "calendar_events",
    }
    schema = tables["invoices"].metadata["dagster/column_schema"]
    assert {column.name: column.type for column in schema.columns}["amount_due_minor"] == "bigint"
    assert [dep.asset_key.to_user_string() for dep in tables["invoices"].deps] == ["webhooks/stripe"]


def test_dagsters_load_needs_no_engine() -> None:
    heavy = {"adbc_driver_manager", "duckdb", "pandas", "pyarrow", "sqlalchemy", "sqlglot", "stripe"}
    program = f"import assets.events, resources, sensors, sys; print(sorted({heavy} & sys.modules.keys()))"
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert answer.stdout == "[]\n"
