"""What holds for every kind of database."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from errors import PivotalError, SourceError
from etl import incremental
from tests.etl.sources.reading import execute, read, source_of


def table(url: str, **options: Any) -> dict[str, Any]:
    return {"type": "database", "connection": url, "table": "orders", **options}


def orders(url: str, *rows: tuple[int, str | None], create: bool = True) -> None:
    """Orders with an id, the time of their last change (or none), and a name."""
    values = ", ".join(f"({number}, {'NULL' if at is None else repr(at)}, 'order {number}')" for number, at in rows)
    made = "CREATE TABLE orders (id INTEGER PRIMARY KEY, changed TIMESTAMP NULL, name VARCHAR(30) NOT NULL)"
    execute(url, *([made] if create else []), *([f"INSERT INTO orders VALUES {values}"] if rows else []))


def at(minute: int) -> str:
    return f"2024-01-01 10:{minute:02}:00"


CHANGED = {"cursor": "changed"}


def test_a_table_is_read_with_its_key_as_origin(database: str) -> None:
    orders(database, (1, at(1)), (2, None))
    result = read(table(database, columns=["name"]))
    assert result.rows == [{"name": "order 1"}, {"name": "order 2"}]
    assert result.origins == [{"table": "orders", "id": 1}, {"table": "orders", "id": 2}]
    assert result.state is None


def test_a_query_is_read_with_the_row_number_as_origin(database: str) -> None:
    orders(database, (1, at(1)), (2, at(2)))
    text = "SELECT id, name FROM orders WHERE name <> ':p0 %s ?' ORDER BY id -- the end"
    result = read({"type": "database", "connection": database, "query": text})
    assert result.rows == [{"id": 1, "name": "order 1"}, {"id": 2, "name": "order 2"}]
    assert result.origins == [{"query": text, "row": 1}, {"query": text, "row": 2}]


def test_a_table_without_rows_has_none(database: str) -> None:
    orders(database)
    result = read(table(database, incremental=CHANGED))
    assert (result.rows, result.state) == ([], {"cursor": None})


def test_ties_at_the_cursor_are_read_again_and_loaded_once(database: str) -> None:
    orders(database, (1, at(1)), (2, at(2)))
    first = read(table(database, incremental=CHANGED))
    orders(database, (3, at(2)), (4, at(3)), create=False)
    second = read(table(database, incremental=CHANGED), first.state)
    third = read(table(database, incremental=CHANGED), second.state)
    assert (first.column("id"), first.deduplicated) == ([1, 2], 0)
    assert (second.column("id"), second.deduplicated) == ([3, 4], 1)
    assert (third.column("id"), third.deduplicated) == ([], 1)
    assert json.loads(json.dumps(third.state)) == third.state == second.state


def test_whoever_merges_gets_the_ties_again_and_keeps_no_edge(database: str) -> None:
    orders(database, (1, at(1)), (2, at(2)))
    first = read(table(database, incremental=CHANGED), write="merge")
    assert list(first.state or {}) == ["cursor"]
    assert read(table(database, incremental=CHANGED), first.state, write="merge").column("id") == [2]


def test_rows_that_arrive_late_within_the_lag_are_loaded_once(database: str) -> None:
    lagging = table(database, incremental={**CHANGED, "lag": "10m"})
    orders(database, (1, at(5)), (2, at(20)))
    first = read(lagging)
    orders(database, (3, at(12)), (4, at(2)), create=False)  # the second is later than the lag allows
    second = read(lagging, first.state)
    third = read(lagging, second.state)
    assert (second.column("id"), second.deduplicated) == ([3], 1)
    assert (third.column("id"), third.deduplicated) == ([], 2)


def test_rows_without_a_cursor_are_never_missed_and_loaded_once(database: str) -> None:
    orders(database, (1, None), (2, at(1)))
    first = read(table(database, incremental=CHANGED))
    orders(database, (3, None), create=False)
    second = read(table(database, incremental=CHANGED), first.state)
    assert sorted(first.column("id")) == [1, 2]
    assert (second.column("id"), second.deduplicated) == ([3], 2)


def test_equal_rows_are_told_apart_by_their_number(database: str) -> None:
    execute(
        database, "CREATE TABLE orders (changed TIMESTAMP NULL)", f"INSERT INTO orders VALUES ('{at(1)}'), ('{at(1)}')"
    )
    first = read(table(database, incremental=CHANGED))
    execute(database, f"INSERT INTO orders VALUES ('{at(1)}')")
    second = read(table(database, incremental=CHANGED), first.state)
    assert (len(first.rows), len(second.rows), second.deduplicated) == (2, 1, 2)


def test_a_changed_row_is_loaded_again(database: str) -> None:
    orders(database, (1, at(1)))
    first = read(table(database, incremental=CHANGED))
    execute(database, "UPDATE orders SET name = 'other' WHERE id = 1")
    assert read(table(database, incremental=CHANGED), first.state).column("name") == ["other"]


def test_the_first_run_begins_at_start_and_no_run_goes_before_it(database: str) -> None:
    starting = table(database, incremental={**CHANGED, "lag": "30m", "start": at(10)})
    orders(database, (1, at(9)), (2, at(10)), (3, at(20)))
    first = read(starting)
    assert first.column("id") == [2, 3]
    assert (read(starting, first.state).rows, read(starting, first.state).deduplicated) == ([], 2)


def test_deleting_the_newest_rows_does_not_move_the_cursor_back(database: str) -> None:
    orders(database, (1, at(1)), (2, at(9)))
    first = read(table(database, incremental=CHANGED))
    execute(database, "DELETE FROM orders WHERE id = 2")
    second = read(table(database, incremental=CHANGED), first.state)
    assert (second.rows, (second.state or {})["cursor"]) == ([], (first.state or {})["cursor"])


def test_an_integer_cursor_of_a_query_works(database: str) -> None:
    orders(database, (9, at(1)), (10, at(2)))
    source = {
        "type": "database",
        "connection": database,
        "query": "SELECT id, name FROM orders",
        "incremental": {"cursor": "id"},
    }
    first = read(source)
    orders(database, (100, at(3)), create=False)
    second = read(source, first.state)
    assert ((first.state or {})["cursor"], (second.state or {})["cursor"]) == ("10", "100")
    assert (second.column("id"), second.deduplicated) == ([100], 1)


def test_the_cursor_need_not_be_among_the_columns(database: str) -> None:
    orders(database, (1, at(1)), (2, at(2)))
    source = table(database, columns=["name"], incremental=CHANGED)
    first = read(source)
    assert first.rows == [{"name": "order 1"}, {"name": "order 2"}]
    assert (read(source, first.state).rows, read(source, first.state).deduplicated) == ([], 1)


def test_an_edge_that_cannot_be_remembered_is_refused(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental, "EDGE_LIMIT", 2)
    orders(database, (1, at(1)), (2, at(1)), (3, at(1)))
    with pytest.raises(SourceError, match="more than 2 rows are at the cursor's edge"):
        read(table(database, incremental=CHANGED))


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"table": "oders"}, "there is no table 'oders'", "did you mean orders?"),
        ({"columns": ["nam"]}, "orders has no column 'nam'", "did you mean name?"),
        ({"incremental": {"cursor": "change"}}, "orders has no column 'change'", "did you mean changed?"),
        ({"incremental": {"cursor": "name", "lag": "1h"}}, "`lag` needs a cursor that is a time or a number", ""),
    ],
)
def test_a_mistake_gives_one_clear_message(database: str, options: dict[str, Any], message: str, hint: str) -> None:
    orders(database, (1, at(1)))
    with pytest.raises(SourceError) as caught:
        read({**table(database), **options}, {"cursor": "order 1"} if "incremental" in options else None)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert "correct-horse-battery" not in str(caught.value)


def test_rows_that_come_while_it_reads_belong_to_the_next_run(shared_database: str) -> None:
    orders(shared_database, *[(number, at(1)) for number in range(2000)])
    with closing(source_of(table(shared_database, incremental=CHANGED)).open(None)) as reading:
        if not shared_database.startswith("sqlite"):  # a reader of SQLite without WAL keeps writers out
            orders(shared_database, (9001, at(1)), (9002, at(2)), create=False)
        ids = [number for batch in reading for number in batch.rows["id"].to_pylist()]
        state = reading.state()
    if shared_database.startswith("sqlite"):
        orders(shared_database, (9001, at(1)), (9002, at(2)), create=False)
    second = read(table(shared_database, incremental=CHANGED), state)
    assert ids == list(range(2000))
    assert (sorted(second.column("id")), second.deduplicated) == ([9001, 9002], 2000)


WRITER = """
import sys, time
sys.path[:0] = sys.argv[3:]
from tests.etl.sources.reading import execute
url, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    execute(url, f"INSERT INTO orders VALUES ({number}, CURRENT_TIMESTAMP, 'order {number}')")
"""


def test_rows_that_another_process_writes_all_the_time_arrive_once_each(shared_database: str, folder: Path) -> None:
    orders(shared_database)
    source, seen, state = table(shared_database, incremental={**CHANGED, "lag": "10s"}), [], None
    count = 30
    root = str(Path(__file__).parents[3])
    command: Sequence[str] = [sys.executable, "-c", WRITER, _absolute(shared_database, folder), str(count), root]
    with subprocess.Popen(command) as writer:
        running = True
        while running:
            running = writer.poll() is None
            try:
                result = read(source, state)
            except SourceError as error:
                if not error.retryable:
                    raise
                continue
            seen += result.column("id")
            state = result.state
    assert writer.returncode == 0
    assert sorted(seen) == list(range(count))


def _absolute(url: str, folder: Path) -> str:
    return url.replace(":///", f":///{folder}/") if url.startswith("sqlite") else url


def test_a_run_that_fails_is_resumed_from_the_old_state(database: str) -> None:
    orders(database, *[(number, at(1)) for number in range(3)])
    first = read(table(database, incremental=CHANGED))
    orders(database, (3, at(2)), create=False)
    reading = source_of(table(database, incremental=CHANGED)).open(first.state)
    next(iter(reading))
    reading.close()
    assert read(table(database, incremental=CHANGED), first.state).column("id") == [3]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://user:s3cret@127.0.0.1:1/db", "postgresql://127.0.0.1:1/db: "),
        ("mysql+pymysql://user:s3cret@127.0.0.1:1/db", "mysql+pymysql://127.0.0.1/db: "),
        ("nosuchthing://user:s3cret@host/db", "there is no database or driver called nosuchthing"),
        ("s3cret", "the connection is no URL"),
        ("oracle+oracledb://user:s3cret@host/db", "oracle+oracledb: its driver is not installed"),
    ],
)
def test_a_connection_that_fails_does_not_show_its_password(url: str, message: str) -> None:
    with pytest.raises(PivotalError) as caught:
        read(table(url))
    assert caught.value.message.startswith(message)
    assert "s3cret" not in repr(caught.value) + str(caught.value)
