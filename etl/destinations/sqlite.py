"""SQLite as a warehouse: one file in WAL mode, so that readers never wait.

SQLite has four kinds of values; what they cannot hold exactly is kept as text that sorts and compares right where it
can (see docs/decisions): decimals as their digits, dates and times in ISO 8601, uuid and json as they are written.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from errors import DestinationError
from etl.destinations.disk import disk_errors
from etl.destinations.merge import Merge, Merged
from etl.destinations.names import Dialect, Name
from etl.destinations.sql import update_then_insert
from etl.destinations.transaction import SqlWarehouse
from etl.destinations.types import JSON, Column
from etl.embedded import database_file
from etl.quoting import quoted
from settings import get_settings

_DECLARED = {
    pa.bool_(): "BOOLEAN",
    pa.int16(): "INTEGER",
    pa.int32(): "INTEGER",
    pa.int64(): "INTEGER",
    pa.float32(): "REAL",
    pa.float64(): "REAL",
    pa.string(): "TEXT",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.time64("us"): "TIME",
    pa.timestamp("us"): "DATETIME",
    pa.timestamp("us", "UTC"): "TIMESTAMP",
    pa.uuid(): "UUID_TEXT",
    JSON: "JSON_TEXT",
}
"""What other tools know by these names reads back as it should; the affinity of none of them changes a value."""

_TAKES = {
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "DATETIME": pa.timestamp("us"),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "UUID_TEXT": pa.uuid(),
    "JSON_TEXT": JSON,
    "JSON": JSON,
}
_HINTS = {
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "rows with this key are there already, or come twice: use `write: merge`",
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "rows with this value are there already, or come twice",
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: "the column must have a value: `validate: {column: {required: true}}`",
    sqlite3.SQLITE_CONSTRAINT_CHECK: "the table has this rule: say the same in `validate`, to set such rows aside",
    sqlite3.SQLITE_CONSTRAINT_TRIGGER: "a trigger of the table says this: say the same in `validate`, to set such rows "
    "aside",
    sqlite3.SQLITE_FULL: "the disk is full: free some space, then run again",
    sqlite3.SQLITE_BUSY: "another process writes for long: wait for it, or raise PIVOTAL_LOCK_TIMEOUT",
    sqlite3.SQLITE_CANTOPEN: "does the folder exist, and may the user that runs this write there?",
    sqlite3.SQLITE_READONLY: "the user that runs this needs the right to write there",
    sqlite3.SQLITE_NOTADB: "the file is something else: name another one",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup",
}
_NAN = "NaN"
"""As text: SQLite would turn the number into NULL."""

_RETRYABLE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL}


def warehouse(url: str) -> SqlWarehouse:
    """The SQLite file at a URL (`sqlite:///file`).

    Raises:
        DestinationError: The URL names no file.
    """
    path = database_file(url, DestinationError)
    return SqlWarehouse(url, lambda writes: SQLite(path, url, writes=writes), path.exists, spool=path.parent)


class SQLite:
    """`Database` of SQLite.

    Args:
        path: The file.
        label: Its URL.
        writes: Whether the transaction may write.
    """

    dialect = Dialect(row_id="_rowid_", same="IS", comments="none", hashed_in=True)

    def __init__(self, path: Path, label: str, *, writes: bool) -> None:
        self._label = label
        self._inserted: Counter[str] = Counter()
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._connection = sqlite3.connect(
                path, timeout=get_settings().lock_timeout, isolation_level=None, check_same_thread=False
            )
        try:
            self._connection.create_collation("digits", _compare_digits)
            if writes:
                self.run("PRAGMA journal_mode = WAL")
            self.run("BEGIN IMMEDIATE" if writes else "BEGIN")
        except BaseException:
            self._connection.close()
            raise

    def name(self, table: str) -> Name:
        """See `Database.name`: there are no schemas; `analytics.orders` is the name, with its dot."""
        return Name([table])

    def key(self, column: str) -> str:
        """See `Database.key`: upper and lower case do not differ."""
        return column.lower()

    def columns(self, name: Name) -> list[Column]:
        """See `Database.columns`."""
        return [_column(*row) for row in self.query("SELECT name, type FROM pragma_table_info(?)", [*name.parts])]

    def is_view(self, name: Name) -> bool:
        """See `Database.is_view`."""
        return bool(self.query("SELECT 1 FROM pragma_table_list(?) WHERE type = 'view'", [*name.parts]))

    def indexes(self, name: Name) -> list[str]:
        """See `Database.indexes`."""
        return [str(row[0]) for row in self.query("SELECT name FROM pragma_index_list(?)", [*name.parts])]

    def new_column(self, name: str, kind: pa.DataType, *, keyed: bool) -> Column | None:  # noqa: ARG002
        """See `Database.new_column`."""
        if pa.types.is_decimal(kind):
            return _column(name, f"DECIMAL_TEXT({kind.precision},{kind.scale})")
        return Column(name, kind, _DECLARED[kind]) if kind in _DECLARED else None

    def prepare(self, name: Name) -> None:
        """See `Database.prepare`: nobody else writes, and there are no schemas."""

    def define(self, name: Name, sql: str) -> None:  # noqa: ARG002  (inside the transaction, as everything)
        """See `Database.define`."""
        self.run(sql)

    def lock(self, name: Name) -> None:
        """See `Database.lock`: nobody else writes anyway."""

    def take_turn(self, what: str) -> None:
        """See `Database.take_turn`: nobody else writes anyway."""

    def run(self, sql: str, values: Sequence[str | int] = ()) -> int:
        """See `Database.run`."""
        with self._errors():
            return self._connection.execute(sql, values).rowcount

    def query(self, sql: str, values: Sequence[str | int] = ()) -> list[tuple[Any, ...]]:
        """See `Database.query`."""
        with self._errors():
            return self._connection.execute(sql, values).fetchall()

    def insert(self, name: Name, rows: pa.RecordBatch) -> None:
        """See `Database.insert`."""
        names = ", ".join(map(quoted, rows.schema.names))
        marks = ", ".join("?" * rows.num_columns)
        values = zip(*map(_values, rows.columns), strict=True)
        with self._errors():
            done = self._connection.executemany(f"INSERT INTO {name.sql} ({names}) VALUES ({marks})", values)
        self._inserted[name.sql] += done.rowcount

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
        self.run("COMMIT")

    def close(self) -> None:
        """See `Database.close`."""
        self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0)
            kind = code & 0xFF
            raise DestinationError(
                f"{self._label}: {error}",
                hint=_HINTS.get(code) or _HINTS.get(kind),
                retryable=kind in _RETRYABLE,
            ) from None


def _column(name: str, declared: str) -> Column:
    decimal = re.fullmatch(r"DECIMAL_TEXT\((\d+),(\d+)\)", declared)
    if decimal:
        return Column(name, pa.decimal128(int(decimal[1]), int(decimal[2])), declared, order="COLLATE digits")
    word = declared.upper().partition("(")[0].strip()
    return Column(name, _TAKES.get(word, _affinity(word)), declared or "of no type")


def _affinity(declared: str) -> pa.DataType | None:
    """What a column of another maker takes (https://sqlite.org/datatype3.html, 3.1); None: numbers, inexactly."""
    if "INT" in declared:
        return pa.int64()
    if any(part in declared for part in ("CHAR", "CLOB", "TEXT")):
        return pa.string()
    if "BLOB" in declared:
        return pa.binary()
    return pa.float64() if any(part in declared for part in ("REAL", "FLOA", "DOUB")) else None


def _values(array: pa.Array) -> list[Any]:
    """The values as SQLite keeps them."""
    kind = array.type
    if isinstance(kind, pa.UuidType):
        return [None if value is None else str(value) for value in array.to_pylist()]
    if pa.types.is_decimal(kind):
        return [None if value is None else format(value, "f") for value in array.to_pylist()]
    if pa.types.is_floating(kind):
        return [_NAN if value != value else value for value in array.to_pylist()]  # noqa: PLR0124  (true of NaN only)
    if pa.types.is_timestamp(kind):
        text = array.view(pa.timestamp("us")).cast(pa.string()).to_pylist()
        return [value and f"{value}+00:00" for value in text] if kind.tz else list(text)
    if pa.types.is_date(kind) or pa.types.is_time(kind):
        return list(array.cast(pa.string()).to_pylist())
    return list(array.to_pylist())


def _compare_digits(one: str, other: str) -> int:
    first, second = Decimal(one), Decimal(other)
    return (first > second) - (first < second)
