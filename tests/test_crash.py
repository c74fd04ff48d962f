"""Killed with -9 at random moments, runs leave nothing half done: the next one ends as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
import time
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from etl.destinations import open_destination
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from settings import get_settings
from tests.etl.destinations.backends import SQL, Backend, make_backend

CASES = [(kind, write) for kind in SQL for write in ("append", "merge")] + [("parquet", "append")]
KILLS = int(os.environ.get("PIVOTAL_CRASH_RUNS", "5")) // 2 + 1
"""How often the runs of each case are killed; `make test-crash` asks for more."""
LOT = 10_000
"""Rows that are new to a run; every hundredth is broken."""
RUN = """
import os
os.environ["PIVOTAL_ROOT"] = root
from etl.run import run_pipeline
run_pipeline(pipeline)
"""

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        "etl.run",
        "etl.destinations.database",
        "etl.destinations.files",
        "etl.sources.database",
        "adbc_driver_postgresql.dbapi",
    ]
)


@pytest.mark.timeout(120 + 5 * KILLS)
@pytest.mark.parametrize(("kind", "write"), CASES)
def test_killed_runs_lose_nothing_and_load_nothing_twice(
    kind: str, write: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIVOTAL_ROOT", str(tmp_path))
    get_settings.cache_clear()
    place, shop = make_backend(kind, request), tmp_path / "shop.db"
    pipeline = _pipeline(place, write, shop)
    _trade(shop, write, lot=0)
    needed = _seconds(_start(pipeline, tmp_path))

    for lot in range(1, KILLS + 1):
        before = _found(place)
        _trade(shop, write, lot)
        running = _start(pipeline, tmp_path)
        time.sleep(random.uniform(0, 1.2 * needed))  # the moment is what is tested
        running.kill()
        running.join()
        assert _found(place) in {before, _expected(shop)}, f"half of lot {lot} is there"
        run_pipeline(pipeline)
        assert _found(place) == _expected(shop)
        assert len(open_destination(pipeline).quarantined()) == LOT // 100 * (lot + 1)

    assert run_pipeline(pipeline).loaded == 0


def _pipeline(place: Backend, write: str, shop: Path) -> Pipeline:
    destination: dict[str, object] = {"type": "database", "connection": place.url, "table": "orders"}
    if place.kind == "parquet":
        destination = {"type": "file", "path": f"{place.url}/orders"}
    if write == "merge":
        destination["key"] = ["id"]
    return Pipeline.model_validate(
        {
            "name": "orders",
            "description": "Orders",
            "source": {
                "type": "database",
                "connection": f"sqlite:///{shop}",
                "table": "orders",
                "incremental": {"cursor": "change"},
            },
            "transform": {"convert": {"amount": "decimal(12,2)"}},
            "destination": {**destination, "write": write},
        }
    )


def _trade(shop: Path, write: str, lot: int) -> None:
    """A lot of new orders; where rows are merged, every tenth old order changes, too."""
    first = lot * LOT
    with closing(sqlite3.connect(shop)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, change INTEGER, amount TEXT)")
        if write == "merge":
            connection.execute(f"UPDATE orders SET change = {first}, amount = '{lot}.25' WHERE id % 10 = 0")
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?, ?)",
            ((id_, id_, "broken" if id_ % 100 == 7 else f"{id_}.50") for id_ in range(first, first + LOT)),
        )


def _start(pipeline: Pipeline, root: Path) -> BaseProcess:
    process = _PROCESSES.Process(target=exec, args=(RUN, {"pipeline": pipeline, "root": str(root)}))
    process.start()
    return process


def _seconds(process: BaseProcess) -> float:
    """How long a process takes that nothing disturbs."""
    started = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - started


def _expected(shop: Path) -> tuple[int, int]:
    """How many orders there are without the broken ones, and a sum that tells their ids and amounts apart."""
    with closing(sqlite3.connect(shop)) as connection:
        rows = connection.execute("SELECT id, amount FROM orders WHERE amount <> 'broken'").fetchall()
    return len(rows), sum(hash((id_, amount)) for id_, amount in rows)


def _found(place: Backend) -> tuple[int, int]:
    rows = place.query("SELECT id, amount FROM orders")
    return len(rows), sum(hash((row["id"], str(row["amount"]))) for row in rows)
