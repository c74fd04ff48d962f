"""Child tables of a merge: what the rows that came had in a child table goes, what they have now comes.

Of several rows with one key only the newest counts, as in the parent's own merge; with `version`, not even that if the
table's row is newer. Rows that did not come keep their child rows; those that tombstones delete lose them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property

import pyarrow as pa

from errors import DestinationError
from etl.destinations.merge import Merge
from etl.destinations.names import Name
from etl.destinations.sql import Database, Table, create, temporary, widen
from etl.destinations.tombstones import BEFORE, Tombstones
from etl.destinations.types import Column
from etl.destinations.warehouse import Target
from etl.quoting import quoted
from etl.stream import Loaded

NUMBER, PARENT = "_pivotal_number", "_pivotal_parent"
"""A row's number within the run; in a child row, its parent's."""


class ChildMerger:
    """`Writer` for a child table of a merge (`Target.parent`); finished after its parent's.

    Batches with a column `NUMBER` say which rows came into the parent's table: their keys (and versions). Those with a
    column `PARENT` are child rows; those with a column `BEFORE`, tombstones of the parent's rows.

    Args:
        database: Opened by the first use.
        target: The child table.
        parent: Its parent's table.
    """

    def __init__(self, database: Callable[[], Database], target: Target, parent: Target) -> None:
        self._database, self._target = database, target
        self._parent_target = replace(parent, scope=None)  # its own merge has looked whether rows belong to it
        self._keys = dict(zip(parent.key, target.key, strict=False))
        self._came, self._rows, self._gone = _Stage("came"), _Stage("rows"), Tombstones()

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Writer.write`."""
        if BEFORE in rows.schema.names:
            self._gone.take(self._parent, rows)
            return
        stage, table, number = self._came, self._parent, NUMBER
        if PARENT in rows.schema.names:
            stage, table, number = self._rows, self._table, PARENT
        fitted = table.fit(rows.drop_columns([number]))
        columns = {name: table.column(name) for name in fitted.schema.names}
        stage.take(table.database, fitted.append_column(number, rows[number]), columns)

    def finish(self, *, complete: bool = True) -> Loaded:
        """See `Writer.finish`."""
        parent = Table(self._database(), self._parent_target)  # as its own merge has left it
        inserted = self._replace(parent) if self._came.made or self._gone.made else 0
        if complete and parent.exists and parent.target.delete_missing and not parent.target.soft_delete:
            self._delete_orphans(parent)
        return Loaded(inserted)

    def _replace(self, parent: Table) -> int:
        """Puts the child rows that came in the place of those that their parents had."""
        table, database = self._table, self._table.database
        losing = self._losing(parent)
        if self._rows.made:
            table.make()
        if not table.exists:
            return 0
        database.lock(table.name)
        for parents in losing:
            database.run(self._delete_old(parent, parents))
        if not self._rows.made:
            return 0
        names = ", ".join(quoted(column.name) for column in self._rows.columns.values())
        counting = f"FROM {self._rows.name.sql} JOIN {self._came.name.sql} ON {PARENT} = {NUMBER}"
        inserted = database.run(f"INSERT INTO {table.name.sql} ({names}) SELECT {names} {counting}")
        check_all(self._target.table, database.query(f"SELECT count(*) {counting}")[0][0], inserted)
        return inserted

    def _losing(self, parent: Table) -> list[Name]:
        """Temporary tables of parents that lose the child rows which they had; what does not count is forgotten.

        Rows that are only marked as deleted keep theirs.
        """
        losing = []
        if self._gone.made:
            self._gone.settle(parent)
            losing += [] if parent.target.soft_delete else [self._gone.name]
        if self._came.made:
            self._keep_newest(parent)
            losing.append(self._came.name)
        return losing

    def _keep_newest(self, parent: Table) -> None:
        """Forgets the rows that came and do not count."""
        target, database = parent.target, parent.database
        version = parent.column(target.version) if target.version and parent.has(target.version) else None
        key = [parent.column(name) for name in target.key]
        merge = Merge(parent.name, self._came.name, key, key=key, version=version, dialect=database.dialect)
        if self._gone.made:
            database.run(merge.delete_before(self._gone.name, BEFORE))
        database.leave_newest(merge)
        if version:
            stored, came = f"t.{quoted(version.name)}", merge.staged(version)
            database.run(f"""
                DELETE FROM {self._came.name.sql} WHERE EXISTS (
                    SELECT 1 FROM {parent.name.sql} AS t WHERE {merge.same_key} AND {stored} IS NOT NULL
                    AND ({came} IS NULL OR {came} < {stored} {version.order}))""")

    def _delete_old(self, parent: Table, parents: Name) -> str:
        table, came = self._table.name.sql, parents.sql
        own, theirs = self._own_key, [quoted(parent.column(name).name) for name in self._keys]
        if parent.database.dialect.joined_update:  # MariaDB would look through all that came for each row of the table
            same = " AND ".join(f"t.{one} = {came}.{other}" for one, other in zip(own, theirs, strict=True))
            return f"DELETE t FROM {table} AS t JOIN {came} ON {same}"
        return f"DELETE FROM {table} WHERE ({', '.join(own)}) IN (SELECT {', '.join(theirs)} FROM {came})"

    def _delete_orphans(self, parent: Table) -> None:
        """Deletes the child rows of rows that `delete_missing` has deleted."""
        table, database = self._table, self._table.database
        if not table.exists:
            return
        theirs = [f"t.{quoted(parent.column(name).name)}" for name in self._keys]
        own = [f"{quoted(table.name.parts[-1])}.{name}" for name in self._own_key]
        same = " AND ".join(f"{one} = {other}" for one, other in zip(own, theirs, strict=True))
        database.lock(table.name)
        database.run(
            f"DELETE FROM {table.name.sql} WHERE NOT EXISTS (SELECT 1 FROM {parent.name.sql} AS t WHERE {same})"
        )

    @property
    def _own_key(self) -> list[str]:
        return [quoted(self._table.column(name).name) for name in self._keys.values()]

    @cached_property
    def _table(self) -> Table:
        return Table(self._database(), self._target)

    @cached_property
    def _parent(self) -> Table:
        return Table(self._database(), self._parent_target)


def check_all(table: str, given: int, inserted: int) -> None:
    """Lets a load pass that has lost no child row.

    Raises:
        DestinationError: The table did not take all that it was given.
    """
    if inserted != given:
        raise DestinationError(
            f"{table}: {given} child rows were to be inserted, but {inserted} were",
            hint="a trigger or a rule of the table changes what is inserted: drop it, or load into another table",
        )


class _Stage:
    """A temporary table of numbered rows.

    Made by the first rows, not by the first columns: where all columns are told before (see `Spooled`), it is made with
    all of them. MariaDB commits a transaction in which a temporary table gets a column.
    """

    def __init__(self, what: str) -> None:
        self.name = temporary(what)
        self.columns: dict[str, Column] = {}
        self.made = False

    def take(self, database: Database, rows: pa.RecordBatch, columns: Mapping[str, Column]) -> None:
        """Takes rows: columns as the table has them, and then a number."""
        new = {name: column for name, column in columns.items() if name not in self.columns}
        self.columns |= new
        if not rows.num_rows:
            return
        if self.made:
            widen(database, self.name, new.values())
        else:
            create(database, self.name, [*self.columns.values(), _number(database, rows.schema.names[-1])])
            self.made = True
        database.insert(self.name, rows)


def _number(database: Database, name: str) -> Column:
    """The column of numbers: with an index where joins need one, which MariaDB makes with the table or not at all."""
    return Column(name, pa.int64(), "BIGINT UNIQUE" if database.dialect.counter and name == NUMBER else "BIGINT")
