"""Tables and queries of databases: one consistent snapshot, streamed in Arrow batches, every value exact.

ADBC reads PostgreSQL and SQLite, DuckDB reads its own files, SQLAlchemy reads all others. A value that its column's
type cannot hold (NaN in a decimal, an infinite timestamp, text in an integer column) sends its row to the quarantine.

Incremental: the run reads what the snapshot has from `cursor - lag` on, and the rows whose cursor is NULL, every time:
nothing tells whether those are new.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from difflib import get_close_matches
from textwrap import shorten
from typing import Protocol

import pyarrow as pa

from errors import SourceError
from etl.embedded import database_file
from etl.incremental import Edge, earlier, is_number, start_text
from etl.pipeline import DatabaseSource
from etl.sources.rows import gathered, without_refused
from etl.stream import Batch, Origin, State
from etl.variables import resolve

REFUSED = "__pivotal_refused"
"""Column that tells which values do not fit: NULL, or a JSON object {place of the column: the value as text}."""

EDGE = "__pivotal_edge"
"""Column that tells whether a row is at the cursor's edge: 1 or 0."""

_FILES = {"sqlite", "duckdb"}
_SHOWN = 200  # characters of a query that tell where a row comes from
_NO_CURSOR = {"infinity", "-infinity", "nan"}

Finish = Callable[[pa.Array], tuple[pa.Array, Mapping[int, str]]]
"""What Arrow does to a column as it was read: the column, and the values that it cannot hold (place -> text)."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table or query, and how it is read exactly.

    Args:
        name: Its name.
        kind: The type it arrives in, for people.
        value: SQL that gives its value, NULL where the type cannot hold it.
        misfit: SQL that is true for such a value; empty if SQL need not look.
        text: SQL that gives it as text, exactly.
        finish: What is left to do in Arrow.
        compared: SQL that gives what the cursor is compared by; NULL for values out of order.
        typed: SQL that makes a text (`{}`) comparable with the column.
        nullable: Whether it may be NULL.
        astray: SQL that is true for values which are less than every text though they may be new.
    """

    name: str
    kind: str
    value: str
    misfit: str = ""
    text: str = ""
    finish: Finish | None = None
    compared: str = ""
    typed: str = "{}"
    nullable: bool = True
    astray: str = ""


class Connection(Protocol):
    """A connection to a database, inside one snapshot. Every method raises `SourceError` where the database refuses.

    Args:
        json_object: SQL that makes an object, as text, of names and values (`{}`).
        text: SQL that turns a value (`{}`) into text, exactly.
        bounded: Whether a later statement may see rows that an earlier one did not, so reading needs an upper bound.
    """

    json_object: str
    text: str
    bounded: bool

    def relation(self, table: str) -> str:
        """The table's name in SQL."""
        ...

    def columns(self, relation: str) -> list[Column]:
        """The columns of a table or `(query) AS alias`."""
        ...

    def key(self, table: str) -> list[str]:
        """The columns of the table's primary key."""
        ...

    def quoted(self, name: str) -> str:
        """A name as an identifier."""
        ...

    def parameter(self, number: int) -> str:
        """SQL of the parameter with this number, from 0."""
        ...

    def bind(self, column: Column, value: str) -> object:
        """A text as the value of a parameter that is compared with the column."""
        ...

    def first(self, sql: str, values: Sequence[object]) -> str | None:
        """The first value of the first row, which is text."""
        ...

    def stream(self, sql: str, columns: Sequence[Column], values: Sequence[object]) -> Iterator[pa.RecordBatch]:
        """The rows of a SELECT."""
        ...

    def close(self) -> None:
        """Ends the snapshot and the connection; also while it streams."""
        ...


class Database:
    """A table or a query as a source.

    Args:
        source: What the pipeline file says.
        once: Whether rows at the cursor's edge must be left out if the last run read them.
    """

    def __init__(self, source: DatabaseSource, *, once: bool) -> None:
        self._source = source
        self._once = once
        self.label = f"table {source.table}" if source.table else "query"

    def columns(self) -> list[str] | None:
        """The columns' names, if the database is a file that is there.

        Raises:
            SourceError: The table, a column or the query is wrong.
        """
        url = resolve(self._source.connection)
        if _kind(url) not in _FILES or not database_file(url, SourceError).is_file():
            return None
        with closing(_connect(url)) as connection:
            return [column.name for column in _Plan(self._source, connection).columns]

    def open(self, state: State | None) -> _Reading:
        """Connects, takes the snapshot and fixes the upper bound.

        Raises:
            SourceError: The database cannot be reached, or the table, a column or the query is wrong.
        """
        connection = _connect(resolve(self._source.connection))
        try:
            return _Reading(_Plan(self._source, connection), connection, state, once=self._once)
        except BaseException:
            connection.close()
            raise


def _kind(url: str) -> str:
    return url.partition(":")[0].partition("+")[0]


def _connect(url: str) -> Connection:
    match _kind(url):
        case "sqlite":
            from etl.sources.sqlite import SQLite

            return SQLite(url)
        case "duckdb":
            from etl.sources.duckdb import DuckDB

            return DuckDB(url)
        case "postgresql" | "postgres":
            from etl.sources.postgresql import PostgreSQL

            return PostgreSQL(url)
    from etl.sources.sqlalchemy import SqlAlchemy

    return SqlAlchemy(url)


class _Plan:
    """What is read: the relation, its columns, its key; checked against the database."""

    def __init__(self, source: DatabaseSource, connection: Connection) -> None:
        self.incremental = source.incremental
        self.name = source.table or "query"
        self.relation = (
            connection.relation(source.table) if source.table else f"({(source.query or '').rstrip(' ;')}\n) AS query"
        )
        found = {column.name: column for column in connection.columns(self.relation)}
        self.columns = [_named(found, name, self.name) for name in source.columns or found]
        self.cursor = _named(found, source.incremental.cursor, self.name) if source.incremental else None
        key = connection.key(source.table) if source.table else []
        self.key = [name for name in key if name in found]
        chosen = {column.name for column in self.columns}
        self.read = [*self.columns, *(found[name] for name in self.key if name not in chosen)]
        self.source = {"table": source.table} if source.table else {"query": shorten(source.query or "", _SHOWN)}

    def origin(self, rows: pa.RecordBatch, before: int) -> Callable[[int], Origin]:
        """Where a row came from: the table and its key, or its number in the result."""

        def told(index: int) -> Origin:
            if not self.key:
                return {**self.source, "row": before + index + 1}
            values = {name: rows.column(name)[index].as_py() for name in self.key}
            return {**self.source, **{n: v if isinstance(v, int) else str(v) for n, v in values.items()}}

        return told


def _named(found: Mapping[str, Column], name: str, where: str) -> Column:
    if name in found:
        return found[name]
    raise SourceError(f"{where} has no column {name!r}", hint=nearest(name, list(found), "it has"))


def nearest(name: str, names: Sequence[str], there: str) -> str:
    """A hint: the names that are like the wrong one, else those that there are."""
    last = {other.rpartition(".")[2]: other for other in names}  # a table's schema is easily forgotten
    close = get_close_matches(name, names, 3) or [
        last[other] for other in get_close_matches(name.rpartition(".")[2], list(last), 3)
    ]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"{there}: {', '.join(names[:20]) or 'none'}{', ...' if len(names) > 20 else ''}"


class _Statement:
    """A SELECT in the making, with the values of its parameters."""

    def __init__(self, connection: Connection) -> None:
        self.values: list[object] = []
        self._connection = connection

    def value(self, column: Column, text: str) -> str:
        """SQL that gives a text as a value comparable with the column."""
        self.values.append(self._connection.bind(column, text))
        return column.typed.format(self._connection.parameter(len(self.values) - 1))


class _Reading:
    """One reading of a database (`etl.stream.Extraction`)."""

    def __init__(self, plan: _Plan, connection: Connection, state: State | None, *, once: bool) -> None:
        self.bytes_read = 0
        self._plan = plan
        self._connection = connection
        self._edge = Edge(state) if once and plan.cursor else None
        before = (state or {}).get("cursor")
        self._before = before if isinstance(before, str) else None
        self._cursor = (self._newest() if plan.cursor else None) or self._before

    def __iter__(self) -> Iterator[Batch]:
        statement = _Statement(self._connection)
        sql = self._select(statement)
        number = 0
        for rows in gathered(self._connection.stream(sql, self._plan.read, statement.values)):
            batch = self._batch(rows, number)
            number += rows.num_rows
            self.bytes_read += rows.nbytes
            yield batch

    def state(self) -> State | None:
        """The newest cursor of the snapshot, and the rows at its edge."""
        if not self._plan.cursor:
            return None
        counts = self._edge.counts(pa.scalar(1)) if self._edge else {}
        return {"cursor": self._cursor, **({"edge": counts} if counts else {})}

    def close(self) -> None:
        """Ends the snapshot."""
        self._connection.close()

    def _batch(self, rows: pa.RecordBatch, number: int) -> Batch:
        columns, names = self._plan.read, [column.name for column in self._plan.columns]
        refused: dict[int, dict[str, str]] = defaultdict(dict)
        arrays = {}
        for column in columns:
            arrays[column.name], found = column.finish(rows[column.name]) if column.finish else (rows[column.name], {})
            for place, text in found.items():
                refused[place][column.name] = text
        for place, texts in _told(rows):
            refused[place] |= {columns[int(number)].name: text for number, text in texts.items() if text is not None}
        if self._edge:
            arrays[EDGE] = rows[EDGE]
        read = pa.record_batch(list(arrays.values()), names=list(arrays))
        kinds = {column.name: column.kind for column in columns}
        batch = without_refused(Batch(read, self._plan.origin(read, number)), refused, kinds, names)
        shown = replace(batch, rows=batch.rows.select(names))
        return self._edge.sift(shown, batch.rows[EDGE], pa.scalar(1)) if self._edge else shown

    def _select(self, statement: _Statement) -> str:
        """The SELECT of the rows that are new, or may be."""
        plan, quoted = self._plan, self._connection.quoted
        shown = [f"{column.value} AS {quoted(column.name)}" for column in plan.read]
        if misfits := [(place, column) for place, column in enumerate(plan.read) if column.misfit]:
            any_of = " OR ".join(f"({column.misfit})" for _, column in misfits)
            pairs = ", ".join(
                f"'{place}', CASE WHEN {column.misfit} THEN {column.text} END" for place, column in misfits
            )
            told = self._connection.json_object.format(pairs)
            shown.append(f"CASE WHEN {any_of} THEN {told} END AS {quoted(REFUSED)}")
        if self._edge and plan.cursor:
            shown.append(f"CASE WHEN {self._at_edge(plan.cursor, statement)} THEN 1 ELSE 0 END AS {quoted(EDGE)}")
        return f"SELECT {', '.join(shown)} FROM {plan.relation}{self._where(statement)}"

    def _at_edge(self, cursor: Column, statement: _Statement) -> str:
        name = self._connection.quoted(cursor.name)
        if self._cursor is None:
            return "1 = 1"
        assert self._plan.incremental  # noqa: S101  (it gave the cursor)
        least = statement.value(cursor, earlier(self._cursor, self._plan.incremental.lag))
        return f"{name} >= {least} OR {name} IS NULL"

    def _where(self, statement: _Statement) -> str:
        cursor, incremental = self._plan.cursor, self._plan.incremental
        if not cursor or not incremental:
            return ""
        name = self._connection.quoted(cursor.name)
        bounds = []
        if incremental.start is not None:
            bounds.append(f"{name} >= {statement.value(cursor, start_text(incremental.start))}")
        if self._before is not None:
            bounds.append(f"{name} >= {statement.value(cursor, earlier(self._before, incremental.lag))}")
        if self._connection.bounded and self._cursor is not None:
            bounds.append(f"{name} <= {statement.value(cursor, self._cursor)}")
        if not bounds:
            return ""
        always = [f"{name} IS NULL"] if cursor.nullable else []
        astray = [cursor.astray] if cursor.astray and not is_number(self._before or "") else []
        return " WHERE " + " OR ".join([f"({' AND '.join(bounds)})", *always, *astray])

    def _newest(self) -> str | None:
        """The cursor's maximum in the snapshot, if there is a newer one than the last run's."""
        cursor = self._plan.cursor
        assert cursor  # noqa: S101  (asked for with a cursor only)
        statement = _Statement(self._connection)
        newer = ""
        if self._before is not None:
            newer = f" WHERE {self._connection.quoted(cursor.name)} >= {statement.value(cursor, self._before)}"
        compared = cursor.compared or self._connection.quoted(cursor.name)
        newest = self._connection.text.format(f"max({compared})")
        found = self._connection.first(f"SELECT {newest} FROM {self._plan.relation}{newer}", statement.values)
        if found is not None and found.lower() in _NO_CURSOR:
            raise SourceError(
                f"{self._plan.name}: the cursor {cursor.name} has the value {found}, after which nothing is newer",
                hint="mend that row, or leave it out with a `query`",
            )
        return found


def _told(rows: pa.RecordBatch) -> Iterator[tuple[int, dict[str, str | None]]]:
    """The rows for which SQL found values that do not fit."""
    if REFUSED in rows.schema.names and rows[REFUSED].null_count < rows.num_rows:
        for place in pa.compute.indices_nonzero(rows[REFUSED].is_valid()).to_pylist():
            yield place, json.loads(rows[REFUSED][place].as_py())
