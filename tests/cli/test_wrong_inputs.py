"""What people write wrong: each is told in one message that says what to do, and loads nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Pivotal
from tests.shop import change

SOURCE = "source: {type: file, path: inbox/a.csv}"
DESTINATION = "destination: {type: database, connection: 'sqlite:///w.db', table: t, write: append}"


@pytest.fixture(autouse=True)
def _inbox(project: Path) -> None:
    (project / "inbox").mkdir()
    (project / "inbox/a.csv").write_text("id,amount\n1,2.5\n2,x\n")
    change(project, "CREATE TABLE orders (id INTEGER PRIMARY KEY, day TEXT)")


def write(project: Path, *lines: str) -> None:
    (project / "pipelines/orders.yaml").write_text("\n".join(["description: Orders", *lines, ""]))


def from_database(connection: str) -> list[str]:
    return [f"source: {{type: database, connection: '{connection}', table: orders}}", DESTINATION]


def into_database(connection: str) -> list[str]:
    return [SOURCE, f"destination: {{type: database, connection: '{connection}', table: t, write: append}}"]


# --- connections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (from_database("shop.db"), "orders.yaml:2:38: the connection is no URL\n  hint: write postgresql://"),
        (into_database("geheim"), "orders.yaml:3:43: the connection is no URL\n"),
        (from_database("postgress://u:geheim@h/db"), "called postgress\n  hint: did you mean postgresql?"),
        (into_database("postgress://u:geheim@h/db"), "no warehouse of the kind 'postgress'"),
        (from_database("mysql://u:geheim@h/db"), "'MySQLdb'\n  hint: write mysql+pymysql://..."),
        (from_database("oracle+oracledb://u:geheim@h/db"), "hint: pip install oracledb"),
        (from_database("mysql+pymysql://u:geheim@h:port/db"), "the connection's URL cannot be read\n  hint: write"),
        (from_database("postgresql://u:geheim@[h/db"), "the connection's URL cannot be read\n  hint: write"),
        (into_database("postgresql://u:geheim[@h/db"), "the connection's URL cannot be read\n  hint: write"),
        (into_database("mysql+pymysql://u:geheim@h:port/db"), "the MariaDB URL cannot be read"),
    ],
)
def test_a_connection_that_no_database_has_is_found_by_the_check_and_told_by_a_run(
    project: Path, pivotal: Pivotal, lines: list[str], told: str
) -> None:
    write(project, *lines)
    answer = pivotal("check")
    assert (answer.code, told in answer.out, "geheim" in answer.out) == (1, True, False), answer.out
    answer = pivotal("run", "orders")
    assert (answer.code, "bug" in answer.err, "geheim" in answer.err) == (1, False, False), answer.err


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (from_database("duckdb:///shop.db"), "is not a DuckDB database\n  hint: write sqlite:///"),
        (into_database("duckdb:///shop.db"), "is not a DuckDB database\n  hint: write sqlite:///"),
        (into_database("duckdb:///inbox/a.csv"), "is not a DuckDB database\n  hint: the file is something else"),
    ],
)
def test_a_file_that_is_no_duckdb_database_is_not_taken_for_one(
    project: Path, pivotal: Pivotal, lines: list[str], told: str
) -> None:
    write(project, *lines)
    answer = pivotal("run", "orders")
    assert (answer.code, told in answer.err) == (1, True), answer.err
    assert (project / "inbox/a.csv").read_text() == "id,amount\n1,2.5\n2,x\n"
    with closing(sqlite3.connect(project / "shop.db")) as shop:
        assert shop.execute("SELECT name FROM sqlite_master").fetchall() == [("orders",)]


# --- the file of a pipeline -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            [SOURCE, DESTINATION, "quarantine_retention: 90"],
            "is not a duration: '90'\n  hint: write a number and a unit",
        ),
        ([SOURCE, DESTINATION, "quarantine_retention: 3 months"], "is not a duration: '3 months'"),
        (
            [SOURCE, DESTINATION, "partitions: {by: day, every: day, start: 01/02/2024}"],
            "`start` is not a date: '01/02/2024'\n  hint: write year, month and day: 2024-01-31",
        ),
        (
            ["source: {type: file, path: '~/inbox/*.csv'}", DESTINATION],
            "a path that nobody expands `~` in: '~/inbox/*.csv'\n  hint: write the whole path",
        ),
        (["source: {type: file, path: 's3:/inbox/a.csv'}", DESTINATION], "hint: write s3://bucket/key"),
        ([SOURCE, "destination: {type: file, path: ~/lake, write: append}"], "nobody expands `~`"),
        (
            ["source: {type: api, url: api.example.com/v1}", DESTINATION],
            "`url` is not an address: 'api.example.com/v1'\n  hint: it begins with https://",
        ),
        (
            ["source: {type: api, url: 'https://a.example', pagination: page}", DESTINATION],
            "`pagination` is not a mapping: 'page'\n  hint: its keys stand below it, indented, or behind it in { }",
        ),
        (
            ["source: {type: api, url: 'https://a.example', auth: bearer}", DESTINATION],
            "`auth` is not a mapping\n  hint: its keys stand below it",
        ),
        (
            [SOURCE, DESTINATION.replace("table: t", "table: t, comments: {id: In euros, with tax}")],
            "`with tax` has no value\n  hint: write one; a comma ends a value inside { }: put what has one in quotes",
        ),
        ([SOURCE, "transform: {convert: {amount: decimal(18,2)}}", DESTINATION], "a comma ends a value inside { }"),
        (
            [SOURCE, "transform: {convert: {id: date}}", DESTINATION, "partitions: {by: idd, values: [a]}"],
            "there is no such column: 'idd'\n  hint: did you mean `id`?",
        ),
        (
            [SOURCE, DESTINATION, "partitions: {by: amount, every: day, start: 2024-01-01}"],
            "`amount` is text in such files: 'amount'\n  hint: convert it to date",
        ),
        ([SOURCE, DESTINATION, "partitions: {by: amount}"], "`partitions` are neither by time nor by value"),
        ([SOURCE, "destination: {type: file, path: '{id}', write: append}"], "`path` has no folder before the first"),
        ([SOURCE, "transform: {schema: Orders}", DESTINATION], "`schema` is not written as it must be: 'Orders'"),
        (["source: {type: api, url: 'https://a.example', concurrency: 99}", DESTINATION], "is more than 32: '99'"),
        (
            [SOURCE, "destination: {type: file, path: lake, write: append}", "partitions: {by: id, values: [a]}"],
            "need a folder of their own for each `id`: 'id'\n  hint: name it in `path`: data/lake/orders/{id}",
        ),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_line_and_what_to_write(
    project: Path, pivotal: Pivotal, lines: list[str], told: str
) -> None:
    write(project, *lines)
    answer = pivotal("check")
    assert (answer.code, told in answer.out) == (1, True), answer.out


# --- what only a run can find -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["source: {type: file, path: 'inbox/*.tsv'}", DESTINATION], "no file has such a name\n  hint: check `path`"),
        (from_database("sqlite:///inbox/a.csv"), "file is not a database\n  hint: the file is something else"),
        (from_database("sqlite:///nowhere.db"), "there is no such file\n  hint: looked for"),
        (from_database("sqlite:///shop.db")[:1] + into_database("duckdb://w.duckdb")[1:], "names no file"),
        ([from_database("sqlite:///shop.db")[0].replace("orders", "order"), DESTINATION], "did you mean orders?"),
    ],
)
def test_what_is_not_there_is_told_with_the_next_step(
    project: Path, pivotal: Pivotal, lines: list[str], told: str
) -> None:
    write(project, *lines)
    for command in ("run", "preview"):
        answer = pivotal(command, "orders")
        assert (answer.code, told in answer.err) == (1, True), answer.err


def test_a_cursor_that_is_no_value_of_its_column_is_told_with_how_to_mend_it(project: Path, pivotal: Pivotal) -> None:
    source, destination = from_database("sqlite:///shop.db")
    write(project, source.replace("orders}", "orders, incremental: {cursor: id}}"), destination)
    assert pivotal("state", "set", "orders", "cursor=2024-01-01").code == 0
    answer = pivotal("run", "orders")
    assert "'2024-01-01' is no number, but the column id is integer" in answer.err
    assert "`pivotal state set NAME cursor=...`" in answer.err


# --- the command line -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "pipelines/orders.yaml"], "there is no pipeline 'pipelines/orders.yaml'; did you mean 'orders'?"),
        (["state", "show", "Orders"], "did you mean 'orders'?"),
        (["import", "inbox/a.csv", "--into", "", "--yes"], "'' is empty"),
        (["import", "inbox/a.csv", "--into", "t", "--delimiter", ";;"], "';;' is longer than 1"),
        (["import", "inbox/a.csv", "--into", "t", "--type", "id"], "--type: 'id' is not COLUMN=TYPE: id=integer"),
        (["import", "inbox/a.csv", "--into", "t", "--type", "Id=integer"], "no column 'Id'; the file has id, amount"),
        (["import", "inbox/a.csv", "--into", "t", "--type", "id=int"], "'int' is not a type; choose string, integer"),
        (["run", "orders", "--to", "2024-01-01"], "say either --partition, or both --from and --to"),
        (["quarantine", "drop", "orders", "--older-than", "1 month"], "--older-than: '1 month' is not a duration"),
        (["quarantine", "show", "order"], "did you mean 'orders'?"),
        (["quarantine", "show", "orders", "zz"], "'zz' is not the beginning of an id"),
    ],
)
def test_a_command_that_is_wrong_is_a_usage_error_that_says_what_to_type(
    project: Path, pivotal: Pivotal, arguments: list[str], told: str
) -> None:
    write(project, SOURCE, DESTINATION)
    answer = pivotal(*arguments)
    assert (answer.code, told in answer.err) == (2, True), answer.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["export", "orders", "no/o.csv", "--connection", "sqlite:///shop.db"], "directory\n  hint: make its folder"),
        (["export", "orders", "o.csv", "--connection", "shop.db"], "the connection is no URL\n  hint: write"),
        (["quarantine", "list", "--connection", "shop.db"], "the connection is no URL\n  hint: write"),
        (["import", "inbox/a.csv", "--into", "t", "--connection", "${NOPE}", "--yes"], "variable NOPE is not set"),
        (["run", "orders", "--partition", "2024-01-01"], "has no partitions\n  hint: declare them"),
        (["state", "set", "orders", "cursor=1"], "keeps no state: each run reads everything"),
    ],
)
def test_a_command_that_cannot_be_done_says_why_and_what_to_do(
    project: Path, pivotal: Pivotal, arguments: list[str], told: str
) -> None:
    change(project, "INSERT INTO orders VALUES (1, '2024-01-01')")
    write(project, SOURCE, DESTINATION)
    answer = pivotal(*arguments)
    assert (answer.code, told in answer.err) == (1, True), answer.err
