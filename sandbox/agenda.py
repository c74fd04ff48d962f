"""What a calendar of the sandbox holds, whichever service speaks for it: entries, their series, what changed when.

An entry is an event in its service's own words. How long it lasts, and how it recurs, the service says as a `Span`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from typing import Any

from dateutil.rrule import rrule, rruleset

Json = dict[str, Any]

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_FOREVER = 2000
"""How many instances a series has at most here."""


@dataclass(frozen=True, slots=True)
class Span:
    """When an event is, in the zone that it was given in; days without a zone if it lasts whole days."""

    start: datetime
    end: datetime
    rule: rrule | rruleset | None = None

    def starts(self) -> Iterator[datetime]:
        """When each instance starts."""
        if self.rule is None:
            yield self.start
            return
        for _, start in zip(range(_FOREVER), self.rule, strict=False):
            yield start

    def meets(self, start: datetime, window: Window) -> bool:
        """Whether the instance that starts then touches a window."""
        first, last = moment(start), moment(start + (self.end - self.start))
        return last > window.start and first < window.end


@dataclass(frozen=True, slots=True)
class Window:
    """From one moment to another, in UTC."""

    start: datetime = _FIRST
    end: datetime = _LAST

    def near(self, start: datetime) -> bool:
        """Whether what starts then may touch the window."""
        return self.start - min(timedelta(days=7), self.start - _FIRST) <= moment(start) < self.end


@dataclass(slots=True)
class Entry:
    """An event or a series.

    Args:
        body: What it says.
        version: The agenda's, when it was last changed.
        deleted: Whether it is gone.
        exceptions: What is different in single instances of it, by id; None: not there.
        seen: When what it was made of once started, by id; None: it was the whole event.
    """

    body: Json
    version: int
    deleted: bool = False
    exceptions: dict[str, Json | None] = field(default_factory=dict)
    seen: dict[str, datetime | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Words:
    """How a service words what an agenda must know.

    Args:
        span: When an event is.
        instance: The instance of a series that starts at a time.
        instance_id: Its id.
    """

    span: Callable[[Json], Span]
    instance: Callable[[Json, datetime], Json]
    instance_id: Callable[[Json, datetime], str]


class Agenda:
    """A calendar's entries.

    Args:
        about: What the service says of the calendar itself.
        words: How the service words events.
    """

    def __init__(self, about: Json, words: Words) -> None:
        self.about, self._words = about, words
        self.entries: dict[str, Entry] = {}
        self.version = 0

    def find(self, id_: str) -> tuple[Entry, Json | None] | None:
        """The entry of an event's id, and the event: None if it was deleted. None if it never was."""
        if id_ in self.entries:
            entry = self.entries[id_]
            return entry, None if entry.deleted else entry.body
        for entry in self.entries.values():
            if id_ in entry.seen:
                there = [] if entry.deleted else self._instances(entry, Window())
                return entry, next((each for each in there if each["id"] == id_), None)
        return None

    def put(self, body: Json) -> None:
        """Makes an event or a series, or changes the whole of it."""
        self.version += 1
        entry = self.entries.setdefault(body["id"], Entry(body, self.version))
        entry.body, entry.version = body, self.version
        self._see(entry)

    def put_instance(self, entry: Entry, id_: str, body: Json | None) -> None:
        """Changes, or takes away, one instance of a series."""
        self.version += 1
        entry.exceptions[id_], entry.version = body, self.version

    def delete(self, entry: Entry) -> None:
        """Deletes an event, or the whole of a series."""
        self.version += 1
        entry.deleted, entry.version = True, self.version

    def whole(self) -> Iterator[Json]:
        """Events and series."""
        return (entry.body for entry in self.entries.values() if not entry.deleted)

    def instances(self, window: Window) -> Iterator[Json]:
        """What takes place within a window."""
        for entry in self.entries.values():
            if not entry.deleted:
                yield from self._instances(entry, window)

    def changes(self, since: int, window: Window) -> Iterator[tuple[Entry, list[Json], list[str]]]:
        """What has changed: the entry, its instances within the window now, ids of instances that are gone."""
        for entry in self.entries.values():
            if entry.version > since:
                there = [] if entry.deleted else [*self._instances(entry, window)]
                was = {id_ for id_, start in entry.seen.items() if start is None or window.near(start)}
                yield entry, there, sorted(was - {each["id"] for each in there})

    def _see(self, entry: Entry) -> None:
        span = self._words.span(entry.body)
        if span.rule is None:
            entry.seen[entry.body["id"]] = None
        else:
            entry.seen |= {self._words.instance_id(entry.body, start): start for start in span.starts()}

    def _instances(self, entry: Entry, window: Window) -> Iterator[Json]:
        span = self._words.span(entry.body)
        if span.rule is None:
            yield from [entry.body] if span.meets(span.start, window) else []
            return
        for start in takewhile(lambda start: moment(start) < window.end, span.starts()):
            id_ = self._words.instance_id(entry.body, start)
            body = entry.exceptions.get(id_, self._words.instance(entry.body, start))
            if body is not None and (own := self._words.span(body)).meets(own.start, window):
                yield body


def moment(of: datetime) -> datetime:
    """The moment in UTC; days start there at midnight."""
    return of.replace(tzinfo=UTC) if of.tzinfo is None else of.astimezone(UTC)


def midnight(day: str) -> datetime:
    """When a day starts, as an agenda keeps days."""
    return datetime.combine(date.fromisoformat(day), time())


def page(items: list[Json], offset: int, size: int) -> tuple[list[Json], int | None]:
    """A part of a list, and where the next one starts, if there is one."""
    end = offset + size
    return items[offset:end], end if end < len(items) else None


def after(now: int, seconds: float) -> datetime:
    """The moment so many seconds after a Unix time."""
    return datetime.fromtimestamp(now, UTC) + timedelta(seconds=seconds)
