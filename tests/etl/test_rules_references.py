"""`references`: values that another table must have."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pytest

from errors import DestinationError, PivotalError
from etl.destinations.warehouse import Target, open_warehouse
from etl.loader import check
from etl.pipeline import Pipeline
from etl.preview import preview
from etl.run import run_pipeline
from etl.stream import RunReport


@pytest.fixture(params=["duckdb", "sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest, project: Path) -> str:
    """An empty database."""
    if request.param in {"duckdb", "sqlite"}:
        return f"{request.param}:///{project}/crm.db"
    return str(request.getfixturevalue(f"{request.param}_url"))


def keep(url: str, table: str, rows: pa.RecordBatch) -> None:
    with open_warehouse(url).transaction() as transaction:
        writer = transaction.writer(Target(table, "append"))
        writer.write(rows)
        writer.finish()
        transaction.commit()


def orders(validate: dict[str, Any], destination: str = "duckdb:///orders.db", **convert: str) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "orders",
            "description": "Orders",
            "source": {"type": "file", "path": "orders.csv"},
            "transform": {"convert": convert, "validate": validate},
            "destination": {"type": "database", "connection": destination, "table": "orders", "write": "append"},
        }
    )


def run(project: Path, declared: Pipeline, *lines: str) -> RunReport:
    (project / "orders.csv").write_text("\n".join(lines) + "\n")
    return run_pipeline(declared)


def customers(url: str | None = None) -> dict[str, Any]:
    return {"references": {"table": "customers", "column": "id"} | ({"connection": url} if url else {})}


def test_a_value_that_the_other_table_lacks_is_quarantined(project: Path, url: str) -> None:
    keep(url, "customers", pa.record_batch({"id": [1, 2, 2], "name": ["a", "b", "c"]}))
    declared = orders({"customer": customers(url)}, id="integer", customer="integer")
    report = run(project, declared, "id,customer", "1,1", "2,7", "3,2", "4,", "5,x", "6,7")
    assert (report.loaded, report.quarantined) == (3, 3)
    told = [[f"{each.rule}: {each.message}" for each in bad.broken] for bad in report.rejected]
    assert told == [
        ["references: customers.id: '7' is not in customers.id"],
        ["convert: integer: 'x' is not an integer of 64 bits"],
        ["references: customers.id: '7' is not in customers.id"],
    ]


def test_keys_of_any_type_are_found(project: Path, url: str) -> None:
    there = {
        "name": pa.array(["a", "é", "it's"]),
        "small": pa.array([1, 2, 3], pa.int16()),
        "price": pa.array([Decimal("1.50"), Decimal("2.00"), None]),
        "day": pa.array([date(2024, 1, 1), None, None]),
        "code": pa.array([UUID(int=1).bytes, None, None], pa.uuid()),
    }
    keep(url, "customers", pa.record_batch(there))
    validate = {name: {"references": {"table": "customers", "column": name, "connection": url}} for name in there}
    kinds = {"small": "integer", "price": "decimal(10,2)", "day": "date", "code": "uuid"}
    report = run(
        project,
        orders(validate, **kinds),
        "name,small,price,day,code",
        f"é,1,1.5,2024-01-01,{UUID(int=1)}",
        "it's,3,2.0,,",
        f"A,70000,1.51,2024-01-02,{UUID(int=2)}",
    )
    assert report.loaded == 2
    assert [each.rule for each in report.rejected[0].broken] == [f"references: customers.{name}" for name in there]


def test_the_other_table_is_in_the_destination_unless_the_file_says_otherwise(project: Path) -> None:
    keep("duckdb:///orders.db", "crm.customers", pa.record_batch({"id": [1]}))
    declared = orders({"customer": {"references": {"table": "crm.customers", "column": "ID"}}}, customer="integer")
    assert run(project, declared, "id,customer", "1,1", "2,2").loaded == 1
    assert [row.broken[0].rule for row in preview(declared, 5) if row.broken] == ["references: crm.customers.ID"]


def test_looking_up_leaves_the_other_database_as_it_is(project: Path) -> None:
    with closing(sqlite3.connect(project / "crm.db")) as connection:
        connection.execute("CREATE TABLE customers (id INTEGER)")
        connection.execute("INSERT INTO customers VALUES (1)")
        connection.commit()
    before = (project / "crm.db").read_bytes()
    assert run(project, orders({"c": customers("sqlite:///crm.db")}, c="integer"), "c", "1", "2").loaded == 1
    assert (project / "crm.db").read_bytes() == before


def test_every_broken_rule_is_told_and_duplicates_are_counted_among_the_good(project: Path) -> None:
    keep("duckdb:///orders.db", "customers", pa.record_batch({"id": [1, 2]}))
    declared = orders({"id": {"unique": True}, "c": {**customers(), "max": 5}}, id="integer", c="integer")
    report = run(project, declared, "id,c", "1,9", "1,1", "1,2")
    assert [[each.rule for each in bad.broken] for bad in report.rejected] == [
        ["references: customers.id", "max: 5"],
        ["unique"],
    ]
    with duckdb.connect(project / "orders.db") as connection:
        assert connection.execute("SELECT * FROM orders").fetchall() == [(1, 1)]


def test_many_values_are_looked_up_batch_by_batch(project: Path) -> None:
    keep("duckdb:///orders.db", "customers", pa.record_batch({"id": range(200_000)}))
    report = run(project, orders({"c": customers()}, c="integer"), "c", *map(str, range(3, 200_003)))
    assert (report.loaded, report.quarantined) == (199_997, 3)


@pytest.mark.parametrize(
    ("table", "column", "message"),
    [
        ("clients", "id", "there is no table clients, which `references` names"),
        ("customers", "key", "customers has no column key\n  hint: it has id"),
        ("customers", "id", "column id of customers is .*, the values to be looked up are string"),
    ],
)
def test_what_cannot_be_looked_up_is_told(project: Path, table: str, column: str, message: str) -> None:
    url = "duckdb:///crm.db"
    keep(url, "customers", pa.record_batch({"id": [1]}))
    references = {"table": table, "column": column, "connection": url}
    with pytest.raises(DestinationError, match=message):
        run(project, orders({"c": {"references": references}}), "c", "1")


def test_a_database_that_is_not_there_is_not_made(project: Path) -> None:
    with pytest.raises(DestinationError, match="there is no table customers"):
        run(project, orders({"c": customers("duckdb:///crm.db")}, c="integer"), "c", "1")
    assert not (project / "crm.db").exists()


def test_a_variable_stands_for_the_other_connection(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = orders({"c": customers("${CRM_URL}")}, c="integer")
    with pytest.raises(PivotalError, match="the environment variable CRM_URL is not set"):
        run(project, declared, "c", "1")
    monkeypatch.setenv("CRM_URL", "duckdb:///crm.db")
    keep("duckdb:///crm.db", "customers", pa.record_batch({"id": [1]}))
    assert run(project, declared, "c", "1").loaded == 1


def test_a_check_of_the_file_knows_the_variable_and_asks_for_a_connection(tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    text = (
        "description: Orders\nsource: {type: file, path: orders.csv}\n"
        "transform: {validate: {c: {references: {table: t, column: id%s}}}}\n"
        "destination: {type: file, path: lake, write: append}\n"
    )
    file.write_text(text % ', connection: "${CRM_URL}"')
    assert [problem.text for problem in check([file])] == ["${CRM_URL}"]
    file.write_text(text % ', connection: "sqlite:///crm.db"')
    assert check([file]) == []
    file.write_text(text % "")
    assert [problem.message for problem in check([file])] == [
        "`references` of `c` has no connection, and the destination is none"
    ]
