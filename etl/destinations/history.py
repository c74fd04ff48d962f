"""Every version that a row had (a slowly changing dimension of type 2): when it was valid, and which one is current.

A row that changes closes the current one of its key and begins a new one, at its `version` or when the run started; a
row that does not change touches nothing. A row with the version of the current one corrects it in place; one with an
older version comes too late and is left out.
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from errors import DestinationError
from etl.destinations.merge import Merge, Merged
from etl.destinations.sql import Database, Table, count_there
from etl.destinations.types import Column, keep
from etl.destinations.warehouse import IS_CURRENT, VALID_FROM, VALID_TO
from etl.quoting import quoted

COLUMNS = (VALID_FROM, VALID_TO, IS_CURRENT)


def as_current(table: str, rows: pa.RecordBatch, version: str | None, now: datetime) -> pa.RecordBatch:
    """The rows as a history has them: valid from their version, or from now on.

    Raises:
        DestinationError: The version is no timestamp.
    """
    begin = pa.array([now] * rows.num_rows, pa.timestamp("us", "UTC"))
    if version:
        versions = keep(table, rows.select([version]))[version]
        if not pa.types.is_timestamp(versions.type):
            raise DestinationError(
                f"{table}: rows of a history begin at their `version`, but {version} is {versions.type}, no timestamp",
                hint=f"convert it: `convert: {{{version}: timestamptz}}`, or leave `version` out",
            )
        begin = pc.coalesce(versions, begin.cast(versions.type))
    current = pa.array([True] * rows.num_rows, pa.bool_())
    return pa.record_batch(
        [*rows.columns, begin, pa.nulls(rows.num_rows, begin.type), current], names=[*rows.schema.names, *COLUMNS]
    )


def refuse_other(table: Table) -> None:
    """Lets a table pass that is new or keeps a history already.

    Raises:
        DestinationError: It has rows without a history.
    """
    if table.exists and not all(map(table.has, COLUMNS)):
        raise DestinationError(
            f"{table.target.table}: the table keeps no history: it has no columns {', '.join(COLUMNS)}",
            hint="load into a new table, or leave `history` out",
        )


def begin_and_close(database: Database, merge: Merge, now: str) -> Merged:
    """Merges the staged rows into a history.

    Args:
        database: Where it is.
        merge: The merge; it keeps the columns of a history.
        now: The moment at which the run started, in SQL.

    Returns:
        What became of the rows; `inserted` are those of new keys.
    """
    there = count_there(database, merge)
    begin, end, current = merge.kept
    corrected = closed = 0
    if merge.changing:
        newer, same = _newer(merge)
        begins = merge.staged(begin)
        # A row that was gone for a while, or a clock that went back: it cannot end before it began.
        ends = f"CASE WHEN {begins} > t.{quoted(begin.name)} THEN {begins} ELSE {now} END"
        if merge.version:
            corrected = database.run(merge.update(merge.staged_values, f"{merge.different} AND {same}"))
        closed = database.run(merge.update({end: ends, current: "FALSE"}, f"{merge.different} AND {newer}"))
    database.run(_begin_after_the_end(merge, begin, end, now))
    inserted = database.run(merge.insert_new)
    return Merged(there, inserted - closed, closed + corrected)


def _newer(merge: Merge) -> tuple[str, str]:
    """Whether a staged row is newer than the table's, and whether it is of the same version."""
    if merge.version is None:
        return "1 = 1", "1 = 0"
    stored, staged = f"t.{quoted(merge.version.name)}", merge.staged(merge.version)
    return f"({stored} IS NULL OR {staged} > {stored})", f"{staged} = {stored}"


def _begin_after_the_end(merge: Merge, begin: Column, end: Column, now: str) -> str:
    """A row that comes back with its old version begins now."""
    return f"""
        UPDATE {merge.stage.sql} SET {quoted(begin.name)} = {now} WHERE EXISTS (
            SELECT 1 FROM {merge.table.sql} AS t WHERE {merge.same_key} AND t.{quoted(end.name)} > {merge.staged(begin)}
        )"""
