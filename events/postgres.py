"""The event log in a PostgreSQL database, which many processes and machines write and read.

One transaction at a time appends (an advisory lock), and the sequence is given out under that lock, which PostgreSQL
lets go of after the commit is visible: sequences become visible in the order in which they were given, so a reader
never sees a gap that is filled later. A publication is sent whole, with its COMMIT: a publisher that dies holds nobody
up.
"""

from __future__ import annotations

import hashlib
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from errors import EventLogError
from events.envelope import Event
from events.listener import Listener
from events.log import DeadLetter, Recorded, encode, storable
from events.postgres_server import ONE_AT_A_TIME, SCHEMA, Server

if TYPE_CHECKING:
    from events.deliveries_postgres import PostgresDatabase

LOOK_EVERY = 1.0
"""Seconds between two looks at the head while an event is waited for: in case that no notification arrives."""

PRUNE_PORTION = 1000
"""Events that one transaction deletes."""

_INSERT = """
    INSERT INTO events (id, type, dedupe_key, once, event, recorded_at)
    SELECT id, type, dedupe_key, once, event, clock_timestamp()
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::bytea[], %s::text[])
        WITH ORDINALITY AS given (id, type, dedupe_key, once, event, at)
    ORDER BY at
    ON CONFLICT (once) DO NOTHING
    RETURNING once
"""
_BURY = """
    INSERT INTO dead_letters (subscription, sequence, error, attempts, at) VALUES (%s, %s, %s, %s, clock_timestamp())
    ON CONFLICT (sequence, subscription)
    DO UPDATE SET error = excluded.error, attempts = excluded.attempts, at = excluded.at
"""
_PRUNABLE = """
    FROM events
    WHERE sequence <= least(%s, (SELECT min(cursor) FROM durable_subscriptions))
        AND sequence < (SELECT max(sequence) FROM events)
        AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE dead_letters.sequence = events.sequence)
        AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.sequence = events.sequence)
"""
_PRUNE = f"DELETE FROM events WHERE sequence IN (SELECT sequence {_PRUNABLE} ORDER BY sequence LIMIT %s)"
_RECORDED = "SELECT sequence, event, recorded_at FROM events"
_LAST_SEQUENCE = 2**63 - 1


class PostgresEventLog:
    """An `EventLog` in a PostgreSQL database (15 and later); threads may share it.

    Args:
        url: `postgresql://user:password@host:port/database`, with libpq's parameters (`?sslmode=verify-full`).

    Raises:
        EventLogError: The database cannot be used, or a newer version of this project wrote the log.
    """

    def __init__(self, url: str) -> None:
        self._server = Server(url)
        self._lock = Lock()
        self._closed = False
        with self._server.telling("opened"):
            self._connection = self._server.connect()
        self._listener = Listener(self._server.connect_only, SCHEMA)

    def publish(self, events: Sequence[Event]) -> list[bool]:
        """See `EventLog.publish`."""
        rows = [_row(event) for event in events]
        if not rows:
            return []
        with self._using("written") as connection:
            with connection.pipeline(), connection.transaction():
                inserted = _insert(connection, rows)
            return _flags(rows, inserted)

    def read(
        self, after: int, limit: int, *, until: int | None = None, types: Sequence[str] = ("*",)
    ) -> list[Recorded]:
        """See `EventLog.read`."""
        rows = self.select(
            f"{_RECORDED} WHERE sequence > %s AND sequence <= %s AND type LIKE ANY (%s) ORDER BY sequence LIMIT %s",
            after,
            _LAST_SEQUENCE if until is None else until,
            [_like(pattern) for pattern in types],
            limit,
        )
        return [recorded(*row) for row in rows]

    def find(self, key: str) -> list[Recorded]:
        """See `EventLog.find`."""
        key = _without_nul(key)
        rows = self.select(f"{_RECORDED} WHERE id = %s OR dedupe_key = %s ORDER BY sequence", key, key)
        return [recorded(*row) for row in rows]

    def head(self) -> int:
        """See `EventLog.head`."""
        return int(self.select("SELECT coalesce(max(sequence), 0) FROM events")[0][0])

    def wait(self, after: int, seconds: float) -> int:
        """See `EventLog.wait`."""
        deadline = time.monotonic() + seconds
        while True:
            heard = self._listener.heard
            head = self.head()
            left = deadline - time.monotonic()
            if head > after or left <= 0:
                return head
            with self._server.telling("waited for"):
                self._listener.listen(heard, min(LOOK_EVERY, left))

    def before(self, moment: datetime) -> int:
        """See `EventLog.before`."""
        return bisect_left(range(self.head() + 1), moment, lo=1, key=self._recorded_at) - 1

    def prune(self, until: int, *, dry_run: bool = False) -> int:
        """See `EventLog.prune`."""
        if dry_run:
            return int(self.select(f"SELECT count(*) {_PRUNABLE}", until)[0][0])
        pruned, deleted = 0, PRUNE_PORTION
        while deleted == PRUNE_PORTION:
            with self.writing() as connection:
                deleted = connection.execute(_PRUNE, (until, PRUNE_PORTION)).rowcount
            pruned += deleted
        return pruned

    def counts(self) -> Mapping[str, int]:
        """See `EventLog.counts`."""
        return dict(self.select("SELECT type, count(*) FROM events GROUP BY type ORDER BY type"))

    def bury(self, subscription: str, recorded: Recorded, error: str, attempts: int) -> None:
        """See `EventLog.bury`."""
        with self.writing() as connection:
            bury(connection, subscription, recorded, error, attempts)

    def dead(
        self, subscription: str | None = None, *, after: DeadLetter | None = None, limit: int | None = None
    ) -> list[DeadLetter]:
        """See `EventLog.dead`."""
        behind = (after.recorded.sequence, after.subscription) if after else (0, "")
        rows = self.select(
            "SELECT subscription, error, attempts, at, sequence, event, recorded_at FROM dead_letters"
            " JOIN events USING (sequence) WHERE coalesce(subscription = %s, true)"
            " AND (sequence, subscription) > (%s, %s) ORDER BY sequence, subscription LIMIT %s",
            subscription,
            *behind,
            limit,
        )
        return [
            DeadLetter(name, recorded(*event), error, attempts, at.astimezone(UTC))
            for name, error, attempts, at, *event in rows
        ]

    def dead_counts(self) -> Mapping[str, int]:
        """See `EventLog.dead_counts`."""
        return dict(self.select("SELECT subscription, count(*) FROM dead_letters GROUP BY subscription ORDER BY 1"))

    def revive(self, subscription: str, sequences: Iterable[int]) -> None:
        """See `EventLog.revive`."""
        with self.writing() as connection:
            connection.execute(
                "DELETE FROM dead_letters WHERE subscription = %s AND sequence = ANY (%s)",
                (subscription, list(sequences)),
            )

    def database(self) -> PostgresDatabase:
        """See `EventLog.database`."""
        from events.deliveries_postgres import PostgresDatabase

        return PostgresDatabase(self)

    def close(self) -> None:
        """See `EventLog.close`."""
        self._closed = True
        self._listener.close()
        with self._lock:
            self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[psycopg.Connection]:
        """One transaction; on the disk when the block is left.

        Raises:
            EventLogError: As `EventLog.publish`.
        """
        with self._using("written") as connection, connection.transaction():
            yield connection

    def select(self, query: str, *values: object) -> list[Any]:
        """What a query finds.

        Raises:
            EventLogError: The database cannot be read.
        """
        with self._using("read") as connection:
            return connection.execute(query.encode(), values).fetchall()

    def _recorded_at(self, sequence: int) -> datetime:
        """When the last event up to a sequence was recorded."""
        rows: list[tuple[datetime]] = self.select(
            "SELECT recorded_at FROM events WHERE sequence <= %s ORDER BY sequence DESC LIMIT 1", sequence
        )
        return rows[0][0] if rows else datetime.min.replace(tzinfo=UTC)

    @contextmanager
    def _using(self, what: str) -> Iterator[psycopg.Connection]:
        """The connection; a new one if the last one was lost."""
        with self._lock, self._server.telling(what):
            if self._closed:
                raise EventLogError(f"the event log {self._server.label} was closed")
            if self._connection.closed:
                self._connection = self._server.connect()
            yield self._connection


def append(connection: psycopg.Connection, events: Sequence[Event]) -> list[bool]:
    """`EventLog.publish` inside of a transaction that goes on; until it ends, nobody else can append."""
    rows = [_row(event) for event in events]
    return _flags(rows, _insert(connection, rows)) if rows else []


def bury(connection: psycopg.Connection, subscription: str, recorded: Recorded, error: str, attempts: int) -> None:
    """`EventLog.bury` inside of a transaction that goes on."""
    connection.execute(_BURY, (subscription, recorded.sequence, storable(error), attempts))


def recorded(sequence: int, event: str, recorded_at: datetime) -> Recorded:
    """An event, from what the database holds of it."""
    return Recorded(sequence, Event.model_validate_json(event), recorded_at.astimezone(UTC))


class _Row(NamedTuple):
    id: str
    type: str
    dedupe_key: str
    once: bytes
    event: str


def _row(event: Event) -> _Row:
    text = encode(event)
    source, key = event.metadata.source, event.metadata.dedupe_key
    once = hashlib.sha256(f"{len(source)}:{source}{key}".encode()).digest()
    return _Row(_without_nul(event.id), event.type, _without_nul(key), once, text)


def _insert(connection: psycopg.Connection, rows: Sequence[_Row]) -> psycopg.Cursor:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (ONE_AT_A_TIME,))
    inserted = connection.execute(_INSERT, [list(column) for column in zip(*rows, strict=True)])
    connection.execute("SELECT pg_notify(%s, '')", (SCHEMA,))
    return inserted


def _flags(rows: Sequence[_Row], inserted: psycopg.Cursor) -> list[bool]:
    """Which are new: of several that are the same, the first."""
    new = {once for (once,) in inserted}
    first = {row.once: at for at, row in reversed([*enumerate(rows)])}
    return [row.once in new and first[row.once] == at for at, row in enumerate(rows)]


def _without_nul(text: str) -> str:
    return text.replace("\\", r"\\").replace("\0", r"\0")


def _like(pattern: str) -> str:
    r"""`a_b.*` as LIKE writes it: `a\_b.%`."""
    return pattern.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_").replace("*", "%")
