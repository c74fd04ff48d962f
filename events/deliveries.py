"""What is kept of durable subscriptions, in the log's own database: cursors, leases, and events that are not done.

A subscription's cursor stands at the last event that was read. Every event up to it that is neither handled nor dead
has a row: one that failed, those of its aggregate that wait behind it, those in hand while others went on. Of the rows
of one aggregate the first alone is due at some time; when it leaves, the next one is due at once.

Whatever a worker writes, it writes in a transaction that first asks whether it still has the lease: one that was taken
over while it hung changes nothing more. Times are those of the database's clock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from errors import EventLogError, PivotalError
from events.envelope import Event
from events.log import EventLog, Recorded

REPLAYED = 1000
"""Dead letters that are replayed in one transaction, at most: no worker commits meanwhile."""

T = TypeVar("T")
Values = Mapping[str, object]


@dataclass(slots=True)
class Delivery:
    """An event on its way to a subscription's handler.

    Args:
        recorded: The event.
        attempts: How often it has failed.
        stored: Whether it has a row.
        counted: Whether `attempts` counts the one that it is about to have.
    """

    recorded: Recorded
    attempts: int = 0
    stored: bool = False
    counted: bool = False
    aggregate: str = field(init=False)
    """What its aggregate is known by: short, whatever the envelope's names are."""

    def __post_init__(self) -> None:
        self.aggregate = _digest(self.recorded.event)


@dataclass(frozen=True, slots=True)
class Failure:
    """An event that failed.

    Args:
        delivery: Which one; `attempts` counts this failure.
        error: What went wrong, free of secrets.
        wait: Seconds until the next attempt; None: it is a dead letter.
    """

    delivery: Delivery
    error: str
    wait: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """What a worker has done since it last told.

    Args:
        cursor: The last event that it has read.
        handled: Events that are done.
        failed: Events that failed.
        waiting: Events that it has read, are not done, and have no row yet.
        alerts: Events to publish with it.
    """

    cursor: int
    handled: Sequence[Delivery] = ()
    failed: Sequence[Failure] = ()
    waiting: Sequence[Delivery] = ()
    alerts: Sequence[Event] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work a subscription, until it expires or is given back.

    Args:
        subscription: The subscription's name.
        number: Grows with every holder; never the same again, even if the subscription is forgotten meanwhile.
        cursor: Where the last holder stood.
        abandoned: Whether the last holder died or hung: it did not give the lease back.
    """

    subscription: str
    number: int
    cursor: int
    abandoned: bool


class LeaseLostError(EventLogError):
    """Another has a subscription's lease by now."""


@dataclass(frozen=True, slots=True)
class Status:
    """How far a subscription is.

    Args:
        name: Its name.
        cursor: The last event that it has read.
        lag: Sequences in the log behind the cursor.
        holder: Which process works it (host and process id); None if none does.
        waiting: Events before the cursor that are tried again, in hand, or wait behind such.
        oldest: The first of these, a sequence; None if there is none.
        dead: Dead letters.
    """

    name: str
    cursor: int
    lag: int
    holder: str | None
    waiting: int
    oldest: int | None
    dead: int


class Transaction(Protocol):
    """A transaction of the log's database that goes on."""

    def rows(self, statement: str, values: Values) -> list[Any]:
        """What a statement gives."""
        ...

    def each(self, statement: str, values: Sequence[Values]) -> None:
        """Does a statement once with each of the values."""
        ...

    def publish(self, events: Sequence[Event]) -> None:
        """As `EventLog.publish`."""
        ...

    def bury(self, subscription: str, recorded: Recorded, error: str, attempts: int) -> None:
        """As `EventLog.bury`."""
        ...


class Database(Protocol):
    """The log's database, and how it says what databases say differently. Statements name their values: `:name`.

    Args:
        now: Seconds since 1970.
        listed: The texts in a JSON list that a value is: `aggregate IN {listed.format('aggregates')}`.
        unless_locked: Behind a SELECT: locks the row, or passes it over if another transaction has.
    """

    now: str
    listed: str
    unless_locked: str

    def run(self, work: Callable[[Transaction], T]) -> T:
        """Does work in a transaction; committed if it returns. It may be done again, from the start, before that."""
        ...

    def select(self, statement: str, values: Values) -> list[Any]:
        """What a query finds."""
        ...

    def recorded(self, sequence: int, event: Any, recorded_at: Any) -> Recorded:  # noqa: ANN401
        """An event, from what the database holds of it."""
        ...


def deliveries_of(log: EventLog) -> Deliveries:
    """What the log's database keeps of durable subscriptions."""
    return Deliveries(log, log.database())


class Deliveries:
    """Cursors, leases, and events that are not done.

    Args:
        log: The log.
        database: Its database.
    """

    def __init__(self, log: EventLog, database: Database) -> None:
        self._log, self._database = log, database

    def acquire(self, name: str, holder: str, seconds: float, *, start: int, mine: int = 0) -> Lease | None:
        """Takes a subscription's lease, if nobody else has it.

        Args:
            name: The subscription.
            holder: Who takes it.
            seconds: For how long, if nothing is told meanwhile.
            start: Behind which event it begins, if it was never worked before.
            mine: The number of the lease that the holder had last.

        Raises:
            EventLogError: The database cannot be used.
        """
        now = self._database.now
        free = (
            "SELECT lease, cursor, expires > 0 AND lease <> :mine FROM durable_subscriptions"
            f" WHERE name = :name AND (expires <= {now} OR lease = :mine)"
        )
        values = {"name": name, "holder": holder, "seconds": seconds, "start": start, "mine": mine}
        known = self._database.select("SELECT 1 FROM durable_subscriptions WHERE name = :name", values)
        if known and not self._database.select(free, values):
            return None

        def take(transaction: Transaction) -> Lease | None:
            if not known:
                # No number that a holder may have had before the subscription was forgotten.
                transaction.each(
                    "INSERT INTO durable_subscriptions (name, cursor, lease)"
                    f" VALUES (:name, :start, CAST({now} * 1000000 AS bigint)) ON CONFLICT DO NOTHING",
                    [values],
                )
            for last, cursor, abandoned in transaction.rows(f"{free} {self._database.unless_locked}", values):
                transaction.each(
                    f"UPDATE durable_subscriptions SET lease = lease + 1, holder = :holder, expires = {now} + :seconds"
                    " WHERE name = :name",
                    [values],
                )
                return Lease(name, last + 1, cursor, bool(abandoned))
            return None

        return self._database.run(take)

    def release(self, lease: Lease) -> None:
        """Gives a lease back, unless another has it by now.

        Raises:
            EventLogError: The database cannot be used.
        """
        values = {"name": lease.subscription, "lease": lease.number}
        statement = "UPDATE durable_subscriptions SET expires = 0 WHERE name = :name AND lease = :lease"
        self._database.run(lambda transaction: transaction.each(statement, [values]))

    def commit(self, lease: Lease, progress: Progress, seconds: float) -> None:
        """Keeps what a worker has done, all or nothing, and its lease for some seconds more.

        Raises:
            LeaseLostError: Another has the lease.
            EventLogError: The database cannot be used.
        """
        again = [failure for failure in progress.failed if failure.wait is not None]
        dead = [failure for failure in progress.failed if failure.wait is None]
        gone = [one for one in (*progress.handled, *(failure.delivery for failure in dead)) if one.stored]
        kept = [*progress.waiting, *(failure.delivery for failure in again)]
        row = partial(_row, lease.subscription)

        def keep(transaction: Transaction) -> None:
            self._extend(transaction, lease, progress.cursor, seconds)
            transaction.each(_DELETE, list(map(row, gone)))
            transaction.each(_KEEP, list(map(row, kept)))
            transaction.each(
                f"UPDATE deliveries SET due = {self._database.now} + :wait WHERE {_FIRST} AND sequence = :sequence",
                [{**row(failure.delivery), "wait": failure.wait} for failure in again],
            )
            transaction.each(self._go_on, list(map(row, (*gone, *progress.waiting))))
            for failure in dead:
                transaction.bury(
                    lease.subscription, failure.delivery.recorded, failure.error, failure.delivery.attempts
                )
            transaction.publish(progress.alerts)

        self._database.run(keep)
        for delivery in kept:
            delivery.stored = True

    def reach(self, after: int, limit: int, size: int) -> int:
        """How far to read behind an event, so that it is no more than some events, and some characters.

        Args:
            after: The event's sequence.
            limit: How many events, at most.
            size: How many characters of JSON, at most; a longer event comes alone.

        Returns:
            The last event's sequence; `after` if there is none behind it.

        Raises:
            EventLogError: The database cannot be used.
        """
        [(until,)] = self._database.select(_REACH, {"after": after, "limit": limit, "size": size})
        return after if until is None else int(until)

    def due(self, name: str, limit: int, size: int, *, besides: Collection[str]) -> list[Delivery]:
        """Events to handle again, or at last; those of an aggregate in order.

        Args:
            name: The subscription.
            limit: How many, at most.
            size: How many characters of JSON, at most; the last event may go beyond.
            besides: Aggregates that are left out.

        Raises:
            EventLogError: The database cannot be used.
        """
        values = {"name": name, "besides": json.dumps(list(besides)), "limit": limit}
        first = self._database.select(
            f"SELECT aggregate FROM deliveries WHERE subscription = :name AND due <= {self._database.now}"
            f" AND aggregate NOT IN {self._database.listed.format('besides')} ORDER BY due LIMIT :limit",
            values,
        )
        found: list[Delivery] = []
        left = size
        for (aggregate,) in first:
            share = {"limit": limit // len(first), "size": size // len(first)}
            rows = self._database.select(_IN_ORDER, {"name": name, "aggregate": aggregate, **share})
            found += [Delivery(self._database.recorded(*event), attempts, stored=True) for attempts, *event in rows]
            left -= sum(len(text) for _, _, text, _ in rows)
            if left <= 0:  # each aggregate's first event comes, whatever its size
                break
        return found

    def next_due(self, name: str) -> float | None:
        """Seconds until an event is due; None if there is none.

        Raises:
            EventLogError: The database cannot be used.
        """
        [(seconds,)] = self._database.select(
            f"SELECT min(due) - {self._database.now} FROM deliveries WHERE subscription = :name AND due IS NOT NULL",
            {"name": name},
        )
        return seconds if seconds is None else float(seconds)

    def held(self, name: str, aggregates: Collection[str]) -> set[str]:
        """Those of the aggregates that have events which are not done.

        Raises:
            EventLogError: The database cannot be used.
        """
        found = self._database.select(
            "SELECT DISTINCT aggregate FROM deliveries WHERE subscription = :name"
            f" AND aggregate IN {self._database.listed.format('aggregates')}",
            {"name": name, "aggregates": json.dumps(list(aggregates))},
        )
        return {aggregate for (aggregate,) in found}

    def replay(self, name: str, sequences: Collection[int] | None = None) -> int:
        """Takes events off the dead-letter list, to be handled again before what waits of their aggregates.

        Args:
            name: The subscription.
            sequences: Which ones; all if not given.

        Returns:
            How many.

        Raises:
            EventLogError: The database cannot be used.
        """
        replayed, found = 0, [0]
        while found:
            found = self._letters(name, after=found[-1])
            replayed += self._revive(name, [one for one in found if sequences is None or one in sequences])
        return replayed

    def forget(self, name: str) -> None:
        """Forgets a subscription: its cursor, what waits, its dead letters.

        Raises:
            PivotalError: A process works it.
            EventLogError: The database cannot be used.
        """
        values = {"name": name}

        def delete(transaction: Transaction) -> None:
            transaction.each("DELETE FROM deliveries WHERE subscription = :name", [values])
            transaction.each("DELETE FROM dead_letters WHERE subscription = :name", [values])
            gone = transaction.rows(
                f"DELETE FROM durable_subscriptions WHERE name = :name AND expires <= {self._database.now} RETURNING 1",
                values,
            )
            if not gone:  # nothing is committed
                raise PivotalError(
                    f"subscription {name!r} is being worked, or unknown",
                    hint="stop the worker first; `pivotal events subscriptions` says where it runs",
                )

        self._database.run(delete)

    def statuses(self) -> list[Status]:
        """How far every subscription is that was ever worked, by name.

        Raises:
            EventLogError: The database cannot be used.
        """
        found = self._database.select(
            f"SELECT name, cursor, CASE WHEN expires > {self._database.now} THEN holder END,"
            " (SELECT count(*) FROM deliveries WHERE subscription = name),"
            " (SELECT min(sequence) FROM deliveries WHERE subscription = name),"
            " (SELECT count(*) FROM dead_letters WHERE subscription = name)"
            " FROM durable_subscriptions ORDER BY name",
            {},
        )
        head = self._log.head()
        return [
            Status(name, cursor, max(0, head - cursor), holder, waiting, oldest, dead)
            for name, cursor, holder, waiting, oldest, dead in found
        ]

    def _letters(self, name: str, after: int) -> list[int]:
        rows = self._database.select(
            "SELECT sequence FROM dead_letters WHERE subscription = :name AND sequence > :after"
            " ORDER BY sequence LIMIT :limit",
            {"name": name, "after": after, "limit": REPLAYED},
        )
        return [sequence for (sequence,) in rows]

    def _revive(self, name: str, sequences: Sequence[int]) -> int:
        """Replays dead letters, but for those that another has replayed meanwhile; how many."""

        def replay(transaction: Transaction) -> int:
            # Until this is committed no worker commits: what it holds to be the first of an aggregate stays that.
            transaction.rows(
                "UPDATE durable_subscriptions SET name = name WHERE name = :name RETURNING 1", {"name": name}
            )
            named = [{"name": name, "sequence": sequence} for sequence in sequences]
            there = [one for one in named if transaction.rows(_REVIVE, one)]
            events = (transaction.rows(_EVENT, one)[0] for one in there)  # one in memory at a time
            rows = [_row(name, Delivery(self._database.recorded(*event))) for event in events]
            transaction.each(f"UPDATE deliveries SET due = NULL WHERE {_FIRST}", rows)
            transaction.each(_KEEP, rows)
            transaction.each(self._go_on, rows)
            return len(rows)

        return self._database.run(replay)

    @property
    def _go_on(self) -> str:
        return f"UPDATE deliveries SET due = {self._database.now} WHERE {_FIRST} AND due IS NULL"

    def _extend(self, transaction: Transaction, lease: Lease, cursor: int, seconds: float) -> None:
        extended = transaction.rows(
            f"UPDATE durable_subscriptions SET cursor = :cursor, expires = {self._database.now} + :seconds"
            " WHERE name = :name AND lease = :lease RETURNING 1",
            {"name": lease.subscription, "lease": lease.number, "cursor": cursor, "seconds": seconds},
        )
        if not extended:
            raise LeaseLostError(f"another process took subscription {lease.subscription!r} over", retryable=True)


_FIRST = (
    "subscription = :name"
    " AND sequence = (SELECT min(sequence) FROM deliveries WHERE subscription = :name AND aggregate = :aggregate)"
)
_DELETE = "DELETE FROM deliveries WHERE subscription = :name AND sequence = :sequence"
_KEEP = """
    INSERT INTO deliveries (subscription, sequence, aggregate, attempts)
    VALUES (:name, :sequence, :aggregate, :attempts)
    ON CONFLICT (subscription, sequence) DO UPDATE SET attempts = excluded.attempts
"""
_REVIVE = "DELETE FROM dead_letters WHERE subscription = :name AND sequence = :sequence RETURNING 1"
_EVENT = "SELECT sequence, event, recorded_at FROM events WHERE sequence = :sequence"
# The first event is in, whatever its size.
_REACH = """
    SELECT max(sequence) FROM (
        SELECT sequence, sum(length(event)) OVER (ORDER BY sequence) AS through, length(event) AS own
        FROM (SELECT sequence, event FROM events WHERE sequence > :after ORDER BY sequence LIMIT :limit) AS next
    ) AS measured WHERE through <= :size OR through = own
"""
_IN_ORDER = """
    SELECT attempts, sequence, event, recorded_at FROM (
        SELECT attempts, sequence, event, recorded_at,
            sum(length(event)) OVER (ORDER BY sequence) AS through, length(event) AS own
        FROM (
            SELECT attempts, sequence, event, recorded_at FROM deliveries JOIN events USING (sequence)
            WHERE subscription = :name AND aggregate = :aggregate ORDER BY sequence LIMIT :limit
        ) AS next
    ) AS measured WHERE through <= :size OR through = own ORDER BY sequence
"""


def _row(name: str, delivery: Delivery) -> dict[str, object]:
    return {
        "name": name,
        "sequence": delivery.recorded.sequence,
        "aggregate": delivery.aggregate,
        "attempts": delivery.attempts,
    }


def _digest(event: Event) -> str:
    key = json.dumps([event.aggregate_type, event.aggregate_id]).encode()
    return hashlib.blake2b(key, digest_size=16).hexdigest()
