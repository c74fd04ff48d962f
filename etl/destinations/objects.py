"""Rows as JSON objects (RFC 8259), for whoever speaks JSON: nothing is rounded, nothing becomes something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from errors import DestinationError
from etl.nested import dump


def json_values(rows: pa.RecordBatch) -> dict[str, list[Any]]:
    """Each column as values that `json_object` takes.

    Numbers stay exact; dates, times and moments are as RFC 3339 writes them (moments with a zone in UTC); JSON stays
    what it is.

    Raises:
        DestinationError: JSON has nothing for a column's type.
    """
    return {name: _values(name, rows[name]) for name in rows.schema.names}


def check_columns(rows: pa.RecordBatch, named: Mapping[str, str]) -> None:
    """Lets rows pass that have some columns.

    Args:
        rows: The rows.
        named: Column -> the key of the pipeline file that names it.

    Raises:
        DestinationError: One is missing.
    """
    for name, key in named.items() if rows.num_rows else ():
        if name not in rows.schema.names:
            raise DestinationError(
                f"the rows have no column {name}, which `{key}` names",
                hint=f"the rows have: {', '.join(rows.schema.names)}",
            )


def json_object(values: dict[str, Any]) -> bytes:
    """One row as an object."""
    return (dump(values) or "{}").encode()


def not_numbers(rows: pa.RecordBatch) -> Iterator[tuple[int, str]]:
    """Where a number is that JSON has not (NaN, infinity): the row and the column."""
    for name in rows.schema.names:
        column, places = rows[name], np.arange(rows.num_rows)
        while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            places = places[pc.list_parent_indices(column).to_numpy()]
            column = pc.list_flatten(column)
        if pa.types.is_floating(column.type):
            finite = pc.fill_null(pc.is_finite(column), True)
            yield from ((int(place), name) for place in places[~finite.to_numpy(zero_copy_only=False)])


def _values(name: str, column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if isinstance(kind, pa.JsonType):
        return [None if text is None else orjson.Fragment(text) for text in column.storage.to_pylist()]
    if pa.types.is_date(kind) or pa.types.is_time(kind):
        return column.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]
    if pa.types.is_timestamp(kind):
        moments = column.cast(pa.timestamp(kind.unit, "UTC")) if kind.tz else column
        texts: list[Any] = pc.replace_substring(moments.cast(pa.string()), " ", "T", max_replacements=1).to_pylist()
        return texts
    if not _is_known(kind):
        raise DestinationError(
            f"the column {name} is {kind}, which JSON cannot say",
            hint=f"convert it, or leave it out: `convert: {{{name}: string}}`",
        )
    values: list[Any] = column.to_pylist()
    return values


def _is_known(kind: pa.DataType) -> bool:
    """Whether Python's values of a type are what JSON says of it."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_known(kind.value_type)
    checks = (
        pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal,
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
    )  # fmt: skip
    return isinstance(kind, pa.UuidType) or any(check(kind) for check in checks)
