"""Other processes write while runs go on, and commit later than the time that their rows carry, within the lag."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from etl.pipeline import Pipeline
from etl.run import run_pipeline

LAG = 3
"""Seconds. A writer that is held up for longer than most of it takes its change back."""

_WRITER = """
import random, sqlite3, sys, threading, time
from contextlib import closing
from datetime import UTC, datetime
import psycopg

url, lag, updates = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "merge"
INSERT = "INSERT INTO orders (id, changed, note) VALUES ({0}, {0}, {0})"
UPDATE = "UPDATE orders SET changed = {0}, note = {0} WHERE id = {0}"

def change(execute, mark, id_, moment):
    note = f"{id_} at {moment}"
    if updates and random.random() < 0.5:
        execute(UPDATE.format(mark), (moment, note, random.randint(0, 3)))
    execute(INSERT.format(mark), (id_, moment, note))

def in_postgres(id_, delay):
    with psycopg.connect(url) as connection:
        moment = connection.execute("SELECT now()").fetchone()[0]
        change(connection.execute, "%s", id_, moment)
        time.sleep(delay)
        late = connection.execute("SELECT extract(epoch FROM clock_timestamp() - now())").fetchone()[0]
        if late > lag / 2 or random.random() < 0.1:
            connection.rollback()

def in_sqlite(id_, delay):
    moment = datetime.now(UTC)
    time.sleep(delay)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)) as connection:
        change(connection.execute, "?", id_, moment.isoformat(" ", "microseconds"))
        if (datetime.now(UTC) - moment).total_seconds() < lag / 2:
            connection.commit()

write = in_sqlite if url.startswith("sqlite") else in_postgres

def work(worker):
    for number in range(10):
        write(4 + 4 * number + worker, random.uniform(0, 0.25))

threads = [threading.Thread(target=work, args=[worker]) for worker in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize(("kind", "write"), [("sqlite", "append"), ("postgres", "append"), ("postgres", "merge")])
def test_rows_that_are_committed_late_all_arrive_and_none_twice(
    kind: str, write: str, project: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if kind == "postgres" else f"sqlite:///{project}/shop.db"
    pipeline = _pipeline(url, write)
    _read(url, "CREATE TABLE orders (id BIGINT PRIMARY KEY, changed TIMESTAMPTZ, note TEXT)")
    _read(url, "INSERT INTO orders VALUES (0, NULL, 'a'), (1, NULL, 'b'), (2, NULL, 'c'), (3, NULL, 'd')")
    _read(url, "UPDATE orders SET changed = '2024-01-01 00:00:00.000000+00:00'")

    loaded = 0
    with subprocess.Popen([sys.executable, "-c", _WRITER, url, str(LAG), write]) as writer:
        while writer.poll() is None:
            loaded += run_pipeline(pipeline).loaded
    assert writer.returncode == 0
    loaded += run_pipeline(pipeline).loaded

    rows = "SELECT id, note FROM orders ORDER BY id"
    assert _read(f"sqlite:///{project}/warehouse.db", rows) == (expected := _read(url, rows))
    assert len(expected) > 20
    assert loaded == len(expected) or write == "merge"


def _pipeline(url: str, write: str) -> Pipeline:
    key = {"key": ["id"]} if write == "merge" else {}
    return Pipeline.model_validate(
        {
            "name": "orders",
            "description": "Orders",
            "source": {
                "type": "database",
                "connection": url,
                "table": "orders",
                "incremental": {"cursor": "changed", "lag": f"{LAG}s"},
            },
            "destination": {
                "type": "database",
                "connection": "sqlite:///warehouse.db",
                "table": "orders",
                "write": write,
                **key,
            },
        }
    )


def _read(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Runs a statement, and gives its rows if it has some."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            return connection.execute(sql).fetchall()
    with psycopg.connect(url) as server:
        found = server.execute(sql)
        return found.fetchall() if found.description else []
