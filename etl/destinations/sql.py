"""The tables of an SQL database, as rows make and widen them.

One statement text serves every database; where they differ is behind `Database`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, count, groupby
from typing import Any, Protocol

import pyarrow as pa

from errors import DestinationError
from etl.destinations.merge import Merge, Merged
from etl.destinations.names import Dialect, Name
from etl.destinations.scope import bounds, refuse_outside
from etl.destinations.types import Column, fit, keep, narrowed, untyped
from etl.destinations.warehouse import VALID_FROM, Bound, Target
from etl.quoting import literal, quoted

Comments = Mapping[str, str]
NO_COMMENTS: Comments = {}

_numbers = count()


class Database(Protocol):
    """One open connection inside one transaction. Every method raises `DestinationError` where the database refuses.

    Args:
        dialect: Its words.
    """

    dialect: Dialect

    def name(self, table: str) -> Name:
        """The full name of a table as a pipeline file writes it."""
        ...

    def key(self, column: str) -> str:
        """A column's name as the database compares names."""
        ...

    def columns(self, name: Name) -> list[Column]:
        """The table's columns; none if there is no such table."""
        ...

    def is_view(self, name: Name) -> bool:
        """Whether that is a view: the database would not say how many rows went into the tables behind it."""
        ...

    def indexes(self, name: Name) -> Collection[str]:
        """The names of the table's indexes."""
        ...

    def new_column(self, name: str, kind: pa.DataType, *, keyed: bool) -> Column | None:
        """A new column (of a key), for a type that warehouses keep; None if this one does not."""
        ...

    def prepare(self, name: Name) -> None:
        """Before a table is created: creates its schema, and waits for another transaction that creates the table."""
        ...

    def define(self, name: Name, sql: str) -> None:
        """Runs a statement that makes or changes a table."""
        ...

    def lock(self, name: Name) -> None:
        """Keeps other writers (not readers) away from a table until the transaction ends."""
        ...

    def take_turn(self, what: str) -> None:
        """Keeps other transactions that call this with the same text waiting until this one ends."""
        ...

    def run(self, sql: str, values: Sequence[str | int] = ()) -> int:
        """Runs one statement; `?` in it stand for the values. Returns the rows that it changed."""
        ...

    def query(self, sql: str, values: Sequence[str | int] = ()) -> list[tuple[Any, ...]]:
        """The rows of one SELECT."""
        ...

    def insert(self, name: Name, rows: pa.RecordBatch) -> None:
        """Bulk-loads rows of the table's own types; some may still be on their way when it returns."""
        ...

    def inserted(self, name: Name) -> int:
        """How many rows the database took from every `insert` into a table; waits for those on their way."""
        ...

    def leave_newest(self, merge: Merge) -> int:
        """Leaves the stage one row of each key; returns how many it deleted."""
        ...

    def upsert(self, merge: Merge) -> Merged:
        """Updates the rows that changed, inserts those that are new."""
        ...

    def commit(self) -> None:
        """Ends the transaction well."""
        ...

    def close(self) -> None:
        """Ends the transaction, undone unless committed, and the connection."""
        ...


class Table:
    """A table's columns: those that it has, and those that rows bring.

    Args:
        database: Where it is.
        target: What is written into it.
    """

    def __init__(self, database: Database, target: Target) -> None:
        self.database, self.target = database, target
        self.name = database.name(target.table)
        self.exists = self._made = False
        self._has: set[str] = set()
        self._seen: dict[str, str] = {}
        self._columns: dict[str, Column] = {}
        self._look()
        if self.exists and database.is_view(self.name):
            raise DestinationError(
                f"{target.table} is a view, and rows are loaded into tables",
                hint="name the table behind it, or another one, which is then made",
            )

    def fit(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows in the table's own types and names. Columns of nothing but NULLs that it lacks are left out."""
        rows = keep(self.target.table, rows)
        self._check_names(rows.schema.names)
        self._seen |= {self.database.key(name): name for name in rows.schema.names}
        for field in rows.schema:
            if self.database.key(field.name) not in self._columns and not pa.types.is_null(field.type):
                self._columns[self.database.key(field.name)] = self._new(field)
        known = [name for name in rows.schema.names if self.database.key(name) in self._columns]
        if known:
            self._check_key(rows)
        elif rows.num_rows:
            raise untyped(self.target.table, rows)
        fitted = fit(self.target.table, rows.select(known), {name: self.column(name) for name in known})
        if fitted.num_rows and self.target.scope:
            refuse_outside(self.target.table, fitted, self.column(self.target.scope.column), self.target.scope)
        return fitted

    def fit_keys(self, keys: pa.RecordBatch) -> pa.RecordBatch | None:
        """Keys alone, in the table's own types and names; None if neither the table nor rows have had their columns."""
        if any(self.database.key(name) not in self._columns for name in keys.schema.names):
            return None
        kept = keep(self.target.table, keys)
        columns = {name: self.column(name) for name in keys.schema.names}
        named = zip(kept.schema.names, kept.columns, strict=True)
        narrow = [narrowed(array, columns[name].type) for name, array in named]
        return fit(self.target.table, pa.record_batch(narrow, names=kept.schema.names), columns)

    def add(self, name: str, kind: pa.DataType) -> None:
        """Gives the table a column, if it lacks it, with the next `make`."""
        if self.database.key(name) not in self._columns:
            self._columns[self.database.key(name)] = self._new(pa.field(name, kind))

    def column(self, name: str) -> Column:
        """The column of that name, as the database compares names."""
        column = self._columns.get(self.database.key(name))
        if column is None:
            raise DestinationError(
                f"{self.target.table}: the table has no column {name}",
                hint=f"it has: {', '.join(column.name for column in self._columns.values())}",
            )
        return column

    @property
    def scope(self) -> str:
        """What SQL says behind WHERE of the rows that the target is about; nothing if it is about all of them."""
        scope = self.target.scope
        if scope is None:
            return ""
        column = self.column(scope.column)
        name = f"{quoted(column.name)} {column.order}"
        if scope.values:
            return f"{name} IN {self.constant(column, scope.values)}"
        low = [f"{name} >= {self.constant(column, [scope.low])}"] if scope.low is not None else []
        high = [f"{name} < {self.constant(column, [scope.high])}"] if scope.high is not None else []
        return " AND ".join([*low, *high])

    def constant(self, column: Column, values: Sequence[Bound]) -> str:
        """Values as a subquery: they go in as rows do, so that they are what rows of the same values are."""
        name = temporary("constant")
        create(self.database, name, [column])
        self.database.insert(name, pa.record_batch([bounds(self.target.table, column, values)], names=[column.name]))
        return f"(SELECT {quoted(column.name)} FROM {name.sql})"

    def make(self) -> None:
        """Creates or widens the table so that it has every column that rows brought."""
        if not self.exists:
            self.database.prepare(self.name)
            self._look()
        new = [column for key, column in self._columns.items() if key not in self._has]
        if self.exists:
            widen(self.database, self.name, new, self.target.comments)
        else:
            key = [self.column(name).name for name in self._primary_key]
            create(self.database, self.name, new, key, self.target.comments)
        if new or not self._made:
            self._make_indexes()
        self.exists = self._made = True
        self._has = set(self._columns)

    def check_named(self) -> None:
        """Lets a load pass that brought, or a table that has, every column that `indexes` and `comments` name."""
        there = self._seen | {self.database.key(column.name): column.name for column in self._columns.values()}
        for name in [*chain.from_iterable(self.target.indexes), *filter(None, self.target.comments)]:
            if there and self.database.key(name) not in there:
                raise DestinationError(
                    f"{self.target.table}: there is no column {name}, which `indexes` or `comments` names",
                    hint=f"there are: {', '.join(there.values())}",
                )

    def has(self, name: str) -> bool:
        """Whether the table has the column already."""
        return self.database.key(name) in self._has

    @property
    def _primary_key(self) -> list[str]:
        return [*self.target.key, *([VALID_FROM] if self.target.history else [])]

    def _make_indexes(self) -> None:
        """Makes those that are missing, of columns that have a type."""
        there = self.database.indexes(self.name) if self.target.indexes else ()
        for names in self.target.indexes:
            index = _index_name(self.name.parts[-1], names)
            if index not in there and all(self.database.key(name) in self._columns for name in names):
                columns = ", ".join(f"{quoted(c.name)}{c.index}" for c in map(self.column, names))
                self.database.define(self.name, f"CREATE INDEX {quoted(index)} ON {self.name.sql} ({columns})")

    def _look(self) -> None:
        found = {self.database.key(column.name): column for column in self.database.columns(self.name)}
        self.exists = bool(found)
        self._has = set(found)
        self._columns = found | self._columns

    def _new(self, field: pa.Field) -> Column:
        keyed = self.database.key(field.name) in map(self.database.key, self.target.key)
        column = self.database.new_column(field.name, field.type, keyed=keyed)
        if column is None:
            raise DestinationError(
                f"{self.target.table}: column {field.name} has the type {field.type}, which this database cannot keep",
                hint=f"convert it: `convert: {{{field.name}: string}}`",
            )
        return column

    def _check_names(self, names: Sequence[str]) -> None:
        for key, same in groupby(sorted(names, key=self.database.key), key=self.database.key):
            if len(spellings := list(same)) > 1:
                raise DestinationError(
                    f"{self.target.table}: {' and '.join(spellings)} are one column here",
                    hint=f"rename one of them: `map: {{{spellings[0]}: {key}_2}}`",
                )

    def _check_key(self, rows: pa.RecordBatch) -> None:
        scope = self.target.scope and self.target.scope.column
        for name in filter(None, [*self.target.key, self.target.version, scope]):
            if name not in rows.schema.names:
                naming = "`partitions`" if name == scope else "`key` or `version`"
                raise DestinationError(
                    f"{self.target.table}: the rows have no column {name}, which {naming} names",
                    hint=f"the rows have: {', '.join(rows.schema.names)}",
                )
        for name in self.target.key:
            if rows[name].null_count:
                raise DestinationError(
                    f"{self.target.table}: column {name} of the key is NULL in {rows[name].null_count} rows",
                    hint=f"set such rows aside: `validate: {{{name}: {{required: true}}}}`",
                )


def temporary(what: str) -> Name:
    """The name of a new temporary table; no other has it, however many a transaction makes."""
    return Name([f"_pivotal_{what}_{next(_numbers)}"], temporary=True)


def create(
    database: Database, name: Name, columns: Iterable[Column], key: Sequence[str] = (), comments: Comments = NO_COMMENTS
) -> None:
    """Creates a table."""
    columns = list(columns)
    lines = [_declaration(database, column, comments, required=column.name in key) for column in columns]
    if key:
        lines.append(f"PRIMARY KEY ({', '.join(map(quoted, key))})")
    if name.temporary and database.dialect.counter:
        lines.append(database.dialect.counter)
    temporary = "TEMPORARY " if name.temporary else ""
    options = database.dialect.options + _inline(database, comments.get(""))
    database.define(name, f"CREATE {temporary}TABLE {name.sql} ({', '.join(lines)}){options}")
    _comment(database, name, ["", *(column.name for column in columns)], comments)


def widen(database: Database, name: Name, columns: Iterable[Column], comments: Comments = NO_COMMENTS) -> None:
    """Adds columns to a table."""
    for column in columns:
        declaration = _declaration(database, column, comments)
        database.define(name, f"ALTER TABLE {name.sql} ADD COLUMN {declaration}")
        _comment(database, name, [column.name], comments)


def _declaration(database: Database, column: Column, comments: Comments, *, required: bool = False) -> str:
    null = "NOT NULL" if required else "NULL"
    return f"{quoted(column.name)} {column.declared} {null}{_inline(database, comments.get(column.name))}"


def _inline(database: Database, comment: str | None) -> str:
    return f" COMMENT {literal(comment[:1024])}" if comment and database.dialect.comments == "inline" else ""


def _comment(database: Database, name: Name, things: Sequence[str], comments: Comments) -> None:
    """Says what a table ("") and its columns are, where the database has a statement for it."""
    for thing in things if database.dialect.comments == "statement" else ():
        if comment := comments.get(thing):
            what = f"COLUMN {name.sql}.{quoted(thing)}" if thing else f"TABLE {name.sql}"
            database.define(name, f"COMMENT ON {what} IS {literal(comment)}")


def _index_name(table: str, columns: Sequence[str]) -> str:
    """A name that the same index always has, and that is as long as it may be."""
    name = "_".join([table, *columns, "idx"])
    return name if len(name.encode()) <= 60 else f"{table[:12]}_{hashlib.sha256(name.encode()).hexdigest()[:16]}_idx"


def update_then_insert(database: Database, merge: Merge) -> Merged:
    """`Database.upsert` for a database that has no one statement for it."""
    there = count_there(database, merge)
    updated = database.run(merge.update_changed) if merge.changing else 0
    return Merged(there, database.run(merge.insert_new), updated)


def count_there(database: Database, merge: Merge) -> int:
    """How many of the staged rows the table has; those that it has twice count twice."""
    return int(database.query(merge.count_matches)[0][0])
