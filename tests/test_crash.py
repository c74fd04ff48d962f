"""Killed with -9 at random moments, runs leave nothing half done: the next one ends as if nothing had happened."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from errors import SourceError
from etl import client
from etl.destinations import open_destination
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from integrations.calls import RetryBudget
from settings import get_settings
from tests.etl.destinations.backends import SQL, Backend, make_backend
from tests.integrations.web import Asked, Reply, Web, web

__all__ = ["web"]

CASES = [(kind, write) for kind in SQL for write in ("append", "merge")] + [("parquet", "append")]
RUNS = int(os.environ.get("PIVOTAL_CRASH_RUNS", "3"))
"""How often the runs that read an API are killed; `make test-crash` asks for more."""
KILLS = RUNS // 2 + 1
"""How often the runs of every other case are."""
LOT = 10_000
"""Rows that are new to a run; every hundredth is broken."""
PAGE = 50
"""Records on a page of the API."""
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
        "etl.sources.api",
        "etl.sources.database",
        "etl.destinations.api",
        "adbc_driver_postgresql.dbapi",
        "adbc_driver_sqlite.dbapi",
    ]
)


@pytest.fixture(scope="module", autouse=True)
def _forking() -> None:
    """The server that forks is there: a run's time has nothing of its start, so kills are spread over the run."""
    process = _PROCESSES.Process(target=exec, args=("",))
    process.start()
    process.join()


@pytest.mark.timeout(120 + 5 * KILLS)
@pytest.mark.parametrize(("kind", "write"), CASES)
def test_killed_runs_lose_nothing_and_load_nothing_twice(
    kind: str, write: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIVOTAL_ROOT", str(tmp_path))
    get_settings.cache_clear()
    place, shop = make_backend(kind, request), tmp_path / "shop.db"
    pipeline = _pipeline(_shop(shop), _destination(place, write))
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


@pytest.mark.timeout(120 + 10 * RUNS)
def test_a_list_whose_reading_is_killed_or_fails_goes_on_at_a_page_and_ends_as_if_undisturbed(
    web: Web, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BUDGET", RetryBudget(attempts=1))
    orders: list[dict[str, int]] = []
    dead: list[int] = []
    web.answer = partial(_list, orders, dead)
    source = {
        "type": "api",
        "url": f"{web.url}/orders",
        "pagination": {"type": "page"},
        "incremental": {"cursor": "change", "param": "since"},
        "resume": True,
    }
    place = {"type": "database", "connection": "sqlite:///warehouse.db", "table": "orders", "write": "merge"}
    pipeline = _pipeline(source, {**place, "key": ["id"]})
    _grow(orders, 0)
    needed = _seconds(_start(pipeline, project))

    for lot in range(1, RUNS + 1):
        _grow(orders, lot)
        dead[:] = [random.randint(2, 6)]
        with pytest.raises(SourceError, match="the next run goes on there"):
            run_pipeline(pipeline)
        dead[:] = random.choice([[], [random.randint(dead[0], 7)]])
        running = _start(pipeline, project)
        time.sleep(random.uniform(0, 1.2 * needed))
        running.kill()
        running.join()
        dead.clear()
        run_pipeline(pipeline)
        with closing(sqlite3.connect(project / "warehouse.db")) as connection:
            found = connection.execute("SELECT id, change, amount FROM orders ORDER BY id").fetchall()
        assert found == [(order["id"], order["change"], f"{order['amount']}.00") for order in orders]
        assert open_destination(pipeline).state() == {"cursor": str(max(order["change"] for order in orders))}


@pytest.mark.timeout(120 + 5 * KILLS)
def test_killed_runs_leave_no_row_out_for_an_api_and_repeat_requests_as_they_were(web: Web, project: Path) -> None:
    taken: dict[str, bytes] = {}
    web.answer = partial(_take, taken)
    shop = project / "shop.db"
    pipeline = _pipeline(_shop(shop), {"type": "api", "url": f"{web.url}/orders", "batch": LOT // 20, "concurrency": 2})
    _trade(shop, "append", lot=0)
    needed = _seconds(_start(pipeline, project))

    for lot in range(1, KILLS + 1):
        _trade(shop, "append", lot)
        running = _start(pipeline, project)
        time.sleep(random.uniform(0, 1.2 * needed))
        running.kill()
        running.join()
        run_pipeline(pipeline)
        sent = [
            (order["id"], order["amount"]) for body in taken.values() for order in json.loads(body, parse_float=str)
        ]
        assert len(sent) == len(set(sent))
        assert _sum(sent) == _expected(shop)
        assert len(open_destination(pipeline).quarantined()) == LOT // 100 * (lot + 1)

    assert run_pipeline(pipeline).loaded == 0


def _grow(orders: list[dict[str, int]], lot: int) -> None:
    """New orders for the list, and some of the old ones change."""
    newest = len(orders) + lot * 1000
    for order in random.sample(orders, min(len(orders), 20)):
        order |= {"change": newest, "amount": lot}
    first = len(orders)
    orders += [{"id": first + n, "change": newest + 1 + n, "amount": 0} for n in range(8 * PAGE)]


def _list(orders: Sequence[dict[str, int]], dead: Sequence[int], asked: Asked) -> Reply:
    """A page of the orders that are new, in the order of their changes; some pages cannot be had."""
    page, since = int(asked.params["page"]), int(asked.params.get("since", 0))
    if page in dead:
        return Reply(status=503)
    new = sorted((order for order in orders if order["change"] >= since), key=lambda order: order["change"])
    return Reply(new[(page - 1) * PAGE : page * PAGE])


def _take(taken: dict[str, bytes], asked: Asked) -> Reply:
    """Takes a request once; the same key must come with the same rows."""
    key = asked.headers["idempotency-key"]
    return Reply({}) if taken.setdefault(key, asked.body) == asked.body else Reply({"error": "another"}, status=409)


def _destination(place: Backend, write: str) -> dict[str, object]:
    destination: dict[str, object] = {"type": "database", "connection": place.url, "table": "orders"}
    if place.kind == "parquet":
        destination = {"type": "file", "path": f"{place.url}/orders"}
    return {**destination, "write": write, **({"key": ["id"]} if write == "merge" else {})}


def _shop(path: Path) -> dict[str, object]:
    return {
        "type": "database",
        "connection": f"sqlite:///{path}",
        "table": "orders",
        "incremental": {"cursor": "change"},
    }


def _pipeline(source: dict[str, object], destination: dict[str, object]) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "orders",
            "description": "Orders",
            "source": source,
            "transform": {"convert": {"amount": "decimal(12,2)"}},
            "destination": destination,
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
    """What there must be: the orders without the broken ones."""
    with closing(sqlite3.connect(shop)) as connection:
        rows = connection.execute("SELECT id, amount FROM orders WHERE amount <> 'broken'").fetchall()
    return _sum(rows)


def _found(place: Backend) -> tuple[int, int]:
    rows = place.query("SELECT id, amount FROM orders")
    return _sum([(row["id"], str(row["amount"])) for row in rows])


def _sum(rows: Sequence[tuple[int, str]]) -> tuple[int, int]:
    """How many rows there are, and a sum that tells their ids and amounts apart."""
    return len(rows), sum(map(hash, rows))
