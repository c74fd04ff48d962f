from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import SourceError
from etl.sources import rows, sqlite
from tests.etl.sources.reading import read, source_of


@pytest.fixture
def shop(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "shop.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        yield connection


def table(name: str = "t", **options: Any) -> dict[str, Any]:
    return {"type": "database", "connection": "sqlite:///shop.db", "table": name, **options}


def query(text: str, **options: Any) -> dict[str, Any]:
    return {"type": "database", "connection": "sqlite:///shop.db", "query": text, **options}


def test_each_column_is_read_as_it_is_declared(shop: sqlite3.Connection) -> None:
    shop.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, big BIGINT, price DECIMAL(12,2), long NUMERIC(30,4), rate REAL,"
        " ok BOOLEAN, name VARCHAR(9), at DATETIME, raw BLOB, free NUMERIC)"
    )
    shop.execute(
        "INSERT INTO t VALUES (1, 9223372036854775807, 1.10, 5, 0.1, 1, '007', '2024-01-01T00:00:00Z', x'00ff', 1.5)"
    )
    shop.execute("INSERT INTO t (id) VALUES (2)")
    result = read(table())
    assert result.types == {
        "id": "int64", "big": "int64", "price": "decimal128(12, 2)", "long": "decimal128(30, 4)", "rate": "double",
        "ok": "bool", "name": "string", "at": "string", "raw": "binary", "free": "string",
    }  # fmt: skip
    assert list(result.rows[0].values()) == [
        1, 2**63 - 1, Decimal("1.10"), Decimal(5), 0.1, True, "007", "2024-01-01T00:00:00Z", b"\x00\xff", "1.5",
    ]  # fmt: skip
    assert list(result.rows[1].values()) == [2, *[None] * 9]
    assert result.origins == [{"table": "t", "id": 1}, {"table": "t", "id": 2}]
    assert result.bytes_read > 0


@pytest.mark.parametrize(
    ("declared", "value", "text"),
    [
        ("INTEGER", "abc", "abc"),
        ("INTEGER", 1.5, "1.5"),
        ("INTEGER", b"\x01", "X'01'"),
        ("BOOLEAN", 2, "2"),
        ("BOOLEAN", "true", "true"),
        ("REAL", "abc", "abc"),
        ("DECIMAL(12,2)", 1.005, "1.005"),
        ("DECIMAL(12,2)", 0.1 + 0.2, "0.30000000000000004"),
        ("DECIMAL(4,2)", 100, "100"),
        ("DECIMAL(30,2)", 1.005, "1.005"),
        ("DECIMAL(12,2)", float("inf"), "9.0e+999"),
        ("DECIMAL(12,2)", "NaN", "NaN"),
        ("DECIMAL(30,0)", "12345678901234567890", "1.2345678901234567e+19"),
        ("TEXT", b"\xff", "X'FF'"),
        ("BLOB", "text", "text"),
    ],
)
def test_a_value_of_another_type_sends_its_row_to_the_quarantine(
    shop: sqlite3.Connection, declared: str, value: Any, text: str
) -> None:
    shop.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declared}, name TEXT)")
    shop.executemany("INSERT INTO t VALUES (?, ?, ?)", [(1, None, "a"), (2, value, "b"), (3, None, None)])
    result = read(table())
    assert [(row["id"], row["v"]) for row in result.rows] == [(1, None), (3, None)]
    assert [origin["id"] for origin in result.origins] == [1, 3]
    (bad,) = result.bad
    assert bad.row == {"id": "2", "v": text, "name": "b"}
    assert bad.types == {"id": "BIGINT", "v": "VARCHAR", "name": "VARCHAR"}
    assert bad.origin == {"table": "t", "id": 2}
    assert [broken.column for broken in bad.broken] == ["v"]
    assert repr(text) in bad.broken[0].message


def test_a_text_that_is_not_utf8_sends_its_row_to_the_quarantine(shop: sqlite3.Connection) -> None:
    shop.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
    shop.execute("INSERT INTO t VALUES (1, 'é'), (2, CAST(x'41ff' AS TEXT)), (3, NULL)")
    result = read(table())
    assert result.column("name") == ["é", None]
    assert [(dict(bad.row), bad.origin) for bad in result.bad] == [
        ({"id": "2", "name": "X'41FF'"}, {"table": "t", "id": 2})
    ]


def test_a_long_text_and_a_blob_arrive_whole(shop: sqlite3.Connection) -> None:
    shop.execute("CREATE TABLE t (txt TEXT, raw BLOB)")
    shop.execute("INSERT INTO t VALUES (?, ?)", ["é\0" * 5_000_000, b"\0\xff" * 100_000])
    assert read(table()).rows == [{"txt": "é\0" * 5_000_000, "raw": b"\0\xff" * 100_000}]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.lists(st.integers(-(10**15) + 1, 10**15 - 1), max_size=20), st.sampled_from([15, 30]))
def test_decimals_of_up_to_fifteen_digits_arrive_as_they_were_written(
    shop: sqlite3.Connection, numbers: list[int], precision: int
) -> None:
    written = [Decimal(number).scaleb(-2) for number in numbers]
    shop.execute("DROP TABLE IF EXISTS t")
    shop.execute(f"CREATE TABLE t (v DECIMAL({precision},2))")
    shop.executemany("INSERT INTO t VALUES (?)", [(f"{value:f}",) for value in written])
    result = read(table())
    assert result.column("v") == written
    assert not result.bad


def test_late_values_do_not_surprise_a_column_that_began_with_nulls(shop: sqlite3.Connection) -> None:
    shop.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, r REAL)")
    shop.executemany("INSERT INTO t VALUES (?, NULL, 1)", [(number,) for number in range(5000)])
    shop.execute("INSERT INTO t VALUES (5000, 'late', 0.5)")
    result = read(table())
    assert result.rows[-1] == {"id": 5000, "s": "late", "r": 0.5}
    assert len(result.rows) == 5001


def test_a_column_that_declares_nothing_is_read_by_what_it_holds(shop: sqlite3.Connection) -> None:
    shop.execute("CREATE TABLE t (id INTEGER, v)")
    shop.executemany("INSERT INTO t VALUES (?, ?)", [(1, 1), (2, "x"), (3, 0.5), (4, None)])
    assert read(table()).column("v") == ["1", "x", "0.5", None]
    text = "SELECT count(*) AS n, avg(id) AS a, max(v) AS m, x'01' AS b, NULL AS nil FROM t;"
    result = read(query(text))
    assert result.rows == [{"n": 4, "a": 2.5, "m": "x", "b": b"\x01", "nil": None}]
    assert result.origins == [{"query": text, "row": 1}]


def test_columns_are_chosen_and_the_key_still_tells_the_origin(shop: sqlite3.Connection) -> None:
    shop.execute('CREATE TABLE "odd ""name" (a TEXT, b INTEGER, "c d" TEXT, PRIMARY KEY (a, b))')
    shop.execute("INSERT INTO \"odd \"\"name\" VALUES ('x', 1, 'y')")
    result = read(table('odd "name', columns=["c d"]))
    assert (result.rows, result.origins) == ([{"c d": "y"}], [{"table": 'odd "name', "a": "x", "b": 1}])


def test_the_columns_are_known_without_reading(shop: sqlite3.Connection) -> None:
    shop.execute("CREATE TABLE t (id INTEGER, name TEXT)")
    shop.execute("CREATE VIEW v AS SELECT name FROM t")
    assert source_of(table()).columns() == ["id", "name"]
    assert source_of(table("v")).columns() == ["name"]
    assert source_of(query("SELECT id + 1 AS next FROM t")).columns() == ["next"]
    assert source_of({**table(), "connection": "sqlite:///later.db"}).columns() is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 2000))
def test_chopping_never_changes_rows(
    shop: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, batch_rows: int, batch_bytes: int
) -> None:
    monkeypatch.setattr(sqlite, "_BATCH_ROWS", batch_rows)
    monkeypatch.setattr(rows, "BATCH_BYTES", batch_bytes)
    shop.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, n DECIMAL(9,2), s TEXT)")
    data = [
        (number, number / 4 if number % 3 else None, "x" * (number % 7) if number % 5 else None) for number in range(97)
    ]
    shop.executemany("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", data)
    shop.execute("INSERT OR REPLACE INTO t VALUES (50, 'bad', 'y')")
    result = read(table())
    good = [row for row in data if row[0] != 50]
    assert [(row["id"], None if row["n"] is None else float(row["n"]), row["s"]) for row in result.rows] == good
    assert [origin["id"] for origin in result.origins] == [row[0] for row in good]
    assert [bad.origin["id"] for bad in result.bad] == [50]


# --- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        (table("ordrs"), "there is no table 'ordrs'", "did you mean orders?"),
        (table("xyz"), "there is no table 'xyz'", "it has: orders"),
        (table("orders", columns=["amuont"]), "orders has no column 'amuont'", "did you mean amount?"),
        (
            table("orders", incremental={"cursor": "updated"}),
            "orders has no column 'updated'",
            "did you mean updated_at?",
        ),
        (query("SELECT * FRM orders"), 'near "FRM": syntax error', ""),
        (query("SELECT 1; DROP TABLE orders"), "syntax error", ""),
        ({**table(), "connection": "sqlite:///nope.db"}, "sqlite:///nope.db: there is no such file", "looked for"),
        ({**table(), "connection": "sqlite:///text.db"}, "file is not a database", ""),
        ({**table(), "connection": "sqlite://"}, "names no file", "write sqlite:///data/name.db"),
    ],
)
def test_a_mistake_gives_one_clear_message(
    shop: sqlite3.Connection, folder: Path, source: dict[str, Any], message: str, hint: str
) -> None:
    shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount REAL, updated_at TEXT)")
    (folder / "text.db").write_text("this is no database\n" * 100)
    with pytest.raises(SourceError) as caught:
        read(source)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert shop.execute("SELECT count(*) FROM orders").fetchone() == (0,)


def test_a_reading_may_be_closed_in_the_middle(shop: sqlite3.Connection) -> None:
    shop.execute("CREATE TABLE t (id INTEGER)")
    shop.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(3000)])
    reading = source_of(table()).open(None)
    next(iter(reading))
    reading.close()
    shop.execute("DROP TABLE t")
