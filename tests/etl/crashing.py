"""What a process does that is killed: it must be importable by name, as it runs in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from etl.destinations import open_destination
from etl.pipeline import Pipeline
from etl.stream import ChildRows, Destination, ParentLoad
from tests.etl.destinations.backends import Backend, bad

ROWS, BATCHES = 50, 4


def no_query(_: str) -> list[dict[str, Any]]:
    """Stands in for a backend's own client, which a killed process has no use for."""
    raise NotImplementedError


def in_environment(variables: dict[str, str], work: Callable[..., None], *arguments: object) -> None:
    """Does something where these variables are set: the server that forks has those of its own start."""
    os.environ.update(variables)
    work(*arguments)


def run_until(kind: str, url: str, write: str, cursor: int) -> None:
    """Runs a pipeline, again and again, until its cursor is there."""
    destination = open_orders(Backend(kind, url, no_query), write, "orders")
    advance(destination, cursor)


def open_orders(backend: Backend, write: str, table: str) -> Destination:
    """The pipeline's destination."""
    more = {"key": ["id"]} if write == "merge" else {}
    return backend.destination(write, table=table, name=table, **more)  # type: ignore[arg-type]


def advance(destination: Destination, cursor: int) -> None:
    """One run a step of the cursor, each with rows of its own and rows that earlier runs had."""
    while (done := _cursor(destination)) < cursor:
        with destination.begin(f"run-{done}") as load:
            for number in range(BATCHES):
                start = (done * BATCHES + number) * ROWS // 2
                ids = pa.array(range(start, start + ROWS))
                load.write(pa.record_batch({"id": ids, "run": [done] * ROWS, "text": [f"text {done}"] * ROWS}))
                load.quarantine([bad("x", start), bad("y", start)])
            load.loaded()
            load.commit({"cursor": done + 1})


def run_family_until(kind: str, url: str, write: str, cursor: int) -> None:
    """As `run_until`, with a child table: every run brings all rows, each with other children than before."""
    destination = open_family(Backend(kind, url, no_query), write)
    while (done := _cursor(destination)) < cursor:
        with destination.begin(f"run-{done}") as load:
            for start in range(0, 4 * ROWS, ROWS):
                ids = range(start, start + ROWS)
                load.write(pa.record_batch({"id": pa.array(ids), "run": [done] * ROWS}))
                children = [(id_, place, done) for id_ in ids for place in range(children_of(id_, done))]
                columns = dict(zip(("order_id", "position", f"run_{start}"), zip(*children, strict=True), strict=True))
                rows = pa.record_batch({name: pa.array(values, pa.int64()) for name, values in columns.items()})
                cast(ParentLoad, load).write_children(
                    ChildRows("order_lines", rows, pc.subtract(rows["order_id"], start))
                )
            load.loaded()
            load.commit({"cursor": done + 1})


def open_family(backend: Backend, write: str) -> Destination:
    """The destination of a pipeline that has a child table."""
    declared = {
        "name": "orders",
        "description": "Orders",
        "source": {"type": "file", "path": "orders.ndjson"},
        "transform": {"children": {"order_lines": {"from": "items", "keys": {"id": "order_id"}}}},
        "destination": {
            "type": "database", "connection": backend.url, "table": "orders", "write": write, "key": ["id"],
        },
    }  # fmt: skip
    return open_destination(Pipeline.model_validate(declared))


def children_of(id_: int, run: int) -> int:
    """How many children a row has in a run."""
    return (id_ + run) % 3


def _cursor(destination: Destination) -> int:
    state = destination.state() or {"cursor": 0}
    return int(str(state["cursor"]))


def die_at_step(kind: str, url: str, write: str, cursor: int, step: int) -> None:
    """As `run_until`, but the process is gone before its n-th change on the disk."""
    left = iter(range(step))

    def dying(change: Callable[..., Any]) -> Callable[..., Any]:
        def change_or_die(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                os._exit(9)
            return change(*arguments, **options)

        return change_or_die

    for owner, name in [
        (os, "link"),
        (os, "fsync"),
        (os, "unlink"),
        (os, "rmdir"),
        (Path, "mkdir"),
        (Path, "rename"),
        (Path, "replace"),
        (Path, "symlink_to"),
        (Path, "write_bytes"),
        (Path, "unlink"),
    ]:
        setattr(owner, name, dying(getattr(owner, name)))
    run_until(kind, url, write, cursor)
