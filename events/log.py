"""What an event log can do, whatever keeps it. Backends: `events.sqlite` (PostgreSQL and Kafka follow)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from events.envelope import Event


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
        """Events after the sequence `after` (and up to `until`), in order; `types` are patterns: `stripe.*`."""
        ...

    def head(self) -> int:
        """The last sequence; 0 if there is none."""
        ...

    def bury(self, subscription: str, recorded: Recorded, error: str, attempts: int) -> None:
        """Puts an event on a subscription's dead-letter list (once)."""
        ...

    def dead(self, subscription: str | None = None) -> list[DeadLetter]:
        """The dead letters, oldest first."""
        ...

    def revive(self, subscription: str, sequences: Iterable[int]) -> None:
        """Takes events off the dead-letter list, after they were handled."""
        ...

    def close(self) -> None:
        """Frees the connection."""
        ...
