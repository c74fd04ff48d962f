"""A database that rows are loaded into: tables, quarantine and state change in one transaction.

Pipelines come here through `etl.destinations.open_destination`; projections use it as it is:

    warehouse = open_warehouse("duckdb:///data/warehouse.duckdb")
    with warehouse.transaction() as tx:
        for target, rows in changes:
            writer = tx.writer(target)
            writer.write(rows)
            counts[target.table] = writer.finish()
        tx.save_state("projections/stripe", run_id, {"sequence": 42})
        tx.commit()
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from types import TracebackType
from typing import Literal, Protocol, Self

import pyarrow as pa

from errors import DestinationError
from etl.connections import kind_of
from etl.stream import BadRow, Loaded, Quarantined, State

VALID_FROM, VALID_TO, IS_CURRENT = "valid_from", "valid_to", "is_current"
"""The columns of a history: a row is valid from a moment on, up to but without another (NULL while it is current)."""

Bound = bool | int | Decimal | str | date | datetime


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of a table that a run is about: a partition. Rows outside of it are not deleted, and not taken.

    Args:
        column: The table's column.
        low: The lowest value; None if there is none. Where the column has a zone, a moment without one is in UTC.
        high: The first value above; None if there is none.
        values: Instead of bounds, the values themselves.
    """

    column: str
    low: Bound | None = None
    high: Bound | None = None
    values: Sequence[Bound] = ()

    def __str__(self) -> str:
        if self.values:
            return f"{self.column} in [{', '.join(map(str, self.values))}]"
        low, high = ("..." if bound is None else str(bound) for bound in (self.low, self.high))
        return f"{self.column} in [{low}, {high})"


@dataclass(frozen=True, slots=True)
class Target:
    """A table, and how rows get into it.

    The table (and its schema) is made from the first rows if it is missing, with `key` as its primary key; columns
    that the table lacks are added. A column of NULLs only gets no column in the table before it has a type.

    Args:
        table: `orders` or `analytics.orders`.
        write: append; replace (readers see the old or the new rows, never neither); merge by `key`.
        key: Columns that identify a row. Never NULL.
        version: With `merge`: a row is updated only by one whose version is not older; the highest one of a
            transaction wins. Without it the last row wins.
        scope: The rows that `replace` replaces and `delete_missing` deletes; None for all of them.
        delete_missing: With `merge`: rows that are not written are deleted.
        soft_delete: With `delete_missing`: the column that takes the time of deletion, instead.
        history: With `merge`: a row that changes is closed, and a new one begins (see `etl.destinations.history`).
        indexes: Columns that get an index together, for each.
        comments: Column -> what it is; "" for the table. Written when they are made, where the database keeps comments.
        parent: With `merge`: the table whose rows these belong to, if there is one; `key` begins with its key (see
            `etl.destinations.children`).
    """

    table: str
    write: Literal["append", "replace", "merge"]
    key: Sequence[str] = ()
    version: str | None = None
    scope: Scope | None = None
    delete_missing: bool = False
    soft_delete: str | None = None
    history: bool = False
    indexes: Sequence[Sequence[str]] = ()
    comments: Mapping[str, str] = field(default_factory=dict)
    parent: Target | None = None


class Writer(Protocol):
    """Puts rows into one table."""

    def write(self, rows: pa.RecordBatch) -> None:
        """Takes rows; memory stays bounded however many there are.

        Raises:
            DestinationError: A column's type does not fit the table's, or the database refuses the rows.
        """
        ...

    def finish(self, *, complete: bool = True) -> Loaded:
        """Ends the writing, inside the transaction, and counts by the database's own counts what it did.

        Args:
            complete: Whether every row that there is was written; else `delete_missing` deletes none.

        Raises:
            DestinationError: As for `write`; a key is NULL or, for `append` and `replace`, there already; all rows
                of the table would be missing.
        """
        ...


class Transaction(Protocol):
    """Everything between its start and `commit` becomes visible together, or not at all. For one thread at a time."""

    def writer(self, target: Target) -> Writer:
        """Starts writing into a table; several may be open; each is finished before `commit`."""
        ...

    def quarantine(self, name: str, run_id: str, rows: Sequence[BadRow]) -> None:
        """Puts rows into the quarantine of the pipeline (or projection) `name`; the same row again is kept once."""
        ...

    def drop_quarantined(self, name: str, ids: Sequence[str]) -> int:
        """Takes rows out of the quarantine of `name`; returns how many were there."""
        ...

    def expire_quarantined(self, name: str, before: datetime) -> int:
        """Takes those rows out that were found before a moment, and not again since; returns how many there were."""
        ...

    def state(self, name: str) -> State | None:
        """As `Warehouse.state`; who asks for the same in another transaction waits until this one ends."""
        ...

    def save_state(self, name: str, run_id: str, state: State) -> None:
        """Remembers the state of `name`, instead of what was remembered before."""
        ...

    def commit(self) -> None:
        """Publishes everything.

        Raises:
            DestinationError: Nothing was published; `retryable` tells whether doing all of it again can help.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Rolls back, unless committed."""
        ...


class Warehouse(Protocol):
    """A database. Holds nothing open between calls."""

    @property
    def label(self) -> str:
        """The URL, without its password."""
        ...

    def transaction(self) -> Transaction:
        """Starts a transaction.

        Embedded databases let one write at a time: they are opened (and waited for, up to `PIVOTAL_LOCK_TIMEOUT`)
        when the first writer finishes, so that a slow source keeps nobody waiting.
        """
        ...

    def state(self, name: str) -> State | None:
        """What `save_state` last committed for `name`; None if nothing."""
        ...

    def columns(self, table: str) -> Container[str] | None:
        """The table's columns, as the database compares names; None if there is no such table."""
        ...

    def find(self, table: str, rows: pa.RecordBatch) -> list[int]:
        """The places of those of the rows whose values a row of the table has; none of the values is NULL.

        Raises:
            DestinationError: There is no such table or column, or it holds values of another type.
        """
        ...

    def rows(
        self, table: str, columns: Sequence[str], rest: str, values: Sequence[str | int]
    ) -> list[tuple[str | None, ...]]:
        """Rows of a table that is our own, each value as text; none if there is no such table.

        Args:
            table: The table.
            columns: Which of its columns.
            rest: SQL behind the table's name that every database knows; `?` in it stand for the values.
            values: The values.
        """
        ...

    def quarantined(self, name: str, limit: int | None = None) -> list[Quarantined]:
        """The quarantine of `name`, oldest first."""
        ...

    def waiting(self) -> dict[str, int]:
        """How many rows are in the quarantine, by the name of whose they are."""
        ...


def open_warehouse(url: str) -> Warehouse:
    """The database at a URL. Opens no connection yet.

    Args:
        url: `duckdb:///file`, `sqlite:///file` (relative ones start from the project's root), `postgresql://...` or
            `mariadb+pymysql://...`.

    Raises:
        DestinationError: The URL is of none of these kinds, or cannot be read.
    """
    kind = kind_of(url, DestinationError)
    if kind == "duckdb":
        from etl.destinations import duckdb

        return duckdb.warehouse(url)
    if kind == "sqlite":
        from etl.destinations import sqlite

        return sqlite.warehouse(url)
    if kind in {"postgresql", "postgres"}:
        from etl.destinations import postgres

        return postgres.warehouse(url)
    if kind in {"mariadb", "mysql"}:
        from etl.destinations import mariadb

        return mariadb.warehouse(url)
    raise DestinationError(
        f"no warehouse of the kind {kind!r}",
        hint="write duckdb:///file, sqlite:///file, postgresql://... or mariadb+pymysql://...",
    )
