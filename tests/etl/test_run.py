"""A pipeline's run, from one end to the other."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from errors import InvalidRowsError, PivotalError
from etl.loader import check, load_pipelines
from etl.partitions import partition_of
from etl.pipeline import Pipeline
from etl.preview import preview
from etl.run import run_pipeline
from events.log import open_log
from settings import get_settings


def pipeline(**parts: Any) -> Pipeline:
    declared = {
        "name": "payments",
        "description": "Payments",
        "source": {"type": "file", "path": "payments.csv"},
        "transform": {
            "convert": {"amount": "decimal(18,2)"},
            "validate": {"id": {"required": True, "unique": True}, "amount": {"min": 0}},
            "filter": ["kind <> 'test'"],
        },
        "destination": {
            "type": "database",
            "connection": "duckdb:///warehouse.duckdb",
            "table": "payments",
            "write": "append",
        },
    }
    return Pipeline.model_validate(declared | parts)


def rows(project: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(project / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def write_payments(project: Path) -> None:
    (project / "payments.csv").write_text(
        "id,amount,kind\n1,10.50,card\n2,-1,card\n3,x,card\n4,7.00,test\n1,3.00,card\n5,0.10,cash\n6\n"
    )


def test_every_row_is_accounted_for(project: Path) -> None:
    write_payments(project)
    report = run_pipeline(pipeline())
    assert (report.extracted, report.loaded, report.filtered, report.quarantined) == (7, 2, 1, 4)
    assert report.balanced
    assert rows(project, "SELECT id, amount::VARCHAR FROM payments ORDER BY id") == [("1", "10.50"), ("5", "0.10")]


def test_a_pipeline_that_reads_the_clock_passes_the_check_and_runs(project: Path) -> None:
    write_payments(project)
    file = project / "timed.yaml"
    file.write_text(
        "description: Payments, and when they were loaded\n"
        "source: {type: file, path: payments.csv}\n"
        "transform: {derive: {loaded_at: now(), day: current_date}, filter: [loaded_at <= current_timestamp]}\n"
        "destination: {type: database, connection: 'duckdb:///warehouse.duckdb', table: payments, write: append}\n"
    )
    assert check([file]) == []
    (timed,) = load_pipelines(project)
    report = run_pipeline(timed)
    assert (report.extracted, report.loaded, report.quarantined) == (7, 6, 1)
    assert rows(project, "SELECT count(DISTINCT loaded_at), min(loaded_at)::DATE = min(day) FROM payments") == [
        (1, True)
    ]


def test_progress_is_told_and_the_report_shows_samples(project: Path) -> None:
    write_payments(project)
    seen: list[int] = []
    report = run_pipeline(pipeline(), progress=lambda so_far: seen.append(so_far.extracted))
    assert seen[-1] == 7
    assert report.preview[0]["id"] == "1"
    assert {broken.rule for bad in report.rejected for broken in bad.broken} >= {"min: 0", "convert: decimal(18,2)"}


def test_a_file_is_loaded_once(project: Path) -> None:
    write_payments(project)
    once = pipeline(source={"type": "file", "path": "payments.csv", "incremental": True})
    run_pipeline(once)
    again = run_pipeline(once)
    assert (again.extracted, again.loaded) == (0, 0)
    assert rows(project, "SELECT count(*) FROM payments") == [(2,)]


def test_a_full_refresh_replaces_what_was_appended(project: Path) -> None:
    write_payments(project)
    once = pipeline(source={"type": "file", "path": "payments.csv", "incremental": True})
    run_pipeline(once)
    report = run_pipeline(once, full_refresh=True)
    assert report.loaded == 2
    assert rows(project, "SELECT count(*) FROM payments") == [(2,)]


def test_on_invalid_fail_names_the_row_and_loads_nothing(project: Path) -> None:
    write_payments(project)
    with pytest.raises(InvalidRowsError, match=r"payments\.csv, record 7.*1 cell, for 3 columns") as caught:
        run_pipeline(pipeline(on_invalid="fail"))
    assert "quarantine" in str(caught.value)
    assert not (project / "warehouse.duckdb").exists()


def test_replay_after_a_fix_loads_what_now_passes(project: Path) -> None:
    write_payments(project)
    run_pipeline(pipeline())
    fixed = pipeline(
        transform={"convert": {"amount": "decimal(18,2)"}, "validate": {"id": {"required": True}}},
    )
    report = run_pipeline(fixed, replay=True)
    # -1 and the second 1 pass now; x still does not convert; the ragged line is no row and stays where it is.
    assert (report.extracted, report.loaded, report.quarantined) == (3, 2, 1)
    assert rows(project, "SELECT count(*) FROM payments") == [(4,)]
    assert rows(project, "SELECT count(*) FROM _pivotal_quarantine") == [(2,)]
    again = run_pipeline(fixed, replay=True)
    assert (again.extracted, again.loaded, again.quarantined) == (1, 0, 1)


def test_bad_rows_are_kept_for_ever_unless_the_pipeline_says_for_how_long(project: Path) -> None:
    write_payments(project)
    run_pipeline(pipeline())
    (project / "payments.csv").write_text("id,amount,kind\n1,10.50,card\n2,-1,card\n")
    assert (run_pipeline(pipeline()).expired, rows(project, "SELECT count(*) FROM _pivotal_quarantine")) == (0, [(4,)])
    assert run_pipeline(pipeline(quarantine_retention="999999d")).expired == 0

    report = run_pipeline(pipeline(quarantine_retention="0s"))

    # What this run found again stays, however old it is.
    assert (report.quarantined, report.expired) == (1, 3)
    assert rows(project, "SELECT origin FROM _pivotal_quarantine") == [('{"file":"payments.csv","record":2}',)]
    with closing(open_log(get_settings().events_url)) as log:
        assert [recorded.event.data["expired"] for recorded in log.read(0, 10)] == [0, 0, 0, 3]


@pytest.mark.parametrize("way", ["replay", "partition"])
def test_old_rows_leave_the_quarantine_in_a_replay_and_in_a_run_for_a_partition_too(project: Path, way: str) -> None:
    write_payments(project)
    kinds = {"partitions": {"by": "kind", "values": ["card", "test"]}}
    run_pipeline(pipeline(**kinds))
    short = pipeline(quarantine_retention="0s", **kinds)
    (project / "payments.csv").write_text("id,amount,kind\n7,1,test\n")
    if way == "replay":
        report = run_pipeline(short, replay=True)
        assert (report.quarantined, report.expired) == (2, 1)  # the ragged line is no row that could be replayed
    else:
        assert run_pipeline(short, partition=partition_of(short, "test")).expired == 4


def test_a_replay_leaves_the_cursor_alone(project: Path) -> None:
    write_payments(project)
    once = pipeline(source={"type": "file", "path": "payments.csv", "incremental": True})
    run_pipeline(once)
    report = run_pipeline(once, replay=True)
    assert report.state_after == report.state_before
    assert run_pipeline(once).extracted == 0


def test_preview_shows_source_beside_result_and_writes_nothing(project: Path) -> None:
    write_payments(project)
    shown = preview(pipeline(), limit=5)
    # What is no row at all comes first: a file is taken apart before its rows are looked at.
    assert [row.result is not None for row in shown] == [False, True, False, False, False]
    assert [row.outcome for row in shown] == ["broken", "inserted", "broken", "broken", "filtered"]
    assert shown[2].broken[0].rule == "min: 0"
    assert not (project / "warehouse.duckdb").exists() or rows(project, "SELECT count(*) FROM duckdb_tables()") == [
        (0,)
    ]


def test_the_event_log_hears_how_a_run_ended(project: Path) -> None:
    write_payments(project)
    run_pipeline(pipeline(), run_id="run-1")
    with pytest.raises(PivotalError):
        run_pipeline(pipeline(source={"type": "file", "path": "nowhere.csv"}), run_id="run-2")
    log = open_log(get_settings().events_url)
    events = [recorded.event for recorded in log.read(0, 10)]
    log.close()
    assert [event.type for event in events] == ["pivotal.pipeline.completed", "pivotal.pipeline.failed"]
    assert events[0].data["extracted"] == 7
    assert events[1].metadata.correlation_id == "run-2"


def test_a_second_run_waits_for_the_first_and_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setenv("PIVOTAL_LOCK_TIMEOUT", "0.1")
    get_settings.cache_clear()
    write_payments(project)
    (project / "data/locks").mkdir(parents=True)
    with FileLock(project / "data/locks/payments.lock"), pytest.raises(PivotalError, match="another run") as caught:
        run_pipeline(pipeline())
    assert caught.value.retryable


def test_a_table_goes_from_one_database_to_another(project: Path) -> None:
    with sqlite3.connect(project / "shop.db") as shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, email TEXT, updated_at TEXT)")
        shop.executemany(
            "INSERT INTO orders VALUES (?, ?, ?)", [(1, "a@b.c", "2026-01-01"), (2, "d@e.f", "2026-01-02")]
        )
    shop.close()
    orders = pipeline(
        name="orders",
        source={
            "type": "database",
            "connection": "sqlite:///shop.db",
            "table": "orders",
            "incremental": {"cursor": "updated_at"},
        },
        transform={},
        destination={
            "type": "database",
            "connection": "duckdb:///warehouse.duckdb",
            "table": "orders",
            "write": "merge",
            "key": ["id"],
        },
    )
    assert run_pipeline(orders).inserted == 2
    again = run_pipeline(orders)
    assert (again.loaded, again.deduplicated, again.extracted) == (0, 1, 1)


def test_a_date_that_python_does_not_have_can_be_shown(project: Path) -> None:
    (project / "eras.csv").write_text("id,day\n1,12345-06-07\n")
    far = pipeline(source={"type": "file", "path": "eras.csv"}, transform={"derive": {"far": "CAST(day AS DATE)"}})
    assert [row.result and str(row.result["far"]) for row in preview(far, limit=1)] == ["12345-06-07"]
    assert run_pipeline(far).preview[0]["id"] == "1"


def test_a_replay_into_a_replaced_table_keeps_the_rows_that_are_there(project: Path) -> None:
    write_payments(project)
    table = {"connection": "duckdb:///warehouse.duckdb", "table": "payments"}
    replaced = {"type": "database", "write": "replace", **table}
    run_pipeline(pipeline(destination=replaced))
    fixed = pipeline(
        destination=replaced,
        transform={"convert": {"amount": "decimal(18,2)"}, "validate": {"id": {"required": True}}},
    )
    assert run_pipeline(fixed, replay=True).loaded == 2
    assert rows(project, "SELECT count(*) FROM payments") == [(4,)]
