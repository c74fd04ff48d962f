"""A pipeline's table in a warehouse."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from etl.destinations.beside import Beside, BesideLoad, Run
from etl.destinations.children import NUMBER, PARENT, check_all
from etl.destinations.tombstones import BEFORE
from etl.destinations.warehouse import Scope, Target, Transaction, open_warehouse
from etl.pipeline import ChildTable, DatabaseDestination
from etl.stream import BadRow, ChildRows, Loaded

logger = logging.getLogger(__name__)


class TableDestination(Beside):
    """`ParentDestination` and `Expecting`: one table, and its child tables.

    Args:
        pipeline: The pipeline's name.
        declared: What its file says.
        description: What the table is.
        scope: The partition that the run is about; None for the whole table.
        children: Its child tables.

    Raises:
        DestinationError: The connection's URL cannot be read.
        ConfigError: A `${NAME}` in it has no value.
    """

    def __init__(
        self,
        pipeline: str,
        declared: DatabaseDestination,
        description: str,
        scope: Scope | None,
        children: Mapping[str, ChildTable],
    ) -> None:
        from etl.loader import resolve

        super().__init__(pipeline, open_warehouse(resolve(declared.connection)))
        self._target = Target(
            declared.table,
            declared.write,
            declared.key,
            declared.version,
            scope,
            delete_missing=declared.delete_missing,
            soft_delete=declared.soft_delete,
            history=declared.history,
            indexes=[[index] if isinstance(index, str) else index for index in declared.indexes],
            comments={"": description, **declared.comments},
        )
        self._children = {name: self._child_target(name, child) for name, child in children.items()}
        self.label = f"{declared.table} in {self._warehouse.label}"

    def columns(self) -> Container[str] | None:
        """See `Destination.columns`."""
        return self._warehouse.columns(self._target.table)

    def child_columns(self, table: str) -> Container[str] | None:
        """See `ParentDestination.child_columns`."""
        return self._warehouse.columns(table)

    def begin(self, run_id: str, *, replayed: Sequence[str] = (), expired: datetime | None = None) -> TableLoad:
        """See `Destination.begin`."""
        run = self._run(run_id, replayed, expired)
        return TableLoad(self._warehouse.transaction(), self._target, self._children, run)

    def _child_target(self, name: str, child: ChildTable) -> Target:
        """A merge puts the child rows of the rows that come in the place of those that they had."""
        target, merges = self._target, self._target.write == "merge"
        scope = None
        if target.scope and not merges:
            scope = replace(target.scope, column=child.keys[target.scope.column])
        key = [*(child.keys[column] for column in target.key), child.position] if target.key else ()
        return Target(name, target.write, key, scope=scope, parent=target if merges else None)


class TableLoad(BesideLoad):
    """`ParentLoad` and `DeletingLoad`: one transaction of the warehouse."""

    def __init__(self, transaction: Transaction, target: Target, children: Mapping[str, Target], run: Run) -> None:
        super().__init__(transaction, run)
        self._target, self._writer, self._complete = target, transaction.writer(target), True
        self._children = {name: transaction.writer(child) for name, child in children.items()}
        self._first = self._written = 0
        self._given = Counter[str]()

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Load.write`."""
        self._writer.write(rows)
        self._first, self._written = self._written, self._written + rows.num_rows
        if self._children and self._target.write == "merge":
            told = {*self._target.key, self._target.version}
            came = rows.select([name for name in rows.schema.names if name in told])
            numbered = came.append_column(NUMBER, pa.arange(self._first, self._written))
            for writer in self._children.values():
                writer.write(numbered)

    def write_children(self, children: ChildRows) -> None:
        """See `ParentLoad.write_children`."""
        rows = children.rows
        if self._target.write == "merge":
            rows = rows.append_column(PARENT, pc.add(children.parents, self._first))
        self._children[children.table].write(rows)
        self._given[children.table] += rows.num_rows

    def delete(self, keys: pa.RecordBatch, before: pa.Array) -> None:
        """See `DeletingLoad.delete`."""
        gone = keys.append_column(BEFORE, pc.add(before, self._first))
        for writer in [self._writer, *self._children.values()]:
            writer.write(gone)

    def quarantine(self, rows: Sequence[BadRow]) -> None:
        """See `Load.quarantine`."""
        self._complete = self._complete and not rows
        super().quarantine(rows)

    def loaded(self) -> Loaded:
        """See `Load.loaded`.

        A row that is in the quarantine is not missing, and its key may be what is wrong with it: none is deleted.
        """
        if self._target.delete_missing and not self._complete:
            logger.warning("%s: rows were quarantined, so no missing rows were deleted", self._target.table)
        loaded = self._writer.finish(complete=self._complete)
        children = {name: writer.finish(complete=self._complete).inserted for name, writer in self._children.items()}
        for name, inserted in children.items() if self._target.write != "merge" else ():
            check_all(name, self._given[name], inserted)
        return replace(loaded, children=children)
