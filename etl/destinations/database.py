"""A pipeline's table in a warehouse."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from datetime import datetime

import pyarrow as pa

from etl.destinations.beside import Beside, BesideLoad, Run
from etl.destinations.warehouse import Scope, Target, Transaction, open_warehouse
from etl.pipeline import DatabaseDestination
from etl.stream import BadRow, Loaded

logger = logging.getLogger(__name__)


class TableDestination(Beside):
    """`Destination`: one table.

    Args:
        pipeline: The pipeline's name.
        declared: What its file says.
        description: What the table is.
        scope: The partition that the run is about; None for the whole table.

    Raises:
        DestinationError: The connection's URL cannot be read.
        ConfigError: A `${NAME}` in it has no value.
    """

    def __init__(
        self, pipeline: str, declared: DatabaseDestination, description: str, scope: Scope | None = None
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
        self.label = f"{declared.table} in {self._warehouse.label}"

    def columns(self) -> Container[str] | None:
        """See `Destination.columns`."""
        return self._warehouse.columns(self._target.table)

    def begin(self, run_id: str, *, replayed: Sequence[str] = (), expired: datetime | None = None) -> TableLoad:
        """See `Destination.begin`."""
        run = Run(self._pipeline, run_id, replayed, expired)
        return TableLoad(self._warehouse.transaction(), self._target, run)


class TableLoad(BesideLoad):
    """`Load`: one transaction of the warehouse."""

    def __init__(self, transaction: Transaction, target: Target, run: Run) -> None:
        super().__init__(transaction, run)
        self._target, self._writer, self._complete = target, transaction.writer(target), True

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Load.write`."""
        self._writer.write(rows)

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
        return self._writer.finish(complete=self._complete)
