"""DuckDB files, read by DuckDB.

What Arrow and the other databases lack arrives as JSON (lists, maps) or as text (enums, timetz, bit strings, ...), also
inside of structs. Infinite dates and timestamps, integers of more than 38 digits, and lists with NaN or infinity (which
JSON lacks) send their row to the quarantine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
from duckdb.sqltypes import DuckDBPyType

from errors import SourceError
from etl.embedded import open_duckdb
from etl.quoting import quoted
from etl.sources.connection import Column, nearest
from etl.sources.disk import existing_database_file
from etl.sources.patience import patience

_VECTORS = 4 * 2048  # rows that are fetched at once; wide ones need few
_AS_THEY_ARE = {
    "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT",
    "DOUBLE", "VARCHAR", "BLOB", "TIME", "UUID", "JSON", "INTERVAL",
}  # fmt: skip
_NOT_FINITE = """regexp_matches(regexp_replace({}, '"(\\\\.|[^"\\\\])*"', '', 'g'), '(?i)nan|inf')"""
"""SQL that is true for what DuckDB writes as JSON though it is none: NaN or infinity, outside of the texts in it."""


class DuckDB:
    """`Connection` to a DuckDB file.

    Args:
        url: `duckdb:///file`.

    Raises:
        SourceError: There is no such file, it is no DuckDB database, or another process holds it for too long.
    """

    json_object = "CAST(json_object({}) AS VARCHAR)"
    text = "CAST({} AS VARCHAR)"
    bounded = False

    def __init__(self, url: str) -> None:
        self._shown = url
        self._connection = self._opened(existing_database_file(url))
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET arrow_lossless_conversion = true")
        self._connection.begin()

    def relation(self, table: str) -> str:
        """See `Connection.relation`."""
        with self._errors():
            found = self._connection.sql(
                "SELECT DISTINCT schema_name, table_name FROM duckdb_columns() WHERE NOT internal"
            ).fetchall()
        names = [name if schema == "main" else f"{schema}.{name}" for schema, name in found]
        if table.removeprefix("main.").lower() not in {name.lower() for name in names}:
            raise SourceError(f"{self._shown}: there is no table {table!r}", hint=nearest(table, names, "it has"))
        with self._errors():  # a file and a schema of the same name would be ambiguous
            database = self._connection.sql("SELECT current_database()").fetchall()[0][0]
        schema, _, name = table.rpartition(".")
        return ".".join(quoted(part) for part in (database, schema or "main", name))

    def columns(self, relation: str) -> list[Column]:
        """See `Connection.columns`."""
        sql = f"SELECT * FROM {relation} LIMIT 0"
        with self._errors():
            if len(duckdb.extract_statements(sql)) > 1:
                raise SourceError(f"{self._shown}: the query is more than one statement")
            found = self._connection.sql(sql)
            return [_column(name, kind) for name, kind in zip(found.columns, found.types, strict=True)]

    def key(self, table: str) -> list[str]:
        """See `Connection.key`."""
        schema, _, name = table.rpartition(".")
        with self._errors():
            found = self._connection.execute(_KEY, [schema or "main", name]).fetchall()
        return list(found[0][0]) if found else []

    def quoted(self, name: str) -> str:
        """See `Connection.quoted`."""
        return quoted(name)

    def parameter(self, number: int) -> str:
        """See `Connection.parameter`."""
        return f"${number + 1}"

    def bind(self, column: Column, value: str) -> object:  # noqa: ARG002  (`Column.typed` does it)
        """See `Connection.bind`."""
        return value

    def first(self, sql: str, values: Sequence[object]) -> str | None:
        """See `Connection.first`."""
        with self._working():
            found = self._connection.execute(sql, list(values)).fetchall()[0][0]
        return None if found is None else str(found)

    def stream(self, sql: str, columns: Sequence[Column], values: Sequence[object]) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        """See `Connection.stream`."""
        with self._working():
            batches = self._connection.sql(sql, params=list(values)).to_arrow_reader(_VECTORS)
            batch = next(batches, None)
        while batch is not None:
            yield batch
            with self._working():
                batch = next(batches, None)

    def close(self) -> None:
        """See `Connection.close`."""
        self._connection.close()

    def _opened(self, path: Path) -> duckdb.DuckDBPyConnection:
        """Opens the file, for writing if that may be: a process cannot open one both ways, and may write to it, too."""
        try:
            return open_duckdb(path, self._shown, SourceError, read_only=not os.access(path, os.W_OK))
        except duckdb.Error as error:
            raise self._told(error) from None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            raise self._told(error) from None

    @contextmanager
    def _working(self) -> Iterator[None]:
        with patience(self._shown, self._connection.interrupt), self._errors():
            yield

    def _told(self, error: duckdb.Error) -> SourceError:
        return SourceError(f"{self._shown}: {' '.join(str(error).split())}")


_KEY = """
SELECT constraint_column_names FROM duckdb_constraints()
WHERE constraint_type = 'PRIMARY KEY' AND lower(schema_name) = lower($1) AND lower(table_name) = lower($2)
"""


def _column(name: str, kind: DuckDBPyType, value: str = "") -> Column:
    """How a column is read; a field of a struct is a column, whose value is `value`."""
    column, shown = value or quoted(name), str(kind)
    text, typed = f"CAST({column} AS VARCHAR)", f"CAST({{}} AS {shown})"
    if kind.id == "struct" and all(field for field, _ in kind.children):
        return _struct(name, kind, column)
    if kind.id in {"list", "array", "map"}:
        misfit = _NOT_FINITE.format(f"to_json({column})") if "DOUBLE" in shown or "FLOAT" in shown else ""
        fits = f"{column} IS NOT NULL" + (f" AND NOT {misfit}" if misfit else "")
        return Column(name, "JSON", f"CASE WHEN {fits} THEN to_json({column}) END", misfit, text, typed=typed)
    if kind.id == "date" or kind.id.startswith("timestamp"):
        finite = f"CASE WHEN isfinite({column}) THEN {column} END"
        return Column(name, shown, finite, misfit=f"NOT isfinite({column})", text=text, typed=typed)
    if kind.id in {"hugeint", "uhugeint"}:
        exact = f"TRY_CAST({column} AS DECIMAL(38, 0))"
        misfit = f"{exact} IS NULL AND {column} IS NOT NULL"
        return Column(name, "decimal(38,0)", exact, misfit=misfit, text=text, typed=typed)
    if shown in _AS_THEY_ARE or kind.id == "decimal":
        return Column(name, shown, column, typed=typed)
    return Column(name, "VARCHAR", text, typed=typed)


def _struct(name: str, kind: DuckDBPyType, value: str) -> Column:
    children = [(field, inner) for field, inner in kind.children if isinstance(inner, DuckDBPyType)]
    fields = [_column(field, inner, f"{value}.{quoted(field)}") for field, inner in children]
    packed = ", ".join(f"{quoted(field.name)} := {field.value}" for field in fields)
    return Column(
        name,
        str(kind),
        value=f"CASE WHEN {value} IS NOT NULL THEN struct_pack({packed}) END",
        misfit=" OR ".join(f"({field.misfit})" for field in fields if field.misfit),
        text=f"CAST({value} AS VARCHAR)",
        typed=f"CAST({{}} AS {kind})",
    )
