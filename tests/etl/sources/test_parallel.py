"""`parallel`: several connections read the parts of one table, in one snapshot."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from errors import SourceError
from etl.sources import postgresql, rows
from tests.etl.sources.reading import execute, read, source_of


@pytest.fixture(autouse=True)
def _small_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001  (a short lock timeout)
    monkeypatch.setattr(rows, "BATCH_BYTES", 50_000)
    monkeypatch.setattr(postgresql, "BATCH_BYTES", 50_000)


def table(url: str, name: str = "t", **options: Any) -> dict[str, Any]:
    return {"type": "database", "connection": url, "table": name, "parallel": 4, **options}


def filled(url: str, count: int = 5_000, key: str = "PRIMARY KEY") -> None:
    execute(
        url,
        f"CREATE TABLE t (id int {key}, changed int, name text)",
        f"INSERT INTO t SELECT g, nullif(mod(g, 7), 0), repeat('x', 100) FROM generate_series(1, {count}) g",
    )


@pytest.mark.parametrize("count", [0, 1, 5_000])
@pytest.mark.parametrize("parallel", [2, 7])
def test_every_row_is_read_once(postgres_url: str, count: int, parallel: int) -> None:
    filled(postgres_url, count)
    execute(
        postgres_url, "DELETE FROM t WHERE id BETWEEN 1000 AND 4000", "UPDATE t SET name = 'y' WHERE mod(id, 3) = 0"
    )
    result = read(table(postgres_url, parallel=parallel))
    left = [number for number in range(1, count + 1) if not 1000 <= number <= 4000]
    assert sorted(result.column("id")) == left
    assert {row["name"] for row in result.rows if row["id"] % 3 == 0} <= {"y"}
    assert [origin["id"] for origin in result.origins] == result.column("id")
    assert len(result.schemas) > 1 or count < 5_000


def test_the_partitions_of_a_table_are_read_together(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE t (id int, name text) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF t FOR VALUES FROM (1) TO (4001)",
        "CREATE TABLE high PARTITION OF t FOR VALUES FROM (4001) TO (9999)",
        "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 5000) g",
    )
    assert sorted(read(table(postgres_url)).column("id")) == list(range(1, 5001))


def test_rows_without_a_key_are_told_apart_by_part_and_number(postgres_url: str) -> None:
    filled(postgres_url, key="")
    result = read(table(postgres_url))
    places = {(str(origin["part"]), origin["row"]) for origin in result.origins}
    assert len(places) == 5_000
    assert {part for part, _ in places} == {"1/4", "2/4", "3/4", "4/4"}
    assert read(table(postgres_url)).origins == result.origins


def test_filters_columns_and_the_cursor_hold_for_every_part(postgres_url: str) -> None:
    filled(postgres_url)
    source = table(postgres_url, columns=["id"], filters={"changed": [1, 2]}, incremental={"cursor": "id"})
    first = read(source)
    execute(postgres_url, "INSERT INTO t VALUES (9001, 1, 'new'), (9002, 5, 'other')")
    second = read(source, first.state)
    assert sorted(first.column("id")) == [number for number in range(1, 5001) if number % 7 in {1, 2}]
    assert (second.column("id"), second.deduplicated) == ([9001], 1)


# --- while others write -----------------------------------------------------------------------------------------

START = 4_000

WRITER = """
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    for step in range(1, 1_000_000):
        with connection.transaction():
            connection.execute("UPDATE t SET changed = %s WHERE id = %s", (step, step * 7919 % 4000 + 1))
            connection.execute("INSERT INTO t VALUES (%s, %s, repeat('n', 500))", (10_000 + step, step))
            connection.execute("DELETE FROM t WHERE id = %s", (10_000 + step // 2,))
            connection.execute("UPDATE progress SET step = %s", (step,))
"""


def after(step: int) -> dict[int, int | None]:
    """What the table holds once the writer has done so many steps: id -> changed."""
    held = {number: number % 7 or None for number in range(1, START + 1)}
    for done in range(1, step + 1):
        held[done * 7919 % 4000 + 1] = done
        held[10_000 + done] = done
        held.pop(10_000 + done // 2, None)
    return held


@contextmanager
def writing(url: str) -> Iterator[psycopg.Connection]:
    """Another process that writes all the time, and a connection that sees how far it has come."""
    execute(url, "CREATE TABLE progress (step int)", "INSERT INTO progress VALUES (0)")
    with (
        psycopg.connect(url, autocommit=True) as watching,
        subprocess.Popen([sys.executable, "-c", WRITER, url]) as writer,
    ):
        try:
            yield watching
            assert writer.poll() is None
        finally:
            writer.kill()


def wait_for(watching: psycopg.Connection, least: int) -> int:
    step = -1
    while step < least:
        step = _progress(watching)
    return step


def _progress(watching: psycopg.Connection) -> int:
    row = watching.execute("SELECT step FROM progress").fetchone()
    assert row
    return int(row[0])


def test_no_row_is_missed_or_read_twice_or_too_new_while_another_process_writes(postgres_url: str) -> None:
    filled(postgres_url, START)
    with writing(postgres_url) as watching:
        for _ in range(2):
            before = wait_for(watching, _progress(watching) + 20)
            with closing(source_of(table(postgres_url)).open(None)) as reading:
                begun = _progress(watching)
                found: list[tuple[int, int | None]] = []
                for batch in reading:
                    found += zip(*(batch.rows[name].to_pylist() for name in ("id", "changed")), strict=True)
                    if len(found) < START:  # the writer goes on between the parts
                        wait_for(watching, begun + 20)
            seen = max(changed or 0 for number, changed in found if number > 10_000)
            assert before <= seen <= begun
            assert sorted(found) == sorted(after(seen).items())


def test_a_part_does_not_wait_for_ever_for_a_lock(postgres_url: str) -> None:
    filled(postgres_url)
    with psycopg.connect(postgres_url) as owner:
        owner.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SourceError, match="lock timeout") as caught:
            read(table(postgres_url))
    assert caught.value.retryable
    assert "PIVOTAL_LOCK_TIMEOUT" in (caught.value.hint or "")


def test_a_reading_that_is_closed_in_the_middle_leaves_no_thread_and_no_connection(postgres_url: str) -> None:
    filled(postgres_url)
    before = threading.active_count()
    reading = source_of(table(postgres_url)).open(None)
    batches = iter(reading)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    reading.close()
    assert threading.active_count() == before
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        while (connection.execute(others).fetchone() or (1,))[0]:
            pass


# --- where it cannot be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "mariadb"])
def test_a_database_whose_connections_cannot_share_a_snapshot_is_refused(
    kind: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("mariadb_url") if kind == "mariadb" else f"{kind}:///shop.db"
    execute(url, "CREATE TABLE t (id INT)")
    with pytest.raises(SourceError, match="cannot share a snapshot") as caught:
        read(table(url))
    assert "leave `parallel` out" in (caught.value.hint or "")


def test_a_view_is_refused(postgres_url: str) -> None:
    filled(postgres_url)
    execute(postgres_url, "CREATE VIEW v AS SELECT * FROM t")
    with pytest.raises(SourceError, match="which cannot be read in parts"):
        read(table(postgres_url, "v"))


def test_a_query_is_refused() -> None:
    with pytest.raises(ValidationError, match="`parallel` beside `query`"):
        source_of({"type": "database", "connection": "x", "query": "SELECT 1", "parallel": 2})
