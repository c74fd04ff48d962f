"""A pipeline's state and quarantine in a warehouse, whatever its rows become."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from errors import DestinationError
from etl.destinations.warehouse import Transaction, Warehouse
from etl.stream import BadRow, Quarantined, State

UNSEEN = object()
"""The state that a source starts from, where nobody has asked for one."""


class Beside:
    """What `Destination` and `Expecting` say of state and quarantine.

    Args:
        pipeline: The pipeline's name.
        warehouse: Where they are.
    """

    def __init__(self, pipeline: str, warehouse: Warehouse) -> None:
        self._pipeline, self._warehouse = pipeline, warehouse
        self._seen: object = UNSEEN

    def state(self) -> State | None:
        """See `Destination.state`."""
        self._seen = state = self._warehouse.state(self._pipeline)
        return state

    def expect(self, state: State | None) -> None:
        """See `Expecting.expect`."""
        self._seen = state

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

    def _run(self, run_id: str, replayed: Sequence[str], expired: datetime | None) -> Run:
        """What the load belongs to that begins now."""
        seen, self._seen = self._seen, UNSEEN
        return Run(self._pipeline, run_id, replayed, expired, seen)


@dataclass(frozen=True, slots=True)
class Run:
    """What a load belongs to, and from where its source starts; for the rest see `Destination.begin`."""

    pipeline: str
    id: str
    replayed: Sequence[str]
    expired: datetime | None
    seen: object = UNSEEN


class BesideLoad:
    """What `Load` says of state and quarantine: one transaction of the warehouse."""

    def __init__(self, transaction: Transaction, run: Run) -> None:
        self._transaction, self._run = transaction, run

    def quarantine(self, rows: Sequence[BadRow]) -> None:
        """See `Load.quarantine`."""
        self._transaction.quarantine(self._run.pipeline, self._run.id, rows)

    def commit(self, state: State | None) -> int:
        """See `Load.commit`.

        First the state, then the quarantine: everyone takes their locks in this order. Replayed rows leave before those
        of them come back that broke a rule again; what this run found has not expired.

        Raises:
            DestinationError: Another run has committed meanwhile.
        """
        run = self._run
        if state is not None:
            self._check_unchanged()
            self._transaction.save_state(run.pipeline, run.id, state)
        if run.replayed:
            self._transaction.drop_quarantined(run.pipeline, run.replayed)
        expired = self._transaction.expire_quarantined(run.pipeline, run.expired) if run.expired else 0
        self._transaction.commit()
        return expired

    def __enter__(self) -> Self:
        self._transaction.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transaction.__exit__(kind, error, trace)

    def _check_unchanged(self) -> None:
        """Lets a load go on whose source starts where the last one ended; a run elsewhere may have moved that."""
        run = self._run
        if run.seen is not UNSEEN and self._transaction.state(run.pipeline) != run.seen:
            raise another_has_committed(run.pipeline)


def another_has_committed(pipeline: str) -> DestinationError:
    """Says that the state is not the one any more that a run's source started from."""
    return DestinationError(
        f"pipeline {pipeline}: another run has committed since this one read where to start",
        hint="run again",
        retryable=True,
    )
