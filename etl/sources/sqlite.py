"""SQLite files, read by ADBC.

SQLite checks no types: what a column declares is only a preference, and each value has a type of its own. A column is
read as what it declares:

- INT...: integer. BOOL...: boolean (0 and 1). REAL, FLOAT, DOUBLE: double. BLOB: bytes.
- DECIMAL(p,s), NUMERIC(p,s): decimal. SQLite keeps such values as integers or doubles; one that is no number with
  `s` digits after the point (1.005 in DECIMAL(12,2)), or a double of more than 15 digits, is refused, not rounded.
- Everything else, dates and times among it: text, exactly as it stands there; numbers as SQLite writes them.
- Nothing (an expression in a query): by the values that are there; integers, doubles, text or bytes, and text if
  they are mixed.

A value of another type sends its row to the quarantine.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

import pyarrow as pa

from errors import SourceError
from etl.incremental import is_number
from etl.quoting import literal, quoted
from etl.sources.adbc import Adbc
from etl.sources.connection import EDGE, REFUSED, Column, Finish, nearest
from etl.sources.disk import existing_database_file
from settings import get_settings

_BATCH_ROWS = 1024  # ADBC counts rows, not bytes: few, so that rows of 100 KB still make 100 MB only
_EXACT = 2**53  # up to here, every integer is a double

_DIGITS = 15  # up to here, every decimal is told from its neighbours by its double

_TEXT = """CASE typeof({0}) WHEN 'text' THEN {0} WHEN 'integer' THEN CAST({0} AS TEXT)
    WHEN 'null' THEN NULL ELSE quote({0}) END"""
_FITS = {
    "integer": "typeof({0}) IN ('integer', 'null')",
    "boolean": "typeof({0}) = 'integer' AND {0} IN (0, 1) OR {0} IS NULL",
    "double": "typeof({0}) IN ('real', 'null') OR typeof({0}) = 'integer' AND "
    f"{{0}} BETWEEN -{_EXACT} AND {_EXACT}",
    "bytes": "typeof({0}) IN ('blob', 'null')",
    "text": "typeof({0}) <> 'blob'",
}
_TYPED = {"integer": "CAST({} AS NUMERIC)", "boolean": "CAST({} AS NUMERIC)", "double": "CAST({} AS REAL)"}
_BOOLEANS = {"false": "0", "true": "1"}
_DECIMAL = re.compile(r"(?:DEC|NUM)\w*\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)", re.IGNORECASE)
_DECLARED = {"INT": "integer", "CHAR": "text", "CLOB": "text", "TEXT": "text", "BLOB": "bytes", "REAL": "double",
             "FLOA": "double", "DOUB": "double", "BOOL": "boolean"}  # fmt: skip


class SQLite:
    """`Connection` to an SQLite file.

    Args:
        url: `sqlite:///file`.

    Raises:
        SourceError: There is no such file, or it is no SQLite database.
    """

    json_object = "json_object({})"
    text = _TEXT
    bounded = False

    def __init__(self, url: str) -> None:
        from adbc_driver_sqlite import dbapi

        self._shown = url
        address = f"file:{quote(str(existing_database_file(url)))}?mode=ro"
        patience = get_settings().lock_timeout
        self._adbc = Adbc("", lambda: dbapi.connect(address, autocommit=False), self._explain)
        self._schema = sqlite3.connect(address, uri=True, timeout=patience, check_same_thread=False)
        self._adbc.rows(f"PRAGMA busy_timeout = {round(patience * 1000)}")

    def relation(self, table: str) -> str:
        """See `Connection.relation`."""
        found = [row[0] for row in self._look("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
        name = table.removeprefix("main.")
        if name.lower() not in {other.lower() for other in found}:
            raise SourceError(f"{self._shown}: there is no table {table!r}", hint=nearest(name, found, "it has"))
        return quoted(name)

    def columns(self, relation: str) -> list[Column]:
        """See `Connection.columns`. A view of the query tells what its columns were declared as."""
        self._look(f"CREATE TEMP VIEW pivotal_columns AS SELECT * FROM {relation}")
        found = self._look("SELECT name, type FROM pragma_table_info('pivotal_columns')")
        kinds = {name: _declared(declared) for name, declared in found}
        kinds |= {name: self._looked_at(relation, name) for name, kind in kinds.items() if not kind}
        return [_column(name, kind) for name, kind in kinds.items()]

    def key(self, table: str) -> list[str]:
        """See `Connection.key`."""
        info = f"pragma_table_info({literal(table.removeprefix('main.'))})"
        return [name for (name,) in self._look(f"SELECT name FROM {info} WHERE pk > 0 ORDER BY pk")]

    def quoted(self, name: str) -> str:
        """See `Connection.quoted`."""
        return quoted(name)

    def parameter(self, number: int) -> str:
        """See `Connection.parameter`."""
        return f"?{number + 1}"

    def bind(self, column: Column, value: str) -> object:
        """See `Connection.bind`. `Column.typed` does it, but would make a number of any text."""
        if column.kind == "boolean" and value in _BOOLEANS:
            return _BOOLEANS[value]
        if column.kind not in {"text", "bytes"} and not is_number(value):
            raise SourceError(
                f"{self._shown}: {value!r} is no number, but the column {column.name} is {column.kind}",
                hint="a cursor is mended by `pivotal state set NAME cursor=...`, or by `start` in `incremental`",
            )
        return value

    def first(self, sql: str, values: Sequence[object]) -> str | None:
        """See `Connection.first`."""
        found = self._adbc.rows(sql, values)[0][0]
        return None if found is None else str(found)

    def stream(self, sql: str, columns: Sequence[Column], values: Sequence[object]) -> Iterator[pa.RecordBatch]:
        """See `Connection.stream`. ADBC takes the types from the first rows, so an example of each goes ahead."""
        examples = {column.name: _example(column.kind) for column in columns}
        examples |= {name: value for name, value in ((REFUSED, "''"), (EDGE, "0")) if quoted(name) in sql}
        first = ", ".join(f"{value} AS {quoted(name)}" for name, value in examples.items())
        options = {"adbc.sqlite.query.batch_rows": str(_BATCH_ROWS)}
        batches = self._adbc.stream(f"SELECT {first} UNION ALL {sql}", values, options)
        yield next(batches).slice(1)
        yield from batches

    def close(self) -> None:
        """See `Connection.close`."""
        self._adbc.close()
        self._schema.close()

    def _looked_at(self, relation: str, name: str) -> str:
        """What a column that declares nothing holds."""
        kinds = f"SELECT DISTINCT typeof({quoted(name)}) FROM {relation} WHERE {quoted(name)} IS NOT NULL"
        found = {kind for (kind,) in self._look(kinds)}
        if found <= {"integer", "real"} and "real" in found:
            inexact = f"{quoted(name)} NOT BETWEEN -{_EXACT} AND {_EXACT} AND typeof({quoted(name)}) = 'integer'"
            return "text" if self._look(f"SELECT 1 FROM {relation} WHERE {inexact} LIMIT 1") else "double"
        return {"integer": "integer", "blob": "bytes"}.get("".join(found), "text")

    def _look(self, sql: str) -> list[tuple[str, ...]]:
        try:
            return self._schema.execute(sql).fetchall()
        except sqlite3.Error as error:
            raise self._explain(str(error), None) from None

    def _explain(self, message: str, _: str | None) -> SourceError:
        busy = "locked" in message
        other = "the file is something else: name another one" if "is not a database" in message else None
        hint = "another program holds the file" if busy else other
        return SourceError(f"{self._shown}: {message}", hint=hint, retryable=busy)


def _declared(declared: str) -> str:
    """The kind of a column by what it declares; empty if it declares nothing."""
    if found := _DECIMAL.search(declared):
        precision, scale = int(found[1]), int(found[2] or 0)
        return f"decimal({precision},{scale})" if scale <= precision <= 38 else "text"
    known = (kind for part, kind in _DECLARED.items() if part in declared.upper())
    return next(known, "text" if declared else "")


def _example(kind: str) -> str:
    """A value of the SQLite type in which a column leaves SQLite."""
    if kind.startswith("decimal"):
        return "0.0" if _is_short(kind) else "''"
    return {"integer": "0", "boolean": "0", "double": "0.0", "bytes": "x''"}.get(kind, "''")


def _is_short(decimal: str) -> bool:
    return int(re.findall(r"\d+", decimal)[0]) <= _DIGITS


def _column(name: str, kind: str) -> Column:
    column = quoted(name)
    if kind.startswith("decimal"):
        return _decimal(name, kind)
    fits = _FITS[kind].format(column)
    value = f"CASE WHEN {fits} THEN {column} END"
    return Column(
        name,
        kind,
        value=_TEXT.format(column) if kind == "text" else value,
        misfit=f"NOT ({fits})",
        text=_TEXT.format(column),
        finish={"boolean": _as_boolean, "text": _as_text}.get(kind),
        compared=value,
        typed=_TYPED.get(kind, "{}"),
        astray=f"{column} < ''" if kind == "text" else "",
    )


def _decimal(name: str, kind: str) -> Column:
    """SQLite keeps decimals as integers or doubles, and a double has 15 digits to trust."""
    column = quoted(name)
    precision, scale = map(int, re.findall(r"\d+", kind))
    exact = f"typeof({column}) = 'real' AND CAST(printf('%.{_DIGITS}g', {column}) AS REAL) = {column}"
    number = f"(typeof({column}) = 'integer' OR {exact})"
    small = f"{number} AND abs(CAST({column} AS REAL)) < 1e{precision - scale}"
    digits = (
        f"CASE typeof({column}) WHEN 'integer' THEN CAST({column} AS TEXT) ELSE printf('%!.{scale}f', {column}) END"
    )
    value = f"CAST({column} AS REAL)" if _is_short(kind) else digits
    return Column(
        name,
        kind,
        value=f"CASE WHEN {small} THEN {value} END",
        misfit=f"{column} IS NOT NULL AND NOT ({small} AND round({column}, {scale}) = {column})",
        text=_TEXT.format(column),
        finish=_as_decimal(pa.decimal128(precision, scale)),
        compared=f"CASE WHEN {number} THEN {column} END",
        typed="CAST({} AS NUMERIC)",
    )


def _as_decimal(kind: pa.DataType) -> Finish:
    return lambda values: (values.cast(kind), {})


def _as_text(texts: pa.Array) -> tuple[pa.Array, Mapping[int, str]]:
    """SQLite does not look whether a text is UTF-8."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        raw = texts.cast(pa.binary()).to_pylist()
        found = {place: value for place, value in enumerate(raw) if value is not None and not _is_utf8(value)}
        kept = [None if place in found else value for place, value in enumerate(raw)]
        return pa.array(kept, pa.binary()).cast(texts.type), {n: f"X'{bad.hex().upper()}'" for n, bad in found.items()}
    return texts, {}


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _as_boolean(integers: pa.Array) -> tuple[pa.Array, Mapping[int, str]]:
    return integers.cast(pa.bool_()), {}
