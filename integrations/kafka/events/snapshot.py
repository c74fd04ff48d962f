"""What a reader must know of a topic whose first records were deleted: what they had led to.

A snapshot is what a replica holds at a position. Changes before that position are in it; so are the events that are
left of the deleted ones. Of the events between the first record that is left and that position, those count that it
names: others had come twice, or were pruned.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any

from errors import EventLogError
from integrations.kafka.events.changes import TABLES, put_rows

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS restored (position INTEGER NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS present (first INTEGER PRIMARY KEY, last INTEGER NOT NULL) STRICT",
)
"""Up to where a snapshot tells which events count; which do, the first and the last of each series."""

_EVENTS = "sequence, id, type, source, dedupe_key, recorded_at, event"
_SERIES = """
    SELECT min(sequence), max(sequence) FROM (
        SELECT sequence, sequence - row_number() OVER (ORDER BY sequence) AS series FROM events WHERE sequence > ?
    ) GROUP BY series ORDER BY series
"""


def take(connection: sqlite3.Connection, until: int) -> tuple[int, bytes]:
    """A snapshot, for a topic whose records up to a sequence are to be deleted; and up to which they may be."""
    [position] = connection.execute("SELECT position FROM journal").fetchone()
    [read] = connection.execute("SELECT coalesce(min(cursor), ?) FROM durable_subscriptions", (position,)).fetchone()
    until = min(until, position, read)
    tables = {table: _rows(connection, ", ".join(columns), table) for table, (_, columns) in TABLES.items()}
    content = {
        "position": position,
        "until": until,
        "tables": tables,
        "versions": _rows(connection, "subscription, version", "versions"),
        "events": connection.execute(f"SELECT {_EVENTS} FROM events WHERE sequence <= ?", (until,)).fetchall(),
        "present": connection.execute(_SERIES, (until,)).fetchall(),
    }
    return until, zlib.compress(json.dumps(content).encode(), 1)


def restore(connection: sqlite3.Connection, value: bytes | None, first: int) -> None:
    """Fills an empty replica of a topic whose records before the offset `first` were deleted.

    Raises:
        EventLogError: There is no snapshot, or an older one.
    """
    content: dict[str, Any] = json.loads(zlib.decompress(value)) if value else {"position": 0, "until": 0}
    if content["until"] < first or content["position"] < first:
        raise EventLogError(
            f"the first records of the event log's topic, up to {first - 1}, were deleted by somebody else",
            hint="only `pivotal events prune` may delete them; bring the topic back from a backup, or name another one"
            " in PIVOTAL_EVENTS_URL",
        )
    put_rows(connection, content["tables"])
    connection.executemany("INSERT INTO versions VALUES (?, ?)", content["versions"])
    connection.executemany(f"INSERT INTO events ({_EVENTS}) VALUES (?, ?, ?, ?, ?, ?, ?)", content["events"])
    connection.executemany("INSERT INTO present VALUES (?, ?)", content["present"])
    connection.execute("INSERT INTO restored VALUES (?)", (content["position"],))


def restored(connection: sqlite3.Connection) -> int:
    """Up to where a snapshot tells which events count; 0 if there is none."""
    found = connection.execute("SELECT position FROM restored").fetchone()
    return int(found[0]) if found else 0


def has(connection: sqlite3.Connection, sequence: int) -> bool:
    """Whether an event behind the deleted ones counts, as the snapshot tells."""
    found = connection.execute("SELECT last FROM present WHERE first <= ? ORDER BY first DESC LIMIT 1", (sequence,))
    return any(sequence <= last for (last,) in found)


def clear(connection: sqlite3.Connection) -> None:
    """Empties a replica."""
    for table in ("events", *TABLES, "versions", "accepted", "restored", "present"):
        connection.execute(f"DELETE FROM {table}")


def _rows(connection: sqlite3.Connection, columns: str, table: str) -> Sequence[Any]:
    return connection.execute(f"SELECT {columns} FROM {table}").fetchall()
