"""PostgreSQL is stopped at once while a run reads from it or writes into it, and started again."""

from __future__ import annotations

import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from errors import DestinationError, PivotalError, SourceError
from etl.destinations import open_destination
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from etl.sources import postgresql, rows
from etl.stream import RunReport
from tests.services.process import ServerProcess

ROWS = 14_000
"""Of 2,500 bytes: several batches."""
_PAD = "x" * 2_500
_AT_ONCE = signal.SIGQUIT
"""`pg_ctl stop -m immediate`."""
_SAYS = "(server closed the connection unexpectedly|the database system is shutting down)"


@pytest.fixture
def shop(project: Path) -> str:
    """A SQLite database with a few orders."""
    with closing(sqlite3.connect(project / "shop.db")) as connection, connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, change INTEGER, note TEXT)")
        connection.executemany("INSERT INTO orders VALUES (?, ?, 'old')", ((n, n) for n in range(1000)))
    return "sqlite:///shop.db"


@pytest.mark.parametrize(("write", "batch"), [("append", 1), ("merge", 3)])
def test_a_run_whose_destination_stops_is_told_and_a_rerun_ends_as_if_undisturbed(
    write: str, batch: int, shop: str, project: Path, postgres_url: str, postgres_process: ServerProcess
) -> None:
    disturbed, twin = (_pipeline(name, shop, postgres_url, write) for name in ("orders", "twin"))
    _run(disturbed, twin)
    with closing(sqlite3.connect(project / "shop.db")) as connection, connection:
        _trade(connection.execute, write, "?")

    _assert_told(disturbed, postgres_process, batch, DestinationError)
    postgres_process.start()

    _run(disturbed, twin)
    assert _whole(postgres_url, "orders") == _whole(postgres_url, "twin")
    assert open_destination(disturbed).state() == open_destination(twin).state()


def test_a_run_whose_source_stops_is_told_and_a_rerun_ends_as_if_undisturbed(
    project: Path, postgres_url: str, postgres_process: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (postgresql, rows):  # so that most of the rows are still with the server
        monkeypatch.setattr(module, "BATCH_BYTES", 1 << 20)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, change INTEGER, note TEXT)")
        connection.execute("INSERT INTO orders SELECT n, n, 'old' FROM generate_series(0, 999) AS n")
    target = "sqlite:///warehouse.db"
    disturbed, twin = (_pipeline(name, postgres_url, target, "merge") for name in ("orders", "twin"))
    _run(disturbed, twin)
    with psycopg.connect(postgres_url) as connection:
        _trade(connection.execute, "merge", "%s")

    _assert_told(disturbed, postgres_process, 1, SourceError)
    postgres_process.start()

    _run(disturbed, twin)
    with closing(sqlite3.connect(project / "warehouse.db")) as connection:
        difference = "SELECT * FROM (SELECT * FROM {} EXCEPT SELECT * FROM {})"
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1000 + ROWS,)
        assert connection.execute(difference.format("orders", "twin")).fetchall() == []
    assert open_destination(disturbed).state() == open_destination(twin).state()


def _pipeline(name: str, source: str, target: str, write: str) -> Pipeline:
    key = {"key": ["id"]} if write == "merge" else {}
    return Pipeline.model_validate(
        {
            "name": name,
            "description": "Orders",
            "source": {
                "type": "database",
                "connection": source,
                "table": "orders",
                "incremental": {"cursor": "change"},
            },
            "destination": {"type": "database", "connection": target, "table": name, "write": write, **key},
        }
    )


def _trade(execute: Callable[..., object], write: str, mark: str) -> None:
    """New orders; where rows are merged, some of the old ones change, too."""
    if write == "merge":
        execute("UPDATE orders SET change = 1000, note = 'changed' WHERE id < 500")
    execute(
        f"""WITH RECURSIVE numbers (n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM numbers WHERE n < {999 + ROWS})
            INSERT INTO orders SELECT n, n, {mark} || n FROM numbers""",
        [_PAD],
    )


def _run(*pipelines: Pipeline) -> None:
    for pipeline in pipelines:
        run_pipeline(pipeline)


def _assert_told(pipeline: Pipeline, server: ServerProcess, batch: int, kind: type[PivotalError]) -> None:
    """A run whose server is gone after so many batches says so, and that it can be run again."""
    batches = count(1)

    def stop(_: RunReport) -> None:
        if next(batches) == batch:
            server.stop(_AT_ONCE)

    with pytest.raises(kind) as caught:
        run_pipeline(pipeline, progress=stop)
    assert not server.running
    assert re.fullmatch(rf"postgresql://[^ ]+/\w+: .*{_SAYS}", caught.value.message)
    assert caught.value.retryable
    assert "is the server" in (caught.value.hint or "")


def _whole(url: str, table: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        query = f"SELECT count(*), count(DISTINCT id), sum(hashtext(id || note)::bigint), max(change) FROM {table}"
        return connection.execute(query).fetchall()
