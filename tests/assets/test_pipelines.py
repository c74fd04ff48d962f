"""A pipeline file as Dagster sees it."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from assets.pipelines import build_assets
from assets.report import checks, metadata
from etl.pipeline import Pipeline
from etl.stream import PartitionLag, Progress, RunReport
from events.log import open_log
from resources.progress import RunProgress
from schedules.pipelines import build_schedules
from settings import get_settings

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture(autouse=True)
def _orders(project: Path) -> None:
    """A project with one file to load."""
    (project / "orders.csv").write_text("id,amount\n1,10.50\n2,-1\n3,7\n")


def pipeline(**parts: Any) -> Pipeline:
    declared = {
        "name": "orders",
        "description": "Shop orders",
        "owners": ["team:data"],
        "group": "shop",
        "source": {"type": "file", "path": "orders.csv"},
        "transform": {
            "convert": {"amount": "decimal(18,2)"},
            "validate": {"amount": {"min": 0}},
            "derive": {"double": "amount * 2"},
        },
        "destination": {
            "type": "database",
            "connection": "duckdb:///warehouse.duckdb",
            "table": "analytics.orders",
            "write": "merge",
            "key": ["id"],
        },
    }
    return Pipeline.model_validate(declared | parts)


def materialize(*pipelines: Pipeline) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        build_assets(pipelines), resources={"progress": RunProgress()}, run_config=QUIET, raise_on_error=False
    )


def specs(*pipelines: Pipeline) -> dict[str, dg.AssetSpec]:
    found: dict[str, dg.AssetSpec] = {}
    for made in build_assets(pipelines):
        for spec in made.specs if isinstance(made, dg.AssetsDefinition) else [made]:
            found[spec.key.to_user_string()] = spec
    return found


def test_what_a_pipeline_file_says_is_what_dagster_shows() -> None:
    spec = specs(pipeline())["orders"]
    assert spec.description == "Shop orders"
    assert spec.group_name == "shop"
    assert spec.owners == ["team:data"]
    assert spec.kinds == {"file", "duckdb"}
    assert spec.metadata["dagster/table_name"] == "analytics.orders"


def test_an_api_is_shown_without_the_secrets_of_its_address() -> None:
    sent = specs(
        pipeline(destination={"type": "api", "url": "https://me:geheim@shop.example.com/v1/orders?key=geheim"})
    )
    assert sent["orders"].kinds == {"file", "api"}
    assert sent["orders"].metadata["url"] == "https://shop.example.com/v1/orders"
    assert "geheim" not in repr(sent["orders"])


def test_a_source_is_an_external_asset_upstream() -> None:
    found = specs(pipeline())
    assert [dep.asset_key.to_user_string() for dep in found["orders"].deps] == ["file/orders_csv"]
    assert found["file/orders_csv"].group_name == "sources"


def test_the_name_of_a_source_has_no_secret_of_its_address() -> None:
    shop = pipeline(
        source={"type": "database", "connection": "postgresql://me:geheim@shop.example.com/shop", "table": "orders"}
    )
    assert not [name for name, spec in specs(shop).items() if "geheim" in name or "geheim" in repr(spec)]


def test_two_pipelines_that_read_one_table_share_its_asset() -> None:
    source = {"type": "database", "connection": "${SHOP_DATABASE_URL:-sqlite:///shop.db}", "table": "orders"}
    found = specs(pipeline(source=source), pipeline(name="orders_again", source=source))
    assert sorted(found) == ["orders", "orders_again", "shop/orders"]


def test_a_pipeline_that_reads_what_another_writes_is_downstream_of_it() -> None:
    lake = pipeline(
        name="orders_lake",
        source={"type": "database", "connection": "duckdb:///warehouse.duckdb", "table": "analytics.orders"},
        transform={},
        destination={"type": "file", "path": "lake/orders", "write": "replace"},
    )
    assert [dep.asset_key.to_user_string() for dep in specs(pipeline(), lake)["orders_lake"].deps] == ["orders"]


def test_a_pipeline_that_reads_the_topic_of_another_is_downstream_of_it() -> None:
    brokers = {"type": "stream", "brokers": "${KAFKA_BROKERS:-localhost:9092}"}
    found = specs(
        pipeline(destination={**brokers, "topic": "shop.orders", "key": ["id"]}),
        pipeline(name="orders_lake", source={**brokers, "topics": "shop.orders"}),
    )
    assert (found["orders"].kinds, found["orders"].metadata["topic"]) == ({"file", "kafka"}, "shop.orders")
    assert [dep.asset_key.to_user_string() for dep in found["orders_lake"].deps] == ["orders"]


def test_a_materialization_tells_where_every_row_went() -> None:
    result = materialize(pipeline())
    assert result.success
    told: dict[str, Any] = {
        key: value.value for key, value in result.asset_materializations_for_node("orders")[0].metadata.items()
    }
    assert (told["rows_extracted"], told["rows_loaded"], told["rows_quarantined"]) == (3, 2, 1)
    assert (told["rows_expired"], told["partition"]) == (0, None)
    assert "amount: " in told["rejected"]
    assert "10.50" in told["preview"]
    assert {column.name: column.type for column in told["dagster/column_schema"].columns}["amount"].startswith(
        "decimal"
    )
    lineage = told["dagster/column_lineage"].deps_by_column
    assert [dep.column_name for dep in lineage["double"]] == ["amount"]


def test_a_materialization_of_a_stream_tells_what_waits_and_what_was_deleted() -> None:
    stream = pipeline(source={"type": "stream", "brokers": "localhost:9092", "topics": "t", "tombstones": "delete"})
    lag = [PartitionLag("t", 0, 7, 9, 12.3456), PartitionLag("t", 1, 5, 5)]
    report = RunReport("orders", "1", "stream t", "db", extracted=3, inserted=1, tombstones=2, deleted=1, lag=lag)

    told = metadata(stream, dg.AssetKey("t"), report)

    assert (told["tombstones"], told["rows_deleted"]) == (2, 1)
    assert (told["lag"], told["oldest_unread_seconds"]) == (2, 12.346)
    head, _, *lines = told["partitions"].value.splitlines()
    assert head == "| topic | partition | committed | end | lag | oldest unread |"
    assert lines == ["| t | 0 | 7 | 9 | 2 | 12.3 s |", "| t | 1 | 5 | 5 | 0 |  |"]
    accounted, _ = checks(report)
    assert (accounted.passed, accounted.metadata["tombstones"].value) == (True, 2)


def test_quarantined_rows_warn_but_do_not_fail() -> None:
    checks = {check.check_name: check for check in materialize(pipeline()).get_asset_check_evaluations()}
    assert checks["rows_accounted_for"].passed
    assert not checks["no_row_quarantined"].passed
    assert checks["no_row_quarantined"].severity is dg.AssetCheckSeverity.WARN


def test_a_mistake_of_the_user_is_a_failure_with_its_hint_and_no_retry() -> None:
    result = materialize(pipeline(source={"type": "file", "path": "nowhere.csv"}))
    failed = [event for event in result.all_events if event.is_step_failure]
    retried = [event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_UP_FOR_RETRY]
    told = failed[0].step_failure_data.user_failure_data
    assert told is not None
    assert "nowhere.csv" in (told.description or "")
    assert "hint:" in (told.description or "")
    assert not retried


def test_a_run_that_dagster_terminates_publishes_nothing_and_says_that_it_was_canceled(project: Path) -> None:
    class Terminated(RunProgress):
        def watch(self, log: logging.Logger) -> Progress:  # noqa: ARG002
            return lambda report: os.kill(os.getpid(), signal.SIGINT)  # noqa: ARG005  (as Dagster's run worker is told)

    done = dg.materialize(
        build_assets([pipeline()]), resources={"progress": Terminated()}, run_config=QUIET, raise_on_error=False
    )
    assert not done.success
    assert not (project / "warehouse.duckdb").exists()
    with closing(open_log(get_settings().events_url)) as log:
        (recorded,) = log.read(0, 10)
    assert recorded.event.type == "pivotal.pipeline.canceled"


def test_a_schedule_runs_its_pipeline_alone() -> None:
    (schedule,) = build_schedules([pipeline(schedule="*/15 * * * *"), pipeline(name="unscheduled")])
    assert schedule.cron_schedule == "*/15 * * * *"
    assert schedule.name == "orders_schedule"


# --- partitions -------------------------------------------------------------------------------------------------


def partitioned(**parts: Any) -> Pipeline:
    """Orders by day, from a file."""
    transform = {"convert": {"day": "date"}}
    return pipeline(transform=transform, partitions={"by": "day", "every": "day", "start": "2024-01-01"}, **parts)


def run_partitions(asset: Pipeline, first: str, last: str) -> list[str]:
    """Materializes a range in one run; the partitions that Dagster has of it afterwards."""
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    done = dg.materialize(build_assets([asset]), resources={"progress": RunProgress()}, run_config=QUIET, tags=tags)
    return sorted(str(each.partition) for each in done.asset_materializations_for_node(asset.name))


def days_loaded(project: Path) -> list[str]:
    with duckdb.connect(str(project / "warehouse.duckdb"), read_only=True) as warehouse:
        return [str(day) for (day,) in warehouse.execute("SELECT day FROM analytics.orders ORDER BY id").fetchall()]


def test_a_partition_and_a_range_of_them_are_each_one_run(project: Path) -> None:
    (project / "orders.csv").write_text("id,day\n" + "".join(f"{day},2024-01-0{day}\n" for day in range(1, 8)))
    asset = partitioned()
    done = dg.materialize(
        build_assets([asset]), resources={"progress": RunProgress()}, run_config=QUIET, partition_key="2024-01-02"
    )
    assert done.success
    (made,) = done.asset_materializations_for_node("orders")
    assert made.metadata["partition"].value == "2024-01-02"
    assert days_loaded(project) == ["2024-01-02"]
    assert run_partitions(asset, "2024-01-04", "2024-01-06") == ["2024-01-04", "2024-01-05", "2024-01-06"]
    assert days_loaded(project) == ["2024-01-02", "2024-01-04", "2024-01-05", "2024-01-06"]


def test_values_are_partitions_too(project: Path) -> None:
    (project / "orders.csv").write_text("id,day\n1,mon\n2,tue\n3,wed\n")
    asset = pipeline(transform={}, partitions={"by": "day", "values": ["mon", "tue", "wed"]})
    assert run_partitions(asset, "mon", "tue") == ["mon", "tue"]
    assert days_loaded(project) == ["mon", "tue"]


def test_pipelines_with_other_partitions_may_read_from_each_other() -> None:
    table = {"type": "database", "connection": "duckdb:///warehouse.duckdb", "table": "analytics.orders"}
    written = {**table, "write": "replace"}
    reading = [
        pipeline(name=name, source=table, transform={}, destination={**written, "table": name}, partitions=partitions)
        for name, partitions in {
            "hourly": {"by": "day", "every": "hour", "start": "2024-01-01"},
            "regional": {"by": "id", "values": ["1"]},
            "whole": None,
        }.items()
    ]
    resources = {"progress": RunProgress()}
    dg.Definitions.validate_loadable(dg.Definitions(build_assets([partitioned(), *reading]), resources=resources))


@pytest.mark.parametrize(
    ("at", "expected"),
    [("2024-01-05T06:00", ["2024-01-04"]), ("2024-01-05T00:00", ["2024-01-04"]), ("2024-01-01T06:00", [])],
)
def test_a_schedule_runs_the_latest_complete_partition(at: str, expected: list[str]) -> None:
    asset = partitioned(schedule="0 6 * * *")
    assert scheduled(asset, at) == expected


def test_a_schedule_runs_every_value() -> None:
    asset = pipeline(partitions={"by": "id", "values": ["1", "2"]}, schedule="0 6 * * *")
    assert scheduled(asset, "2024-01-05T06:00") == ["1", "2"]


def scheduled(asset: Pipeline, at: str) -> list[str | None]:
    """The partitions that a tick of the schedule asks for."""
    (schedule,) = build_schedules([asset])
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    resources = {"progress": RunProgress()}
    known = dg.Definitions(build_assets([asset]), schedules=[schedule], resources=resources).get_repository_def()
    with (
        dg.instance_for_test() as instance,
        dg.build_schedule_context(instance, moment, repository_def=known) as context,
    ):
        return [request.partition_key for request in schedule.evaluate_tick(context).run_requests or []]
