"""How rows get into a table: appended, in place of others, or merged by key."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import pyarrow as pa

from errors import DestinationError
from etl.destinations.merge import Merge
from etl.destinations.names import Name
from etl.destinations.spool import Spool
from etl.destinations.sql import Database, Table, create, widen
from etl.destinations.types import Column
from etl.destinations.warehouse import Target, Writer
from etl.stream import Loaded


class Loader:
    """`Writer` for append and replace: rows go straight into the table.

    Args:
        database: Opened by the first use.
        target: The table.
    """

    def __init__(self, database: Callable[[], Database], target: Target) -> None:
        self._database, self._target = database, target
        self._inserted, self._first = 0, True

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Writer.write`."""
        table = self._table
        fitted = table.fit(rows)
        if fitted.num_columns:
            table.make()
        if fitted.num_rows:
            self._replace()
            self._inserted += table.database.insert(table.name, fitted)

    def finish(self) -> Loaded:
        """See `Writer.finish`."""
        self._replace()  # by nothing, if no row came
        return Loaded(inserted=self._inserted)

    def _replace(self) -> None:
        """Before the first row.

        DELETE, not TRUNCATE or a new table: readers with an older snapshot keep seeing the old rows, and grants, views
        and indexes stay.
        """
        table, first, self._first = self._table, self._first, False
        if first and self._target.write == "replace" and table.exists:
            table.database.lock(table.name)
            where = f" WHERE {table.scope}" if self._target.scope else ""
            table.database.run(f"DELETE FROM {table.name.sql}{where}")

    @cached_property
    def _table(self) -> Table:
        return Table(self._database(), self._target)


class Merger:
    """`Writer` for merge: rows go into a temporary table, then by key into the table.

    Args:
        database: Opened by the first use.
        target: The table.
    """

    def __init__(self, database: Callable[[], Database], target: Target) -> None:
        self._database, self._target = database, target
        self._staged = 0
        self._columns: dict[str, Column] = {}

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Writer.write`."""
        table = self._table
        fitted = table.fit(rows)
        self._check_names(fitted)
        new = {name: table.column(name) for name in fitted.schema.names if name not in self._columns}
        if self._columns:
            widen(table.database, self._stage, new.values())
        elif new:
            create(table.database, self._stage, new.values())
        self._columns |= new
        if fitted.num_rows:
            self._staged += table.database.insert(self._stage, fitted)

    def finish(self) -> Loaded:
        """See `Writer.finish`."""
        if not self._columns:
            return Loaded(inserted=0)
        self._table.make()
        self._table.database.lock(self._table.name)
        loaded = self._merge()
        self._table.database.run(f"{self._table.database.dialect.drop} {self._stage.sql}")
        return loaded

    def _merge(self) -> Loaded:
        """Merges the staged rows, each count the database's own.

        First goes what another row of the run supersedes. Then every staged row has one row in the table or none;
        rows that the table has, unchanged or newer, are not written again.
        """
        database, merge = self._table.database, self._statements
        superseded = database.run(merge.delete_superseded)
        rows, there = database.query(merge.count_matches)[0]
        inserted, updated = database.upsert(merge)
        if superseded + rows != self._staged or there + inserted != rows:
            raise DestinationError(
                f"{self._target.table}: {self._staged} rows were to be merged, but {superseded} of them are "
                f"superseded, {there} are in the table and {inserted} were inserted",
                hint=f"the table has several rows with the same {', '.join(self._target.key)}, or a trigger on it",
            )
        return Loaded(inserted, updated, deduplicated=superseded + there - updated)

    def _check_names(self, rows: pa.RecordBatch) -> None:
        row_id = self._table.database.dialect.row_id
        if row_id in map(str.lower, rows.schema.names):
            raise DestinationError(
                f"{self._target.table}: a column cannot be named {row_id}, which the database keeps for itself",
                hint=f"rename it: `map: {{{row_id}: row_number}}`",
            )

    @cached_property
    def _table(self) -> Table:
        return Table(self._database(), self._target)

    @property
    def _statements(self) -> Merge:
        table, target = self._table, self._target
        return Merge(
            table.name,
            self._stage,
            self._columns.values(),
            key=[table.column(name) for name in target.key],
            version=table.column(target.version) if target.version else None,
            dialect=table.database.dialect,
        )

    @cached_property
    def _stage(self) -> Name:
        return Name([f"_pivotal_stage_{id(self)}"], temporary=True)


class Spooled:
    """`Writer` for databases that let one write at a time: rows wait on disk until `finish`."""

    def __init__(self, spool: Spool, writer: Writer) -> None:
        self._spool, self._writer = spool, writer

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Writer.write`."""
        self._spool.write(rows)

    def finish(self) -> Loaded:
        """See `Writer.finish`."""
        for schema in self._spool.schemas:  # where a new column would commit the transaction, rows come after it
            self._writer.write(pa.RecordBatch.from_pylist([], schema))
        for rows in self._spool:
            self._writer.write(rows)
        return self._writer.finish()
