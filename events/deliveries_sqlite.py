"""What is kept of durable subscriptions, in the SQLite file of the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from events.deliveries import T, Transaction, Values
from events.envelope import Event
from events.log import Recorded
from events.sqlite import SqliteEventLog, append, bury, recorded


class SqliteDatabase:
    """A `Database`, by the log's own connection.

    Args:
        log: The log.
    """

    now = "(julianday('now') - 2440587.5) * 86400"
    listed = "(SELECT value FROM json_each(:{}))"
    unless_locked = ""

    def __init__(self, log: SqliteEventLog) -> None:
        self._log = log

    def run(self, work: Callable[[Transaction], T]) -> T:
        """See `Database.run`."""
        with self._log.writing() as connection:
            return work(SqliteTransaction(connection))

    def select(self, statement: str, values: Values) -> list[Any]:
        """See `Database.select`."""
        return self._log.select(statement, values)

    def recorded(self, sequence: int, event: str, recorded_at: str) -> Recorded:
        """See `Database.recorded`."""
        return recorded(sequence, event, recorded_at)


@dataclass(frozen=True, slots=True)
class SqliteTransaction:
    """A `Transaction` that goes on in a connection."""

    connection: sqlite3.Connection

    def rows(self, statement: str, values: Values) -> list[Any]:
        """See `Transaction.rows`."""
        return self.connection.execute(statement, values).fetchall()

    def each(self, statement: str, values: Sequence[Values]) -> None:
        """See `Transaction.each`."""
        self.connection.executemany(statement, values)

    def publish(self, events: Sequence[Event]) -> None:
        """See `Transaction.publish`."""
        append(self.connection, events)

    def bury(self, subscription: str, recorded: Recorded, error: str, attempts: int) -> None:
        """See `Transaction.bury`."""
        bury(self.connection, subscription, recorded, error, attempts)
