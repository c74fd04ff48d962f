"""Tombstones: keys whose rows go from the table that a run merges into.

What comes last in the run decides, by order and not by `version`, which a tombstone has none of. The row that the table
has goes, and so do the rows of the run that came before the key's last tombstone; those behind it are merged as usual.
"""

from __future__ import annotations

import pyarrow as pa

from etl.destinations.merge import Merge
from etl.destinations.sql import Database, Table, create, temporary
from etl.destinations.types import Column

BEFORE = "_pivotal_before"
"""How many of a run's rows came before a key; only batches of tombstones have that column."""


class Tombstones:
    """The tombstones of one run, in a temporary table; there is none before the first one comes."""

    def __init__(self) -> None:
        self.name = temporary("gone")
        self.made = False
        self._nowhere = 0

    def take(self, table: Table, rows: pa.RecordBatch) -> None:
        """Takes keys, each with `BEFORE`.

        Args:
            table: The table that they are of. It may not be there, and no row of the run may have come yet: then there
                is nothing that goes.
            rows: The keys.

        Raises:
            DestinationError: A column's type does not fit the table's.
        """
        keys = table.fit_keys(rows.drop_columns([BEFORE]))
        if keys is None:
            self._nowhere += rows.num_rows
        elif rows.num_rows:
            if not self.made:
                columns = [table.column(name) for name in keys.schema.names]
                create(table.database, self.name, [*columns, Column(BEFORE, pa.int64(), "BIGINT")])
                self.made = True
            table.database.insert(self.name, keys.append_column(BEFORE, rows[BEFORE]))

    def count(self, database: Database) -> int:
        """How many there were."""
        return self._nowhere + (database.inserted(self.name) if self.made else 0)

    def settle(self, table: Table, current: Column | None = None) -> Merge:
        """Leaves one tombstone of each key, its last; returns what matches them with the table's rows.

        Args:
            table: The table.
            current: See `Merge`.
        """
        key = [table.column(name) for name in table.target.key]
        gone = Merge(table.name, self.name, key, key=key, version=None, dialect=table.database.dialect, current=current)
        table.database.leave_newest(gone)
        return gone
