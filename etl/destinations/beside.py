"""A pipeline's state and quarantine in a warehouse, whatever its rows become."""

from __future__ import annotations

from collections.abc import Container, Sequence
from types import TracebackType
from typing import Self

from etl.destinations.warehouse import Transaction, Warehouse
from etl.stream import BadRow, Quarantined, State


class Beside:
    """What `Destination` says of state and quarantine.

    Args:
        pipeline: The pipeline's name.
        warehouse: Where they are.
    """

    def __init__(self, pipeline: str, warehouse: Warehouse) -> None:
        self._pipeline, self._warehouse = pipeline, warehouse

    def state(self) -> State | None:
        """See `Destination.state`."""
        return self._warehouse.state(self._pipeline)

    def columns(self) -> Container[str] | None:
        """See `Destination.columns`: rows may have any, unless there is a table."""
        return None

    def quarantined(self, limit: int | None = None) -> list[Quarantined]:
        """See `Destination.quarantined`."""
        return self._warehouse.quarantined(self._pipeline, limit)

    def drop_quarantined(self, ids: Sequence[str]) -> int:
        """See `Destination.drop_quarantined`."""
        with self._warehouse.transaction() as transaction:
            dropped = transaction.drop_quarantined(self._pipeline, ids)
            transaction.commit()
        return dropped


class BesideLoad:
    """What `Load` says of state and quarantine: one transaction of the warehouse."""

    def __init__(self, transaction: Transaction, pipeline: str, run_id: str, replayed: Sequence[str]) -> None:
        self._transaction = transaction
        self._pipeline, self._run_id, self._replayed = pipeline, run_id, replayed

    def quarantine(self, rows: Sequence[BadRow]) -> None:
        """See `Load.quarantine`."""
        self._transaction.quarantine(self._pipeline, self._run_id, rows)

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
