"""The event log in a topic of Kafka's.

The topic is the log: all events, and all changes of what is kept of subscriptions, in one order. Every machine keeps a
replica of it in a SQLite file, where it looks things up. An event that came twice is in the topic twice; the first one
counts, for everybody alike (docs/decisions/0026-the-event-log-in-kafka.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from errors import EventLogError
from events.deliveries import Transaction, Values
from events.deliveries_sqlite import SqliteDatabase
from events.envelope import Event
from events.log import DeadLetter, Recorded
from events.sqlite import SqliteEventLog
from integrations.kafka.connection import Connection
from integrations.kafka.errors import KafkaIntegrationError
from integrations.kafka.events import snapshot
from integrations.kafka.events.changes import Change, Drafts
from integrations.kafka.events.follower import Follower
from integrations.kafka.events.journal import Journal
from integrations.kafka.events.replica import Replica, record_of, records_of
from integrations.kafka.transactions import Record

T = TypeVar("T")

PRUNE_PORTION = 10_000
"""Events that one change deletes, at most: nothing else is applied meanwhile."""

_TRIES = 20
"""How often a change is worked out while others change the same subscription."""


class KafkaEventLog:
    """An `EventLog` in a topic; threads may share it.

    Args:
        connection: How the brokers are reached.
        topic: The topic; it is made if it is not there.
        path: The file of this machine's replica. Processes may share it.

    Raises:
        EventLogError: The brokers cannot be reached or refuse us; or the topic is not fit for a log.
    """

    def __init__(self, connection: Connection, topic: str, path: Path) -> None:
        self._label = f"kafka://{connection.brokers}/{topic}"
        self._closed = False
        with ExitStack() as opened:
            with self._telling("opened"):
                self._journal = opened.enter_context(closing(Journal(connection, topic)))
            self._replica = opened.enter_context(closing(Replica(path)))
            self._drafts = opened.enter_context(closing(Drafts(path)))
            self._follower = opened.enter_context(closing(Follower(self._journal, self._replica)))
            self._opened = opened.pop_all()

    def publish(self, events: Sequence[Event]) -> list[bool]:
        """See `EventLog.publish`."""
        records = [record_of(event) for event in events]
        with self._telling("written"):
            missing = self._missing(events)
            offsets = self._append([records[at] for at in missing]) if missing else []
            new = self._replica.new(offsets) if offsets else set()
        came = {at for at, offset in zip(missing, offsets, strict=True) if offset in new}
        return [at in came for at in range(len(events))]

    def read(
        self, after: int, limit: int, *, until: int | None = None, types: Sequence[str] = ("*",)
    ) -> list[Recorded]:
        """See `EventLog.read`."""
        return self.current().read(after, limit, until=until, types=types)

    def find(self, key: str) -> list[Recorded]:
        """See `EventLog.find`."""
        return self.current().find(key)

    def head(self) -> int:
        """See `EventLog.head`."""
        return self.current().head()

    def wait(self, after: int, seconds: float) -> int:
        """See `EventLog.wait`."""
        deadline = time.monotonic() + seconds
        head = self.head()
        while head <= after and (left := deadline - time.monotonic()) > 0:
            self._follower.wait(self._follower.position + 1, left)
            head = self.head()
        return head

    def before(self, moment: datetime) -> int:
        """See `EventLog.before`."""
        return self.current().before(moment)

    def prune(self, until: int, *, dry_run: bool = False) -> int:
        """See `EventLog.prune`: then what all have read leaves the topic, too."""
        pruned = left = self.current().prune(until, dry_run=True)
        while left > 0 and not dry_run:
            with self._telling("pruned"):
                self._append(records_of(Change(prune=until, limit=PRUNE_PORTION), ()))
            left -= PRUNE_PORTION
        if pruned and not dry_run:
            with self._telling("pruned"):
                self._shorten(until)
        return pruned

    def counts(self) -> Mapping[str, int]:
        """See `EventLog.counts`."""
        return self.current().counts()

    def bury(self, subscription: str, recorded: Recorded, error: str, attempts: int) -> None:
        """See `EventLog.bury`."""
        self.change(lambda transaction: transaction.bury(subscription, recorded, error, attempts))

    def dead(
        self, subscription: str | None = None, *, after: DeadLetter | None = None, limit: int | None = None
    ) -> list[DeadLetter]:
        """See `EventLog.dead`."""
        return self.current().dead(subscription, after=after, limit=limit)

    def dead_counts(self) -> Mapping[str, int]:
        """See `EventLog.dead_counts`."""
        return self.current().dead_counts()

    def revive(self, subscription: str, sequences: Iterable[int]) -> None:
        """See `EventLog.revive`."""
        named = [{"name": subscription, "sequence": sequence} for sequence in sequences]
        statement = "DELETE FROM dead_letters WHERE subscription = :name AND sequence = :sequence"
        self.change(lambda transaction: transaction.each(statement, named))

    def database(self) -> KafkaDatabase:
        """See `EventLog.database`."""
        return KafkaDatabase(self)

    def change(self, work: Callable[[Transaction], T]) -> T:
        """Does work on what is kept of one subscription.

        Raises:
            EventLogError: It is not done; others may have changed the same subscription all the time.
        """
        with self._telling("written"):
            for _ in range(_TRIES):
                draft = self._drafts.work_out(work)
                if draft.change is None:
                    return draft.returned
                offset, *_ = self._append(records_of(draft.change, draft.published))
                if self._replica.held(offset):
                    return draft.returned
        raise EventLogError(
            f"the event log {self._label} cannot be written: others change the same subscription all the time",
            hint="try again",
            retryable=True,
        )

    def close(self) -> None:
        """See `EventLog.close`."""
        self._closed = True
        self._opened.close()

    def current(self) -> SqliteEventLog:
        """The replica, with all that was in the topic a moment ago."""
        with self._telling("read"):
            self._follower.reach(self._journal.end())
        return self._replica.file

    def _append(self, records: Sequence[Record]) -> list[int]:
        """Appends records, and waits until the replica has them."""
        offsets = self._journal.append(records)
        self._follower.reach(offsets[-1] + 1)
        return offsets

    def _missing(self, events: Sequence[Event]) -> list[int]:
        """Which of the events, the first of each, the replica does not have: it may be behind, but is not wrong."""
        first: dict[tuple[str, str], int] = {}
        for at, event in enumerate(events):
            first.setdefault((event.metadata.source, event.metadata.dedupe_key), at)
        there = self._replica.known(list(first))
        return [at for key, at in first.items() if key not in there]

    def _shorten(self, until: int) -> None:
        """Deletes the topic's records up to an event, unless somebody has not read them yet."""
        with self._replica.file.writing() as connection:
            until, value = snapshot.take(connection, until)
        self._journal.keep_snapshot(value)
        self._journal.delete_before(until)

    def _check_open(self) -> None:
        if self._closed:
            raise EventLogError(f"the event log {self._label} was closed")

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Turns Kafka's errors into ours."""
        self._check_open()
        try:
            yield
        except KafkaIntegrationError as error:
            raise EventLogError(
                f"the event log {self._label} cannot be {what}: {error.message}",
                hint=error.hint,
                retryable=error.retryable,
            ) from error


class KafkaDatabase(SqliteDatabase):
    """A `Database`: the replica, which is changed through the topic.

    Args:
        log: The log.
    """

    def __init__(self, log: KafkaEventLog) -> None:
        super().__init__(log.current())
        self._kafka = log

    def run(self, work: Callable[[Transaction], T]) -> T:
        """See `Database.run`."""
        return self._kafka.change(work)

    def select(self, statement: str, values: Values) -> list[Any]:
        """See `Database.select`."""
        return self._kafka.current().select(statement, values)
