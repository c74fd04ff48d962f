"""How rows get into a table: appended, in place of others, or merged by key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property

import pyarrow as pa

from errors import DestinationError
from etl.destinations import history
from etl.destinations.merge import Merge, Merged
from etl.destinations.names import Name
from etl.destinations.spool import Spool
from etl.destinations.sql import Database, Table, create, temporary, widen
from etl.destinations.tombstones import BEFORE, Tombstones
from etl.destinations.types import Column
from etl.destinations.warehouse import IS_CURRENT, VALID_TO, Target, Writer
from etl.quoting import quoted
from etl.stream import Loaded

_MOMENT = pa.timestamp("us", "UTC")


class Loader:
    """`Writer` for append and replace: rows go straight into the table.

    Args:
        database: Opened by the first use.
        target: The table.
    """

    def __init__(self, database: Callable[[], Database], target: Target) -> None:
        self._database, self._target = database, target
        self._first = True

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Writer.write`."""
        table = self._table
        fitted = table.fit(rows)
        if fitted.num_columns:
            table.make()
        if fitted.num_rows:
            self._replace()
            table.database.insert(table.name, fitted)

    def finish(self, *, complete: bool = True) -> Loaded:  # noqa: ARG002  (a replacement is complete by itself)
        """See `Writer.finish`."""
        self._replace()  # by nothing, if no row came
        self._table.check_named()
        return Loaded(inserted=self._table.database.inserted(self._table.name))

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

    Batches with a column `BEFORE` are tombstones: keys that are deleted (see `etl.destinations.tombstones`).

    Args:
        database: Opened by the first use.
        target: The table.
    """

    def __init__(self, database: Callable[[], Database], target: Target) -> None:
        self._database, self._target = database, target
        self._now = datetime.now(UTC)
        self._columns: dict[str, Column] = {}
        self._gone = Tombstones()

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Writer.write`."""
        table = self._table
        if BEFORE in rows.schema.names:
            self._gone.take(table, rows)
            return
        fitted = table.fit(self._marked(rows))
        self._check_names(fitted)
        new = {name: table.column(name) for name in fitted.schema.names if name not in self._columns}
        if self._columns:
            widen(table.database, self._stage, new.values())
        elif new:
            create(table.database, self._stage, new.values())
        self._columns |= new
        if fitted.num_rows:
            table.database.insert(self._stage, fitted)

    def finish(self, *, complete: bool = True) -> Loaded:
        """See `Writer.finish`."""
        if not self._columns:
            return self._only_delete(complete=complete)
        if self._target.history:
            history.refuse_other(self._table)
        self._table.check_named()
        self._table.make()
        self._table.database.lock(self._table.name)
        deleted = self._delete_gone()
        loaded = self._merge()
        if complete:
            deleted += self._delete_missing()
        self._table.database.run(f"{self._table.database.dialect.drop} {self._stage.sql}")
        return replace(loaded, tombstones=self._gone.count(self._table.database), deleted=deleted)

    def _only_delete(self, *, complete: bool) -> Loaded:
        """What a run does that brought no rows."""
        table, target = self._table, self._target
        if self._gone.made:
            if target.history:
                history.refuse_other(table)
            if target.soft_delete:
                table.add(target.soft_delete, _MOMENT)
                table.make()
            table.database.lock(table.name)
        deleted = self._delete_gone() + (self._delete_all() if complete else 0)
        return Loaded(inserted=0, tombstones=self._gone.count(table.database), deleted=deleted)

    def _merge(self) -> Loaded:
        """Merges the staged rows, each count the database's own.

        First goes what another row or a tombstone of the run supersedes. Then every staged row has one row in the table
        or none; rows that the table has, unchanged or newer, are not written again.
        """
        database, merge = self._table.database, self._statements
        superseded = database.run(merge.delete_before(self._gone.name, BEFORE)) if self._gone.made else 0
        superseded += database.leave_newest(merge)
        done = self._keep_history(merge) if self._target.history else database.upsert(merge)
        if superseded + done.there + done.inserted != self._staged:
            raise DestinationError(
                f"{self._target.table}: {self._staged} rows were to be merged, but {superseded} of them are "
                f"superseded, {done.there} are in the table and {done.inserted} were inserted",
                hint=f"the table has several rows with the same {', '.join(self._target.key)}, or a trigger on it",
            )
        return Loaded(done.inserted, done.updated, deduplicated=superseded + done.there - done.updated)

    def _keep_history(self, merge: Merge) -> Merged:
        now = self._table.constant(merge.kept[0], [self._now])
        return history.begin_and_close(self._table.database, merge, now)

    def _delete_gone(self) -> int:
        """Deletes the rows of the table that tombstones name, or marks them as deleted or as no longer current."""
        table, target = self._table, self._target
        if not self._gone.made:
            return 0
        current = table.column(IS_CURRENT) if target.history else None
        gone = self._gone.settle(table, current)
        if current:
            end = table.column(VALID_TO)
            return table.database.run(gone.update({end: table.constant(end, [self._now]), current: "FALSE"}, "1 = 1"))
        if target.soft_delete:
            mark = table.column(target.soft_delete)
            values = {mark: table.constant(mark, [self._now])}
            return table.database.run(gone.update(values, f"t.{quoted(mark.name)} IS NULL"))
        return table.database.run(gone.delete_matches)

    def _delete_missing(self) -> int:
        """Deletes the rows that were not staged; of a table whose rows would all go, none."""
        if not self._target.delete_missing:
            return 0
        return self._delete_all() if self._staged == 0 else self._delete(self._statements.missing)

    def _delete_all(self) -> int:
        """No row came. In a part of the table, that may be; of the whole, it is more often a source that is broken."""
        table = self._table
        if not (self._target.delete_missing and table.exists):
            return 0
        if self._target.scope is None and table.database.query(f"SELECT 1 FROM {table.name.sql} {self._there} LIMIT 1"):
            raise DestinationError(
                f"{self._target.table}: no row came, so `delete_missing` would delete all that the table has",
                hint="if that is right, delete them yourself; else look why the source, or `filter`, gives none",
            )
        table.database.lock(table.name)
        return self._delete("1 = 1")

    def _delete(self, which: str) -> int:
        """Deletes rows, or marks them as deleted or as no longer current."""
        table, target = self._table, self._target
        where = f"{self._there} AND {which}" + (f" AND {table.scope}" if target.scope else "")
        if target.history:
            end = table.column(VALID_TO)
            values = f"{quoted(end.name)} = {table.constant(end, [self._now])}, {quoted(IS_CURRENT)} = FALSE"
        elif target.soft_delete:
            mark = table.column(target.soft_delete)
            values = f"{quoted(mark.name)} = {table.constant(mark, [self._now])}"
        else:
            return table.database.run(f"DELETE FROM {table.name.sql} {where}")
        return table.database.run(f"UPDATE {table.name.sql} SET {values} {where}")

    @property
    def _there(self) -> str:
        """Which rows are there as far as a reader is concerned."""
        if self._target.history:
            return f"WHERE {quoted(IS_CURRENT)}"
        if self._target.soft_delete:
            return f"WHERE {quoted(self._table.column(self._target.soft_delete).name)} IS NULL"
        return "WHERE 1 = 1"

    def _marked(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with the columns that we keep beside theirs: they are there, and current."""
        target = self._target
        if not rows.num_columns:
            return rows  # a batch of tombstones, a page without records
        own = history.COLUMNS if target.history else [target.soft_delete] if target.soft_delete else []
        for name in set(own) & set(rows.schema.names):
            raise DestinationError(
                f"{target.table}: the rows have a column {name} of their own",
                hint=f"rename it: `map: {{{name}: their_{name}}}`",
            )
        if target.history and (target.version is None or target.version in rows.schema.names):
            return history.as_current(target.table, rows, target.version, self._now)
        if target.soft_delete:
            return rows.append_column(target.soft_delete, pa.nulls(rows.num_rows, _MOMENT))
        return rows

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
    def _staged(self) -> int:
        return self._table.database.inserted(self._stage)

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
            current=table.column(IS_CURRENT) if target.history else None,
            kept=[table.column(name) for name in history.COLUMNS] if target.history else (),
            mark=table.column(target.soft_delete) if target.soft_delete else None,
        )

    @cached_property
    def _stage(self) -> Name:
        return temporary("stage")


class Spooled:
    """`Writer` for databases that let one write at a time: rows wait on disk until `finish`."""

    def __init__(self, spool: Spool, writer: Writer) -> None:
        self._spool, self._writer = spool, writer

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Writer.write`."""
        self._spool.write(rows)

    def finish(self, *, complete: bool = True) -> Loaded:
        """See `Writer.finish`."""
        for schema in self._spool.schemas:  # where a new column would commit the transaction, rows come after it
            self._writer.write(pa.RecordBatch.from_pylist([], schema))
        for rows in self._spool:
            self._writer.write(rows)
        return self._writer.finish(complete=complete)
