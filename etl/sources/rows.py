"""What the sources share: batches of a fair size, rows taken out of a batch, rows that cannot be read exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from etl.stream import BadRow, Batch, Broken, Origin

BATCH_BYTES = 4 << 20
"""What a batch has at least, unless the source ends before: large enough for the engine, small enough for memory."""


def gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of about `BATCH_BYTES`."""
    waiting: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        waiting.append(batch)
        size += batch.nbytes
        if size >= BATCH_BYTES:
            yield pa.concat_batches(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_batches(waiting)


def taken(batch: Batch, mask: pa.BooleanArray) -> Batch:
    """The rows where `mask` is true, each with its origin."""
    if pc.all(mask, min_count=0).as_py():
        return batch
    places = pc.indices_nonzero(mask)
    return Batch(
        batch.rows.filter(mask),
        lambda index: batch.origin(places[index].as_py()),
        bad=batch.bad,
        deduplicated=batch.deduplicated,
    )


def without_refused(
    batch: Batch, refused: Mapping[int, Mapping[str, str]], kinds: Mapping[str, str], names: Sequence[str]
) -> Batch:
    """The batch with the rows set aside that hold a value which the column's type cannot hold.

    Args:
        batch: The rows; a refused value stands there as NULL.
        refused: Row index -> column -> the value as text.
        kinds: Column -> what its values should be.
        names: The columns that the quarantine keeps.
    """
    if not refused:
        return batch
    places = sorted(refused)
    rows, types = as_text(batch.rows.select(names).take(pa.array(places)))
    bad = [
        _refused_row(row, types, refused[place], kinds, batch.origin(place))
        for place, row in zip(places, rows, strict=True)
    ]
    mask = pa.array([index not in refused for index in range(batch.rows.num_rows)])
    kept = taken(batch, mask)
    return Batch(kept.rows, kept.origin, bad=[*batch.bad, *bad], deduplicated=batch.deduplicated)


def as_text(rows: pa.RecordBatch) -> tuple[list[dict[str, str | None]], dict[str, str]]:
    """Rows as `BadRow` keeps them: each value as text, and the types that bring the texts back."""
    with engine(rows=rows) as session:
        values = session.sql("SELECT * FROM rows")
        types = dict(zip(values.columns, map(str, values.types), strict=True))
        texts = session.sql("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM rows")
        return texts.to_arrow_table().to_pylist(), types


@contextmanager
def engine(**data: pa.RecordBatch | pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB, in UTC, with data under these names."""
    with _database().cursor() as session:
        session.execute("SET TimeZone = 'UTC'")
        for name, rows in data.items():
            session.register(name, rows)
        yield session


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """An empty database in memory; what is registered in one of its cursors is that cursor's own."""
    return duckdb.connect(config={"threads": 1})


def _refused_row(
    row: Mapping[str, str | None],
    types: Mapping[str, str],
    values: Mapping[str, str],
    kinds: Mapping[str, str],
    origin: Origin,
) -> BadRow:
    broken = [
        Broken(name, f"source: {kinds[name]}", f"{value!r} cannot be read as {kinds[name]}")
        for name, value in values.items()
    ]
    return BadRow({**row, **values}, {**types, **dict.fromkeys(values, "VARCHAR")}, broken, origin)
