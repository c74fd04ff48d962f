"""Which of many values a table has: they go into a temporary table, and one join tells."""

from __future__ import annotations

import pyarrow as pa

from errors import DestinationError
from etl.destinations.names import Name
from etl.destinations.sql import Database, create
from etl.destinations.types import Column, fits, keep
from etl.quoting import quoted

_STAGE = Name(["_pivotal_lookup"], temporary=True)


def find(database: Database, label: str, table: str, rows: pa.RecordBatch) -> list[int]:
    """The places of the rows whose values a row of the table has.

    Args:
        database: Where the table is; the transaction is not to be committed.
        label: What the database is called.
        table: The table.
        rows: Values, none of them NULL, by the table's columns.

    Raises:
        DestinationError: There is no such table or column, or it holds values of another type.
    """
    name = database.name(table)
    columns = [_column(database, label, name, table, column) for column in rows.schema.names]
    places = pa.array(range(rows.num_rows), pa.int64())
    values = {f"value{number}": array for number, array in enumerate(rows.columns)}
    staged = keep(table, pa.record_batch({"place": places, **values}))
    for column, field in zip(columns, list(staged.schema)[1:], strict=True):
        _check_type(label, table, column, field.type)
    made = [database.new_column(field.name, field.type, keyed=False) for field in staged.schema]
    create(database, _STAGE, [each for each in made if each])
    database.insert(_STAGE, staged)
    same = " AND ".join(f"t.{quoted(column.name)} = s.value{number}" for number, column in enumerate(columns))
    found = database.query(f"SELECT DISTINCT s.place FROM {_STAGE.sql} AS s JOIN {name.sql} AS t ON {same}")
    return [place for (place,) in found]


def _check_type(label: str, table: str, column: Column, kind: pa.DataType) -> None:
    if column.type is None or not (fits(kind, column.type) or fits(column.type, kind)):
        raise DestinationError(
            f"{label}: column {column.name} of {table} is {column.declared}, the values to be looked up are {kind}",
            hint="give them the column's type in `convert`",
        )


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
