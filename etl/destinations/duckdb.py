"""DuckDB as a warehouse: one file, which one process has open at a time; the others wait their turn."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from errors import DestinationError
from etl.destinations.disk import disk_errors
from etl.destinations.merge import Merge, Merged
from etl.destinations.names import Dialect, Name, split
from etl.destinations.sql import update_then_insert
from etl.destinations.transaction import SqlWarehouse
from etl.destinations.types import INTERVAL, JSON, Column
from etl.embedded import database_file, held, open_duckdb
from settings import get_settings

_MEMORY = "25%"
"""Of the machine's: DuckDB takes 80 % by itself, and fails where a primary key or an update needs more than it may."""

_DECLARED = {
    pa.bool_(): "BOOLEAN",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.time64("us"): "TIME",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("us", "UTC"): "TIMESTAMPTZ",
    pa.uuid(): "UUID",
    JSON: "JSON",
    INTERVAL: "INTERVAL",
}

_writers: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
"""Threads of this process take turns, too: DuckDB lets them all in and fails the one that commits second."""


def warehouse(url: str) -> SqlWarehouse:
    """The DuckDB file at a URL (`duckdb:///file`).

    Raises:
        DestinationError: The URL names no file.
    """
    path = database_file(url, DestinationError)
    return SqlWarehouse(url, lambda writes: DuckDB(path, url, writes=writes), path.exists, spool=path.parent)


class DuckDB:
    """`Database` of DuckDB.

    Args:
        path: The file.
        label: Its URL.
        writes: Whether the transaction may write.
    """

    dialect = Dialect(row_id="rowid")

    def __init__(self, path: Path, label: str, *, writes: bool) -> None:
        self._label = label
        self._inserted: Counter[str] = Counter()
        self._turn = _take_turn(path, label) if writes else None
        try:
            self._connection = _open(path, label)
            self._configure()
        except BaseException:
            self._end_turn()
            raise

    def name(self, table: str) -> Name:
        """See `Database.name`."""
        schema, name = split(table)
        database = str(self.query("SELECT current_database()")[0][0])
        return Name([database, schema or "main", name])

    def key(self, column: str) -> str:
        """See `Database.key`: upper and lower case do not differ."""
        return column.lower()

    def columns(self, name: Name) -> list[Column]:
        """See `Database.columns`."""
        where = "database_name = ? AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)"
        if not self.query(f"SELECT 1 FROM duckdb_columns() WHERE {where} LIMIT 1", [*name.parts]):
            return []
        with self._errors():
            empty = self._connection.sql(f"SELECT * FROM {name.sql} LIMIT 0")
            fields = empty.to_arrow_table().schema
            return [_column(field, str(kind)) for field, kind in zip(fields, empty.types, strict=True)]

    def is_view(self, name: Name) -> bool:
        """See `Database.is_view`."""
        where = "database_name = ? AND lower(schema_name) = lower(?) AND lower(view_name) = lower(?)"
        return bool(self.query(f"SELECT 1 FROM duckdb_views() WHERE {where}", [*name.parts]))

    def indexes(self, name: Name) -> list[str]:
        """See `Database.indexes`."""
        where = "database_name = ? AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)"
        rows = self.query(f"SELECT index_name FROM duckdb_indexes() WHERE {where}", [*name.parts])
        return [str(row[0]) for row in rows]

    def new_column(self, name: str, kind: pa.DataType, *, keyed: bool) -> Column | None:  # noqa: ARG002
        """See `Database.new_column`."""
        if pa.types.is_decimal(kind):
            return Column(name, kind, f"DECIMAL({kind.precision},{kind.scale})")
        return Column(name, kind, _DECLARED[kind], identity=kind != INTERVAL) if kind in _DECLARED else None

    def prepare(self, name: Name) -> None:
        """See `Database.prepare`."""
        schema = Name(name.parts[:2])
        self.run(f"CREATE SCHEMA IF NOT EXISTS {schema.sql}")

    def define(self, name: Name, sql: str) -> None:  # noqa: ARG002  (inside the transaction, as everything)
        """See `Database.define`."""
        self.run(sql)

    def lock(self, name: Name) -> None:
        """See `Database.lock`: nobody else writes anyway."""

    def take_turn(self, what: str) -> None:
        """See `Database.take_turn`: nobody else writes anyway."""

    def run(self, sql: str, values: Sequence[str | int] = ()) -> int:
        """See `Database.run`."""
        rows = self.query(sql, values)
        return int(rows[0][0]) if rows else 0

    def query(self, sql: str, values: Sequence[str | int] = ()) -> list[tuple[Any, ...]]:
        """See `Database.query`."""
        with self._errors():
            return self._connection.execute(sql, values).fetchall()

    def insert(self, name: Name, rows: pa.RecordBatch) -> None:
        """See `Database.insert`."""
        names = ", ".join(Name([column]).sql for column in rows.schema.names)
        with self._errors():
            self._connection.register("_pivotal_rows", rows)
        self._inserted[name.sql] += self.run(f"INSERT INTO {name.sql} ({names}) SELECT {names} FROM _pivotal_rows")

    def inserted(self, name: Name) -> int:
        """See `Database.inserted`."""
        return self._inserted[name.sql]

    def leave_newest(self, merge: Merge) -> int:
        """See `Database.leave_newest`."""
        return self.run(merge.delete_superseded)

    def upsert(self, merge: Merge) -> Merged:
        """See `Database.upsert`."""
        return update_then_insert(self, merge)

    def commit(self) -> None:
        """See `Database.commit`."""
        with self._errors():
            self._connection.commit()

    def close(self) -> None:
        """See `Database.close`."""
        try:
            self._connection.close()
        finally:
            self._end_turn()

    def _configure(self) -> None:
        """Not as the connection's configuration: that would have to be the same for everyone in this process."""
        with self._errors():
            self._connection.execute(f"SET memory_limit = '{_MEMORY}'")
            self._connection.execute("SET TimeZone = 'UTC'")
            self._connection.execute("SET arrow_lossless_conversion = true")
            self._connection.begin()

    def _end_turn(self) -> None:
        if self._turn:
            self._turn.release()
            self._turn = None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            raise _refused(self._label, error) from None


def _take_turn(path: Path, label: str) -> threading.Lock:
    lock = _writers[path.resolve()]
    if not lock.acquire(timeout=get_settings().lock_timeout):
        raise held(label, "another thread of this process", DestinationError)
    return lock


def _open(path: Path, label: str) -> duckdb.DuckDBPyConnection:
    """Opens the file, waiting for another process to close it."""
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return open_duckdb(path, label, DestinationError)
    except duckdb.Error as error:
        raise _refused(label, error) from None


def _refused(label: str, error: duckdb.Error) -> DestinationError:
    text = str(error).strip()
    hint, retryable = None, isinstance(error, duckdb.TransactionException)
    if isinstance(error, duckdb.ConstraintException) and "duplicate key" in text.lower():
        hint = "rows with this key are there already, or come twice: use `write: merge` with `key`"
    elif "CHECK constraint failed" in text:
        hint = "the table has this rule: say the same in `validate`, to set such rows aside"
    elif "NOT NULL constraint failed" in text:
        hint = "the column must have a value: `validate: {column: {required: true}}`"
    elif "No space left" in text:
        hint, retryable = "the disk is full: free some space, then run again", True
    elif "Permission denied" in text or "read-only" in text:
        hint = "the user that runs this needs the right to write there"
    elif isinstance(error, duckdb.OutOfMemoryException):
        hint = "a primary key of that many rows needs more memory: use PostgreSQL, or `write: append` without `key`"
    return DestinationError(f"{label}: {' '.join(text.split())}", hint=hint, retryable=retryable)


def _column(field: pa.Field, declared: str) -> Column:
    takes = field.type
    if pa.types.is_dictionary(takes):
        takes = takes.value_type
    if isinstance(takes, pa.Bool8Type):
        takes = pa.bool_()
    if declared == "HUGEINT":
        takes = pa.decimal128(38, 0)
    return Column(field.name, takes, declared, identity=takes != INTERVAL)
