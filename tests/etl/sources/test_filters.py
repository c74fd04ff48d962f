"""Which rows a database source reads: `filters`, applied by every kind of database itself."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest

from errors import SourceError
from etl.partitions import Partition
from etl.sources.database import Database
from tests.etl.sources.reading import execute, read, source_of

ROWS = """INSERT INTO orders VALUES
    (1, 'paid', 1.10, '2024-01-01', '2024-01-01 10:00:00', true, '007'),
    (2, 'open', 2.20, '2024-01-02', '2024-01-02 10:00:00', false, '7'),
    (3, 'it''s', 3.30, '2024-01-03', '2024-01-03 10:00:00', true, '8'),
    (4, NULL, NULL, NULL, NULL, NULL, NULL),
    (9007199254740993, 'void', 10, '2024-02-01', '2024-02-01 00:00:00', false, '10')"""


def orders(url: str) -> None:
    execute(
        url,
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, status VARCHAR(9), amount DECIMAL(12,2), day DATE,"
        " moment TIMESTAMP NULL, ok BOOLEAN, code VARCHAR(9))",
        ROWS,
    )


def filtered(url: str, filters: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"type": "database", "connection": url, "table": "orders", "filters": filters, **options}


BIG = 2**53 + 1


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({"status": "paid"}, [1]),
        ({"status": ["paid", "open"]}, [1, 2]),
        ({"status": {"not_in": ["paid", "open"]}}, [3, BIG]),
        ({"status": {"!=": "paid"}}, [2, 3, BIG]),
        ({"status": None}, [4]),
        ({"status": {"!=": None}}, [1, 2, 3, BIG]),
        ({"status": "it's"}, [3]),
        ({"status": "' OR 1 = 1 --"}, []),
        ({"code": "007"}, [1]),
        ({"code": 7}, [2]),
        ({"id": BIG}, [BIG]),
        ({"id": {">": BIG - 1}}, [BIG]),
        ({"id": {">": 1, "<=": 3}, "ok": True}, [3]),
        ({"ok": False}, [2, BIG]),
        ({"amount": {">=": 2.2, "<": 10}}, [2, 3]),
        ({"amount": [1.1, 10]}, [1, BIG]),
        ({"day": {">=": "2024-01-02", "<": "2024-02-01"}}, [2, 3]),
        ({"moment": {">=": "2024-01-02", "<": "2024-02-01"}}, [2, 3]),
        ({"moment": {">": "2024-01-02 10:00:00"}}, [3, BIG]),
    ],
)
def test_only_rows_that_fit_are_read(database: str, filters: dict[str, Any], ids: list[int]) -> None:
    orders(database)
    assert sorted(read(filtered(database, filters)).column("id")) == ids


def test_a_query_is_filtered_by_the_columns_of_its_result(database: str) -> None:
    orders(database)
    text = "SELECT id, amount * 2 AS twice, code FROM orders"
    for filters, ids in (({"twice": {">": 4}, "id": [2, 3, 4]}, [2, 3]), ({"code": "007"}, [1])):
        source = {"type": "database", "connection": database, "query": text, "filters": filters}
        assert sorted(read(source).column("id")) == ids


def test_a_column_that_is_filtered_by_need_not_be_read(database: str) -> None:
    orders(database)
    assert read(filtered(database, {"status": "open"}, columns=["code"])).rows == [{"code": "7"}]


def test_a_value_may_come_from_the_environment(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDER_STATUS", "open")
    orders(database)
    assert read(filtered(database, {"status": "${ORDER_STATUS}"})).column("id") == [2]


def test_the_cursor_is_that_of_the_rows_that_fit(database: str) -> None:
    orders(database)
    source = filtered(database, {"ok": True}, incremental={"cursor": "id"})
    first = read(source)
    execute(database, "INSERT INTO orders (id, ok) VALUES (5, true), (6, false)")
    second = read(source, first.state)
    assert (sorted(first.column("id")), (first.state or {})["cursor"]) == ([1, 3], "3")
    assert (second.column("id"), second.deduplicated, (second.state or {})["cursor"]) == ([5], 1, "5")


def test_rows_without_a_cursor_must_fit_as_well(database: str) -> None:
    orders(database)
    source = filtered(database, {"status": {"!=": "open"}}, incremental={"cursor": "moment", "start": "2024-01-01"})
    assert sorted(read(source).column("id")) == [1, 3, BIG]


@pytest.mark.parametrize(
    ("by", "hours", "expected"),
    [("moment", (0, 24), [3]), ("day", (0, 24), [3]), ("moment", (9, 10), []), ("moment", (10, 11), [3])],
)
def test_a_run_may_be_about_a_part_besides(database: str, by: str, hours: tuple[int, int], expected: list[int]) -> None:
    orders(database)
    execute(database, "UPDATE orders SET ok = true WHERE id = 2", "UPDATE orders SET moment = day WHERE id = 2")
    day = datetime(2024, 1, 3)  # noqa: DTZ001  (in UTC, as the engine has them)
    part = Partition(by, "part", by, since=day + timedelta(hours=hours[0]), until=day + timedelta(hours=hours[1]))
    source = source_of(filtered(database, {"ok": True}))
    assert isinstance(source, Database)
    with closing(Database(source._source, once=False, partition=part).open(None)) as reading:
        found = [number for batch in reading for number in batch.rows["id"].to_pylist()]
    if database.startswith("sqlite"):  # moments are text there: a day more on either side may be in another zone
        assert found == [2, 3]
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("filters", "message", "hint"),
    [
        ({"stats": "paid"}, "orders has no column 'stats'", "did you mean status?"),
        ({"xyz": 1}, "orders has no column 'xyz'", "it has: id, status, amount"),
        ({"id": "abc"}, "`filters`: id = 'abc': the column holds values of the type", "write a value of that type"),
        ({"id": {">": "1x"}}, "`filters`: id > '1x'", ""),
        ({"amount": {"<": "much"}}, "`filters`: amount < 'much'", ""),
        ({"ok": ["yes please"]}, "`filters`: ok in 'yes please'", ""),
    ],
)
def test_a_filter_that_cannot_be_is_refused(database: str, filters: dict[str, Any], message: str, hint: str) -> None:
    orders(database)
    with pytest.raises(SourceError) as caught:
        read(filtered(database, filters))
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("column", ["day", "moment"])
def test_a_text_that_is_no_time_is_refused_where_times_have_a_type(database: str, column: str) -> None:
    if database.startswith("sqlite"):
        pytest.skip("SQLite keeps times as text")
    orders(database)
    with pytest.raises(SourceError, match=f"`filters`: {column} >= 'soon'"):
        read(filtered(database, {column: {">=": "soon"}}))


def test_a_zone_counts_where_the_column_has_one(postgres_url: str, mariadb_url: str) -> None:
    for url, kind in ((postgres_url, "TIMESTAMPTZ"), (mariadb_url, "TIMESTAMP")):
        execute(url, f"CREATE TABLE orders (id INT, moment {kind} NULL)")
        zone = "+00" if url == postgres_url else ""
        execute(
            url,
            *([] if zone else ["SET time_zone = '+00:00'"]),
            f"INSERT INTO orders VALUES (1, '2024-01-01 09:00:00{zone}'), (2, '2024-01-01 11:00:00{zone}')",
        )
        assert read(filtered(url, {"moment": {">=": "2024-01-01T12:00:00+02:00"}})).column("id") == [2]
