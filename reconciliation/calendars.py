"""What has changed in a calendar since the last reading, by Google's sync token or Graph's delta link.

A notification only says that something has changed, so this is how calendars get into the log at all; a notification
makes it happen soon, a timer makes it happen anyway. Instances within a stretch of time are read: `BEHIND` and `AHEAD`
of the day on which the stretch was fixed; it moves on after `FIXED_FOR`, and then everything in it is read.

What is gone is told by what the table knows of it, so the tables are brought up to the log first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from etl.destinations.warehouse import Warehouse
from etl.lock import only_run_of
from etl.stream import State
from events.cause import new_event
from events.envelope import Event
from events.log import EventLog
from integrations.calendar.model import CalendarEvent, Calendars, Changes, zone_of
from projections.apply import apply_range
from reconciliation.reading import Reconciled, digest, publish, remember, remembered

if TYPE_CHECKING:
    from integrations.calendar.model import Moment

BEHIND, AHEAD, FIXED_FOR = timedelta(days=90), timedelta(days=400), timedelta(days=30)

SERVICES = {"google_calendar": "google", "outlook": "outlook"}
"""What the log and the tables call the services."""

_PORTION = 500
_TABLE = "calendar_events"
_TEXTS = ("calendar_event_id", "title", "zone", "series_id", "organizer", "etag")
_TIMES = ("starts_at", "ends_at", "updated_at", "read_at")
_COUNTS = ("attendees", "accepted")
_FLAGS = ("all_day", "online")
_COLUMNS = (*_TEXTS, *_TIMES, *_COUNTS, *_FLAGS)
_KNOWN = (
    "WHERE service = ? AND calendar_id = ? AND status = 'confirmed' AND calendar_event_id > ?"
    f" ORDER BY calendar_event_id LIMIT {_PORTION}"
)


def reconcile_calendar(
    calendars: Calendars, calendar_id: str, log: EventLog, warehouse: Warehouse, *, run_id: str
) -> Reconciled:
    """Publishes what has changed in one calendar: `google.calendar.event.updated`, `outlook.calendar.event.deleted`.

    Without a token, or if the service has forgotten it, all that there is is read, and what the table has beyond that
    is deleted.

    Args:
        calendars: Asks the service.
        calendar_id: Which calendar.
        log: Where the events go.
        warehouse: Where the token is kept, and the table of events.
        run_id: Who reads.

    Raises:
        CalendarIntegrationError: The service refused, or cannot be reached; the next call reads the same again.
        EventLogError: The log cannot be written.
        DestinationError: The warehouse cannot be read or written.
        PivotalError: Another reading goes on.
    """
    provider = SERVICES[calendars.service]
    name = f"reconciliation/{provider}/{digest(calendars.account, calendar_id)}"
    with only_run_of(name.replace("/", "-")), closing(_Reading(provider, calendar_id)) as reading:
        state = _in_time(remembered(log, warehouse, name), reading.began)
        start, end = (datetime.fromisoformat(str(state[name])) for name in ("start", "end"))
        token = None if state["token"] is None else str(state["token"])
        pages = calendars.changes(calendar_id, start, end, token=token)
        found = publish(log, reading.updates(pages), provider)
        if reading.may_lack:
            apply_range(log, warehouse, None, log.head(), run_id=run_id)
            found += publish(log, reading.deletions(warehouse, start, end), provider)
        remember(log, warehouse, name, run_id, {**state, "token": reading.token})
        return found


def _in_time(state: State, now: datetime) -> State:
    """The state, if its stretch of time is not too old; else a new stretch, which has no token yet."""
    day = datetime.combine(now.date(), time(), UTC)
    if state and day < datetime.fromisoformat(str(state["start"])) + BEHIND + FIXED_FOR:
        return state
    return {"start": (day - BEHIND).isoformat(), "end": (day + AHEAD).isoformat(), "token": None}


class _Reading:
    """One reading of a calendar: what it told is noted on the disk, for a calendar may hold any number of events."""

    def __init__(self, provider: str, calendar_id: str) -> None:
        self._provider, self._calendar_id = provider, calendar_id
        self._noted = sqlite3.connect("", isolation_level=None)
        self._noted.execute("CREATE TABLE noted (id TEXT PRIMARY KEY, how TEXT NOT NULL) WITHOUT ROWID")
        self._all = False
        self.began = datetime.now(UTC)
        self.token: str | None = None
        self.may_lack = False

    def close(self) -> None:
        self._noted.close()

    def updates(self, pages: Iterable[Changes]) -> Iterator[Event]:
        """What is new or different."""
        for page in pages:
            self._all = self._all or page.reset
            self.may_lack = self.may_lack or page.reset or bool(page.removed or page.series)
            self.token = page.token
            self._note("series", page.series)
            self._note("removed", page.removed)
            self._note("there", (event.id for event in page.events))
            yield from (self._updated(event) for event in page.events)

    def deletions(self, warehouse: Warehouse, start: datetime, end: datetime) -> Iterator[Event]:
        """What the table has and the calendar has not (any more), with what the table knows of it."""
        last = ""
        while rows := warehouse.rows(_TABLE, _COLUMNS, _KNOWN, [self._provider, self._calendar_id, last]):
            for known in (_read(dict(zip(_COLUMNS, row, strict=True))) for row in rows):
                last = known["calendar_event_id"]
                within = known["ends_at"] > start and known["starts_at"] < end
                if self._lacks(known["calendar_event_id"], known["series_id"], within=within):
                    yield self._deleted(known)

    def _note(self, how: str, ids: Iterable[str]) -> None:
        self._noted.executemany("INSERT OR REPLACE INTO noted VALUES (?, ?)", ((id_, how) for id_ in ids))

    def _how(self, id_: str | None) -> str | None:
        found = self._noted.execute("SELECT how FROM noted WHERE id = ?", [id_]).fetchone()
        return None if found is None else str(found[0])

    def _lacks(self, id_: str, series_id: str | None, *, within: bool) -> bool:
        own = self._how(id_)
        if own == "there":
            return False
        return own == "removed" or self._how(series_id) in {"removed", "series"} or (self._all and within)

    def _updated(self, event: CalendarEvent) -> Event:
        told = {
            "calendar_event_id": event.id,
            "title": event.draft.title,
            "zone": zone_of(event.draft.start) or None,
            "series_id": event.series_id,
            "organizer": event.organizer,
            "etag": event.etag,
            "starts_at": _moment(event.draft.start),
            "ends_at": _moment(event.draft.end),
            "updated_at": event.updated,
            "attendees": len(event.draft.attendees),
            "accepted": sum(each.answer == "accepted" for each in event.draft.attendees),
            "all_day": event.draft.all_day,
            "online": event.draft.online_meeting,
        }
        return self._event("updated", {**told, "read_at": self.began}, event.updated)

    def _deleted(self, known: Mapping[str, Any]) -> Event:
        """After the version that is known, by whatever clock that was read."""
        found = max(self.began, known["read_at"] + timedelta(microseconds=1))
        return self._event("deleted", {**known, "read_at": found}, self.began)

    def _event(self, what: str, told: Mapping[str, Any], at: datetime) -> Event:
        data = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in told.items()}
        id_ = str(told["calendar_event_id"])
        return new_event(
            f"{self._provider}.calendar.event.{what}",
            ("calendar_event", id_),
            {"calendar_id": self._calendar_id, **data},
            source=self._provider,
            dedupe_key=digest(what, self._calendar_id, id_, str(told["etag"])),
            timestamp=at,
        )


def _moment(moment: Moment) -> datetime:
    return moment.astimezone(UTC) if isinstance(moment, datetime) else datetime.combine(moment, time(), UTC)


def _read(row: Mapping[str, str | None]) -> dict[str, Any]:
    """A row of the table, from the texts that each kind of database makes of it."""
    texts = {name: row[name] for name in _TEXTS}
    times = {name: _utc(str(row[name])) for name in _TIMES}
    counts = {name: int(str(row[name])) for name in _COUNTS}
    flags = {name: str(row[name]).lower() in {"1", "t", "true"} for name in _FLAGS}
    return {**texts, **times, **counts, **flags}


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
