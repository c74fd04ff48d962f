"""The part of a table that a run is about: which rows belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from errors import DestinationError
from etl.destinations.types import Column
from etl.destinations.warehouse import Bound, Scope


def refuse_outside(table: str, rows: pa.RecordBatch, column: Column, scope: Scope) -> None:
    """Lets rows pass that belong to the scope.

    Raises:
        DestinationError: A row does not, or the column cannot be compared with the scope's bounds.
    """
    values = rows[column.name]
    inside = pc.fill_null(_inside(table, values, column, scope), False)
    outside = values.filter(pc.invert(inside))
    if len(outside):
        raise DestinationError(
            f"{table}: {len(outside)} rows are outside of {scope}, the first with {column.name} {outside[0]}",
            hint=f"the source must be read by {column.name}, too, and no rule may change it",
        )


def bounds(table: str, column: Column, values: Sequence[Bound]) -> pa.Array:
    """Values as the column keeps them; where it has a zone, moments without one are in UTC.

    Raises:
        DestinationError: They cannot be values of the column.
    """
    kind: Any = column.type
    try:
        if pa.types.is_decimal(kind):
            return pa.array([Decimal(str(value)) for value in values], kind)
        array = pa.array(values)
        if pa.types.is_timestamp(kind) and kind.tz and getattr(array.type, "tz", None) is None:
            array = pc.assume_timezone(array.cast(pa.timestamp("us")), "UTC")
        return array.cast(kind)
    except (pa.ArrowException, ArithmeticError, TypeError, ValueError):
        raise DestinationError(
            f"{table}: column {column.name} is {column.declared}, which cannot be compared with {values[0]!r}",
            hint="partition by a column of numbers, dates, timestamps or text",
        ) from None


def _inside(table: str, values: pa.Array, column: Column, scope: Scope) -> pa.Array:
    if scope.values:
        return pc.is_in(values, bounds(table, column, scope.values))
    inside = pc.is_valid(values)
    if scope.low is not None:
        inside = pc.and_(inside, pc.greater_equal(values, bounds(table, column, [scope.low])[0]))
    if scope.high is not None:
        inside = pc.and_(inside, pc.less(values, bounds(table, column, [scope.high])[0]))
    return inside
