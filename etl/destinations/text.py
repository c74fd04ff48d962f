"""Values as text, exactly: numbers with all their digits, timestamps and dates as ISO 8601, what is nested as JSON.

Binary values are base64. What is no finite number is NaN, Infinity or -Infinity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import duckdb
import pyarrow as pa

from errors import DestinationError
from etl.convert import INTEGERS, is_nested

_ISO = r"regexp_replace(CAST({} AS VARCHAR), '^(\d+-\d\d-\d\d) ([0-9:.]+?)(\+00)?$', '\1T\2{}')"


def text(name: str, kind: str) -> str:
    """A column's values as text, as SQL."""
    if kind.startswith("TIMESTAMP"):
        return _ISO.format(name, "Z" if "TZ" in kind or "ZONE" in kind else "")
    if kind in {"FLOAT", "DOUBLE"}:
        named = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
        cases = " ".join(f"WHEN '{short}' THEN '{long}'" for short, long in named.items())
        return f"CASE CAST({name} AS VARCHAR) {cases} ELSE CAST({name} AS VARCHAR) END"
    if kind == "BLOB":
        return f"base64({name})"
    return f"CAST({'to_json(' + name + ')' if is_nested(kind) else name} AS VARCHAR)"


def is_number(kind: str) -> bool:
    """Whether text is what JSON calls a number; of floats, the finite ones are."""
    return kind in INTEGERS or kind in {"FLOAT", "DOUBLE"} or kind.startswith("DECIMAL")


def texts(rows: pa.Table) -> pa.Table:
    """The rows, each value as text."""
    found = select(rows, lambda kinds: ", ".join(text(column(place), kind) for place, kind in enumerate(kinds)))
    return found.rename_columns(rows.schema.names)


def select(rows: pa.Table, make: Callable[[list[str]], str]) -> pa.Table:
    """What a SELECT over rows gives.

    Args:
        rows: The rows; SQL knows their columns by place, as `column` says, since it does not tell `a` from `A`.
        make: Makes the list of expressions, of the columns' DuckDB types.

    Raises:
        DestinationError: The engine cannot read a column or evaluate an expression.
    """
    rows = rows.rename_columns([column(place) for place in range(rows.num_columns)])
    with _engine() as engine:
        try:
            relation = engine.from_arrow(rows)
            return relation.project(make(list(map(str, relation.types)))).to_arrow_table()
        except duckdb.Error as error:
            raise DestinationError(
                f"a value has no text: {error}", hint="convert the column: `convert: {column: string}`"
            ) from None


def column(place: int) -> str:
    """A column's name in SQL, by its place from 0."""
    return f"c{place}"


@contextmanager
def _engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with _database().cursor() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        yield engine


@cache
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})
