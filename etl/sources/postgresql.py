"""PostgreSQL, read by ADBC: COPY in binary, inside one REPEATABLE READ transaction.

What arrives: numeric(p,s) as decimal(p,s), timestamptz in UTC, uuid, json, intervals and bytes as they are. As text,
exactly: numeric without precision, and types that Arrow lacks (timetz, inet, ranges, ...). As JSON: arrays (also those
of several dimensions) and composite values. NaN in a numeric(p,s) and infinite dates send their row to the quarantine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from errors import SourceError
from etl.quoting import literal, quoted
from etl.sources.adbc import Adbc
from etl.sources.connection import Column, Finish, nearest
from etl.sources.rows import BATCH_BYTES
from settings import get_settings

_OPTIONS = {"connect_timeout": "10", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "6"}
_HINTS = {
    "28": "user or password are wrong, or the server does not let this user in",
    "42501": "the user that reads needs the right to: GRANT SELECT ON ... TO ...",
    "55P03": "another transaction holds the table; raise PIVOTAL_LOCK_TIMEOUT to wait longer",
    "3D": "check the database's name in the connection URL",
}
_CUT = "server closed the connection", "terminating connection", "the database system is"
_AS_THEY_ARE = {
    "bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "bpchar", "name", "bytea", "time", "uuid",
    "json", "jsonb",
}  # fmt: skip
_LAST_NANOSECOND_HOUR = 2_562_047  # an interval's time part arrives in nanoseconds, in 64 bits

# ADBC moves dates from PostgreSQL's epoch (2000) to Arrow's (1970) and lets them wrap: an infinite one, or a timestamp
# after 294247-01-10, is then before 4714 BC, where PostgreSQL's time begins.
_FIRST = {"date": -2_440_588, "timestamp": -210_866_803_200_000_000}
_INFINITE = {-(2**31) + 10_956, -(2**63) + 946_684_799_999_999}
_MINUS_INFINITE = {-(2**31) + 10_957, -(2**63) + 946_684_800_000_000}
_NAN = -(2**63)


class PostgreSQL:
    """`Connection` to a PostgreSQL server.

    Args:
        url: `postgresql://user:password@host/database`; what follows `?` is for libpq.
        snapshot: The snapshot of another connection; one of its own if not given.

    Raises:
        SourceError: The server cannot be reached, or does not let us in.
    """

    json_object = "CAST(json_build_object({}) AS text)"
    text = "CAST({} AS text)"
    bounded = False

    def __init__(self, url: str, snapshot: str | None = None) -> None:
        from adbc_driver_postgresql import dbapi

        parts = urlsplit(url)
        query = urlencode(_OPTIONS | dict(parse_qsl(parts.query)))
        address = parts._replace(scheme="postgresql", query=query).geturl()
        self._shown = f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._url = url
        self._adbc = Adbc(self._shown, lambda: dbapi.connect(address, autocommit=False), self._explain)
        self._adbc.run(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;"
            f"{f'SET TRANSACTION SNAPSHOT {literal(snapshot)};' if snapshot else ''}"
            f"SET LOCAL timezone = 'UTC'; SET LOCAL lock_timeout = {round(get_settings().lock_timeout * 1000)}"
        )

    def relation(self, table: str) -> str:
        """See `Connection.relation`."""
        name = ".".join(quoted(part) for part in table.split(".", 1))
        if self._adbc.rows("SELECT to_regclass($1)::text", [name])[0][0] is None:
            found = (
                "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relnamespace"
            )
            names = [
                row[0]
                for row in self._adbc.rows(
                    f"{found} NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
                )
            ]
            raise SourceError(f"{self._shown}: there is no table {table!r}", hint=nearest(table, names, "it has"))
        return name

    def columns(self, relation: str) -> list[Column]:
        """See `Connection.columns`."""
        is_query = relation.startswith("(")
        required = set() if is_query else {name for (name,) in self._adbc.rows(_REQUIRED, [relation])}
        return [
            _column(field, nullable=field.name not in required)
            for field in self._adbc.schema(f"SELECT * FROM {relation}")
        ]

    def key(self, table: str) -> list[str]:
        """See `Connection.key`."""
        return [name for (name,) in self._adbc.rows(_KEY, [self.relation(table)])]

    def quoted(self, name: str) -> str:
        """See `Connection.quoted`."""
        return quoted(name)

    def parameter(self, number: int) -> str:
        """See `Connection.parameter`. COPY takes no parameters, so they are settings of the transaction."""
        return f"current_setting('pivotal.p{number}')"

    def bind(self, column: Column, value: str) -> object:  # noqa: ARG002  (`Column.typed` does it)
        """See `Connection.bind`."""
        return value

    def first(self, sql: str, values: Sequence[object]) -> str | None:
        """See `Connection.first`."""
        self._set(values)
        found = self._adbc.rows(sql)[0][0]
        return None if found is None else str(found)

    def stream(self, sql: str, columns: Sequence[Column], values: Sequence[object]) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        """See `Connection.stream`."""
        self._set(values)
        return self._adbc.stream(sql, (), {"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)})

    def pages(self, relation: str, count: int) -> list[str]:
        """SQL conditions that cut a table into parts of about as many pages; together they hold for every row once.

        Raises:
            SourceError: It is a view or a foreign table, which has no pages.
        """
        kind, pages = self._adbc.rows(_PAGES, [relation])[0]
        if kind not in {"r", "p", "m"}:
            raise SourceError(
                f"{self._shown}: `parallel`: {relation} is a view or a foreign table, which cannot be read in parts",
                hint="read the table itself, or leave `parallel` out",
            )
        count = min(count, max(pages, 1))
        edges = ["", *(f"'({pages * number // count},0)'" for number in range(1, count)), ""]
        return [
            " AND ".join([*([f"ctid >= {low}"] if low else []), *([f"ctid < {high}"] if high else [])])
            for low, high in pairwise(edges)
        ]

    def siblings(self, count: int) -> list[PostgreSQL]:
        """Further connections that see what this one sees, for as long as it is open.

        Raises:
            SourceError: The server does not let them in.
        """
        if not count:
            return []
        snapshot = self._adbc.rows("SELECT pg_export_snapshot()")[0][0]
        with ExitStack() as opened:
            found = [opened.enter_context(closing(PostgreSQL(self._url, snapshot))) for _ in range(count)]
            opened.pop_all()
        return found

    def close(self) -> None:
        """See `Connection.close`."""
        self._adbc.close()

    def _set(self, values: Sequence[object]) -> None:
        if values:
            settings = (f"set_config('pivotal.p{number}', ${number + 1}, true)" for number in range(len(values)))
            self._adbc.rows(f"SELECT {', '.join(settings)}", values)

    def _explain(self, message: str, state: str | None) -> SourceError:
        for noise in (" Query was:", " This probably means the server terminated"):
            message = message.partition(noise)[0]
        message = message.rpartition("ERROR: ")[2].rpartition("[libpq] ")[2].removeprefix("PQgetCopyData() failed: ")
        hint = next((hint for code, hint in _HINTS.items() if state and state.startswith(code)), None)
        unreachable = "Failed to connect" in message and "FATAL" not in message
        cut = any(part in message for part in _CUT)
        hint = hint or ("is the server running, and the host right?" if unreachable or cut else _connect_hint(message))
        gone = unreachable or cut or (state or "").startswith(("08", "57P", "40", "55P03"))
        return SourceError(f"{self._shown}: {message}", hint=hint, retryable=gone)


def _connect_hint(message: str) -> str | None:
    if "password authentication failed" in message or "no password supplied" in message:
        return _HINTS["28"]
    return _HINTS["3D"] if "FATAL: database" in message else None


_PAGES = """
SELECT relkind::text, greatest(pg_relation_size(oid), (SELECT max(pg_relation_size(relid)) FROM pg_partition_tree(oid)))
    / current_setting('block_size')::bigint
FROM pg_class WHERE oid = to_regclass($1)
"""
_REQUIRED = """SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND attnotnull"""
_KEY = """
SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
WHERE indrelid = to_regclass($1) AND indisprimary ORDER BY array_position(indkey, attnum)
"""


def _column(field: pa.Field, *, nullable: bool) -> Column:
    kind = (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
    name = quoted(field.name)
    typed = f"CAST({{}} AS {quoted(kind)})"

    def column(shown: str, value: str, finish: Finish | None = None) -> Column:
        return Column(field.name, shown, value, finish=finish, typed=typed, nullable=nullable)

    if kind == "numeric":
        return _numeric(field, column)
    if kind in {"date", "timestamp", "timestamptz"}:
        return column(kind, name, finish=_finite(kind))
    if kind == "interval":
        fits = f"isfinite({name}) AND abs(extract(hour FROM {name})) < {_LAST_NANOSECOND_HOUR}"
        return Column(
            field.name,
            kind,
            value=f"CASE WHEN {fits} THEN {name} END",
            misfit=f"NOT ({fits})",
            text=f"CAST({name} AS text)",
            typed=typed,
            nullable=nullable,
        )
    return column(*_plain(kind, field.type, name))


def _plain(kind: str, arrow: pa.DataType, name: str) -> tuple[str, str]:
    """The type that a column arrives in, and the SQL of its value."""
    if pa.types.is_nested(arrow):
        return "json", f"to_json({name})"
    if kind in _AS_THEY_ARE or (pa.types.is_string(arrow) and kind != "char"):  # ADBC gives enums as strings
        return kind, name
    if kind == "oid":
        return "bigint", f"CAST({name} AS bigint)"
    value = f"CAST({name} AS numeric)" if kind == "money" else name
    return "text", f"CAST({value} AS text)"


def _numeric(field: pa.Field, column: Callable[..., Column]) -> Column:
    """numeric(p,s): up to 18 digits as a scaled integer, which is much faster to read than ADBC's text of a numeric."""
    name = quoted(field.name)
    modifier = int(field.metadata.get(b"POSTGRESQL:typmod", b"-1")) - 4
    precision, scale = modifier >> 16 & 0xFFFF, modifier & 0x7FF
    if modifier < 0 or scale > precision or precision > 38:  # a negative scale is one of 1,024 and above here
        return column("text", f"CAST({name} AS text)")
    kind = f"decimal({precision},{scale})"
    if precision > 18:
        return column(kind, f"CAST({name} AS text)", finish=_from_text(pa.decimal128(precision, scale)))
    scaled = f"CAST({name} * 1{'0' * scale} AS bigint)"
    value = f"CASE WHEN {name} = 'NaN' THEN {_NAN + 1} - 1 ELSE {scaled} END"
    return column(kind, value, finish=_from_scaled(pa.decimal128(precision, scale)))


def _from_scaled(kind: pa.DataType) -> Finish:
    def finish(numbers: pa.Array) -> tuple[pa.Array, Mapping[int, str]]:
        numbers, found = _without(numbers, pc.equal(numbers, _NAN), lambda _: "NaN")
        wide = numbers.cast(pa.decimal128(19, 0))
        return pa.Array.from_buffers(kind, len(wide), wide.buffers(), wide.null_count, wide.offset), found

    return finish


def _from_text(kind: pa.DataType) -> Finish:
    def finish(texts: pa.Array) -> tuple[pa.Array, Mapping[int, str]]:
        texts, found = _without(texts, pc.equal(texts, "NaN"), str)
        return texts.cast(kind), found

    return finish


def _finite(kind: str) -> Finish:
    first = _FIRST["date" if kind == "date" else "timestamp"]

    def finish(moments: pa.Array) -> tuple[pa.Array, Mapping[int, str]]:
        numbers = moments.view(pa.int32() if kind == "date" else pa.int64())
        numbers, found = _without(numbers, pc.less(numbers, first), _beyond)
        return numbers.view(moments.type), found

    return finish


def _beyond(number: int) -> str:
    if number in _INFINITE:
        return "infinity"
    return "-infinity" if number in _MINUS_INFINITE else f"{number + 2**64} microseconds after 1970"


def _without(array: pa.Array, mask: pa.Array, told: Callable[[Any], str]) -> tuple[pa.Array, Mapping[int, str]]:
    """The array with NULL where the mask is true, and what stood there."""
    if not pc.any(mask).as_py():
        return array, {}
    places = pc.indices_nonzero(mask).to_pylist()
    return pc.if_else(mask, None, array), {place: told(array[place].as_py()) for place in places}
