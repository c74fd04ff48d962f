"""Which of many values a table has: they go into a temporary table, and one join tells."""

from __future__ import annotations

import pyarrow as pa

from errors import DestinationError
from etl.destinations.names import Name
from etl.destinations.sql import Database, create
from etl.destinations.types import Column, fits, keep
from etl.quoting import quoted

_STAGE = Name(["_pivotal_lookup"], temporary=True)


def find(database: Database, label: str, table: str, column: str, values: pa.Array) -> list[int]:
    """The places of the values that a table's column has.

    Args:
        database: Where the table is; the transaction is not to be committed.
        label: What the database is called.
        table: The table.
        column: Its column.
        values: Values, none of them NULL.

    Raises:
        DestinationError: There is no such table or column, or it holds values of another type.
    """
    name = database.name(table)
    looked_up = _column(database, label, name, table, column)
    places = pa.array(range(len(values)), pa.int64())
    rows = keep(table, pa.record_batch({"place": places, "value": values}))
    kind = rows.schema.field("value").type
    if looked_up.type is None or not (fits(kind, looked_up.type) or fits(looked_up.type, kind)):
        raise DestinationError(
            f"{label}: column {column} of {table} is {looked_up.declared}, the values to be looked up are {kind}",
            hint="give them the column's type in `convert`",
        )
    staged = [database.new_column(field.name, field.type, keyed=False) for field in rows.schema]
    create(database, _STAGE, [each for each in staged if each])
    database.insert(_STAGE, rows)
    found = database.query(
        f"SELECT DISTINCT s.place FROM {_STAGE.sql} AS s JOIN {name.sql} AS t ON t.{quoted(looked_up.name)} = s.value"
    )
    return [place for (place,) in found]


def _column(database: Database, label: str, name: Name, table: str, column: str) -> Column:
    columns = {database.key(each.name): each for each in database.columns(name)}
    if not columns:
        raise no_table(label, table)
    if database.key(column) not in columns:
        known = ", ".join(each.name for each in columns.values())
        raise DestinationError(f"{label}: {table} has no column {column}", hint=f"it has {known}")
    return columns[database.key(column)]


def no_table(label: str, table: str) -> DestinationError:
    """That a table is not there."""
    return DestinationError(
        f"{label}: there is no table {table}, which `references` names", hint="load it first, or mend the name"
    )
