"""What is kept of durable subscriptions, in the log's PostgreSQL database."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import psycopg

from events.deliveries import T, Transaction, Values
from events.envelope import Event
from events.log import Recorded
from events.postgres import PostgresEventLog, append, bury, recorded


class PostgresDatabase:
    """A `Database`, by the log's own connection.

    Args:
        log: The log.
    """

    now = "extract(epoch FROM clock_timestamp())::double precision"
    listed = "(SELECT json_array_elements_text(CAST(:{} AS json)))"
    unless_locked = "FOR UPDATE SKIP LOCKED"

    def __init__(self, log: PostgresEventLog) -> None:
        self._log = log

    def run(self, work: Callable[[Transaction], T]) -> T:
        """See `Database.run`."""
        with self._log.writing() as connection:
            return work(_PostgresTransaction(connection))

    def select(self, statement: str, values: Values) -> list[Any]:
        """See `Database.select`."""
        text, names = _numbered(statement)
        return self._log.select(text, *(values[name] for name in names))

    def recorded(self, sequence: int, event: str, recorded_at: datetime) -> Recorded:
        """See `Database.recorded`."""
        return recorded(sequence, event, recorded_at)


@dataclass(frozen=True, slots=True)
class _PostgresTransaction:
    connection: psycopg.Connection

    def rows(self, statement: str, values: Values) -> list[Any]:
        text, names = _numbered(statement)
        return self.connection.execute(text.encode(), [values[name] for name in names]).fetchall()

    def each(self, statement: str, values: Sequence[Values]) -> None:
        text, names = _numbered(statement)
        with self.connection.cursor() as cursor:
            cursor.executemany(text.encode(), [[one[name] for name in names] for one in values])

    def publish(self, events: Sequence[Event]) -> None:
        append(self.connection, events)

    def bury(self, subscription: str, recorded: Recorded, error: str, attempts: int) -> None:
        bury(self.connection, subscription, recorded, error, attempts)


@cache
def _numbered(statement: str) -> tuple[str, list[str]]:
    """The statement as psycopg writes it, and the names of its values in order."""
    pattern = r"(?<!:):([a-z]+)"
    return re.sub(pattern, "%s", statement), re.findall(pattern, statement)
