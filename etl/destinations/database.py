"""A pipeline's table in a warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import pyarrow as pa

from etl.destinations.warehouse import Scope, Target, Transaction, Warehouse, open_warehouse
from etl.pipeline import DatabaseDestination
from etl.stream import BadRow, Loaded, Quarantined, State


class TableDestination:
    """`Destination`: one table.

    Args:
        pipeline: The pipeline's name.
        declared: What its file says.
        scope: The partition that the run is about; None for the whole table.

    Raises:
        DestinationError: The connection's URL cannot be read.
        ConfigError: A `${NAME}` in it has no value.
    """

    def __init__(self, pipeline: str, declared: DatabaseDestination, scope: Scope | None = None) -> None:
        from etl.loader import resolve

        self._pipeline = pipeline
        self._warehouse: Warehouse = open_warehouse(resolve(declared.connection))
        self._target = Target(declared.table, declared.write, declared.key, declared.version, scope)
        self.label = f"{declared.table} in {self._warehouse.label}"

    def state(self) -> State | None:
        """See `Destination.state`."""
        return self._warehouse.state(self._pipeline)

    def begin(self, run_id: str, *, replayed: Sequence[str] = ()) -> TableLoad:
        """See `Destination.begin`."""
        return TableLoad(self._warehouse.transaction(), self._target, self._pipeline, run_id, replayed)

    def quarantined(self, limit: int | None = None) -> list[Quarantined]:
        """See `Destination.quarantined`."""
        return self._warehouse.quarantined(self._pipeline, limit)

    def drop_quarantined(self, ids: Sequence[str]) -> int:
        """See `Destination.drop_quarantined`."""
        with self._warehouse.transaction() as transaction:
            dropped = transaction.drop_quarantined(self._pipeline, ids)
            transaction.commit()
        return dropped


class TableLoad:
    """`Load`: one transaction of the warehouse."""

    def __init__(
        self, transaction: Transaction, target: Target, pipeline: str, run_id: str, replayed: Sequence[str]
    ) -> None:
        self._transaction = transaction
        self._pipeline, self._run_id, self._replayed = pipeline, run_id, replayed
        self._writer = transaction.writer(target)

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Load.write`."""
        self._writer.write(rows)

    def quarantine(self, rows: Sequence[BadRow]) -> None:
        """See `Load.quarantine`."""
        self._transaction.quarantine(self._pipeline, self._run_id, rows)

    def loaded(self) -> Loaded:
        """See `Load.loaded`."""
        return self._writer.finish()

    def commit(self, state: State | None) -> None:
        """See `Load.commit`.

        First the state, then the quarantine: everyone takes their locks in this order. Replayed rows leave before those
        of them come back that broke a rule again, which is when the transaction ends.
        """
        if state is not None:
            self._transaction.save_state(self._pipeline, self._run_id, state)
        if self._replayed:
            self._transaction.drop_quarantined(self._pipeline, self._replayed)
        self._transaction.commit()

    def __enter__(self) -> Self:
        self._transaction.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transaction.__exit__(kind, error, trace)
