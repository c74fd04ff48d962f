"""Rows that a run does not bring: deleted, or marked as deleted."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from errors import ConfigError, DestinationError
from etl.destinations.warehouse import Scope, Target
from etl.loader import load_pipelines
from etl.run import run_pipeline
from etl.stream import Loaded
from tests.etl.destinations.backends import Backend, bad, load, load_table, rows


def test_rows_that_a_run_does_not_bring_are_deleted(database: Backend) -> None:
    destination = database.destination("merge", key=["shop", "id"], delete_missing=True)
    load(destination, rows(shop=["a", "a", "b", "b"], id=[1, 2, 1, 2], n=[1, 2, 3, 4]))

    loaded = load(destination, rows(shop=["a", "b", "c"], id=[2, 1, 1], n=[2, 30, 5]), run_id="run-2")

    assert loaded == Loaded(inserted=1, updated=1, deduplicated=1, deleted=2)
    assert [tuple(row.values()) for row in database.rows(order="shop")] == [("a", 2, 2), ("b", 1, 30), ("c", 1, 5)]


def test_a_run_that_brings_nothing_does_not_empty_the_table(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], delete_missing=True)
    assert load(destination) == Loaded(inserted=0)
    load(destination, rows(id=[1, 2]))

    for nothing in ([], [rows(id=[1]).slice(0, 0)]):
        with pytest.raises(DestinationError, match="no row came, so `delete_missing` would delete all"):
            load(destination, *nothing, run_id="run-2")

    assert database.rows() == [{"id": 1}, {"id": 2}]


def test_nothing_is_deleted_while_a_row_that_might_be_it_is_in_quarantine(
    database: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    destination = database.destination("merge", key=["id"], delete_missing=True)
    load(destination, rows(id=[1, 2]))

    with caplog.at_level(logging.WARNING):
        loaded = load(destination, rows(id=[1]), quarantine=[bad("x", 2)], run_id="run-2")

    assert loaded == Loaded(inserted=0, deduplicated=1)
    assert "orders: rows were quarantined, so no missing rows were deleted" in caplog.messages
    assert load(destination, rows(id=[1]), run_id="run-3").deleted == 1


def test_only_rows_of_the_scope_can_be_missing(database: Backend) -> None:
    def merge(scope: Scope, *batches: pa.RecordBatch) -> Loaded:
        return load_table(database, Target("orders", "merge", ["id"], scope=scope, delete_missing=True), *batches)

    load(database.destination("merge", key=["id"]), rows(id=[1, 2, 3, 4], n=[1, 2, 2, 9]))

    assert merge(Scope("n", 2, 5), rows(id=[2], n=[2])) == Loaded(inserted=0, deduplicated=1, deleted=1)
    assert merge(Scope("n", 9)) == Loaded(inserted=0, deleted=1)

    assert [row["id"] for row in database.rows()] == [1, 2]


def test_missing_rows_may_be_marked_and_come_back(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], delete_missing=True, soft_delete="deleted_at")
    load(destination, rows(id=[1, 2], n=[1, 2]))

    assert load(destination, rows(id=[1], n=[1]), run_id="2") == Loaded(inserted=0, deduplicated=1, deleted=1)
    first = database.rows()
    assert load(destination, rows(id=[1], n=[1]), run_id="3") == Loaded(inserted=0, deduplicated=1)
    assert database.rows() == first
    assert ["deleted_at" in row for row in first] == [False, True]
    assert isinstance(first[1]["deleted_at"], datetime if database.kind != "sqlite" else str)
    assert load(destination, rows(id=[1, 2], n=[1, 2]), run_id="4") == Loaded(inserted=0, updated=1, deduplicated=1)

    assert database.rows() == [{"id": 1, "n": 1}, {"id": 2, "n": 2}]


def test_a_run_that_brings_nothing_does_not_mark_all_rows(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], delete_missing=True, soft_delete="deleted_at")
    load(destination, rows(id=[1]))

    with pytest.raises(DestinationError, match="no row came"):
        load(destination, run_id="run-2")


def test_a_table_may_start_to_mark_what_is_missing(database: Backend) -> None:
    load(database.destination("merge", key=["id"]), rows(id=[1, 2]))
    destination = database.destination("merge", key=["id"], delete_missing=True, soft_delete="deleted_at")

    assert load(destination, rows(id=[1]), run_id="2") == Loaded(inserted=0, deduplicated=1, deleted=1)


def test_a_column_of_the_source_is_no_mark(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], delete_missing=True, soft_delete="deleted_at")

    with pytest.raises(DestinationError, match="the rows have a column deleted_at of their own"):
        load(destination, rows(id=[1], deleted_at=["x"]))


PIPELINE = """
description: Orders
source: {type: file, path: orders.csv}
transform: {convert: {id: integer}, filter: ["status <> 'test'"]}
destination:
  {type: database, connection: "sqlite:///w.db", table: orders, write: merge, key: [id], delete_missing: true}
"""


def test_a_run_reports_what_it_deleted_and_a_replay_deletes_nothing(project: Path) -> None:
    file = project / "pipelines/orders.yaml"
    file.parent.mkdir()
    file.write_text(PIPELINE)
    orders = project / "orders.csv"
    orders.write_text("id,status\n1,paid\n2,paid\n3,paid\n")
    assert run_pipeline(load_pipelines(file.parent)[0]).deleted == 0

    orders.write_text("id,status\n1,paid\n2,test\nx,paid\n")
    report = run_pipeline(load_pipelines(file.parent)[0])
    assert (report.deleted, report.quarantined, report.balanced) == (0, 1, True)
    assert run_pipeline(load_pipelines(file.parent)[0], replay=True).deleted == 0

    orders.write_text("id,status\n1,paid\n2,test\n")
    report = run_pipeline(load_pipelines(file.parent)[0])
    assert (report.extracted, report.filtered, report.deduplicated, report.deleted) == (2, 1, 1, 2)


@pytest.mark.parametrize(
    ("source", "destination", "message"),
    [
        ("", "write: append, delete_missing: true", "`delete_missing` without `merge`"),
        ("", "write: replace, history: true", "`history` without `merge`"),
        ("", "write: merge, key: [id], soft_delete: gone", "`soft_delete` without `delete_missing`"),
        ("", "write: merge, key: [id], delete_missing: true, soft_delete: gone, history: true", "beside `history`"),
        (", incremental: true", "write: merge, key: [id], delete_missing: true", "`delete_missing` with `incremental`"),
    ],
)
def test_a_combination_that_cannot_work_is_refused(source: str, destination: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text(
        f"description: x\nsource: {{type: file, path: x.csv{source}}}\n"
        f"destination: {{type: database, connection: 'sqlite:///w.db', table: orders, {destination}}}\n"
    )

    with pytest.raises(ConfigError, match=message):
        load_pipelines(tmp_path)
