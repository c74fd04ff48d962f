"""Lists of objects become rows of child tables, in every kind of database, in the transaction of their parents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from etl.pipeline import Pipeline
from etl.run import run_pipeline
from etl.stream import RunReport
from tests.etl.destinations.backends import SQL, Backend, make_backend


@pytest.fixture(params=SQL)
def database(request: pytest.FixtureRequest, project: Path) -> Backend:  # noqa: ARG001  (paths start there)
    """Each kind of database."""
    return make_backend(request.param, request)


@pytest.fixture
def duckdb_file(request: pytest.FixtureRequest, project: Path) -> Backend:  # noqa: ARG001  (paths start there)
    """One of them."""
    return make_backend("duckdb", request)


LINES = {"order_lines": {"from": "items", "keys": {"id": "order_id"}}}


def pipeline(database: Backend, write: str = "merge", **parts: Any) -> Pipeline:
    transform = {"children": LINES} | parts.pop("transform", {})
    destination: dict[str, Any] = {"type": "database", "connection": database.url, "table": "orders", "write": write}
    destination |= {"key": ["id"]} if write == "merge" else {}
    return Pipeline.model_validate(
        {
            "name": "orders",
            "description": "Orders",
            "source": {"type": "file", "path": "orders.ndjson"},
            "transform": transform,
            "destination": destination | parts.pop("destination", {}),
        }
        | parts
    )


def run(declared: Pipeline, *records: dict[str, Any], **how: Any) -> RunReport:
    from settings import get_settings

    get_settings().path("orders.ndjson").write_bytes(b"\n".join(map(orjson.dumps, records)))
    return run_pipeline(declared, **how)


def order(id_: int, *skus: str, **more: Any) -> dict[str, Any]:
    return {"id": id_, **more, "items": [{"sku": sku} for sku in skus]}


def lines(database: Backend, table: str = "order_lines") -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in database.rows(table, order="order_id, position")]


@pytest.mark.parametrize("write", ["append", "replace", "merge"])
def test_a_list_of_objects_becomes_rows_with_the_parents_key_and_their_place(database: Backend, write: str) -> None:
    report = run(pipeline(database, write), order(1, "a", "b", note="x"), order(2), order(3, "c"), {"id": 4})

    assert (report.extracted, report.loaded, report.children) == (4, 4, {"order_lines": 3})
    assert database.rows() == [{"id": 1, "note": "x"}, {"id": 2}, {"id": 3}, {"id": 4}]
    assert lines(database) == [(1, 1, "a"), (1, 2, "b"), (3, 1, "c")]


def test_a_merge_replaces_the_rows_of_the_parents_that_come_and_leaves_the_others_alone(database: Backend) -> None:
    declared = pipeline(database)
    run(declared, order(1, "a", "b"), order(2, "c"), order(3, "d"))

    report = run(declared, order(1, "b"), order(2), order(4, "e"))

    assert report.children == {"order_lines": 2}
    assert lines(database) == [(1, 1, "b"), (3, 1, "d"), (4, 1, "e")]
