"""What the SQL warehouses share: tables made from rows, the merge, the transaction.

One statement text for all of them; where they differ is behind `Database`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pyarrow as pa

from errors import DestinationError
from etl.destinations import quarantine
from etl.destinations.spool import Spool
from etl.destinations.state import parse_state, state_to_arrow
from etl.destinations.types import Column, fit, keep
from etl.destinations.warehouse import Target, Writer
from etl.session import quoted
from etl.stream import BadRow, Loaded, Quarantined, State

QUARANTINE = Target("_pivotal_quarantine", "merge", key=("id",))
STATE = Target("_pivotal_state", "merge", key=("name",))


@dataclass(frozen=True, slots=True)
class Name:
    """A table's full name.

    Args:
        parts: Database, schema, table; as many of them as the database has.
        temporary: Whether it is this connection's own and gone with it.
    """

    parts: Sequence[str]
    temporary: bool = False

    @property
    def sql(self) -> str:
        """The name, quoted."""
        return ".".join(quoted(part) for part in self.parts)


class Database(Protocol):
    """One open connection inside one transaction. Every method raises `DestinationError` where the database refuses.

    Args:
        row_id: The column that every table has and that grows in the order of insertion.
        same: The operator that says that two values are equal or both NULL.
    """

    row_id: str
    same: str

    def name(self, table: str) -> Name:
        """The full name of a table as a pipeline file writes it."""
        ...

    def key(self, column: str) -> str:
        """A column's name as the database compares names."""
        ...

    def columns(self, name: Name) -> list[Column]:
        """The table's columns; none if there is no such table."""
        ...

    def new_column(self, name: str, kind: pa.DataType) -> Column | None:
        """A new column, for a type that warehouses keep; None if this one does not."""
        ...

    def prepare(self, name: Name) -> None:
        """Before a table is created: creates its schema, and waits for another transaction that creates the table."""
        ...

    def lock(self, name: Name) -> None:
        """Keeps other writers (not readers) away from a table until the transaction ends."""
        ...

    def run(self, sql: str, values: Sequence[str | int] = ()) -> int:
        """Runs one statement; `?` in it stand for the values. Returns the rows that it changed."""
        ...

    def query(self, sql: str, values: Sequence[str | int] = ()) -> list[tuple[object, ...]]:
        """The rows of one SELECT."""
        ...

    def insert(self, name: Name, rows: pa.RecordBatch) -> int:
        """Bulk-loads rows of the table's own types; returns how many the database took."""
        ...

    def commit(self) -> None:
        """Ends the transaction well."""
        ...

    def close(self) -> None:
        """Ends the transaction, undone unless committed, and the connection."""
        ...


class Table:
    """A table's columns: those that it has, and those that rows bring.

    Args:
        database: Where it is.
        target: What is written into it.
    """

    def __init__(self, database: Database, target: Target) -> None:
        self.database, self.target = database, target
        self.name = database.name(target.table)
        self.exists = False
        self._has: set[str] = set()
        self._columns: dict[str, Column] = {}
        self._look()

    def fit(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows in the table's own types and names. Columns of nothing but NULLs that it lacks are left out."""
        rows = keep(self.target.table, rows)
        for field in rows.schema:
            if self.database.key(field.name) not in self._columns and not pa.types.is_null(field.type):
                self._columns[self.database.key(field.name)] = self._new(field)
        known = [name for name in rows.schema.names if self.database.key(name) in self._columns]
        if not known:
            raise DestinationError(
                f"{self.target.table}: none of the columns {', '.join(rows.schema.names)} has a type yet",
                hint="give them types: `convert: {column: string}`",
            )
        self._check_key(rows)
        return fit(self.target.table, rows.select(known), {name: self.column(name) for name in known})

    def column(self, name: str) -> Column:
        """The column of that name, as the database compares names."""
        return self._columns[self.database.key(name)]

    def make(self) -> None:
        """Creates or widens the table so that it has every column that rows brought."""
        if not self.exists:
            self.database.prepare(self.name)
            self._look()
        new = [column for key, column in self._columns.items() if key not in self._has]
        if self.exists:
            widen(self.database, self.name, new)
        else:
            create(self.database, self.name, new, [self.column(name).name for name in self.target.key])
        self.exists = True
        self._has = set(self._columns)

    def _look(self) -> None:
        found = {self.database.key(column.name): column for column in self.database.columns(self.name)}
        self.exists = bool(found)
        self._has = set(found)
        self._columns = found | self._columns

    def _new(self, field: pa.Field) -> Column:
        column = self.database.new_column(field.name, field.type)
        if column is None:
            raise DestinationError(
                f"{self.target.table}: column {field.name} has the type {field.type}, which this database cannot keep",
                hint=f"convert it: `convert: {{{field.name}: string}}`",
            )
        return column

    def _check_key(self, rows: pa.RecordBatch) -> None:
        needed = [*self.target.key, *([self.target.version] if self.target.version else [])]
        for name in needed:
            if name not in rows.schema.names:
                raise DestinationError(
                    f"{self.target.table}: the rows have no column {name}, which `key` or `version` names",
                    hint=f"the rows have: {', '.join(rows.schema.names)}",
                )
        for name in self.target.key:
            if rows[name].null_count:
                raise DestinationError(
                    f"{self.target.table}: column {name} of the key is NULL in {rows[name].null_count} rows",
                    hint=f"set such rows aside: `validate: {{{name}: {{required: true}}}}`",
                )


def create(database: Database, name: Name, columns: Iterable[Column], key: Sequence[str] = ()) -> None:
    """Creates a table."""
    lines = [
        f"{quoted(column.name)} {column.declared}{' NOT NULL' if column.name in key else ''}" for column in columns
    ]
    if key:
        lines.append(f"PRIMARY KEY ({', '.join(map(quoted, key))})")
    database.run(f"CREATE {'TEMPORARY ' if name.temporary else ''}TABLE {name.sql} ({', '.join(lines)})")


def widen(database: Database, name: Name, columns: Iterable[Column]) -> None:
    """Adds columns to a table."""
    for column in columns:
        database.run(f"ALTER TABLE {name.sql} ADD COLUMN {quoted(column.name)} {column.declared}")


class Loader:
    """`Writer` for append and replace: rows go straight into the table.

    Args:
        database: Opened by the first use.
        target: The table.
    """

    def __init__(self, database: Callable[[], Database], target: Target) -> None:
        self._database, self._target = database, target
        self._inserted = 0

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Writer.write`."""
        table = self._table
        fitted = table.fit(rows)
        table.make()
        if fitted.num_rows:
            self._inserted += table.database.insert(table.name, fitted)

    def finish(self) -> Loaded:
        """See `Writer.finish`."""
        _ = self._table  # a replacement by nothing
        return Loaded(inserted=self._inserted)

    @cached_property
    def _table(self) -> Table:
        table = Table(self._database(), self._target)
        if self._target.write == "replace" and table.exists:
            # DELETE, not TRUNCATE or a new table: readers with an older snapshot keep seeing the old rows, and
            # grants, views and indexes stay.
            table.database.lock(table.name)
            table.database.run(f"DELETE FROM {table.name.sql}")
        return table


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
        if not self._columns:
            create(table.database, self._stage, new.values())
        else:
            widen(table.database, self._stage, new.values())
        self._columns |= new
        if fitted.num_rows:
            self._staged += table.database.insert(self._stage, fitted)

    def finish(self) -> Loaded:
        """See `Writer.finish`."""
        if not self._columns:
            return Loaded(inserted=0)
        self._table.make()
        self._table.database.lock(self._table.name)
        loaded = merge(self._table, self._stage, self._columns)
        self._table.database.run(f"DROP TABLE {self._stage.sql}")
        if loaded.inserted + loaded.updated + loaded.deduplicated != self._staged:
            raise DestinationError(
                f"{self._target.table}: {self._staged} rows were to be merged, but the table inserted "
                f"{loaded.inserted}, updated {loaded.updated} and left {loaded.deduplicated} as they are",
                hint=f"the table has several rows with the same {', '.join(self._target.key)}, or a trigger on it",
            )
        return loaded

    def _check_names(self, rows: pa.RecordBatch) -> None:
        row_id = self._table.database.row_id
        if row_id in map(str.lower, rows.schema.names):
            raise DestinationError(
                f"{self._target.table}: a column cannot be named {row_id}, which the database keeps for itself",
                hint=f"rename it: `map: {{{row_id}: row_number}}`",
            )

    @cached_property
    def _table(self) -> Table:
        return Table(self._database(), self._target)

    @cached_property
    def _stage(self) -> Name:
        return Name([f"_pivotal_stage_{id(self)}"], temporary=True)


def merge(table: Table, stage: Name, columns: Mapping[str, Column]) -> Loaded:
    """Merges staged rows into a table by its key; each count is the database's own.

    First leaves the stage what another row of the run supersedes, then what the table has already, unchanged or
    newer: those rows are not written again. What is left is updated or inserted.
    """
    database, target = table.database, table.target
    keys = [table.column(name).name for name in target.key]
    version = table.column(target.version) if target.version else None
    matched = " AND ".join(f"t.{quoted(name)} = {stage.sql}.{quoted(name)}" for name in keys)
    superseded = database.run(_delete_superseded(database, stage, keys, version))
    unchanged = database.run(
        f"DELETE FROM {stage.sql} WHERE EXISTS (SELECT 1 FROM {table.name.sql} AS t WHERE {matched} "
        f"AND ({_unchanged(database, stage, columns, keys, version)}))"
    )
    updated = 0
    if changing := [quoted(name) for name in columns if name not in keys]:
        assignments = ", ".join(f"{name} = {stage.sql}.{name}" for name in changing)
        updated = database.run(f"UPDATE {table.name.sql} AS t SET {assignments} FROM {stage.sql} WHERE {matched}")
    names = ", ".join(map(quoted, columns))
    inserted = database.run(
        f"INSERT INTO {table.name.sql} ({names}) SELECT {names} FROM {stage.sql} "
        f"WHERE NOT EXISTS (SELECT 1 FROM {table.name.sql} AS t WHERE {matched})"
    )
    return Loaded(inserted, updated, deduplicated=superseded + unchanged)


def _delete_superseded(database: Database, stage: Name, keys: Sequence[str], version: Column | None) -> str:
    names = ", ".join(map(quoted, keys))
    order = f"{quoted(version.name)} {version.order} DESC NULLS LAST, " if version else ""
    row_id = database.row_id
    return f"""
        DELETE FROM {stage.sql} WHERE {row_id} IN (
            SELECT id FROM (
                SELECT {row_id} AS id,
                       row_number() OVER (PARTITION BY {names} ORDER BY {order}{row_id} DESC) AS place
                FROM {stage.sql}
                WHERE ({names}) IN (SELECT {names} FROM {stage.sql} GROUP BY {names} HAVING count(*) > 1)
            ) AS ranked WHERE place > 1
        )"""


def _unchanged(
    database: Database, stage: Name, columns: Mapping[str, Column], keys: Sequence[str], version: Column | None
) -> str:
    compared = []
    for name, column in columns.items():
        if name not in keys:
            here, there = f"t.{quoted(name)}", f"{stage.sql}.{quoted(name)}"
            text = not column.identity
            pair = (f"CAST({here} AS text)", f"CAST({there} AS text)") if text else (here, there)
            compared.append(f"{pair[0]} {database.same} {pair[1]}")
    same = " AND ".join(compared) or "1 = 1"
    if version is None:
        return same
    # NULL is the oldest version
    here, there = f"t.{quoted(version.name)}", f"{stage.sql}.{quoted(version.name)}"
    older = f"{there} < {here} {version.order}"
    return f"({same}) OR ({here} IS NOT NULL AND ({there} IS NULL OR {older}))"


class _Spooled:
    """`Writer` for databases that let one write at a time: rows wait on disk until `finish`."""

    def __init__(self, spool: Spool, writer: Writer) -> None:
        self._spool, self._writer = spool, writer

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Writer.write`."""
        self._spool.write(rows)

    def finish(self) -> Loaded:
        """See `Writer.finish`."""
        for rows in self._spool:
            self._writer.write(rows)
        return self._writer.finish()


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
        writer = (Merger if target.write == "merge" else Loader)(self._database, target)
        return _Spooled(self._stack.enter_context(Spool(self._spool)), writer) if self._spool else writer

    def quarantine(self, name: str, run_id: str, rows: Sequence[BadRow]) -> None:
        """See `Transaction.quarantine`."""
        if rows:
            self._quarantine = self._quarantine or self.writer(QUARANTINE)
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

    def save_state(self, name: str, run_id: str, state: State) -> None:
        """See `Transaction.save_state`."""
        writer = Merger(self._database, STATE)
        writer.write(state_to_arrow(name, run_id, state))
        writer.finish()

    def commit(self) -> None:
        """See `Transaction.commit`."""
        if self._quarantine:
            self._quarantine.finish()
        if self._open:
            self._open.commit()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

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

    def quarantined(self, name: str, limit: int | None = None) -> list[Quarantined]:
        """See `Warehouse.quarantined`."""
        columns = ", ".join(f"CAST({quoted(column)} AS text)" for column in quarantine.SCHEMA.names)
        order = "WHERE pipeline = ? ORDER BY quarantined_at, id"
        rows = self._read(QUARANTINE, columns, order + (f" LIMIT {limit:d}" if limit is not None else ""), [name])
        return [quarantine.from_values(row) for row in rows]

    def _read(self, target: Target, columns: str, rest: str, values: Sequence[str]) -> list[tuple[object, ...]]:
        if not self.exists():
            return []
        with closing(self.connect(False)) as database:
            name = database.name(target.table)
            if not database.columns(name):
                return []
            return database.query(f"SELECT {columns} FROM {name.sql} {rest}", values)
