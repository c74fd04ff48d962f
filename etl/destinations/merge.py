"""The statements that merge a temporary table into another by key, in words that every database understands."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from etl.destinations.sql import Database, Name
from etl.destinations.types import Column
from etl.session import quoted


class MergeStatements:
    """The statements.

    Args:
        database: Whose dialect to write.
        table: The table.
        stage: The temporary table; every column of it is in the table.
        columns: The stage's columns.
        key: Those that identify a row; none of them is NULL.
        version: The column that tells which of two rows is newer; without it, the row that was staged last is. NULL is
            the oldest.
    """

    def __init__(
        self,
        database: Database,
        table: Name,
        stage: Name,
        columns: Collection[Column],
        key: Sequence[Column],
        version: Column | None,
    ) -> None:
        self._database, self._table, self._stage = database, table.sql, stage.sql
        self._columns, self._key, self._version = columns, key, version
        self.changing = [column for column in columns if column not in key]

    @property
    def delete_superseded(self) -> str:
        """Leaves the stage one row of each key."""
        row_id, names = self._database.row_id, _names(self._key)
        order = f"{_named(self._version)} {self._version.order} DESC NULLS LAST, " if self._version else ""
        return f"""
            DELETE FROM {self._stage} WHERE {row_id} IN (
                SELECT id FROM (
                    SELECT {row_id} AS id,
                           row_number() OVER (PARTITION BY {names} ORDER BY {order}{row_id} DESC) AS place
                    FROM {self._stage}
                    WHERE ({names}) IN (SELECT {names} FROM {self._stage} GROUP BY {names} HAVING count(*) > 1)
                ) AS ranked WHERE place > 1
            )"""

    @property
    def count_matches(self) -> str:
        """Counts the staged rows, and how many of them the table has; those that it has twice count twice."""
        return f"""
            SELECT count(*), count(t.{_named(self._key[0])})
            FROM {self._stage} LEFT JOIN {self._table} AS t ON {self._matched}"""

    @property
    def update_changed(self) -> str:
        """Updates the rows that are not the same, unless they are newer."""
        assignments = ", ".join(f"{_named(column)} = {self._staged(column)}" for column in self.changing)
        changed = " OR ".join(f"NOT ({self._same(column)})" for column in self.changing)
        return f"""
            UPDATE {self._table} AS t SET {assignments} FROM {self._stage}
            WHERE {self._matched} AND ({changed}) AND {self._not_newer}"""

    @property
    def insert_new(self) -> str:
        """Inserts the rows that the table does not have."""
        return f"""
            INSERT INTO {self._table} ({_names(self._columns)})
            SELECT {_names(self._columns)} FROM {self._stage}
            WHERE NOT EXISTS (SELECT 1 FROM {self._table} AS t WHERE {self._matched})"""

    @property
    def _matched(self) -> str:
        return " AND ".join(f"t.{_named(column)} = {self._staged(column)}" for column in self._key)

    @property
    def _not_newer(self) -> str:
        if self._version is None:
            return "true"
        stored, staged = f"t.{_named(self._version)}", self._staged(self._version)
        return f"({stored} IS NULL OR {staged} >= {stored} {self._version.order})"

    def _same(self, column: Column) -> str:
        stored, staged = f"t.{_named(column)}", self._staged(column)
        if column.identity:
            return f"{stored} {self._database.same} {staged}"
        return f"CAST({stored} AS text) {self._database.same} CAST({staged} AS text)"

    def _staged(self, column: Column) -> str:
        return f"{self._stage}.{_named(column)}"


def _named(column: Column) -> str:
    return quoted(column.name)


def _names(columns: Collection[Column]) -> str:
    return ", ".join(map(_named, columns))
