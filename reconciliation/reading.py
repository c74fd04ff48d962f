"""What readings of all providers have in common: what is published is counted, where to go on from is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from etl.destinations.warehouse import Warehouse
from etl.stream import State
from events.envelope import Event
from events.log import EventLog

PORTION = 200
"""Events in a commit: what is in memory at once."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reading found.

    Args:
        provider: Whose.
        read: How many events it told.
        new: How many of them the log did not have.
    """

    provider: str
    read: int = 0
    new: int = 0

    @property
    def duplicates(self) -> int:
        """How many the log had already."""
        return self.read - self.new

    def __add__(self, other: Reconciled) -> Reconciled:
        """Both."""
        return Reconciled(self.provider, self.read + other.read, self.new + other.new)


def publish(log: EventLog, events: Iterable[Event], provider: str) -> Reconciled:
    """Puts events on the log, portion by portion.

    Args:
        log: Where they go.
        events: The events, in order.
        provider: Whose they are.

    Raises:
        EventLogError: A portion is not on disk; those before it are.
    """
    found, coming = Reconciled(provider), iter(events)
    while portion := list(islice(coming, PORTION)):
        found += Reconciled(provider, len(portion), sum(log.publish(portion)))
    return found


def digest(*parts: str) -> str:
    """A name without the addresses, or keys, that accounts and calendars are known by."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:40]


def begin(
    until: datetime | None, since: datetime | None, first: timedelta, overlap: timedelta, oldest: datetime
) -> datetime:
    """From when on a provider is read.

    Args:
        until: When the last reading began; None: there was none.
        since: Further back than that.
        first: How far the first reading goes back.
        overlap: What is read again each time.
        oldest: Nothing from before.
    """
    usual = datetime.now(UTC) - first if until is None else until - overlap
    return max(min(usual, since or usual), oldest)


def remembered(log: EventLog, warehouse: Warehouse, name: str) -> State:
    """What the last reading kept; nothing if this log lacks what it published.

    Args:
        log: The event log; one that was set back, or started anew, is filled again.
        warehouse: Where it is kept, beside the tables.
        name: Whose.
    """
    state = warehouse.state(name) or {}
    return state if int(str(state.get("head", 0))) <= log.head() else {}


def remember(log: EventLog, warehouse: Warehouse, name: str, run_id: str, state: State) -> None:
    """Keeps where to go on from, once all is published.

    Args:
        log: The event log.
        warehouse: Where it is kept.
        name: Whose.
        run_id: Who read.
        state: Where to go on from.
    """
    with warehouse.transaction() as transaction:
        transaction.save_state(name, run_id, {**state, "head": log.head()})
        transaction.commit()
