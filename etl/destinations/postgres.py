"""PostgreSQL (15 and later) as a warehouse, by ADBC: rows go in by binary COPY, in one transaction."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pyarrow as pa

from errors import DestinationError
from etl.destinations.copying import Copy
from etl.destinations.merge import Merge, Merged
from etl.destinations.names import Dialect, Name, split
from etl.destinations.sql import count_there
from etl.destinations.transaction import SqlWarehouse
from etl.destinations.types import INTERVAL, JSON, Column
from etl.quoting import literal, quoted
from settings import get_settings

if TYPE_CHECKING:
    from adbc_driver_manager import AdbcDatabase
    from adbc_driver_postgresql import dbapi

_CONNECT_SECONDS = "10"
_LONGEST_NAME = 63
_ESCAPES = "in a user name or a password, write @ as %40, / as %2F, : as %3A, % as %25"

_DECLARED = {
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.binary(): "bytea",
    pa.date32(): "date",
    pa.time64("us"): "time",
    pa.timestamp("us"): "timestamp",
    pa.timestamp("us", "UTC"): "timestamptz",
    pa.uuid(): "uuid",
    JSON: "jsonb",
    INTERVAL: "interval",
}
_TAKES = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "citext": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "uuid": pa.uuid(),
    "json": JSON,
    "jsonb": JSON,
    "interval": INTERVAL,
}
_EQUAL_BUT_NOT_THE_SAME = {"json", "citext", "interval"}
"""Types without equality, or whose equality is looser than being the same value."""

_CLOSED = "server closed the connection unexpectedly"
_DOWN = "is the server being stopped or started? run again when it is running"
_HINTS = {
    "08": _DOWN,
    "57P": _DOWN,
    "22001": "make the column wider, or say how long values may be: `validate: {column: {max_length: n}}`",
    "22003": "give the column a larger type",
    "22021": "PostgreSQL's text cannot hold NUL characters: take them out with `derive`, or refuse them by `pattern`",
    "23502": "the column must have a value: `validate: {column: {required: true}}`",
    "23505": "rows with this key are there already, or come twice: use `write: merge` with `key`",
    "23514": "the table has this rule: say the same in `validate`, to set such rows aside",
    "25006": "the database is read-only (a standby?): connect to the primary",
    "42501": "the user needs the right: GRANT CREATE, USAGE ON SCHEMA ..., GRANT INSERT, UPDATE, DELETE, SELECT ON ...",
    "P0001": "a trigger of the table says this: say the same in `validate`, to set such rows aside",
    "53100": "the server's disk is full: free some space, then run again",
}
_RETRYABLE = ("08", "40", "53", "55P03", "57P")

_CONNECT_HINTS = {
    "authentication failed": "the user or the password is wrong",
    "no password supplied": "the URL has no password; write postgresql://user:password@host/database",
    "refused": "is the server running, and are host and port right?",
    "translate host name": "is the host's name right?",
    "timeout expired": "is the host reachable from here (network, firewall)?",
    "does not exist": "create it, or name another one in the URL",
    "too many": "the server has no connection left: try later",
    "database system is": _DOWN,
    _CLOSED: _DOWN,
}


def warehouse(url: str) -> SqlWarehouse:
    """The PostgreSQL database at a URL (`postgresql://user:password@host/database`).

    Raises:
        DestinationError: The URL cannot be read.
    """
    address, label = _address(url)
    driver = _Driver(address)
    return SqlWarehouse(label, connect=lambda _: Postgres(driver, label), exists=lambda: True)


def _address(url: str) -> tuple[str, str]:
    """What libpq takes, and what people may see."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    user, _, hosts = parts.netloc.rpartition("@")
    if any(":" in host and not re.fullmatch(r"(\[.*\]|[^:]*):\d*", host) for host in hosts.split(",")):
        raise DestinationError(
            "the PostgreSQL URL cannot be read",
            hint=f"write postgresql://user:password@host:5432/database; {_ESCAPES}",
        )
    options = {"connect_timeout": [_CONNECT_SECONDS], "application_name": ["pivotal"]} | query
    address = parts._replace(scheme="postgresql", query=urlencode(options, doseq=True), fragment="")
    shown = {name: values for name, values in query.items() if name in {"host", "port", "user", "dbname"}}
    netloc = f"{user.partition(':')[0]}@{hosts}" if user else hosts
    label = f"postgresql://{netloc}{parts.path}" + (f"?{urlencode(shown, doseq=True, safe='/')}" if shown else "")
    return address.geturl(), label


class _Driver:
    """What ADBC asks a server before its first connection: its types. That takes longer than to connect.

    Args:
        address: URL for libpq.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def connect(self) -> dbapi.Connection:
        """A new connection."""
        from adbc_driver_manager import AdbcConnection
        from adbc_driver_postgresql import dbapi

        return dbapi.Connection(self, AdbcConnection(self._database), autocommit=False)

    def close(self) -> None:
        """Called at the end of each connection, and kept for the next."""

    @cached_property
    def _database(self) -> AdbcDatabase:
        from adbc_driver_postgresql import connect

        database: AdbcDatabase = connect(self._address)
        return database


class Postgres:
    """`Database` of PostgreSQL.

    Args:
        driver: Makes the connection.
        label: The URL without its password.
    """

    dialect = Dialect(row_id="ctid")

    def __init__(self, driver: _Driver, label: str) -> None:
        from adbc_driver_postgresql import dbapi

        self._label = label
        try:
            self._connection = driver.connect()
        except dbapi.Error as error:
            raise _unreachable(label, str(error)) from None
        self._cursor = self._connection.cursor()
        self._copy: Copy | None = None
        self._before: dict[str, int] = {}
        self._configure()

    def name(self, table: str) -> Name:
        """See `Database.name`: the schema is the named one, or the one where the search path finds the table."""
        schema, name = split(table)
        return Name([self._short(schema or self._schema_of(name)), self._short(name)])

    def key(self, column: str) -> str:
        """See `Database.key`: upper and lower case differ."""
        return self._short(column)

    def columns(self, name: Name) -> list[Column]:
        """See `Database.columns`."""
        sql = """
            SELECT a.attname, format_type(a.atttypid, a.atttypmod), base.typname, base.typtype::text,
                   CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END
            FROM pg_attribute AS a
            JOIN pg_type AS t ON t.oid = a.atttypid
            JOIN pg_type AS base ON base.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
            WHERE a.attrelid = to_regclass(?) AND a.attnum > 0 AND NOT a.attisdropped
            ORDER BY a.attnum"""
        return [_column(*row) for row in self.query(sql, [name.sql])]

    def is_view(self, name: Name) -> bool:
        """See `Database.is_view`."""
        return bool(
            self.query("SELECT 1 FROM pg_class WHERE oid = to_regclass(?) AND relkind IN ('v', 'm')", [name.sql])
        )

    def indexes(self, name: Name) -> list[str]:
        """See `Database.indexes`."""
        sql = "SELECT c.relname FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid WHERE indrelid = to_regclass(?)"
        return [str(row[0]) for row in self.query(sql, [name.sql])]

    def new_column(self, name: str, kind: pa.DataType, *, keyed: bool) -> Column | None:  # noqa: ARG002
        """See `Database.new_column`."""
        if pa.types.is_decimal(kind):
            return Column(name, kind, f"numeric({kind.precision},{kind.scale})")
        return Column(name, kind, _DECLARED[kind], identity=kind != INTERVAL) if kind in _DECLARED else None

    def prepare(self, name: Name) -> None:
        """See `Database.prepare`."""
        self.take_turn(name.sql)
        if not self.query("SELECT 1 WHERE to_regnamespace(?) IS NOT NULL", [quoted(name.parts[0])]):
            self.run(f"CREATE SCHEMA IF NOT EXISTS {quoted(name.parts[0])}")

    def define(self, name: Name, sql: str) -> None:  # noqa: ARG002  (inside the transaction, as everything)
        """See `Database.define`."""
        self.run(sql)

    def lock(self, name: Name) -> None:
        """See `Database.lock`."""
        self.run(f"LOCK TABLE {name.sql} IN SHARE ROW EXCLUSIVE MODE")

    def take_turn(self, what: str) -> None:
        """See `Database.take_turn`."""
        self.query("SELECT pg_advisory_xact_lock(hashtext(?))::text", [what])

    def run(self, sql: str, values: Sequence[str | int] = ()) -> int:
        """See `Database.run`."""
        if values:  # the driver does not count the rows of a statement with values
            counted = f"WITH changed AS ({sql} RETURNING 1) SELECT count(*) FROM changed"
            return int(self.query(counted, values)[0][0])
        self._settle()
        with self._errors():
            self._cursor.execute(sql)
            return int(self._cursor.rowcount)

    def query(self, sql: str, values: Sequence[str | int] = ()) -> list[tuple[Any, ...]]:
        """See `Database.query`."""
        self._settle()
        with self._errors():
            self._cursor.execute(*_numbered(sql, values))
            return list(self._cursor.fetchall())

    def insert(self, name: Name, rows: pa.RecordBatch) -> None:
        """See `Database.insert`."""
        if not (self._copy and self._copy.fits(name, rows.schema)):
            self._settle()
            if name.sql not in self._before:
                self._before[name.sql] = self._taken(name)
            self._copy = Copy(self._cursor, name, rows.schema)
        with self._errors():
            self._copy.write(rows)

    def inserted(self, name: Name) -> int:
        """See `Database.inserted`: the driver tells what it sent, the server what it took."""
        return self._taken(name) - self._before[name.sql] if name.sql in self._before else 0

    def leave_newest(self, merge: Merge) -> int:
        """See `Database.leave_newest`: an index, which the merge can use, tells that there is nothing to do.

        It is cheaper than to look for keys that come twice. Where it cannot be made, there are some, or they are too
        long for it.
        """
        unless = "EXCEPTION WHEN unique_violation OR program_limit_exceeded THEN NULL"
        self.run(f"DO {literal(f'BEGIN {merge.index_stage}; {unless}; END')}")
        superseded = 0 if self.indexes(merge.stage) else self.run(merge.delete_superseded)
        self.run(f"ANALYZE {merge.stage.sql} ({', '.join(quoted(column.name) for column in merge.key)})")
        return superseded

    def upsert(self, merge: Merge) -> Merged:
        """See `Database.upsert`: one pass, in the order of the stage, which keeps the table's pages together."""
        there = None if self._has_each_once(merge) else count_there(self, merge)
        before = self._taken(merge.table)
        changed = self.run(merge.update_or_insert)
        inserted = self._taken(merge.table) - before
        if there is None:
            there = int(self.query(f"SELECT count(*) FROM {merge.stage.sql}")[0][0]) - inserted
        return Merged(there, inserted, changed - inserted)

    def commit(self) -> None:
        """See `Database.commit`."""
        self._settle()
        with self._errors():
            self._connection.commit()

    def close(self) -> None:
        """See `Database.close`."""
        if self._copy:
            self._copy.abandon()
        self._cursor.close()
        self._connection.close()

    def _configure(self) -> None:
        timeout = round(get_settings().lock_timeout * 1000)
        self.run(f"SET LOCAL lock_timeout = {timeout}")
        # A merge is maintenance: its joins may use what the server allows for that, 16 times more than for a query.
        large = "current_setting('maintenance_work_mem')"
        smaller = f"pg_size_bytes(current_setting('work_mem')) < pg_size_bytes({large})"
        self.query(f"SELECT set_config('work_mem', {large}, true) WHERE {smaller}")

    def _settle(self) -> None:
        """Ends the COPY that is under way: one connection does one thing at a time."""
        copy, self._copy = self._copy, None
        if copy:
            with self._errors():
                copy.finish()

    def _taken(self, name: Name) -> int:
        """Rows inserted into a table (or its partitions) by this transaction so far."""
        sql = """SELECT coalesce(sum(pg_stat_get_xact_tuples_inserted(coalesce(part.relid, whole.id))), 0)::bigint
                 FROM (SELECT to_regclass(?)::oid AS id) AS whole
                 LEFT JOIN pg_partition_tree(whole.id) AS part ON true"""
        return int(self.query(sql, [name.sql])[0][0])

    def _has_each_once(self, merge: Merge) -> bool:
        """Whether the table cannot have a key twice, and no trigger or child table makes something else of a row."""
        sql = """SELECT 1 FROM pg_index JOIN pg_class AS c ON c.oid = indrelid
                 WHERE c.oid = to_regclass(?) AND indisunique AND indisvalid AND indimmediate
                   AND indpred IS NULL AND indexprs IS NULL
                   AND (SELECT array_agg(attname::text) FROM pg_attribute
                        WHERE attrelid = c.oid AND attnum = ANY ((indkey::int2[])[:indnkeyatts - 1]))
                       <@ ARRAY(SELECT jsonb_array_elements_text(?::jsonb))
                   AND (c.relkind = 'p' OR NOT c.relhassubclass)
                   AND NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal)"""
        return bool(self.query(sql, [merge.table.sql, json.dumps([column.name for column in merge.key])]))

    def _schema_of(self, table: str) -> str:
        sql = """SELECT coalesce((SELECT nspname FROM pg_namespace AS n JOIN pg_class AS c ON c.relnamespace = n.oid
                                  WHERE c.oid = to_regclass(?)), current_schema())::text"""
        schema = self.query(sql, [quoted(table)])[0][0]
        if schema is None:
            raise DestinationError(
                f"{self._label}: the search path has no schema that exists, for table {table}",
                hint=f"name one: `table: public.{table}`",
            )
        return str(schema)

    def _short(self, name: str) -> str:
        if len(name.encode()) > _LONGEST_NAME:
            raise DestinationError(
                f"{self._label}: the name {name} is longer than the {_LONGEST_NAME} bytes that PostgreSQL keeps",
                hint=f"give it a shorter one: `map: {{{name}: short_name}}`",
            )
        return name

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from adbc_driver_postgresql import dbapi

        try:
            yield
        except dbapi.Error as error:
            raise _refused(self._label, error) from None


def _column(name: str, declared: str, base: str, kind: str, modifier: int) -> Column:
    takes = pa.string() if kind == "e" else _TAKES.get(base)
    if base == "numeric":
        precision, scale = ((modifier - 4) >> 16, (modifier - 4) & 0xFFFF) if modifier > 0 else (76, 38)
        takes = pa.decimal256(min(precision, 76), scale)
    elif base in {"timestamp", "timestamptz"}:
        unit = "us" if modifier < 0 or modifier == 6 else "ms" if modifier >= 3 else "s"
        takes = pa.timestamp(unit, "UTC" if base == "timestamptz" else None)
    return Column(name, takes, declared, identity=base not in _EQUAL_BUT_NOT_THE_SAME)


def _numbered(sql: str, values: Sequence[str | int]) -> tuple[str, Sequence[str | int] | None]:
    """The statement with $1, $2, ... for each `?`."""
    if not values:
        return sql, None
    numbers = iter(range(1, len(values) + 1))
    return re.sub(r"\?", lambda _: f"${next(numbers)}", sql), values


def _unreachable(label: str, text: str) -> DestinationError:
    if "connection option" in text or "URI" in text or "percent-encoded" in text:
        return DestinationError(  # libpq shows a part of the URL here, which may be of the password
            f"{label}: the URL cannot be read",
            hint=_ESCAPES,
        )
    reason = " ".join(text.partition("Failed to connect: ")[2].partition("This probably means")[0].split())
    hint = next((hint for part, hint in _CONNECT_HINTS.items() if part in text), None)
    passes = "FATAL" not in text or "too many" in text or "database system is" in text
    return DestinationError(f"{label}: {reason or _server_text(text)}", hint=hint, retryable=passes)


def _refused(label: str, error: dbapi.Error) -> DestinationError:
    details = {key: value.decode(errors="replace") for key, value in error.details}
    reason = details.get("PG_DIAG_MESSAGE_PRIMARY") or _server_text(str(error))
    if detail := details.get("PG_DIAG_MESSAGE_DETAIL"):
        reason = f"{reason} ({detail})"
    if found := re.search(r"COPY (\S+), line \d+, column (\S+)", str(error)):
        reason = f"{reason}: column {found[2]} of {found[1]}"
    state = error.sqlstate or "08000"
    hint = next((hint for code, hint in _HINTS.items() if state.startswith(code)), None)
    return DestinationError(f"{label}: {reason}", hint=hint, retryable=state.startswith(_RETRYABLE))


def _server_text(text: str) -> str:
    """The server's own words, out of the driver's."""
    if _CLOSED in text and "FATAL:" not in text:
        return _CLOSED
    found = re.search(r"(?:ERROR|FATAL):\s+(.*?)(?:\nCONTEXT|\n\nQuery was|\. SQLSTATE|$)", text, re.DOTALL)
    return " ".join((found[1] if found else text).split())
