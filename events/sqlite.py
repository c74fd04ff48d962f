"""The event log in one SQLite file, which many processes write and read at once.

One process at a time writes (BEGIN IMMEDIATE), and the sequence is given out inside that transaction: sequences become
visible in the order in which they were given, so a reader never sees a gap that is filled later. WAL lets readers go on
meanwhile; synchronous=FULL puts every commit on the disk before `publish` returns.
"""

from __future__ import annotations

import sqlite3
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from errors import EventLogError
from events.envelope import Event
from events.log import DeadLetter, Recorded, encode, storable

if TYPE_CHECKING:
    from events.deliveries_sqlite import SqliteDatabase

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process's write before giving up."""

LOOK_EVERY = 0.02
"""Seconds between two looks at the head while an event is waited for; a look costs some microseconds."""

PRUNE_PORTION = 1000
"""Events that one transaction deletes: whoever publishes meanwhile waits for milliseconds."""

_EVENTS = """
    CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        type TEXT NOT NULL,
        source TEXT NOT NULL,
        dedupe_key TEXT NOT NULL,
        recorded_at TEXT NOT NULL,
        event TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX events_once ON events (dedupe_key, source);
    CREATE INDEX events_by_id ON events (id);
    CREATE INDEX events_by_type ON events (type);
    CREATE TABLE dead_letters (
        subscription TEXT NOT NULL,
        sequence INTEGER NOT NULL REFERENCES events,
        error TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        at TEXT NOT NULL,
        PRIMARY KEY (subscription, sequence)
    ) STRICT, WITHOUT ROWID
"""
_SUBSCRIPTIONS = """
    CREATE TABLE durable_subscriptions (
        name TEXT PRIMARY KEY,
        cursor INTEGER NOT NULL,
        lease INTEGER NOT NULL DEFAULT 0,
        holder TEXT,
        expires REAL NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE deliveries (
        subscription TEXT NOT NULL REFERENCES durable_subscriptions,
        sequence INTEGER NOT NULL REFERENCES events,
        aggregate TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        due REAL,
        PRIMARY KEY (subscription, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX deliveries_in_order ON deliveries (subscription, aggregate, sequence);
    CREATE INDEX deliveries_due ON deliveries (subscription, due) WHERE due IS NOT NULL
"""
_SCHEMAS = (_EVENTS, _SUBSCRIPTIONS)
"""What each version of the schema adds to the one before; `PRAGMA user_version` says how many are there."""
_RECORDED = "SELECT sequence, event, recorded_at FROM events"

_INSERT = """
    INSERT INTO events (id, type, source, dedupe_key, event, recorded_at) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (dedupe_key, source) DO NOTHING
"""
_BURY = """
    INSERT INTO dead_letters (subscription, sequence, error, attempts, at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET error = excluded.error, attempts = excluded.attempts, at = excluded.at
"""
_PRUNABLE = """
    FROM events
    WHERE sequence <= ? AND sequence < (SELECT max(sequence) FROM events)
        AND NOT EXISTS (SELECT 1 FROM durable_subscriptions WHERE cursor < sequence)
        AND sequence NOT IN (SELECT sequence FROM dead_letters)
        AND sequence NOT IN (SELECT sequence FROM deliveries)
"""
_PRUNE = f"DELETE FROM events WHERE sequence IN (SELECT sequence {_PRUNABLE} ORDER BY sequence LIMIT ?)"
_LAST_SEQUENCE = 2**63 - 1

_BUSY = "another process holds it; try again"
_PERMISSION = "let this user write the file and its folder"
_HINTS = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_FULL: "free space on its disk",
    sqlite3.SQLITE_IOERR: "look after its disk",
    sqlite3.SQLITE_CANTOPEN: _PERMISSION,
    sqlite3.SQLITE_READONLY: _PERMISSION,
    sqlite3.SQLITE_NOTADB: "PIVOTAL_EVENTS_URL must name a SQLite file, or one that is not there yet",
    sqlite3.SQLITE_CORRUPT: "stop what writes it and bring the file back from a backup",
}
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


class SqliteEventLog:
    """An `EventLog` in a SQLite file; threads may share it.

    Args:
        path: The file; it and its folder are made if they are not there. Not on a network file system (WAL).
        busy_timeout: Seconds to wait for another process's write before giving up.
        synchronous: SQLite's pragma. With "NORMAL", a crash of the machine may take back the last transactions.

    Raises:
        EventLogError: The file cannot be opened, or a newer version of this project wrote it.
    """

    def __init__(
        self, path: Path, *, busy_timeout: float = BUSY_TIMEOUT, synchronous: Literal["FULL", "NORMAL"] = "FULL"
    ) -> None:
        self._path = path
        self._lock = Lock()
        with self._telling("opened"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(path, busy_timeout, synchronous)
            self._inode = path.stat().st_ino

    def publish(self, events: Sequence[Event]) -> list[bool]:
        """See `EventLog.publish`."""
        rows = [_row(event) for event in events]
        with self.writing() as connection:
            return _insert(connection, rows)

    def read(
        self, after: int, limit: int, *, until: int | None = None, types: Sequence[str] = ("*",)
    ) -> list[Recorded]:
        """See `EventLog.read`."""
        matching = " OR ".join(["type GLOB ?"] * len(types)) or "FALSE"
        # NOT INDEXED: in order, and no more than `limit`, the table is the shorter way than the index on types.
        query = (
            f"{_RECORDED} NOT INDEXED WHERE sequence > ? AND sequence <= ? AND ({matching}) ORDER BY sequence LIMIT ?"
        )
        rows = self.select(query, (after, _LAST_SEQUENCE if until is None else until, *types, limit))
        return [recorded(*row) for row in rows]

    def find(self, key: str) -> list[Recorded]:
        """See `EventLog.find`."""
        rows = self.select(f"{_RECORDED} WHERE id = ? OR dedupe_key = ? ORDER BY sequence", (key, key))
        return [recorded(*row) for row in rows]

    def head(self) -> int:
        """See `EventLog.head`."""
        return int(self.select("SELECT coalesce(max(sequence), 0) FROM events")[0][0])

    def wait(self, after: int, seconds: float) -> int:
        """See `EventLog.wait`."""
        deadline = time.monotonic() + seconds
        while (head := self.head()) <= after and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(LOOK_EVERY, left))
        return head

    def before(self, moment: datetime) -> int:
        """See `EventLog.before`."""
        return bisect_left(range(self.head() + 1), moment, lo=1, key=self._recorded_at) - 1

    def prune(self, until: int, *, dry_run: bool = False) -> int:
        """See `EventLog.prune`."""
        if dry_run:
            return int(self.select(f"SELECT count(*) {_PRUNABLE}", (until,))[0][0])
        pruned, deleted = 0, PRUNE_PORTION
        while deleted == PRUNE_PORTION:
            with self.writing() as connection:
                deleted = prune(connection, until, PRUNE_PORTION)
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
            " JOIN events USING (sequence) WHERE (?1 IS NULL OR subscription = ?1)"
            " AND (sequence, subscription) > (?2, ?3) ORDER BY sequence, subscription LIMIT ?4",
            (subscription, *behind, _LAST_SEQUENCE if limit is None else limit),
        )
        return [
            DeadLetter(name, recorded(*event), error, attempts, datetime.fromisoformat(at))
            for name, error, attempts, at, *event in rows
        ]

    def dead_counts(self) -> Mapping[str, int]:
        """See `EventLog.dead_counts`."""
        return dict(self.select("SELECT subscription, count(*) FROM dead_letters GROUP BY subscription ORDER BY 1"))

    def revive(self, subscription: str, sequences: Iterable[int]) -> None:
        """See `EventLog.revive`."""
        with self.writing() as connection:
            connection.executemany(
                "DELETE FROM dead_letters WHERE subscription = ? AND sequence = ?",
                [(subscription, sequence) for sequence in sequences],
            )

    def database(self) -> SqliteDatabase:
        """See `EventLog.database`."""
        from events.deliveries_sqlite import SqliteDatabase

        return SqliteDatabase(self)

    def close(self) -> None:
        """See `EventLog.close`."""
        with self._lock:
            self._connection.close()

    def _recorded_at(self, sequence: int) -> datetime:
        """When the last event up to a sequence was recorded."""
        rows = self.select(
            "SELECT recorded_at FROM events WHERE sequence <= ? ORDER BY sequence DESC LIMIT 1", (sequence,)
        )
        return datetime.fromisoformat(rows[0][0]) if rows else datetime.min.replace(tzinfo=UTC)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction of the only writer; on the disk when the block is left.

        Raises:
            EventLogError: As `EventLog.publish`.
        """
        with self._using("written"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def select(self, query: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[Any]:
        """What a query finds, with values for its `?`, or by name for its `:name`.

        Raises:
            EventLogError: The file cannot be read.
        """
        with self._using("read"):
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _using(self, what: str) -> Iterator[None]:
        with self._lock, self._telling(what):
            # A file that was removed goes on taking writes until it is closed; then they are gone.
            if not self._path.exists() or self._path.stat().st_ino != self._inode:
                raise EventLogError(
                    f"the event log {self._path} was removed while it was in use",
                    hint="start this process again, and whatever else uses the log",
                )
            yield

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Turns the driver's errors into ours."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", _without_code(error)) & 0xFF
            raise EventLogError(
                f"the event log {self._path} cannot be {what}: {error}",
                hint=_HINTS.get(code),
                retryable=code in _PASSING,
            ) from error


def _without_code(error: Exception) -> int:
    """An error of the folder, or of how the log is used: after it was closed, for instance."""
    return sqlite3.SQLITE_CANTOPEN if isinstance(error, OSError) else sqlite3.SQLITE_MISUSE


def append(connection: sqlite3.Connection, events: Sequence[Event]) -> list[bool]:
    """`EventLog.publish` inside of a transaction that goes on."""
    return _insert(connection, [_row(event) for event in events])


def prune(connection: sqlite3.Connection, until: int, limit: int) -> int:
    """`EventLog.prune` of the first events, no more than `limit`, inside of a transaction that goes on."""
    return connection.execute(_PRUNE, (until, limit)).rowcount


def bury(connection: sqlite3.Connection, subscription: str, recorded: Recorded, error: str, attempts: int) -> None:
    """`EventLog.bury` inside of a transaction that goes on."""
    connection.execute(_BURY, (subscription, recorded.sequence, storable(error), attempts, _now()))


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[str, ...]]) -> list[bool]:
    now = _now()  # while nobody else writes: the times are in the order of the sequences
    return [connection.execute(_INSERT, (*row, now)).rowcount == 1 for row in rows]


def _connect(path: Path, busy_timeout: float, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        _use_wal(connection, busy_timeout)
        _bring_up_to_date(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection, busy_timeout: float) -> None:
    """SQLite does not wait by itself when two processes want to change the mode of a new file."""
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    if (version := _schema_version(connection)) > len(_SCHEMAS):
        raise EventLogError(
            f"the event log {path} was written by a newer version of this project (schema {version})",
            hint="install that version, or name another file in PIVOTAL_EVENTS_URL",
        )
    if version == len(_SCHEMAS):
        return
    connection.execute("BEGIN IMMEDIATE")
    version = _schema_version(connection)  # asked again: another process may have been faster
    for number, schema in enumerate(_SCHEMAS[version:], version + 1):
        for statement in schema.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
    connection.execute("COMMIT")


def _schema_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _row(event: Event) -> tuple[str, ...]:
    return event.id, event.type, event.metadata.source, event.metadata.dedupe_key, encode(event)


def recorded(sequence: int, event: str, recorded_at: str) -> Recorded:
    """An event, from its row."""
    return Recorded(sequence, Event.model_validate_json(event), datetime.fromisoformat(recorded_at))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
