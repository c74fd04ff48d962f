"""The statements that merge a temporary table into another by key, in words that every database understands."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from etl.destinations.names import Dialect, Name
from etl.destinations.types import Column
from etl.quoting import quoted


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
    """

    table: Name
    stage: Name
    columns: Collection[Column]
    key: Sequence[Column]
    version: Column | None
    dialect: Dialect

    @property
    def changing(self) -> list[Column]:
        """The columns that an update writes."""
        return [column for column in self.columns if column not in self.key]

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

    @property
    def count_matches(self) -> str:
        """Counts the staged rows, and how many of them the table has; those that it has twice count twice."""
        return f"""
            SELECT count(*), count(t.{_named(self.key[0])})
            FROM {self.stage.sql} LEFT JOIN {self.table.sql} AS t ON {self._matched}"""

    @property
    def update_changed(self) -> str:
        """Updates the rows that are not the same, unless they are newer."""
        return f"""
            UPDATE {self.table.sql} AS t SET {self._assignments()} FROM {self.stage.sql}
            WHERE {self._matched} AND {self._outdated}"""

    @property
    def update_joined(self) -> str:
        """The same, as MariaDB writes it."""
        return f"""
            UPDATE {self.table.sql} AS t JOIN {self.stage.sql} ON {self._matched}
            SET {self._assignments("t.")} WHERE {self._outdated}"""

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
        names, values = _names(self.columns), ", ".join(map(self._staged, self.columns))
        update = f"WHEN MATCHED AND {self._outdated} THEN UPDATE SET {self._assignments()}" if self.changing else ""
        return f"""
            MERGE INTO {self.table.sql} AS t USING {self.stage.sql} ON {self._matched}
            {update} WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})"""

    @property
    def _matched(self) -> str:
        return " AND ".join(f"t.{_named(column)} = {self._staged(column)}" for column in self.key)

    def _assignments(self, prefix: str = "") -> str:
        return ", ".join(f"{prefix}{_named(column)} = {self._staged(column)}" for column in self.changing)

    @property
    def _outdated(self) -> str:
        """Whether the table's row is another, and not newer."""
        other = " OR ".join(f"NOT ({self._same(column)})" for column in self.changing)
        if self.version is None:
            return f"({other})"
        stored, staged = f"t.{_named(self.version)}", self._staged(self.version)
        return f"({other}) AND ({stored} IS NULL OR {staged} >= {stored} {self.version.order})"

    def _same(self, column: Column) -> str:
        stored, staged = f"t.{_named(column)}", self._staged(column)
        if not column.identity:
            stored, staged = (f"CAST({value} AS {self.dialect.text})" for value in (stored, staged))
        return f"{stored} {self.dialect.same} {staged}"

    def _staged(self, column: Column) -> str:
        return f"{self.stage.sql}.{_named(column)}"


def _named(column: Column) -> str:
    return quoted(column.name)


def _names(columns: Collection[Column]) -> str:
    return ", ".join(map(_named, columns))
