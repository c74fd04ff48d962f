"""What the SQL warehouses share: one transaction of tables, quarantine and state."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from etl.destinations import lookup, quarantine
from etl.destinations.children import ChildMerger
from etl.destinations.names import ColumnNames, split
from etl.destinations.spool import Spool
from etl.destinations.sql import Database, Table
from etl.destinations.state import parse_state, state_to_arrow
from etl.destinations.warehouse import Scope, Target, Writer
from etl.destinations.writers import Loader, Merger, Spooled
from etl.quoting import quoted
from etl.stream import BadRow, Quarantined, State

QUARANTINE = Target("_pivotal_quarantine", "merge", key=("id",))
STATE = Target("_pivotal_state", "merge", key=("name",))


class SqlTransaction:
    """`Transaction` of every SQL warehouse.

    Args:
        connect: Opens the database, inside a transaction.
        spool: The folder where rows wait, for a database that lets one write at a time; None if it lets many.
    """

    def __init__(self, connect: Callable[[], Database], spool: Path | None) -> None:
        self._connect, self._spool = connect, spool
        self._stack = ExitStack()
        self._open: Database | None = None
        self._quarantine: Writer | None = None

    def writer(self, target: Target) -> Writer:
        """See `Transaction.writer`."""
        split(target.table)
        writer = self._made(target)
        return self._spooled(writer) if self._spool else writer

    def quarantine(self, name: str, run_id: str, rows: Sequence[BadRow]) -> None:
        """See `Transaction.quarantine`; the rows wait on disk, so that nothing comes between those of the table."""
        if rows:
            self._quarantine = self._quarantine or self._spooled(self._made(QUARANTINE))
            self._quarantine.write(quarantine.to_arrow(quarantine.quarantined(name, run_id, rows)))

    def drop_quarantined(self, name: str, ids: Sequence[str]) -> int:
        """See `Transaction.drop_quarantined`."""
        table = Table(self._database(), QUARANTINE)
        if not table.exists:
            return 0
        dropped = 0
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            marks = ", ".join("?" * len(some))
            sql = f"DELETE FROM {table.name.sql} WHERE pipeline = ? AND id IN ({marks})"
            dropped += self._database().run(sql, [name, *some])
        return dropped

    def expire_quarantined(self, name: str, before: datetime) -> int:
        """See `Transaction.expire_quarantined`."""
        self._finish_quarantine()
        table = Table(self._database(), replace(QUARANTINE, scope=Scope("quarantined_at", high=before)))
        if not table.exists:
            return 0
        return self._database().run(f"DELETE FROM {table.name.sql} WHERE pipeline = ? AND {table.scope}", [name])

    def state(self, name: str) -> State | None:
        """See `Transaction.state`."""
        database = self._database()
        database.take_turn(f"{STATE.table}/{name}")
        rows = _select(database, STATE, "state", "WHERE name = ?", [name])
        return parse_state(str(rows[0][0])) if rows else None

    def save_state(self, name: str, run_id: str, state: State) -> None:
        """See `Transaction.save_state`."""
        writer = Merger(self._database, STATE)
        writer.write(state_to_arrow(name, run_id, state))
        writer.finish()

    def commit(self) -> None:
        """See `Transaction.commit`."""
        self._finish_quarantine()
        if self._open:
            self._open.commit()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _finish_quarantine(self) -> None:
        if self._quarantine:
            self._quarantine.finish()
            self._quarantine = None

    def _made(self, target: Target) -> Writer:
        if target.parent:
            return ChildMerger(self._database, target, target.parent)
        return (Merger if target.write == "merge" else Loader)(self._database, target)

    def _spooled(self, writer: Writer) -> Writer:
        return Spooled(self._stack.enter_context(Spool(self._spool or Path(tempfile.gettempdir()))), writer)

    def _database(self) -> Database:
        if self._open is None:
            self._open = self._stack.enter_context(closing(self._connect()))
        return self._open


@dataclass(frozen=True, slots=True)
class SqlWarehouse:
    """`Warehouse` of every SQL database.

    Args:
        label: The URL, without its password.
        connect: Opens the database inside a transaction that may write (True) or only reads (False).
        exists: Whether there is a database already; reading makes none.
        spool: See `SqlTransaction`.
    """

    label: str
    connect: Callable[[bool], Database]
    exists: Callable[[], bool]
    spool: Path | None = None

    def transaction(self) -> SqlTransaction:
        """See `Warehouse.transaction`."""
        return SqlTransaction(lambda: self.connect(True), self.spool)

    def state(self, name: str) -> State | None:
        """See `Warehouse.state`."""
        rows = self._read(STATE, "state", "WHERE name = ?", [name])
        return parse_state(str(rows[0][0])) if rows else None

    def columns(self, table: str) -> ColumnNames | None:
        """See `Warehouse.columns`."""
        if not self.exists():
            return None
        with closing(self.connect(False)) as database:
            keys = {database.key(column.name) for column in database.columns(database.name(table))}
        return ColumnNames(keys, database.key) if keys else None

    def find(self, table: str, rows: pa.RecordBatch) -> list[int]:
        """See `Warehouse.find`."""
        if not self.exists():
            raise lookup.no_table(self.label, table)
        with closing(self.connect(False)) as database:
            return lookup.find(database, self.label, table, rows)

    def quarantined(self, name: str, limit: int | None = None) -> list[Quarantined]:
        """See `Warehouse.quarantined`."""
        columns = ", ".join(f"CAST({quoted(column)} AS {{text}})" for column in quarantine.SCHEMA.names)
        order = "WHERE pipeline = ? ORDER BY quarantined_at, id"
        rows = self._read(QUARANTINE, columns, order + (f" LIMIT {limit:d}" if limit is not None else ""), [name])
        return [quarantine.from_values(row) for row in rows]

    def waiting(self) -> dict[str, int]:
        """See `Warehouse.waiting`."""
        counts = self._read(QUARANTINE, "pipeline, count(*)", "GROUP BY pipeline ORDER BY pipeline", [])
        return {str(name): int(str(rows)) for name, rows in counts}

    def rows(
        self, table: str, columns: Sequence[str], rest: str, values: Sequence[str | int]
    ) -> list[tuple[str | None, ...]]:
        """See `Warehouse.rows`."""
        as_text = ", ".join(f"CAST({quoted(column)} AS {{text}})" for column in columns)
        found = self._read(Target(table, "append"), as_text, rest, values)
        return [tuple(None if value is None else str(value) for value in row) for row in found]

    def _read(self, target: Target, columns: str, rest: str, values: Sequence[str | int]) -> list[tuple[object, ...]]:
        if not self.exists():
            return []
        with closing(self.connect(False)) as database:
            return _select(database, target, columns, rest, values)


def _select(
    database: Database, target: Target, columns: str, rest: str, values: Sequence[str | int]
) -> list[tuple[object, ...]]:
    """Rows of a table of ours; none if it is not there."""
    name = database.name(target.table)
    if not database.columns(name):
        return []
    return database.query(f"SELECT {columns.format(text=database.dialect.text)} FROM {name.sql} {rest}", values)
