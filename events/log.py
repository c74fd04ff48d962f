"""What an event log can do, whatever keeps it: `events.sqlite`, `events.postgres`, `integrations.kafka.events`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Protocol

from pydantic_core import from_json

from errors import EventLogError
from events.envelope import Event
from settings import get_settings

if TYPE_CHECKING:
    from events.deliveries import Database

PROJECTIONS = "projections"
"""The subscription that stands for the tables of landed events: theirs are its dead letters, and its position."""

LETTERS = 50
"""Dead letters that are read at once, if all are wanted."""

_SURELY_READABLE = 190
"""Opening brackets: JSON that is nested deeper than 200 can be written, but not read."""


def open_log(url: str) -> EventLog:
    """Opens the event log, and makes it if it is not there.

    Args:
        url: `sqlite:///data/events.db` (relative to the settings' root), `sqlite:////var/lib/events.db`,
            `postgresql://user:password@host/database`, or `kafka://host:9092/topic`.

    Raises:
        EventLogError: The URL names no log, or the log cannot be opened.
    """
    scheme, separator, path = url.partition("://")
    if scheme == "sqlite" and path.startswith("/") and path != "/":
        from events.sqlite import SqliteEventLog

        return SqliteEventLog(get_settings().path(path[1:]))
    if scheme in {"postgresql", "postgresql+psycopg"} and separator:
        from events.postgres import PostgresEventLog

        return PostgresEventLog(f"postgresql://{path}")
    if scheme == "kafka" and separator:
        # In a layer above this one, which is not to know it: named, not imported.
        log: EventLog = resolve_name("integrations.kafka.events:open_log")(url)
        return log
    raise EventLogError(
        f"an event log cannot be kept in {scheme.partition(':')[0]!r}",
        hint="set PIVOTAL_EVENTS_URL to a file, sqlite:///data/events.db, to a database, postgresql://..., or to a "
        "topic, kafka://host:9092/topic",
    )


class UnwritableError(EventLogError):
    """An event holds what JSON, or UTF-8, cannot say, or is nested so deep that nobody could read it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event in the log.

    Args:
        sequence: Its place: grows by at least one with every event, per log.
        event: The event.
        recorded_at: When the log took it.
    """

    sequence: int
    event: Event
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a subscription could not handle.

    Args:
        subscription: The subscription's name.
        recorded: The event.
        error: What went wrong, with the traceback; free of secrets.
        attempts: How often it was tried.
        at: When it was given up.
    """

    subscription: str
    recorded: Recorded
    error: str
    attempts: int
    at: datetime


class EventLog(Protocol):
    """Append-only; a sequence per log; (source, dedupe_key) at most once."""

    def publish(self, events: Sequence[Event]) -> list[bool]:
        """Appends the events, all or none; returns once they are on disk.

        Returns:
            One flag an event: True if it is new, False if (source, dedupe_key) was there already.

        Raises:
            EventLogError: They are not on disk; `retryable` tells whether trying again can help.
        """
        ...

    def read(
        self, after: int, limit: int, *, until: int | None = None, types: Sequence[str] = ("*",)
    ) -> list[Recorded]:
        """Events after the sequence `after` (and up to `until`), in order; `types` are patterns: `stripe.*`.

        An event that is read is never followed by one with a lower sequence: who reads on from the last one that he
        saw misses nothing. A pattern's `*` stands for any characters, dots too.
        """
        ...

    def find(self, key: str) -> list[Recorded]:
        """Events by their id or by their producer's id (`evt_...`), oldest first."""
        ...

    def counts(self) -> Mapping[str, int]:
        """How many events there are of each type."""
        ...

    def head(self) -> int:
        """The last sequence; 0 if there is none."""
        ...

    def wait(self, after: int, seconds: float) -> int:
        """Waits for an event behind the sequence `after`, at most so many seconds.

        Returns:
            The head, as soon as it is behind `after` or the time is over.
        """
        ...

    def before(self, moment: datetime) -> int:
        """The last sequence that was recorded before a moment (with a time zone); 0 if there is none."""
        ...

    def prune(self, until: int, *, dry_run: bool = False) -> int:
        """Deletes the events up to the sequence `until`, but for dead letters and the log's last event.

        What a durable subscription has not done yet stays, too.

        An event whose (source, dedupe_key) is gone is new if it comes again. The last event stays, so that the head
        never goes back. Publishers get their turn in between; who is interrupted has deleted a part.

        Returns:
            How many were deleted, or would be: `dry_run` deletes nothing.
        """
        ...

    def bury(self, subscription: str, recorded: Recorded, error: str, attempts: int) -> None:
        """Puts an event on a subscription's dead-letter list; it is there once, with the latest error."""
        ...

    def dead(
        self, subscription: str | None = None, *, after: DeadLetter | None = None, limit: int | None = None
    ) -> list[DeadLetter]:
        """The dead letters, oldest first: those behind the letter `after`, no more than `limit`."""
        ...

    def dead_counts(self) -> Mapping[str, int]:
        """How many dead letters each subscription has."""
        ...

    def revive(self, subscription: str, sequences: Iterable[int]) -> None:
        """Takes events off the dead-letter list, after they were handled."""
        ...

    def database(self) -> Database:
        """What keeps the state of durable subscriptions, beside the events."""
        ...

    def close(self) -> None:
        """Frees the connection."""
        ...


def mark(log: EventLog, sequence: int) -> str | None:
    """Tells an event from what has its sequence in a log that was set back, or started anew: when the log took it.

    Args:
        log: The log.
        sequence: The event's.

    Returns:
        None if there is none, or none any more.
    """
    there = log.read(sequence - 1, 1, until=sequence)
    return there[0].recorded_at.isoformat() if there else None


def dead_letters(log: EventLog, subscription: str | None = None) -> Iterator[DeadLetter]:
    """All of the dead letters, oldest first, few of them in memory at once.

    Args:
        log: Where they are. They may be revived, or buried again, as they come.
        subscription: Whose; everybody's if not given.
    """
    found = log.dead(subscription, limit=LETTERS)
    while found:
        yield from found
        found = log.dead(subscription, after=found[-1], limit=LETTERS)


def encode(event: Event) -> str:
    """An event's JSON.

    Raises:
        UnwritableError: It cannot be written as JSON that can be read.
    """
    try:
        text = event.model_dump_json()
        if text.count("{") + text.count("[") > _SURELY_READABLE:
            Event.model_validate_json(text)
        if "NaN" in text or "Infinity" in text:  # in a string, too
            _refuse_what_is_no_number(text)
    except ValueError as error:
        raise UnwritableError(
            f"event {event.type} ({event.metadata.dedupe_key!r}) cannot be written as JSON: {error}"
        ) from error
    return text


def _refuse_what_is_no_number(text: str) -> None:
    try:
        from_json(text, allow_inf_nan=False)
    except ValueError:
        raise ValueError("NaN and Infinity are no numbers in JSON") from None


def storable(error: str) -> str:
    """An error's text, with escapes for what databases cannot keep: NUL, and halves of characters."""
    return error.replace("\0", r"\0").encode(errors="backslashreplace").decode()
