"""What the topic of an event log tells, in a SQLite file of this machine: whoever reads the topic comes to the same.

The file can be deleted at any time: it is made again from the topic.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from errors import EventLogError
from events.envelope import Event
from events.log import encode
from events.sqlite import SqliteEventLog
from integrations.kafka.events import changes, snapshot
from integrations.kafka.events.changes import Change
from integrations.kafka.transactions import Record

CHANGE = "pivotal-change"
"""The header of records that are no events but a `Change`; its value is the version of how that is written."""

WITH = "pivotal-with"
"""The header of an event that was published with a change, and counts if that held: how many records before it is."""

_VERSION = b"1"

_SCHEMA = (
    *changes.SCHEMA,
    *snapshot.SCHEMA,
    "CREATE TABLE IF NOT EXISTS journal (id TEXT NOT NULL, position INTEGER NOT NULL) STRICT",
)
_INSERT = """
    INSERT INTO events (sequence, id, type, source, dedupe_key, event, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (dedupe_key, source) DO NOTHING
"""

logger = logging.getLogger(__name__)


class BegunAnewError(EventLogError):
    """Another process has begun the replica anew: the topic was made again, or its first records were deleted."""


class Replica:
    """The replica, which several processes may bring up to date.

    Args:
        path: Its file; made if it is not there.

    Raises:
        EventLogError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.file = SqliteEventLog(path, synchronous="NORMAL")
        self._following = SqliteEventLog(path, synchronous="NORMAL")
        with self._following.writing() as connection:
            for statement in _SCHEMA:
                connection.execute(statement)

    def attach(self, place: tuple[str, int, int], kept: Callable[[], bytes | None]) -> int:
        """Begins anew if this is no replica of what is in the topic now.

        Args:
            place: The topic's id, the offset of its first record, and of the one that comes next.
            kept: Gives the snapshot that was kept last.

        Returns:
            The offset of the record that is to be applied next.

        Raises:
            EventLogError: The first records were deleted without a snapshot of what they led to.
        """
        topic, first, end = place
        value = kept() if first else None
        with self._following.writing() as connection:
            found = connection.execute("SELECT id, position FROM journal").fetchone()
            if found and found[0] == topic and first <= found[1] <= end:
                return int(found[1])
            snapshot.clear(connection)
            connection.execute("DELETE FROM journal")
            connection.execute("INSERT INTO journal VALUES (?, ?)", (topic, first))
            if first:
                snapshot.restore(connection, value, first)
        return first

    def apply(self, records: Sequence[Any], position: int) -> int:
        """Applies records that follow each other.

        Args:
            records: kafka-python's.
            position: What this last returned, or `attach`.

        Returns:
            The offset of the record that is to be applied next.

        Raises:
            BegunAnewError: They are no longer what follows.
            EventLogError: The file cannot be written, or a record is of a newer version of this project.
        """
        with self._following.writing() as connection:
            [reached] = connection.execute("SELECT position FROM journal").fetchone()
            if reached < position:
                raise BegunAnewError("the copy of the event log was begun anew", retryable=True)
            applying = _Applying(connection)
            for record in records:
                if record.offset >= reached:
                    applying.apply(record)
            reached = max(reached, records[-1].offset + 1)
            connection.execute("UPDATE journal SET position = ?", (reached,))
        return int(reached)

    def new(self, offsets: Sequence[int]) -> set[int]:
        """Those of the records that brought an event which was not there."""
        found = self.file.select(
            "SELECT sequence - 1 FROM events WHERE sequence BETWEEN ? AND ?", (offsets[0] + 1, offsets[-1] + 1)
        )
        return {offset for (offset,) in found}

    def known(self, keys: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of the keys (source, dedupe_key) that have an event."""
        query = "SELECT 1 FROM events WHERE source = ? AND dedupe_key = ?"
        return {key for key in keys if self.file.select(query, key)}

    def held(self, offset: int) -> bool:
        """Whether a change, one of the last, held."""
        return bool(self.file.select("SELECT 1 FROM accepted WHERE position = ?", (offset + 1,)))

    def close(self) -> None:
        """Frees the connections."""
        self.file.close()
        self._following.close()


class _Applying:
    """Applies records in a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._restored = snapshot.restored(connection)
        last = connection.execute("SELECT recorded_at FROM events ORDER BY sequence DESC LIMIT 1").fetchone()
        self._last = datetime.fromisoformat(last[0]) if last else datetime.min.replace(tzinfo=UTC)

    def apply(self, record: Any) -> None:  # noqa: ANN401  (kafka-python has no types)
        """Applies one record: its sequence, in the log, is its offset and one."""
        sequence, headers = record.offset + 1, dict(record.headers)
        if sequence <= self._restored and not (CHANGE not in headers and snapshot.has(self._connection, sequence)):
            return
        if headers.get(CHANGE, _VERSION) != _VERSION:
            raise EventLogError(
                f"record {record.offset} of the event log was written by a newer version of this project",
                hint="install that version",
            )
        try:
            if CHANGE in headers:
                changes.apply(self._connection, Change.decode(record.value), sequence)
            elif WITH not in headers or self._held(sequence - int(headers[WITH])):
                self._append(record, Event.model_validate_json(record.value or b""))
        except (ValueError, TypeError) as error:  # somebody else wrote it: it is nothing for everybody alike
            told = {"offset": record.offset, "reason": f"{type(error).__name__}: {error}".splitlines()[0]}
            logger.warning("a record of the event log is neither an event nor a change", extra=told)

    def _held(self, position: int) -> bool:
        return bool(self._connection.execute("SELECT 1 FROM accepted WHERE position = ?", (position,)).fetchone())

    def _append(self, record: Any, event: Event) -> None:  # noqa: ANN401
        # A broker's clock may be set back: the times are in the order of the sequences all the same.
        at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        self._last = max(at, self._last)
        key = event.metadata.source, event.metadata.dedupe_key
        moment = self._last.isoformat(timespec="microseconds")
        row = (record.offset + 1, event.id, event.type, *key, record.value.decode(), moment)
        self._connection.execute(_INSERT, row)


def record_of(event: Event, *headers: tuple[str, bytes]) -> Record:
    """An event as a record of the topic; those of one aggregate have one key.

    Raises:
        EventLogError: It cannot be written as JSON.
    """
    return Record(f"{event.aggregate_type}/{event.aggregate_id}".encode(), encode(event).encode(), headers)


def records_of(change: Change, published: Sequence[Event]) -> list[Record]:
    """A change, and the events that come with it, as records that are appended at once."""
    head = Record(f"subscription/{change.subscription}".encode(), change.encode(), [(CHANGE, _VERSION)])
    events = (record_of(event, (WITH, str(behind).encode())) for behind, event in enumerate(published, 1))
    return [head, *events]
