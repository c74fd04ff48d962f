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
from contextlib import ExitStack, closing
from dataclasses import replace
from textwrap import shorten

import pyarrow as pa

from errors import SourceError
from etl.connections import kind_of
from etl.embedded import database_file
from etl.incremental import Edge, earlier, is_number, start_text
from etl.partitions import Partition
from etl.pipeline import DatabaseSource
from etl.sources.conditions import Condition, Statement, check_values, conditions
from etl.sources.connection import EDGE, REFUSED, Column, Connection, nearest
from etl.sources.parallel import Part, in_turn, split
from etl.sources.rows import gathered, without_refused
from etl.stream import Batch, Origin, State
from etl.variables import resolve

_FILES = {"sqlite", "duckdb"}
_SHOWN = 200  # characters of a query that tell where a row comes from
_NO_CURSOR = {"infinity", "-infinity", "nan"}


class Database:
    """A table or a query as a source.

    Args:
        source: What the pipeline file says.
        once: Whether rows at the cursor's edge must be left out if the last run read them.
        partition: The part that is read; everything if not given.
    """

    def __init__(self, source: DatabaseSource, *, once: bool, partition: Partition | None = None) -> None:
        self._source = source
        self._partition = partition
        self._once = once
        self.label = f"table {source.table}" if source.table else "query"

    def columns(self) -> list[str] | None:
        """The columns' names, if the database is a file that is there.

        Raises:
            SourceError: The table, a column or the query is wrong.
        """
        url = resolve(self._source.connection)
        if kind_of(url, SourceError) not in _FILES or not database_file(url, SourceError).is_file():
            return None
        with closing(_connect(url)) as connection:
            return [column.name for column in _Plan(self._source, connection, self._partition).columns]

    def open(self, state: State | None) -> _Reading:
        """Connects, takes the snapshot and fixes the upper bound.

        Raises:
            SourceError: The database cannot be reached, or the table, a column or the query is wrong.
        """
        with ExitStack() as opened:
            connection = opened.enter_context(closing(_connect(resolve(self._source.connection))))
            plan = _Plan(self._source, connection, self._partition)
            parts = [Part(connection)]
            if self._source.parallel > 1 and not (state or {}).get("cursor"):  # what is new is little
                parts = split(connection, plan.relation, self._source.parallel)
                for part in parts[1:]:
                    opened.enter_context(closing(part.connection))
            reading = _Reading(plan, parts, state, once=self._once)
            opened.pop_all()
        return reading


def _connect(url: str) -> Connection:
    match kind_of(url, SourceError):
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
    """What is read: the relation, its columns, its key, which rows; checked against the database."""

    def __init__(self, source: DatabaseSource, connection: Connection, partition: Partition | None) -> None:
        self.incremental = source.incremental
        self.name = source.table or "query"
        self.relation = (
            connection.relation(source.table) if source.table else f"({(source.query or '').rstrip(' ;')}\n) AS query"
        )
        found = {column.name: column for column in _columns(source, connection, self.relation)}
        self.columns = [_named(found, name, self.name) for name in source.columns or found]
        self.cursor = _named(found, source.incremental.cursor, self.name) if source.incremental else None
        self.conditions = [(_named(found, each.column, self.name), each) for each in conditions(source.filters)]
        for column, condition in self.conditions:
            check_values(connection, column, condition, "`filters`")
        if partition:
            column = _named(found, partition.column, self.name)
            part = Condition(column.name, *partition.asked(column.kind))
            check_values(connection, column, part, "`partitions`")
            self.conditions.append((column, part))
        key = connection.key(source.table) if source.table else []
        self.key = [name for name in key if name in found]
        chosen = {column.name for column in self.columns}
        self.read = [*self.columns, *(found[name] for name in self.key if name not in chosen)]
        self.source = {"table": source.table} if source.table else {"query": shorten(source.query or "", _SHOWN)}

    def origin(self, rows: pa.RecordBatch, before: int, part: Part) -> Callable[[int], Origin]:
        """Where a row came from: the table and its key, or its number in the result."""
        key = {name: rows.column(name) for name in self.key}

        def told(index: int) -> Origin:
            if not key:
                return {**self.source, **({"part": part.name} if part.name else {}), "row": before + index + 1}
            values = {name: column[index].as_py() for name, column in key.items()}
            return {**self.source, **{n: v if isinstance(v, int) else str(v) for n, v in values.items()}}

        return told


def _columns(source: DatabaseSource, connection: Connection, relation: str) -> list[Column]:
    try:
        return connection.columns(relation)
    except SourceError as error:
        if source.query and not error.hint and not error.retryable:
            error.hint = "`query` takes one SELECT, in the database's own SQL"
        raise


def _named(found: Mapping[str, Column], name: str, where: str) -> Column:
    if name in found:
        return found[name]
    raise SourceError(f"{where} has no column {name!r}", hint=nearest(name, list(found), "it has"))


class _Reading:
    """One reading of a database (`etl.stream.Extraction`)."""

    def __init__(self, plan: _Plan, parts: Sequence[Part], state: State | None, *, once: bool) -> None:
        self.bytes_read = 0
        self._plan = plan
        self._parts = parts
        self._connection = parts[0].connection
        self._edge = Edge(state) if once and plan.cursor else None
        before = (state or {}).get("cursor")
        self._before = before if isinstance(before, str) else None
        self._cursor = (self._newest() if plan.cursor else None) or self._before

    def __iter__(self) -> Iterator[Batch]:
        for rows, number, part in in_turn([self._stream(part) for part in self._parts]):
            self.bytes_read += rows.nbytes
            yield self._batch(rows, number, part)

    def state(self) -> State | None:
        """The newest cursor of the snapshot, and the rows at its edge."""
        if not self._plan.cursor:
            return None
        counts = self._edge.counts(pa.scalar(1)) if self._edge else {}
        return {"cursor": self._cursor, **({"edge": counts} if counts else {})}

    def close(self) -> None:
        """Ends the snapshot."""
        with ExitStack() as opened:
            for part in self._parts:
                opened.callback(part.connection.close)

    def _stream(self, part: Part) -> Iterator[tuple[pa.RecordBatch, int, Part]]:
        """The rows of a part, each batch with how many rows came before it."""
        statement = Statement(part.connection)
        sql = self._select(statement, part)
        number = 0
        for rows in gathered(part.connection.stream(sql, self._plan.read, statement.values)):
            yield rows, number, part
            number += rows.num_rows

    def _batch(self, rows: pa.RecordBatch, number: int, part: Part) -> Batch:
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
        batch = without_refused(Batch(read, self._plan.origin(read, number, part)), refused, kinds, names)
        shown = replace(batch, rows=batch.rows.select(names))
        return self._edge.sift(shown, batch.rows[EDGE], pa.scalar(1)) if self._edge else shown

    def _select(self, statement: Statement, part: Part) -> str:
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
        which = [*self._conditions(statement), *self._new(statement), *([part.condition] if part.condition else [])]
        return f"SELECT {', '.join(shown)} FROM {plan.relation}{_all_of(which)}"

    def _at_edge(self, cursor: Column, statement: Statement) -> str:
        name = self._connection.quoted(cursor.name)
        if self._cursor is None:
            return "1 = 1"
        assert self._plan.incremental  # noqa: S101  (it gave the cursor)
        least = statement.value(cursor, earlier(self._cursor, self._plan.incremental.lag))
        return f"{name} >= {least} OR {name} IS NULL"

    def _conditions(self, statement: Statement) -> list[str]:
        return [statement.condition(column, condition) for column, condition in self._plan.conditions]

    def _new(self, statement: Statement) -> list[str]:
        """What is true for rows that are new by their cursor, or may be."""
        cursor, incremental = self._plan.cursor, self._plan.incremental
        if not cursor or not incremental:
            return []
        name = self._connection.quoted(cursor.name)
        bounds = []
        if incremental.start is not None:
            bounds.append(f"{name} >= {statement.value(cursor, start_text(incremental.start))}")
        if self._before is not None:
            bounds.append(f"{name} >= {statement.value(cursor, earlier(self._before, incremental.lag))}")
        if self._connection.bounded and self._cursor is not None:
            bounds.append(f"{name} <= {statement.value(cursor, self._cursor)}")
        if not bounds:
            return []
        always = [f"{name} IS NULL"] if cursor.nullable else []
        astray = [cursor.astray] if cursor.astray and not is_number(self._before or "") else []
        any_of = " OR ".join([f"({' AND '.join(bounds)})", *always, *astray])
        return [f"({any_of})"]

    def _newest(self) -> str | None:
        """The cursor's maximum in the snapshot, if there is a newer one than the last run's."""
        cursor = self._plan.cursor
        assert cursor  # noqa: S101  (asked for with a cursor only)
        statement = Statement(self._connection)
        which = self._conditions(statement)
        if self._before is not None:
            which.append(f"{self._connection.quoted(cursor.name)} >= {statement.value(cursor, self._before)}")
        compared = cursor.compared or self._connection.quoted(cursor.name)
        newest = self._connection.text.format(f"max({compared})")
        found = self._connection.first(f"SELECT {newest} FROM {self._plan.relation}{_all_of(which)}", statement.values)
        if found is not None and found.lower() in _NO_CURSOR:
            raise SourceError(
                f"{self._plan.name}: the cursor {cursor.name} has the value {found}, after which nothing is newer",
                hint="mend that row, or leave it out with `filters`",
            )
        return found


def _all_of(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _told(rows: pa.RecordBatch) -> Iterator[tuple[int, dict[str, str | None]]]:
    """The rows for which SQL found values that do not fit."""
    if REFUSED in rows.schema.names and rows[REFUSED].null_count < rows.num_rows:
        for place in pa.compute.indices_nonzero(rows[REFUSED].is_valid()).to_pylist():
            yield place, json.loads(rows[REFUSED][place].as_py())
