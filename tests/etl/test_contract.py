"""What becomes of columns that are new, and of columns that are missing, over several runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from errors import RuleError
from etl.loader import check
from etl.pipeline import Pipeline
from etl.preview import preview
from etl.run import run_pipeline
from etl.stream import RunReport

Table = Callable[[], tuple[list[str], list[tuple[Any, ...]]]]


def pipeline(destination: dict[str, Any], **transform: Any) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "people",
            "description": "People",
            "source": {"type": "file", "path": "people.ndjson"},
            "transform": transform,
            "destination": {"write": "append"} | destination,
        }
    )


def run(project: Path, declared: Pipeline, *records: dict[str, Any]) -> RunReport:
    (project / "people.ndjson").write_bytes(b"\n".join(map(orjson.dumps, records)))
    return run_pipeline(declared)


@pytest.fixture(params=["duckdb", "sqlite", "postgres", "parquet"])
def kept(request: pytest.FixtureRequest, project: Path) -> tuple[dict[str, Any], Table]:
    """A destination, and what its table holds."""
    if request.param == "parquet":

        def read_files() -> tuple[list[str], list[tuple[Any, ...]]]:
            files = duckdb.read_parquet(f"{project}/lake/people/*.parquet", union_by_name=True).order("id")
            return files.columns, files.fetchall()

        return {"type": "file", "path": "lake/people"}, read_files
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else f"{request.param}:///people.db"

    def read_table() -> tuple[list[str], list[tuple[Any, ...]]]:
        with closing(connect(url, project)) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT * FROM people ORDER BY id")
            return [column[0] for column in cursor.description], list(cursor.fetchall())

    return {"type": "database", "connection": url, "table": "people"}, read_table


def connect(url: str, project: Path) -> Any:
    if url.startswith("duckdb"):
        return duckdb.connect(project / "people.db", read_only=True)
    if url.startswith("sqlite"):
        return sqlite3.connect(project / "people.db")
    import psycopg

    return psycopg.connect(url)


def test_a_new_column_is_added(project: Path, kept: tuple[dict[str, Any], Table]) -> None:
    destination, table = kept
    run(project, pipeline(destination), {"id": 1})
    run(project, pipeline(destination), {"id": 2, "city": "Rome"})
    assert table() == (["id", "city"], [(1, None), (2, "Rome")])


def test_a_new_column_is_left_out_if_the_contract_ignores_it(
    project: Path, kept: tuple[dict[str, Any], Table], caplog: pytest.LogCaptureFixture
) -> None:
    destination, table = kept
    declared = pipeline(destination, on_new_column="ignore")
    run(project, declared, {"id": 1, "at": {"city": "Rome"}})
    report = run(project, declared, {"id": 2, "at": {"city": "Oslo", "zip": "1"}, "extra": True})
    assert table() == (["id", "at_city"], [(1, "Rome"), (2, "Oslo")])
    assert (report.loaded, list(report.schema)) == (1, ["id", "at_city"])
    assert sorted(line.split(" is left out")[0] for line in caplog.messages) == [
        "the new column at_zip",
        "the new column extra",
    ]


def test_a_new_column_fails_the_run_and_nothing_is_loaded(project: Path, kept: tuple[dict[str, Any], Table]) -> None:
    destination, table = kept
    declared = pipeline(destination, on_new_column="fail")
    run(project, declared, {"id": 1, "none": None})
    run(project, declared, {"id": 2, "none": None})  # a column without a type is nothing new
    with pytest.raises(RuleError, match=r"the source has a new column, city, which .*people.* does not have"):
        run(project, declared, {"id": 3, "city": "Rome"})
    assert table() == (["id"], [(1,), (2,)])


def test_what_a_rule_names_is_asked_for_and_so_never_new(project: Path, kept: tuple[dict[str, Any], Table]) -> None:
    destination, table = kept
    run(project, pipeline(destination, on_new_column="fail"), {"id": 1})
    rules = {"map": {"place": "at", "*": "*"}, "convert": {"n": "integer"}, "derive": {"double": "n * 2"}}
    run(project, pipeline(destination, on_new_column="fail", **rules), {"id": 2, "n": "5", "place": {"city": "Rome"}})
    assert table()[1][1] == (2, 5, "Rome", 10)


def test_a_column_is_new_if_the_destination_says_so_not_by_upper_and_lower_case(
    project: Path, kept: tuple[dict[str, Any], Table]
) -> None:
    destination, table = kept
    declared = pipeline(destination, on_new_column="ignore")
    run(project, declared, {"id": 1, "city": "Rome"})
    run(project, declared, {"id": 2, "CITY": "Oslo"})
    same = destination.get("connection", "").startswith(("duckdb", "sqlite"))
    assert table() == (["id", "city"], [(1, "Rome"), (2, "Oslo" if same else None)])


def test_a_preview_holds_to_the_contract(project: Path) -> None:
    destination = {"type": "database", "connection": "duckdb:///people.db", "table": "people"}
    declared = pipeline(destination, on_new_column="ignore")
    run(project, declared, {"id": 1})
    (project / "people.ndjson").write_bytes(b'{"id": 2, "city": "Rome"}')
    assert preview(declared, 5)[0].result == {"id": 2}


# --- columns that are missing ---------------------------------------------------------------------------------

RULES: dict[str, Any] = {
    "map": {"at.city": "city", "phone": "tel", "*": "*"},
    "convert": {"born": "date"},
    "validate": {"tel": {"max_length": 3}},
    "derive": {"gone": "deleted IS NOT NULL"},
}


def test_a_column_that_a_rule_names_must_be_there(project: Path, kept: tuple[dict[str, Any], Table]) -> None:
    with pytest.raises(RuleError, match=r"map: there is no column at\.city"):
        run(project, pipeline(kept[0], **RULES), {"id": 1})


def test_a_missing_column_is_null_if_the_contract_says_so(project: Path, kept: tuple[dict[str, Any], Table]) -> None:
    destination, table = kept
    declared = pipeline(destination, on_missing_column=None, **RULES)
    run(project, declared, {"id": 1})
    run(project, declared, {"id": 2, "at": {"city": "Rome"}, "phone": "1", "born": "2024-05-01", "deleted": True})
    names, rows = table()
    first, second = (dict(zip(names, row, strict=True)) for row in rows)
    assert (first["city"], first["tel"], first["born"], bool(first["gone"])) == (None, None, None, False)
    assert (second["city"], second["tel"], str(second["born"]), bool(second["gone"])) == (
        "Rome",
        "1",
        "2024-05-01",
        True,
    )


def test_a_required_column_that_is_missing_breaks_its_rows(project: Path) -> None:
    destination = {"type": "database", "connection": "duckdb:///people.db", "table": "people"}
    declared = pipeline(destination, on_missing_column=None, validate={"email": {"required": True, "unique": True}})
    report = run(project, declared, {"id": 1}, {"id": 2})
    assert (report.loaded, report.quarantined) == (0, 2)
    assert report.rejected[0].row == {"id": "1"}
    assert [broken.message for broken in report.rejected[0].broken] == ["there is no value"]


def test_null_stands_in_the_file_as_it_is_written(project: Path) -> None:
    (project / "people.csv").write_text("id\n1\n")
    file = project / "people.yaml"
    text = (
        "description: People\nsource: {type: file, path: people.csv}\n"
        "transform:\n  on_missing_column: %s\n  convert: {born: date}\n  filter: [deleted IS NULL]\n"
        "destination: {type: file, path: lake, write: append}\n"
    )
    file.write_text(text % "null")
    assert check([file]) == []
    file.write_text(text % "fail")
    assert [problem.text for problem in check([file])] == ["born", "deleted"]
