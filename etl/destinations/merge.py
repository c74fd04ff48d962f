"""The statements that merge a temporary table into another by key, in words that every database understands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from etl.destinations.names import Dialect, Name
from etl.destinations.types import Column
from etl.quoting import quoted


class Merged(NamedTuple):
    """What became of the staged rows: each was in the table already, or inserted.

    Args:
        there: The staged rows that the table had, by key.
        inserted: Those that it did not have.
        updated: Those of `there` that were written again.
    """

    there: int
    inserted: int
    updated: int


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge.

    Args:
        table: The table.
        stage: The temporary table; every column of it is in the table.
        columns: The stage's columns.
        key: Those that identify a row; none of them is NULL.
        version: The column that tells which of two rows is newer; without it, the row that was staged last is. NULL is
            the oldest.
        dialect: The database's words.
        current: The column that is true in the one row of a key that counts; None if every row counts.
        kept: Other columns that an update does not write, and that tell nothing about whether a row has changed.
        mark: The column that has a value in rows which count as deleted; None if there is none.
    """

    table: Name
    stage: Name
    columns: Collection[Column]
    key: Sequence[Column]
    version: Column | None
    dialect: Dialect
    current: Column | None = None
    kept: Sequence[Column] = ()
    mark: Column | None = None

    @property
    def changing(self) -> list[Column]:
        """The columns that an update writes."""
        return [column for column in self.columns if column not in self.key and column not in self.kept]

    @property
    def delete_superseded(self) -> str:
        """Leaves the stage one row of each key."""
        row_id, names = self.dialect.row_id, _names(self.key)
        version = _named(self.version) if self.version else ""
        order = f"{version} IS NULL, {version} {self.version.order} DESC, " if self.version else ""
        return f"""
            DELETE FROM {self.stage.sql} WHERE {row_id} IN (
                SELECT id FROM (
                    SELECT {row_id} AS id,
                           row_number() OVER (PARTITION BY {names} ORDER BY {order}{row_id} DESC) AS place
                    FROM {self.stage.sql}
                    WHERE ({names}) IN (SELECT {names} FROM {self.stage.sql} GROUP BY {names} HAVING count(*) > 1)
                ) AS ranked WHERE place > 1
            )"""

    def delete_before(self, gone: Name, before: str) -> str:
        """Deletes the staged rows that came before a tombstone of their key.

        Args:
            gone: The temporary table with the tombstones' keys.
            before: Its column that says how many of the staged rows came before each.
        """
        row_id, names = self.dialect.row_id, [f"k{number}" for number in range(len(self.key))]
        keys = ", ".join(f"{_named(column)} AS {name}" for column, name in zip(self.key, names, strict=True))
        return f"""
            DELETE FROM {self.stage.sql} WHERE {row_id} IN (
                SELECT id FROM (
                    SELECT id, place, max(until) OVER (PARTITION BY {", ".join(names)}) AS latest FROM (
                        SELECT {keys}, {row_id} AS id, row_number() OVER (ORDER BY {row_id}) AS place, NULL AS until
                        FROM {self.stage.sql}
                        UNION ALL SELECT {keys}, NULL, NULL, {quoted(before)} FROM {gone.sql}
                    ) AS together
                ) AS ranked WHERE place <= latest
            )"""

    @property
    def index_stage(self) -> str:
        """Makes an index on the stage, which fails if a key is staged twice."""
        return f"CREATE UNIQUE INDEX ON {self.stage.sql} ({_names(self.key)})"

    @property
    def count_matches(self) -> str:
        """Counts the staged rows that the table has; those that it has twice count twice."""
        return f"SELECT count(*) FROM {self.stage.sql} JOIN {self.table.sql} AS t ON {self._matched}"

    @property
    def update_changed(self) -> str:
        """Updates the rows that are not the same, unless they are newer."""
        return self.update(self.staged_values, self.outdated)

    def update(self, values: Mapping[Column, str], where: str) -> str:
        """Updates rows (`t`) that have a staged one.

        Args:
            values: Column -> what it becomes, in SQL.
            where: Which of them, in SQL.
        """
        if self.dialect.joined_update:
            assignments = ", ".join(f"t.{_named(column)} = {value}" for column, value in values.items())
            return f"""
                UPDATE {self.table.sql} AS t JOIN {self.stage.sql} ON {self._matched}
                SET {assignments} WHERE {where}"""
        assignments = ", ".join(f"{_named(column)} = {value}" for column, value in values.items())
        return f"""
            UPDATE {self.table.sql} AS t SET {assignments} FROM {self.stage.sql}
            WHERE {self._matched} AND {where}"""

    @property
    def delete_matches(self) -> str:
        """Deletes the table's rows that have a staged one."""
        if self.dialect.joined_update:  # without the JOIN, MariaDB would look through the stage for each of them
            return f"DELETE t FROM {self.table.sql} AS t JOIN {self.stage.sql} ON {self._matched}"
        names = _names(self.key)
        return f"DELETE FROM {self.table.sql} WHERE ({names}) IN (SELECT {names} FROM {self.stage.sql})"

    @property
    def missing(self) -> str:
        """Whether a row of the table has no staged one, in SQL, for a statement that changes the table."""
        stored = [f"{quoted(self.table.parts[-1])}.{_named(column)}" for column in self.key]
        if self.dialect.hashed_in:
            return f"({', '.join(stored)}) NOT IN (SELECT {_names(self.key)} FROM {self.stage.sql})"
        same = " AND ".join(f"{self.staged(column)} = {name}" for column, name in zip(self.key, stored, strict=True))
        return f"NOT EXISTS (SELECT 1 FROM {self.stage.sql} WHERE {same})"

    @property
    def insert_new(self) -> str:
        """Inserts the rows that the table does not have."""
        return f"""
            INSERT INTO {self.table.sql} ({_names(self.columns)})
            SELECT {_names(self.columns)} FROM {self.stage.sql}
            WHERE NOT EXISTS (SELECT 1 FROM {self.table.sql} AS t WHERE {self._matched})"""

    @property
    def update_or_insert(self) -> str:
        """Both in one statement, for databases that have it."""
        names, values = _names(self.columns), ", ".join(map(self.staged, self.columns))
        assignments = ", ".join(f"{_named(column)} = {value}" for column, value in self.staged_values.items())
        update = f"WHEN MATCHED AND {self.outdated} THEN UPDATE SET {assignments}" if self.changing else ""
        return f"""
            MERGE INTO {self.table.sql} AS t USING {self.stage.sql} ON {self._matched}
            {update} WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})"""

    @property
    def same_key(self) -> str:
        """Whether a row of the table (`t`) and a staged one have the same key, in SQL."""
        return " AND ".join(f"t.{_named(column)} = {self.staged(column)}" for column in self.key)

    @property
    def outdated(self) -> str:
        """Whether the table's row is another, and not newer; one that counts as deleted is not."""
        if self.version is None:
            return self.different
        stored, staged = f"t.{_named(self.version)}", self.staged(self.version)
        deleted = f"t.{_named(self.mark)} IS NOT NULL OR " if self.mark else ""
        return f"{self.different} AND ({deleted}{stored} IS NULL OR {staged} >= {stored} {self.version.order})"

    @property
    def different(self) -> str:
        """Whether the table's row is another."""
        return f"({' OR '.join(f'NOT ({self._same(column)})' for column in self.changing)})"

    @property
    def staged_values(self) -> dict[Column, str]:
        """What an update makes of each column that it writes."""
        return {column: self.staged(column) for column in self.changing}

    def staged(self, column: Column) -> str:
        """A staged row's value, in SQL."""
        return f"{self.stage.sql}.{_named(column)}"

    @property
    def _matched(self) -> str:
        return self.same_key + (f" AND t.{_named(self.current)}" if self.current else "")

    def _same(self, column: Column) -> str:
        stored, staged = f"t.{_named(column)}", self.staged(column)
        if not column.identity:
            stored, staged = (f"CAST({value} AS {self.dialect.text})" for value in (stored, staged))
        return f"{stored} {self.dialect.same} {staged}"


def _named(column: Column) -> str:
    return quoted(column.name)


def _names(columns: Collection[Column]) -> str:
    return ", ".join(map(_named, columns))
