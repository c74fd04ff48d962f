"""How far everybody who reads the log is, and which events nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from etl.destinations.warehouse import Warehouse
from events.deliveries import deliveries_of
from events.log import EventLog, Recorded
from projections import PATTERNS
from projections.apply import SUBSCRIPTION, position


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody who reads the log.

    Args:
        name: `projections` (the tables), or a durable subscription's name.
        position: Every event up to this sequence has been read.
        lag: Sequences in the log behind that.
        oldest: When the first event was recorded that is not handled; None if all are.
    """

    name: str
    position: int
    lag: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning did, or would do.

    Args:
        events: How many events were deleted.
        until: The last sequence that was looked at.
        stopped: Why it went no further.
    """

    events: int
    until: int
    stopped: str


def readers(log: EventLog, warehouse: Warehouse) -> list[Reader]:
    """The tables, and every durable subscription that was ever worked.

    Raises:
        EventLogError: The log cannot be read.
        DestinationError: The warehouse cannot be read.
    """
    return [_tables(log, warehouse), *_subscriptions(log)]


def prune(log: EventLog, warehouse: Warehouse, keep: timedelta, *, dry_run: bool = False) -> Pruned:
    """Deletes events that are old and that everybody has read; dead letters stay.

    Args:
        log: The log.
        warehouse: Where the tables are.
        keep: How old an event must be. For as long, a repeated event is recognised.
        dry_run: Only count them.

    Raises:
        EventLogError: The log cannot be read or written; what was deleted before stays deleted.
        DestinationError: The warehouse cannot be read.
    """
    moment = datetime.now(UTC) - keep
    limits = [(log.before(moment), f"what follows was recorded after {moment:%Y-%m-%d %H:%M} UTC")]
    limits += [(one.position, f"{_named(one)} no more") for one in readers(log, warehouse)]
    until, stopped = min(limits)
    return Pruned(log.prune(until, dry_run=dry_run), until, stopped)


def _named(reader: Reader) -> str:
    if reader.name == SUBSCRIPTION:
        return "the tables hold"
    return f"the subscription {reader.name!r} has read"


def _tables(log: EventLog, warehouse: Warehouse) -> Reader:
    head, held = log.head(), position(log, warehouse)
    waiting = log.read(held, 1, until=head, types=PATTERNS)
    reached = waiting[0].sequence - 1 if waiting else head  # events in between are not for them
    return Reader(SUBSCRIPTION, reached, head - reached, _recorded_at(waiting))


def _subscriptions(log: EventLog) -> Iterator[Reader]:
    for one in deliveries_of(log).statuses():
        first = one.cursor + 1 if one.oldest is None else one.oldest
        waiting = log.read(first - 1, 1)
        yield Reader(one.name, one.cursor, one.lag, _recorded_at(waiting))


def _recorded_at(waiting: list[Recorded]) -> datetime | None:
    return waiting[0].recorded_at if waiting else None
