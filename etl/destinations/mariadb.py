"""MariaDB (10.7 and later) as a warehouse, by PyMySQL: rows go in by INSERTs of many rows, in one InnoDB transaction.

A statement that makes or changes a table would commit the transaction, so a second connection runs it, before the
transaction changes the table. Not LOAD DATA LOCAL: it drops and cuts rows that do not fit, with a warning only.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pymysql

from errors import DestinationError
from etl.destinations.merge import Merge, Merged
from etl.destinations.names import Dialect, Name, split
from etl.destinations.sql import update_then_insert
from etl.destinations.transaction import SqlWarehouse
from etl.destinations.types import JSON, Column, by_engine
from etl.quoting import quoted
from settings import get_settings

_CONNECT_SECONDS = 10
_PATIENCE = 3600
"""Seconds that one statement may take."""

_STATEMENT = 1024 * 1024
"""Bytes of rows in one INSERT."""

_MODE = "ANSI_QUOTES,STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES,NO_ENGINE_SUBSTITUTION"
_COLLATION = "utf8mb4_nopad_bin"
"""Text is equal if its bytes are; others ignore case, accents or spaces at the end."""

_OPTIONS = {"unix_socket", "ssl_ca", "ssl_cert", "ssl_key"}
_DECLARED = {
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "double",  # a float is shown with six digits only
    pa.float64(): "double",
    pa.string(): "longtext",
    pa.binary(): "longblob",
    pa.date32(): "date",
    pa.time64("us"): "time(6)",
    pa.timestamp("us"): "datetime(6)",
    pa.timestamp("us", "UTC"): "timestamp(6)",
    pa.uuid(): "uuid",
    JSON: "json",
}
_DECLARED_IN_KEYS = {pa.string(): "varchar(255)", pa.binary(): "varbinary(255)"}
"""A key cannot be a longtext; three such columns fit into the 3072 bytes of a key."""

_PREFIX = dict.fromkeys(["text", "mediumtext", "longtext", "blob", "mediumblob", "longblob"], "(255)")
"""An index has the beginning of a long text only."""

_TAKES = {
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "mediumint": pa.int32(),  # the server refuses what is out of a column's range
    "int": pa.int32(),
    "bigint": pa.int64(),
    "tinyint unsigned": pa.int16(),
    "smallint unsigned": pa.int32(),
    "mediumint unsigned": pa.int32(),
    "int unsigned": pa.int64(),
    "bigint unsigned": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    **dict.fromkeys(["char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum"], pa.string()),
    **dict.fromkeys(["varbinary", "tinyblob", "blob", "mediumblob", "longblob"], pa.binary()),
    "date": pa.date32(),
    "uuid": pa.uuid(),
    "json": JSON,
}
_TOO_LONG = "make the column wider, or say how long values may be: `validate: {column: {max_length: n}}`"
_GRANT = "the user needs the right: GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, CREATE TEMPORARY TABLES ON ..."
_RETRY_LATER = "the server has no connection left: try later"
_HINTS = {
    1021: "the server's disk is full: free some space, then run again",
    1040: _RETRY_LATER,
    1044: _GRANT,
    1045: "the user or the password is wrong",
    1048: "the column must have a value: `validate: {column: {required: true}}`",
    1049: "create it, or name another one in the URL",
    1062: "rows with this key are there already, or come twice: use `write: merge` with `key`",
    1071: "a key has 3072 bytes at most: make the table yourself, with shorter columns in its key",
    1114: "the server's disk is full: free some space, then run again",
    1142: _GRANT,
    1203: _RETRY_LATER,
    1205: "another transaction holds it for long: wait for it, or raise PIVOTAL_LOCK_TIMEOUT",
    1264: "give the column a larger type",
    1265: _TOO_LONG,
    1290: "the server is read-only (a replica?): connect to the primary",
    1292: "a timestamp with a zone is kept from 1970 to 2038, a uuid if it is one by RFC 9562; `convert: {column: "
    "timestamp}` keeps other moments, without their zone, and `convert: {column: string}` other uuids",
    1364: "the table wants a value for it: bring the column, or give it a default",
    1406: _TOO_LONG,
    4025: "the table has this rule: say the same in `validate`, to set such rows aside",
    1644: "a trigger of the table says this: say the same in `validate`, to set such rows aside",
    2003: "is the server running, and are host and port right?",
}
_VALUE_CHANGED = {1263, 1264, 1265, 1292, 1366, 1406}
_RETRYABLE = {1021, 1040, 1053, 1114, 1203, 1205, 1213, 2002, 2003, 2006, 2013}


def warehouse(url: str) -> SqlWarehouse:
    """The MariaDB database at a URL (`mariadb+pymysql://user:password@host/database`, or `mysql+pymysql://...`).

    Raises:
        DestinationError: The URL cannot be read.
    """
    address, label = _address(url)
    folder = get_settings().path("data/spool")
    return SqlWarehouse(label, connect=lambda _: MariaDB(address, label), exists=lambda: True, spool=folder)


def _address(url: str) -> tuple[Mapping[str, Any], str]:
    """What PyMySQL takes, and what people may see."""
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items() if name != "charset"}
    database = unquote(parts.path.strip("/"))
    try:
        host, port = parts.hostname or "localhost", parts.port or 3306
    except ValueError:
        host, database = "", ""
    if not (host and database) or "@" in host or not options.keys() <= _OPTIONS:
        raise DestinationError(
            "the MariaDB URL cannot be read",
            hint="write mariadb+pymysql://user:password@host:3306/database (in a user name or a password, @ as %40, / "
            f"as %2F, : as %3A, % as %25); behind `?` may stand {', '.join(sorted(_OPTIONS))}",
        )
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    address = {"host": host, "port": port, "user": user, "password": password, "database": database, **options}
    return address, f"{parts.scheme}://{f'{user}@' if user else ''}{host}:{port}/{database}"


class MariaDB:
    """`Database` of MariaDB.

    Args:
        address: What PyMySQL connects to.
        label: The URL without its password.
    """

    dialect = Dialect(
        row_id="_pivotal_row",
        same="<=>",
        text="CHAR",
        counter="_pivotal_row BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY",
        options=f" ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE {_COLLATION}",
        drop="DROP TEMPORARY TABLE",
        joined_update=True,
        comments="inline",
    )

    def __init__(self, address: Mapping[str, Any], label: str) -> None:
        self._address, self._label = address, label
        self._connection = self._connect()
        self._definitions: Any = None
        self._changed: set[str] = set()
        self._inserted: Counter[str] = Counter()
        self._longest = int(self.query("SELECT @@max_allowed_packet")[0][0])

    def name(self, table: str) -> Name:
        """See `Database.name`: a schema is a database of the server."""
        schema, name = split(table)
        return Name([schema or self._address["database"], name])

    def key(self, column: str) -> str:
        """See `Database.key`: upper and lower case do not differ."""
        return column.lower()

    def columns(self, name: Name) -> list[Column]:
        """See `Database.columns`."""
        sql = """
            SELECT c.column_name, c.column_type, c.data_type, c.numeric_precision, c.numeric_scale,
                   c.datetime_precision, c.collation_name, c.is_nullable = 'YES', t.engine
            FROM information_schema.columns AS c
            JOIN information_schema.tables AS t ON t.table_schema = c.table_schema AND t.table_name = c.table_name
            WHERE c.table_schema = ? AND c.table_name = ? ORDER BY c.ordinal_position"""
        rows = self.query(sql, name.parts)
        if rows and rows[0][-1] not in {None, "InnoDB"}:
            raise DestinationError(
                f"{self._label}: table {'.'.join(name.parts)} is kept by {rows[0][-1]}, which has no transactions",
                hint=f"ALTER TABLE {'.'.join(name.parts)} ENGINE = InnoDB",
            )
        return [_column(*row[:-1]) for row in rows]

    def is_view(self, name: Name) -> bool:
        """See `Database.is_view`."""
        sql = "SELECT 1 FROM information_schema.views WHERE table_schema = ? AND table_name = ?"
        return bool(self.query(sql, name.parts))

    def indexes(self, name: Name) -> list[str]:
        """See `Database.indexes`."""
        sql = "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = ? AND table_name = ?"
        return [str(row[0]) for row in self.query(sql, name.parts)]

    def new_column(self, name: str, kind: pa.DataType, *, keyed: bool) -> Column | None:
        """See `Database.new_column`."""
        if pa.types.is_decimal(kind):
            return Column(name, kind, f"decimal({kind.precision},{kind.scale})")
        declared = (_DECLARED_IN_KEYS if keyed else {}).get(kind) or _DECLARED.get(kind)
        return Column(name, kind, declared, index=_PREFIX.get(declared, "")) if declared else None

    def prepare(self, name: Name) -> None:
        """See `Database.prepare`."""
        self.lock(name)
        if not self.query("SELECT 1 FROM information_schema.schemata WHERE schema_name = ?", name.parts[:1]):
            self._define(f"CREATE DATABASE IF NOT EXISTS {quoted(name.parts[0])}")

    def define(self, name: Name, sql: str) -> None:
        """See `Database.define`: not inside the transaction, which it would commit."""
        if name.temporary:
            self.run(sql)
            return
        if name.sql in self._changed:
            raise DestinationError(
                f"{self._label}: {'.'.join(name.parts)} cannot get a new column after its rows have changed",
                hint="MariaDB commits a transaction that changes a table: write into it once, with all columns",
            )
        self._define(sql)

    def lock(self, name: Name) -> None:
        """See `Database.lock`: keeps other loads away; LOCK TABLES would commit the transaction."""
        self.take_turn(name.sql)

    def take_turn(self, what: str) -> None:
        """See `Database.take_turn`."""
        lock = f"pivotal:{hashlib.sha256(what.encode()).hexdigest()[:40]}"
        if self.query("SELECT get_lock(?, ?)", [lock, _lock_seconds()]) != [(1,)]:
            raise DestinationError(
                f"{self._label}: another load holds {what} (waited {_lock_seconds()} s)",
                hint=_HINTS[1205],
                retryable=True,
            )

    def run(self, sql: str, values: Sequence[str | int] = ()) -> int:
        """See `Database.run`."""
        return self._run(self._with(sql, values))

    def query(self, sql: str, values: Sequence[str | int] = ()) -> list[tuple[Any, ...]]:
        """See `Database.query`."""
        with self._errors(), self._connection.cursor() as cursor:
            cursor.execute(self._with(sql, values))
            return list(cursor.fetchall())

    def insert(self, name: Name, rows: pa.RecordBatch) -> None:
        """See `Database.insert`."""
        self._changed.add(name.sql)
        start = f"INSERT INTO {name.sql} ({', '.join(map(quoted, rows.schema.names))}) VALUES ".encode()
        step = max(1, rows.num_rows * _STATEMENT // max(1, rows.nbytes))
        for place in range(0, rows.num_rows, step):
            self._inserted[name.sql] += self._insert(start, rows.slice(place, step))

    def inserted(self, name: Name) -> int:
        """See `Database.inserted`."""
        return self._inserted[name.sql]

    def leave_newest(self, merge: Merge) -> int:
        """See `Database.leave_newest`."""
        return self.run(merge.delete_superseded)

    def upsert(self, merge: Merge) -> Merged:
        """See `Database.upsert`."""
        self._changed.add(merge.table.sql)
        return update_then_insert(self, merge)

    def commit(self) -> None:
        """See `Database.commit`."""
        with self._errors():
            self._connection.commit()

    def close(self) -> None:
        """See `Database.close`."""
        self._connection.close()
        if self._definitions:
            self._definitions.close()

    def _insert(self, start: bytes, rows: pa.RecordBatch) -> int:
        named = zip(rows.schema.names, rows.columns, strict=True)
        values = [_literals(self._label, name, array) for name, array in named]
        texts = pc.binary_join_element_wise("(", pc.binary_join_element_wise(*values, ","), "),", "")
        sql = start + texts.buffers()[2][:-1].to_pybytes()
        if len(sql) <= self._longest:
            return self._run(sql)
        if rows.num_rows == 1:
            raise DestinationError(
                f"{self._label}: a row of {len(sql)} bytes is longer than the {self._longest} that the server takes",
                hint="raise max_allowed_packet in the server's configuration",
            )
        half = rows.num_rows // 2
        return self._insert(start, rows.slice(0, half)) + self._insert(start, rows.slice(half))

    def _run(self, sql: str | bytes) -> int:
        with self._errors(), self._connection.cursor() as cursor:
            changed = cursor.execute(sql)
            if cursor.warning_count:
                self._refuse_changes(cursor)
            return int(changed)

    def _refuse_changes(self, cursor: Any) -> None:  # noqa: ANN401  (PyMySQL has no types)
        """A value that the server has cut is no warning to us."""
        cursor.execute("SHOW WARNINGS")
        for _, code, message in cursor.fetchall():
            if code in _VALUE_CHANGED:
                raise pymysql.DataError(code, message)

    def _with(self, sql: str, values: Sequence[str | int]) -> str:
        """The statement with a literal for each `?`."""
        if not values:
            return sql
        literals = iter(values)
        return re.sub(r"\?", lambda _: str(self._connection.escape(next(literals))), sql)

    def _define(self, sql: str) -> None:
        self._definitions = self._definitions or self._connect()
        with self._errors(), self._definitions.cursor() as cursor:
            cursor.execute(sql)

    def _connect(self) -> Any:  # noqa: ANN401  (PyMySQL has no types)
        with self._errors():
            connection = pymysql.connect(
                **self._address,
                charset="utf8mb4",
                sql_mode=_MODE,
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_PATIENCE,
                write_timeout=_PATIENCE,
            )
            version = connection.get_server_info()
            if "MariaDB" not in version:
                raise DestinationError(
                    f"{self._label}: the server is MySQL {version}", hint="rows are loaded into MariaDB, not into MySQL"
                )
            with connection.cursor() as cursor:
                cursor.execute(f"SET NAMES utf8mb4 COLLATE {_COLLATION}")
                # What others commit while we wait for a lock is seen behind it.
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                cursor.execute(
                    "SET SESSION time_zone = '+00:00', "
                    f"lock_wait_timeout = {_lock_seconds()}, innodb_lock_wait_timeout = {_lock_seconds()}"
                )
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except pymysql.Error as error:
            code, message = error.args if len(error.args) > 1 else (2006, str(error))
            raise DestinationError(
                f"{self._label}: {message or 'the connection is closed'}",
                hint=_HINTS.get(code),
                retryable=code in _RETRYABLE or code == 0,  # PyMySQL's own word for a closed connection
            ) from None


def _column(
    name: str,
    declared: str,
    base: str,
    precision: int | None,
    scale: int | None,
    fraction: int | None,
    collation: str | None,
    nullable: int,
) -> Column:
    takes = _TAKES.get(f"{base} unsigned" if "unsigned" in declared else base)
    if declared == "tinyint(1)":
        takes = pa.bool_()
    elif base == "decimal":
        takes = pa.decimal256(precision, scale)
    elif base in {"datetime", "timestamp"}:
        takes = pa.timestamp(_unit(fraction), "UTC" if base == "timestamp" else None)
    elif base == "time":
        takes = pa.time64("us") if fraction == 6 else pa.time32("s")  # nothing finer than milliseconds would fit
    if collation not in {None, _COLLATION}:
        declared = f"{declared} COLLATE {collation}"
    # A timestamp that must not be NULL becomes the present moment instead of an error.
    fills = base == "timestamp" and not nullable
    identity = collation in {None, _COLLATION}
    return Column(name, takes, declared, identity=identity, index=_PREFIX.get(base, ""), nullable=not fills)


def _unit(fraction: int | None) -> str:
    return "us" if fraction == 6 else "ms" if (fraction or 0) >= 3 else "s"


def _literals(label: str, name: str, array: pa.Array) -> pa.Array:
    """The values as SQL writes them."""
    types = pa.types
    kind = array.type
    if isinstance(kind, pa.UuidType):
        text = by_engine(array, "CAST(value AS VARCHAR)", f"{label}: column {name}")
    elif types.is_binary(kind):
        hexed = by_engine(array, "hex(value)", f"{label}: column {name}")
        return pc.coalesce(pc.binary_join_element_wise("X'", hexed, "'", ""), "NULL")
    elif types.is_boolean(kind):
        return pc.coalesce(pc.if_else(array, "1", "0"), "NULL")
    elif types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        _refuse_infinite(label, name, array)
        return pc.coalesce(array.cast(pa.string()), "NULL")
    elif types.is_timestamp(kind):
        text = array.view(pa.timestamp(kind.unit)).cast(pa.string())
    else:
        text = array.storage if isinstance(array, pa.ExtensionArray) else array.cast(pa.string())
    return pc.coalesce(pc.binary_join_element_wise("'", pc.replace_substring(text, "'", "''"), "'", ""), "NULL")


def _refuse_infinite(label: str, name: str, array: pa.Array) -> None:
    if pa.types.is_floating(array.type) and pc.all(pc.is_finite(array)).as_py() is False:
        raise DestinationError(
            f"{label}: column {name} has NaN or an infinity, which MariaDB cannot keep",
            hint=f"set such rows aside (`validate: {{{name}: {{min: -1e308, max: 1e308}}}}`), or load them as text",
        )


def _lock_seconds() -> int:
    return max(1, round(get_settings().lock_timeout))
