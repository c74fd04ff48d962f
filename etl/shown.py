"""Rows for people to look at."""

from __future__ import annotations

import pyarrow as pa


def shown(rows: pa.RecordBatch) -> list[dict[str, object]]:
    """The rows, by column."""
    columns = [_values(column) for column in rows.columns]
    return [dict(zip(rows.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: pa.Array) -> list[object]:
    """A column's values; as text where Python has no such value (a date before Christ or after 9999)."""
    try:
        values: list[object] = column.to_pylist()
    except (OverflowError, ValueError):
        values = column.cast(pa.string()).to_pylist()
    return values
