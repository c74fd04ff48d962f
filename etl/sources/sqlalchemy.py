"""Every other database, read by SQLAlchemy: a server-side cursor, rows made into Arrow.

Values arrive as the driver gives them: decimals as decimals, times of day and durations as text. A column's type is
told by the table; in queries, by the driver and the first values. A value that does not fit (MySQL's 0000-00-00)
sends its row to the quarantine.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import repeat
from typing import Any
from warnings import catch_warnings, simplefilter

import pyarrow as pa
from sqlalchemy import Engine, create_engine, exc, inspect, text, types
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from errors import SourceError
from etl.connections import HINT
from etl.incremental import is_number
from etl.sources.connection import REFUSED, Column, nearest
from settings import get_settings

_KNOWN = ["postgresql", "sqlite", "duckdb", "mariadb", "mysql", "oracle", "mssql"]
_ROWS = 5_000  # rows that are Python objects at one time
_SNAPSHOTS = {"mysql", "mariadb"}  # where a transaction sees what was there when it began to read

_ARROW: dict[type[types.TypeEngine[Any]], pa.DataType] = {
    mysql.TIMESTAMP: pa.timestamp("us", "UTC"),  # the session is in UTC
    types.Boolean: pa.bool_(),
    types.Integer: pa.int64(),
    types.Float: pa.float64(),
    types.DateTime: pa.timestamp("us"),
    types.Date: pa.date32(),
    types.Time: pa.string(),
    types.JSON: pa.json_(),
    types.String: pa.string(),
    types.LargeBinary: pa.binary(),
}
_MYSQL_FLOAT, _MYSQL_LARGE, _MYSQL_UNSIGNED = 4, 8, 32  # two of MySQL's types, and a flag of a column
_MYSQL: dict[int, pa.DataType] = {  # what its other types are is told by the values
    **dict.fromkeys((1, 2, 3, _MYSQL_LARGE, 9, 13), pa.int64()),
    -_MYSQL_LARGE: pa.uint64(),
    **dict.fromkeys((_MYSQL_FLOAT, 5), pa.float64()),
    7: pa.timestamp("us", "UTC"),  # the session is in UTC
    10: pa.date32(),
    11: pa.string(),
    12: pa.timestamp("us"),
}
_HINTS = {  # by MySQL's error codes
    1044: "the user may not use this database: GRANT SELECT ON ... TO ...",
    1045: "user or password are wrong, or the server does not let this user in",
    1049: "check the database's name in the connection URL",
    1142: "the user that reads needs the right to: GRANT SELECT ON ... TO ...",
    2003: "is the server running, and the host right?",
    2013: "the server stopped, or did not answer within PIVOTAL_READ_TIMEOUT",
}
_WRONG = {1044, 1045, 1049, 1142}  # what does not mend itself
_BOOLEANS = {"false": "0", "true": "1"}
_PYTHON: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    bytes: pa.binary(),
    datetime: pa.timestamp("us"),
    date: pa.date32(),
}


class SqlAlchemy:
    """`Connection` through SQLAlchemy.

    Args:
        url: `dialect+driver://user:password@host/database`.

    Raises:
        SourceError: The URL cannot be read, its driver is not installed, or the server does not let us in.
    """

    json_object = ""
    text = "{}"

    def __init__(self, url: str) -> None:
        self._engine, self._shown = open_engine(url)
        self._cursor: Any = None
        self._tables: dict[str, tuple[str | None, str]] = {}
        self._types: dict[str, pa.DataType | None] = {}
        self.bounded = self._engine.dialect.name not in _SNAPSHOTS
        with self._errors():
            self._connection = self._engine.connect()
            if not self.bounded:
                self._connection.execution_options(isolation_level="REPEATABLE READ")
                self._connection.exec_driver_sql("SET time_zone = '+00:00'")

    def relation(self, table: str) -> str:
        """See `Connection.relation`."""
        schema, _, name = table.rpartition(".")
        with self._errors():
            there = inspect(self._connection)
            found = there.get_table_names(schema or None) + there.get_view_names(schema or None)
        if name not in found:
            raise SourceError(f"{self._shown}: there is no table {table!r}", hint=nearest(name, found, "it has"))
        quoted = ".".join(self.quoted(part) for part in (schema, name) if part)
        self._tables[quoted] = (schema or None, name)
        return quoted

    def columns(self, relation: str) -> list[Column]:
        """See `Connection.columns`."""
        with self._errors():
            if relation in self._tables:
                schema, name = self._tables[relation]
                with _unknown_types():
                    found = inspect(self._connection).get_columns(name, schema)
                declared = [(column["name"], column["type"]) for column in found]
                return [self._column(n, _arrow(kind), is_float=isinstance(kind, mysql.FLOAT)) for n, kind in declared]
            with self._connection.execute(_statement(f"SELECT * FROM {relation} WHERE 1 = 0")) as nothing:
                codes = _codes(nothing.cursor) if not self.bounded else repeat(0)
                return [
                    self._column(name, _MYSQL.get(code), is_float=code == _MYSQL_FLOAT)
                    for name, code in zip(nothing.keys(), codes, strict=False)
                ]

    def key(self, table: str) -> list[str]:
        """See `Connection.key`."""
        schema, _, name = table.rpartition(".")
        with self._errors(), _unknown_types():
            return list(inspect(self._connection).get_pk_constraint(name, schema or None)["constrained_columns"])

    def quoted(self, name: str) -> str:
        """See `Connection.quoted`."""
        return str(self._engine.dialect.identifier_preparer.quote_identifier(name))

    def parameter(self, number: int) -> str:
        """See `Connection.parameter`."""
        return f":pivotal_{number}"

    def bind(self, column: Column, value: str) -> object:
        """See `Connection.bind`: drivers want Python's types."""
        kind = self._types[column.name]
        try:
            return _bound(kind, value)
        except ValueError:
            if kind is None:
                return value
            raise SourceError(f"{self._shown}: {value!r} is no {kind}") from None

    def first(self, sql: str, values: Sequence[object]) -> str | None:
        """See `Connection.first`."""
        with self._errors():
            found = self._connection.execute(_statement(sql), _named(values)).scalar()
        if isinstance(found, datetime):
            return found.isoformat(" ")
        return None if found is None else str(found)

    def stream(
        self,
        sql: str,
        columns: Sequence[Column],  # noqa: ARG002
        values: Sequence[object],
    ) -> Iterator[pa.RecordBatch]:
        """See `Connection.stream`."""
        with self._errors():
            options = {"stream_results": True, "max_row_buffer": _ROWS}
            result = self._connection.execute(_statement(sql), _named(values), execution_options=options)
            self._cursor = result.cursor
            scales = [(entry[4], entry[5]) for entry in self._cursor.description]
            for rows in result.partitions(_ROWS):
                yield self._batch(list(result.keys()), list(zip(*rows, strict=True)), scales)

    def close(self) -> None:
        """See `Connection.close`. The connection is cut; pymysql would first read an unfinished stream to its end."""
        unfinished: Any = getattr(self._cursor, "_result", None)
        if getattr(unfinished, "unbuffered_active", False):
            unfinished.unbuffered_active = False
        self._connection.invalidate()
        self._connection.close()
        self._engine.dispose()

    def _column(self, name: str, kind: pa.DataType | None, *, is_float: bool) -> Column:
        self._types[name] = kind
        value = self.quoted(name)
        if is_float:  # MySQL sends six digits only, unless it is a double
            value = f"{value} + 0e0"
        return Column(name, str(kind or "value"), value)

    def _batch(self, names: list[str], columns: list[tuple[Any, ...]], scales: list[tuple[Any, Any]]) -> pa.RecordBatch:
        arrays: dict[str, pa.Array] = {}
        refused: dict[int, dict[str, str]] = defaultdict(dict)
        for place, (name, values, scale) in enumerate(zip(names, columns, scales, strict=True)):
            kind = self._types.get(name) or _inferred(values, *scale)
            self._types[name] = kind
            arrays[name], found = _array(values, kind or pa.null())
            for row, value in found.items():
                refused[row][str(place)] = value
        told = [json.dumps(refused[row]) if row in refused else None for row in range(len(columns[0]))]
        return pa.record_batch([*arrays.values(), pa.array(told, pa.string())], names=[*arrays, REFUSED])

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            code = error.orig.args[0] if error.orig and error.orig.args else 0
            gone = error.connection_invalidated or (isinstance(error, exc.OperationalError) and code not in _WRONG)
            raise SourceError(f"{self._shown}: {error.orig}", hint=_HINTS.get(code), retryable=gone) from None
        except exc.SQLAlchemyError as error:
            raise SourceError(f"{self._shown}: {error}") from None


def open_engine(url: str) -> tuple[Engine, str]:
    """SQLAlchemy's engine, which has no connection yet, and the URL without user and password.

    Raises:
        SourceError: The URL cannot be used, or its driver is not installed.
    """
    try:
        address = make_url(url)
        options = {"read_timeout": get_settings().read_timeout} if address.drivername.endswith("pymysql") else {}
        engine = create_engine(address, poolclass=NullPool, connect_args=options)
    except exc.NoSuchModuleError:
        name = address.drivername
        raise SourceError(
            f"there is no database or driver called {name}", hint=nearest(name, _KNOWN, "there are")
        ) from None
    except (exc.ArgumentError, ValueError):
        raise SourceError("the connection's URL cannot be read", hint=HINT) from None
    except ImportError as error:
        instead = f"write {address.get_backend_name()}+pymysql://..." if error.name == "MySQLdb" else ""
        raise SourceError(
            f"{address.drivername}: its driver is not installed: {error}", hint=instead or f"pip install {error.name}"
        ) from None
    return engine, f"{address.drivername}://{address.host or ''}/{address.database or ''}"


@contextmanager
def _unknown_types() -> Iterator[None]:
    """Types that SQLAlchemy does not know (INET6, POINT) are told by the values."""
    with catch_warnings():
        simplefilter("ignore", exc.SAWarning)
        yield


def _statement(sql: str) -> Any:  # noqa: ANN401  (SQLAlchemy's TextClause)
    return text(re.sub(r":(?!pivotal_\d)", r"\\:", sql))


def _named(values: Sequence[object]) -> dict[str, object]:
    return {f"pivotal_{number}": value for number, value in enumerate(values)}


def _codes(cursor: Any) -> list[int]:  # noqa: ANN401  (drivers have no types)
    """The numbers of MySQL's types; negative if unsigned, which only pymysql tells."""
    fields = getattr(getattr(cursor, "_result", None), "fields", None) or [None] * len(cursor.description)
    return [
        -entry[1] if getattr(field, "flags", 0) & _MYSQL_UNSIGNED and entry[1] == _MYSQL_LARGE else entry[1]
        for entry, field in zip(cursor.description, fields, strict=True)
    ]


def _arrow(declared: Any) -> pa.DataType | None:  # noqa: ANN401  (reflected types are of every class)
    """The type of a reflected column; None if the values must tell."""
    if isinstance(declared, types.Integer) and getattr(declared, "unsigned", False):
        return pa.uint64()
    if isinstance(declared, types.Numeric) and not isinstance(declared, types.Float):
        precision, scale = declared.precision, declared.scale or 0
        return pa.decimal128(precision, scale) if precision and scale <= precision <= 38 else pa.string()
    return next((arrow for kind, arrow in _ARROW.items() if isinstance(declared, kind)), None)


def _inferred(values: Sequence[Any], precision: int | None, scale: int | None) -> pa.DataType | None:
    """The type of a query's column by its first value and what the driver says; None if there is no value yet."""
    value = next((value for value in values if value is not None), None)
    if value is None:
        return None
    if isinstance(value, Decimal):
        exact = precision and scale is not None and 0 <= scale <= 38
        return pa.decimal128(38, scale) if exact else pa.string()
    if isinstance(value, datetime) and value.tzinfo:
        return pa.timestamp("us", "UTC")
    return _PYTHON.get(type(value), pa.string())


def _bound(kind: pa.DataType | None, value: str) -> object:
    """A text as what a driver compares with a column of this type; of a query's column, as what it looks like.

    Raises:
        ValueError: It is no such value.
    """
    if kind is None and is_number(value) and str(Decimal(value)) == value:  # 007 is a text
        return Decimal(value)
    if kind is None or pa.types.is_temporal(kind):
        moment = datetime.fromisoformat(value) if len(value) > 10 else date.fromisoformat(value)
        if isinstance(moment, datetime) and moment.tzinfo:  # MySQL's drivers would drop the zone
            return moment.astimezone(UTC).replace(tzinfo=None)
        return moment
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or isinstance(kind, pa.JsonType):
        return value
    number = _BOOLEANS.get(value, value)
    if not is_number(number):
        raise ValueError(value)
    return Decimal(number)


def _array(values: Sequence[Any], kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """The values as a column, and those that it cannot hold."""
    if isinstance(kind, pa.JsonType):
        return pa.ExtensionArray.from_storage(kind, _array(values, kind.storage_type)[0]), {}
    if pa.types.is_string(kind):
        values = [value if value is None or isinstance(value, str) else _as_text(value) for value in values]
    try:
        return pa.array(values, kind), {}
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        refused = {place: _as_text(value) for place, value in enumerate(values) if not _fits(value, kind)}
        return pa.array([None if place in refused else value for place, value in enumerate(values)], kind), refused


def _fits(value: object, kind: pa.DataType) -> bool:
    try:
        pa.scalar(value, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False
    return True


def _as_text(value: object) -> str:
    match value:
        case Decimal():
            return f"{value:f}"
        case timedelta():
            seconds = abs(value) // timedelta(seconds=1)
            sign, fraction = "-" if value < timedelta() else "", abs(value).microseconds
            shown = f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
            return f"{shown}.{fraction:06}" if fraction else shown
        case date() | datetime() | time():
            return value.isoformat()
        case bytes():
            return value.hex()
    return str(value)
