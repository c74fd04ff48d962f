"""A table that is there has columns which cannot take every value: nothing is lost, nothing changes silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from errors import DestinationError
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from tests.etl.destinations.backends import Backend, load, make_backend, rows

WRITES: list[Literal["append", "replace", "merge"]] = ["append", "replace", "merge"]


@pytest.fixture(params=["duckdb", "sqlite"])
def embedded(request: pytest.FixtureRequest) -> Backend:
    """The databases that are files."""
    return make_backend(request.param, request)


@pytest.fixture(params=["duckdb", "postgres", "mariadb"])
def typed(request: pytest.FixtureRequest) -> Backend:
    """The databases that keep to the types of columns."""
    return make_backend(request.param, request)


@pytest.mark.parametrize("declared", ["SMALLINT", "INTEGER"])
def test_integers_go_into_a_narrower_column_by_the_hints_own_rule(declared: str, project: Path, typed: Backend) -> None:
    (project / "orders.csv").write_text("id,n\n1,7\n2,3000000000\n")
    typed.query(f"CREATE TABLE orders (id BIGINT PRIMARY KEY, n {declared})")

    with pytest.raises(DestinationError, match=r"column n is .*, the data has int64") as error:
        run_pipeline(_pipeline(typed))
    assert f'`derive: {{n: CAST("n" AS {declared})}}`' in str(error.value.hint)
    report = run_pipeline(_pipeline(typed, derive={"n": f'CAST("n" AS {declared})'}))

    assert (report.extracted, report.loaded, report.quarantined) == (2, 1, 1)
    assert typed.rows() == [{"id": 1, "n": 7}]


@pytest.mark.parametrize("write", WRITES)
def test_what_a_tables_own_rule_refuses_is_an_error_that_leaves_the_table_as_it_was(
    write: Literal["append", "replace", "merge"], database: Backend
) -> None:
    text = "VARCHAR(20)" if database.kind == "mariadb" else "TEXT"
    database.query(f"CREATE TABLE orders (id BIGINT PRIMARY KEY, c {text} CHECK (length(c) <= 3))")
    database.query("INSERT INTO orders VALUES (1, 'old')")
    destination = database.destination(write, **_key(write))

    with pytest.raises(DestinationError, match=r"(?i)constraint") as error:
        load(destination, rows(id=[2, 3], c=["new", "long"]), state={"cursor": 3})

    assert "say the same in `validate`" in str(error.value.hint)
    assert not error.value.retryable
    assert database.rows() == [{"id": 1, "c": "old"}]
    assert destination.state() is None


@pytest.mark.parametrize("write", WRITES)
def test_a_null_in_a_column_that_takes_none_is_an_error_with_the_rule_to_add(
    write: Literal["append", "replace", "merge"], embedded: Backend
) -> None:
    embedded.query("CREATE TABLE orders (id BIGINT PRIMARY KEY, c TEXT NOT NULL)")

    with pytest.raises(DestinationError, match=r"NOT NULL constraint failed: orders\.c") as error:
        load(embedded.destination(write, **_key(write)), rows(id=[2, 3], c=["x", None]))

    assert "required: true" in str(error.value.hint)
    assert embedded.rows() == []


@pytest.mark.parametrize("write", WRITES)
def test_a_length_that_the_database_does_not_keep_to_cuts_no_text(
    write: Literal["append", "replace", "merge"], embedded: Backend
) -> None:
    embedded.query("CREATE TABLE orders (id BIGINT PRIMARY KEY, c VARCHAR(3))")

    load(
        embedded.destination(write, **_key(write)),
        rows(id=[1], c=["longer than three"]),
    )

    assert embedded.rows() == [{"id": 1, "c": "longer than three"}]


def test_a_decimal_column_with_fewer_digits_takes_what_is_converted_to_it(project: Path, typed: Backend) -> None:
    (project / "orders.csv").write_text("id,n\n1,1.25\n2,1.255\n3,1000\n")
    typed.query("CREATE TABLE orders (id BIGINT PRIMARY KEY, n DECIMAL(5,2))")

    with pytest.raises(DestinationError, match=r"(?i)column n is (decimal|numeric)\(5,2\)") as error:
        run_pipeline(_pipeline(typed, "decimal(12,3)"))
    assert "`convert: {n: decimal(5,2)}`" in str(error.value.hint)
    report = run_pipeline(_pipeline(typed, "decimal(5,2)"))

    assert (report.loaded, report.quarantined) == (1, 2)
    assert [(row["id"], str(row["n"])) for row in typed.rows()] == [(1, "1.25")]


def _key(write: str) -> dict[str, Any]:
    return {"key": ["id"]} if write == "merge" else {}


def _pipeline(database: Backend, kind: str = "integer", **transform: Any) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "orders",
            "description": "Orders",
            "source": {"type": "file", "path": "orders.csv"},
            "transform": {"convert": {"id": "bigint", "n": kind}, **transform},
            "destination": {"type": "database", "connection": database.url, "table": "orders", "write": "append"},
        }
    )
