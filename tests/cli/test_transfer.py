"""`pivotal import` and `pivotal export`: files into tables, tables into files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.cli.conftest import Pivotal

PEOPLE = """\
id,code,price,rate,born,seen,at,phone,ok,uid,note
1,007,1.10,1e5,2001-01-01,2024-01-01T10:00:00,2024-01-01T10:00:00Z,+4930123,true,6f9619ff-8b86-d011-b42d-00cf4fc964ff,
-2,12,12.345,0.5,1999-12-31,2024-01-02,2024-01-01T10:00:00+02:00,030,FALSE,6f9619ff-8b86-d011-b42d-00cf4fc964fe,"a, b"
"""
TYPES = {
    "id": "bigint", "price": "decimal(5,3)", "rate": "number", "born": "date", "seen": "timestamp", "at": "timestamptz",
    "ok": "boolean", "uid": "uuid",
}  # fmt: skip


def rows(project: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(project / "data/warehouse.duckdb"), read_only=True) as warehouse:
        return warehouse.execute(query).fetchall()


# --- import -----------------------------------------------------------------------------------------------------


def test_types_are_guessed_from_every_value_and_nothing_is_lost(project: Path, pivotal: Pivotal) -> None:
    (project / "people.csv").write_text(PEOPLE)
    answer = pivotal("import", "people.csv", "--into", "people", "--yes", "--json")
    assert answer.json["types"] == TYPES
    assert (answer.json["extracted"], answer.json["loaded"]) == (2, 2)
    found = rows(project, "SELECT id, code, price::VARCHAR, phone, ok, note FROM people ORDER BY id")
    assert found == [(-2, "12", "12.345", "030", False, "a, b"), (1, "007", "1.100", "+4930123", True, None)]


def test_the_types_are_shown_with_values_before_anything_is_loaded(project: Path, pivotal: Pivotal) -> None:
    (project / "people.csv").write_text(PEOPLE)
    answer = pivotal("import", "people.csv", "--into", "people")
    assert (answer.code, "add --yes" in answer.err) == (2, True)
    assert "price   decimal(5,3)" in answer.out
    assert "007, 12" in answer.out
    assert not (project / "data/warehouse.duckdb").exists()


def test_another_type_may_be_given_and_what_does_not_convert_is_set_aside(project: Path, pivotal: Pivotal) -> None:
    (project / "codes.csv").write_text("id,code\n1,007\n2,x\n3\n")
    answer = pivotal("import", "codes.csv", "--into", "codes", "--type", "code=integer", "--yes")
    assert rows(project, "SELECT id, code FROM codes") == [(1, 7)]
    assert "2 rows were set aside; pivotal quarantine show import_codes shows all of them:" in answer.out
    assert "code: 'x' is not an integer" in answer.out
    assert "record 3" in answer.out


@pytest.mark.parametrize("where", [[], ["--connection", "sqlite:///other.db"]])
def test_what_an_import_set_aside_is_listed_shown_and_dropped(
    project: Path, pivotal: Pivotal, where: list[str]
) -> None:
    (project / "codes.csv").write_text("id,code\n1,007\n2,x\n")
    loaded = pivotal("import", "codes.csv", "--into", "codes", "--type", "code=integer", "--yes", *where)
    assert ("show import_codes --connection URL shows" in loaded.out) is bool(where)
    assert pivotal("quarantine", "list", "--json", *where).json == [{"pipeline": "import_codes", "rows": 1}]
    (shown,) = pivotal("quarantine", "show", "import_codes", "--json", *where).json
    assert shown["row"] == {"id": "2", "code": "x"}
    assert pivotal("quarantine", "drop", "import_codes", shown["id"], "--yes", *where).out == "Dropped 1 row.\n"
    assert pivotal("quarantine", "list", "--json", *where).json == []
    assert "there is no pipeline 'import_codes'" in pivotal("quarantine", "replay", "import_codes").err


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "99999999999999999999"], "decimal(20,0)"),
        (["0.5", "-0.25", "12"], "decimal(4,2)"),
        (["1." + "0" * 40, "2"], "number"),
        (["1", "", "x"], None),
        (["", ""], None),
        (["01", "02"], None),
        (["-0"], None),
        (["1e999"], None),
        (["2024-01-01", "2024-01-01 10:00"], "timestamp"),
        (["2024-02-30"], None),
        (["yes", "no"], None),
    ],
)
def test_a_type_is_guessed_only_if_every_value_has_it(
    project: Path, pivotal: Pivotal, values: list[str], expected: str | None
) -> None:
    (project / "values.csv").write_text("n,v\n" + "".join(f"x,{value}\n" for value in values))
    answer = pivotal("import", "values.csv", "--into", "values_", "--yes", "--json")
    assert answer.json["types"].get("v") == expected


def test_what_a_file_says_to_be_text_is_no_number(project: Path, pivotal: Pivotal) -> None:
    (project / "rows.ndjson").write_text('{"id": 1, "code": "12", "day": "2024-01-01", "ok": true}\n')
    answer = pivotal("import", "rows.ndjson", "--into", "rows", "--yes", "--json")
    assert answer.json["types"] == {"day": "date"}
    assert rows(project, "SELECT id, code, ok FROM rows") == [(1, "12", True)]


def test_a_file_with_types_keeps_them(project: Path, pivotal: Pivotal) -> None:
    pa.parquet.write_table(pa.table({"id": pa.array([1], pa.int32()), "d": pa.array(["x"])}), project / "t [1].parquet")
    answer = pivotal("import", "t [1].parquet", "--into", "t", "--yes")
    assert "id      int32   1" in answer.out
    assert rows(project, "SELECT typeof(id), d FROM t") == [("INTEGER", "x")]


def test_rows_are_added_or_replaced(project: Path, pivotal: Pivotal) -> None:
    (project / "a.csv").write_text("id;n\n1;2\n")
    for write, expected in (("append", 1), ("append", 2), ("replace", 1)):
        done = pivotal("import", "a.csv", "--into", "shop.a", "--delimiter", ";", "--write", write, "--yes")
        assert (done.code, rows(project, "SELECT count(*) FROM shop.a")) == (0, [(expected,)])


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nowhere.csv", "--into", "t"], 2, "'nowhere.csv' does not exist"),
        (["a.csv", "--into", "t", "--type", "x=integer"], 2, "there is no column 'x'; the file has id"),
        (["a.csv", "--into", "t", "--type", "id=int"], 2, "'int' is not a type; choose string, integer"),
        (["a.csv", "--into", "t", "--connection", "mongo://x", "--yes"], 1, "no warehouse of the kind 'mongo'"),
        (["a.txt", "--into", "t"], 1, "its name does not tell its format"),
    ],
)
def test_an_import_that_cannot_be_is_refused(
    project: Path, pivotal: Pivotal, arguments: list[str], code: int, told: str
) -> None:
    for name in ("a.csv", "a.txt"):
        (project / name).write_text("id\n1\n")
    answer = pivotal("import", *arguments)
    assert (answer.code, told in answer.err) == (code, True), answer.err


# --- export -----------------------------------------------------------------------------------------------------


@pytest.fixture
def people(project: Path, pivotal: Pivotal) -> Path:
    """A project whose warehouse has people."""
    (project / "people.csv").write_text(PEOPLE)
    pivotal("import", "people.csv", "--into", "people", "--yes")
    return project


@pytest.mark.parametrize("name", ["people.parquet", "out.csv", "out.csv.gz", "out.ndjson", "out.jsonl.zst", "out.xlsx"])
def test_a_table_comes_back_from_the_file_that_it_was_exported_to(people: Path, pivotal: Pivotal, name: str) -> None:
    answer = pivotal("export", "people", name, "--json")
    assert (answer.json["rows"], answer.json["bytes"]) == (2, (people / name).stat().st_size)
    assert pivotal("import", name, "--into", "again", "--yes").code == 0
    columns = "code, phone, price::VARCHAR::DECIMAL(9,3), born::VARCHAR::DATE, ok::VARCHAR::BOOLEAN"
    assert rows(people, f"SELECT {columns} FROM again ORDER BY code") == rows(
        people, f"SELECT {columns} FROM people ORDER BY code"
    )


def test_a_query_is_exported(people: Path, pivotal: Pivotal) -> None:
    answer = pivotal("export", "o.csv", "--query", "SELECT code, NULL AS none FROM people WHERE id > 0")
    assert answer.out.startswith("1 rows of query are in o.csv (")
    assert (people / "o.csv").read_text() == "code,none\n007,\n"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["people"], 2, "say a TABLE and a FILE"),
        (["people", "o.csv", "--query", "SELECT 1"], 2, "--query and a FILE"),
        (["people", "o.txt"], 1, "its name does not say a format"),
        (["people", "o.parquet.gz"], 1, "its name does not say a format"),
        (["poeple", "o.csv"], 1, "did you mean people"),
        (["people", "nowhere/o.csv"], 1, "No such file or directory"),
        (["o.csv", "--query", "SELECT 1 AS a WHERE false"], 1, "has no rows, so o.csv was not written"),
        (["o.csv", "--query", "SELECT 1 / (id - 1) AS a, chr(0) AS b FROM people"], 1, "NUL"),
    ],
)
def test_an_export_that_cannot_be_leaves_what_was_there(
    people: Path, pivotal: Pivotal, arguments: list[str], code: int, told: str
) -> None:
    (people / "o.csv").write_text("before")
    answer = pivotal("export", *arguments)
    assert (answer.code, told in answer.err) == (code, True), answer.err
    assert (people / "o.csv").read_text() == "before"
    assert not [path.name for path in people.iterdir() if path.name.startswith(".")]
