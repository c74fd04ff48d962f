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
