"""Changes of what is kept of subscriptions, as records of the log's topic.

A change is worked out on the replica, in a transaction that is taken back, and appended: which rows there are then, and
which are gone. It holds only if nobody has changed the same subscription in between; all who read the topic see alike
whether that is so, and the one who made it works it out anew if not. So the order of the topic does what a lock or a
unique index does in a database (state-machine replication: Lamport, "Time, Clocks, and the Ordering of Events", 1978).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from events.deliveries import Transaction
from events.deliveries_sqlite import SqliteTransaction
from events.envelope import Event
from events.sqlite import SqliteEventLog, prune

T = TypeVar("T")
Rows = Mapping[str, Sequence[Sequence[Any]]]

TABLES = {
    "durable_subscriptions": (1, ("name", "cursor", "lease", "holder", "expires")),
    "deliveries": (2, ("subscription", "sequence", "aggregate", "attempts", "due")),
    "dead_letters": (2, ("subscription", "sequence", "error", "attempts", "at")),
}
"""How many of a table's columns, the first ones, are its key; its columns. The first one is the subscription's name."""

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS versions (subscription TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS accepted (position INTEGER PRIMARY KEY) STRICT",
)
"""Of each subscription, the position of the last change that held; of the last changes, those that held."""

_REMEMBERED = 100_000
"""Records for which it is remembered whether they held: whoever appended one asks at once."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a record of the topic changes.

    Args:
        subscription: Whose rows; "" if it prunes.
        expects: The position of the last change of this subscription that held; 0 if there was none.
        put: Rows that are there then, by table; in the order of its columns.
        gone: Keys of rows that are not there any more.
        prune: Up to which event to prune.
        limit: How many events to prune, at most.
    """

    subscription: str = ""
    expects: int = 0
    put: Rows = field(default_factory=dict)
    gone: Rows = field(default_factory=dict)
    prune: int = 0
    limit: int = 0

    def encode(self) -> bytes:
        """The record's value."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def decode(cls, value: bytes) -> Change:
        """From the record's value."""
        return cls(**json.loads(value))


def apply(connection: sqlite3.Connection, change: Change, position: int) -> bool:
    """Makes a change, if it holds; whether it did."""
    if change.prune:
        prune(connection, change.prune, change.limit)
        return True
    if version(connection, change.subscription) != change.expects:
        return False
    put_rows(connection, change.put)
    for table, keys in change.gone.items():
        size, columns = TABLES[table]
        where = " AND ".join(f"{column} = ?" for column in columns[:size])
        connection.executemany(f"DELETE FROM {table} WHERE {where}", keys)
    connection.execute("INSERT OR REPLACE INTO versions VALUES (?, ?)", (change.subscription, position))
    connection.execute("INSERT INTO accepted VALUES (?)", (position,))
    connection.execute("DELETE FROM accepted WHERE position < ?", (position - _REMEMBERED,))
    return True


def version(connection: sqlite3.Connection, subscription: str) -> int:
    """The position of the last change of a subscription that held; 0 if there was none."""
    found = connection.execute("SELECT version FROM versions WHERE subscription = ?", (subscription,)).fetchone()
    return int(found[0]) if found else 0


def put_rows(connection: sqlite3.Connection, rows: Rows) -> None:
    """Puts rows into tables, in place of those of the same key."""
    for table, values in rows.items():
        _, columns = TABLES[table]
        marks = ", ".join("?" * len(columns))
        connection.executemany(
            f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({marks})",
            values,
        )


@dataclass(frozen=True, slots=True)
class Draft(Generic[T]):
    """What some work comes to.

    Args:
        returned: What it returns.
        change: What it changes; None if nothing.
        published: Events that it publishes with that.
    """

    returned: T
    change: Change | None
    published: Sequence[Event]


class Drafts:
    """Works changes out.

    Args:
        path: The replica's file.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteEventLog(path, synchronous="NORMAL")
        with self._file.writing() as connection:
            connection.execute("CREATE TEMP TABLE changes (of TEXT, key TEXT, row TEXT)")
            for trigger in _triggers():
                connection.execute(trigger)

    def work_out(self, work: Callable[[Transaction], T]) -> Draft[T]:
        """What some work comes to, which is not done."""
        with suppress(_TakenBackError), self._file.writing() as connection:
            transaction = _Transaction(connection)
            returned = work(transaction)
            draft = Draft(returned, _change(connection), transaction.published)
            raise _TakenBackError
        return draft

    def close(self) -> None:
        """Frees the connection."""
        self._file.close()


class _TakenBackError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Transaction(SqliteTransaction):
    published: list[Event] = field(default_factory=list)

    def publish(self, events: Sequence[Event]) -> None:
        self.published.extend(events)


def _triggers() -> Iterator[str]:
    """What writes down each row that a transaction puts or deletes, its key first."""
    for table, (size, columns) in TABLES.items():
        for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
            key, whole = (", ".join(f"{row}.{column}" for column in some) for some in (columns[:size], columns))
            kept = "NULL" if row == "OLD" else f"json_array({whole})"
            yield (
                f"CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table}"
                f" BEGIN INSERT INTO changes VALUES ('{table}', json_array({key}), {kept}); END"
            )


def _change(connection: sqlite3.Connection) -> Change | None:
    """What a transaction has changed so far, which is rows of one subscription."""
    last = {(of, key): row for of, key, row in connection.execute("SELECT of, key, row FROM changes ORDER BY rowid")}
    if not last:
        return None
    put: dict[str, list[Any]] = {}
    gone: dict[str, list[Any]] = {}
    for (of, key), row in last.items():
        (gone if row is None else put).setdefault(of, []).append(json.loads(row or key))
    [subscription] = {json.loads(key)[0] for _, key in last}
    return Change(subscription, version(connection, subscription), put, gone)
