"""What calendars hold, whoever keeps them: the same frozen values for Google and for Outlook."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from typing import Literal, Protocol
from zoneinfo import ZoneInfo

from errors import PivotalError
from integrations.calendar.errors import CalendarIntegrationError

PRIMARY = "primary"
"""The id under which a user's own calendar can always be asked for."""

Kind = Literal["required", "optional", "resource"]
Answer = Literal["needs_action", "accepted", "tentative", "declined"]
Moment = datetime | date
"""A time with its zone, or a day."""

LIFETIME = timedelta(days=6)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Calendar:
    """A calendar that the credentials open.

    Args:
        id: The service's id of it; at Google often an address.
        name: What its owner calls it.
        primary: Whether it is the user's own, which `PRIMARY` names, too.
        writable: Whether events can be made in it.
        zone: Its time zone; None where the service does not say (Outlook).
    """

    id: str = field(repr=False)
    name: str = field(repr=False)
    primary: bool
    writable: bool
    zone: str | None


@dataclass(frozen=True, slots=True)
class Attendee:
    """Who, or what, is invited.

    Args:
        address: E-mail address.
        name: Its owner's name, where it is known.
        kind: A person who must or may come, or a room.
        answer: What came back; Outlook keeps it for the attendee alone to say.
    """

    address: str = field(repr=False)
    name: str = field(default="", repr=False)
    kind: Kind = "required"
    answer: Answer = "needs_action"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What an event says. To change it: `dataclasses.replace(event.draft, title=...)`.

    Args:
        title: Title.
        start: When it starts: a time with a zone (`ZoneInfo`, or UTC), or a day, if it lasts whole days.
        end: When it ends, of the same kind; a day is the first one after it.
        description: Text.
        location: Where.
        attendees: Who is invited; the service sends them mail about every change.
        recurrence: RFC 5545's lines: `("RRULE:FREQ=WEEKLY;BYDAY=MO;COUNT=10",)`.
        online_meeting: Whether people can meet in Google Meet, or in Teams.

    Raises:
        PivotalError: Start and end do not go together, a time has no zone with a name, or a line is none of RFC 5545's.
    """

    title: str = field(repr=False)
    start: Moment
    end: Moment
    description: str = field(default="", repr=False)
    location: str = field(default="", repr=False)
    attendees: tuple[Attendee, ...] = ()
    recurrence: tuple[str, ...] = ()
    online_meeting: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.start, datetime) != isinstance(self.end, datetime):
            raise PivotalError("an event starts and ends with a time, or with a day", hint="give both as the same")
        for moment in (self.start, self.end):
            zone_of(moment)
        if self.end < self.start:
            raise PivotalError(f"an event ends before it starts: {self.start} to {self.end}")
        for line in self.recurrence:
            if not re.match(r"(RRULE|EXRULE|RDATE|EXDATE)[:;]", line):
                raise PivotalError("a recurrence is not RFC 5545's", hint="for example RRULE:FREQ=WEEKLY;COUNT=10")

    @property
    def all_day(self) -> bool:
        """Whether it lasts whole days."""
        return not isinstance(self.start, datetime)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarEvent:
    """An event as a service keeps it.

    Args:
        id: The service's id of it, unique within the calendar.
        calendar_id: The calendar, as it was asked for.
        etag: Its version.
        draft: What it says.
        series_id: The id of the series that it is an instance of.
        uid: RFC 5545's id, the same in everybody's calendar.
        organizer: The organizer's address.
        meeting_url: Where the online meeting is.
        updated: When it was last changed.
    """

    id: str
    calendar_id: str = field(repr=False)
    etag: str
    draft: Draft
    series_id: str | None
    uid: str
    organizer: str | None = field(repr=False)
    meeting_url: str | None = field(repr=False)
    updated: datetime


@dataclass(frozen=True, slots=True)
class Changes:
    """One page of what has changed.

    Args:
        events: What is new or different, as it is now.
        removed: Ids of what is gone: events, and series with all their instances; they may never have been seen.
        token: Where to go on next time: on the last page only. Keep it once all pages are worked off.
        reset: The first page of everything there is: what is known and does not come again is gone.
        series: Ids of series whose instances all come again (Outlook does not say which of them are gone).
    """

    events: tuple[CalendarEvent, ...]
    removed: tuple[str, ...]
    token: str | None
    reset: bool
    series: tuple[str, ...] = ()

    def applied(self, known: Mapping[str, CalendarEvent]) -> dict[str, CalendarEvent]:
        """What is known with this page, by id.

        Args:
            known: What was known before it.
        """
        gone = {*self.removed, *self.series}
        before = {} if self.reset else known
        kept = {id_: each for id_, each in before.items() if not gone & {id_, each.series_id}}
        return kept | {each.id: each for each in self.events}


@dataclass(frozen=True, slots=True)
class Watch:
    """A promise of the service to tell a URL that a calendar has changed.

    Args:
        id: Its id; what is told carries it.
        calendar_id: The calendar, as it was asked for.
        url: Who is told.
        expires: When it ends by itself.
        resource_id: Google's second id, which it wants back at the end.
        secret_mark: `mark` of the secret that it was made with.
    """

    id: str
    calendar_id: str = field(repr=False)
    url: str = field(repr=False)
    expires: datetime
    resource_id: str | None = None
    secret_mark: str | None = field(default=None, repr=False)


class NotExpressibleError(PivotalError):
    """The service has no words for what is asked; nothing was sent.

    Args:
        service: The service.
        what: What it cannot express.
        hint: What it can.
    """

    def __init__(self, service: str, what: str, *, hint: str | None = None) -> None:
        super().__init__(f"{service} cannot express {what}", hint=hint)
        self.service = service


class Calendars(Protocol):
    """Calendars and their events. Threads may share it.

    Every method raises `CalendarIntegrationError` if the service refuses or cannot be reached within the budget, and
    those that write `NotExpressibleError` for what the service has no words for.
    """

    service: str

    @property
    def account(self) -> str:
        """Whose calendars these are; private, perhaps secret: to be kept as a digest only."""
        ...

    def calendars(self) -> Iterator[Calendar]:
        """Every calendar that the credentials open."""
        ...

    def create(self, calendar_id: str, draft: Draft, *, operation_id: str) -> CalendarEvent:
        """Makes an event, and invites its attendees.

        Args:
            calendar_id: Where; `PRIMARY` for the user's own.
            draft: What it says.
            operation_id: The caller's own name of this one doing: the same id never makes a second event.

        Raises:
            CalendarConflictError: This operation's event was deleted since, or (Outlook) said something else.
        """
        ...

    def update(self, event: CalendarEvent, draft: Draft) -> CalendarEvent:
        """Changes what differs between an event and a draft, unless the event has changed in the meantime.

        Safe to do again: an event that says already what is asked is given as it is.

        Args:
            event: The event as it was read; of a series, the whole of it, or one instance.
            draft: What it is to say.

        Raises:
            CalendarConflictError: It says something else by now, which is neither `event` nor `draft`.
        """
        ...

    def delete(self, calendar_id: str, event_id: str, *, etag: str | None = None) -> None:
        """Deletes an event, a series or one of its instances; what is not there any more is fine.

        Args:
            calendar_id: Where it is.
            event_id: Which one.
            etag: Only if this is still its version.

        Raises:
            CalendarConflictError: It has another version.
        """
        ...

    def get(self, calendar_id: str, event_id: str) -> CalendarEvent:
        """One event, series or instance."""
        ...

    def list(self, calendar_id: str) -> Iterator[CalendarEvent]:
        """Every event as it was made: a series is one."""
        ...

    def instances(self, calendar_id: str, start: datetime, end: datetime) -> Iterator[CalendarEvent]:
        """What takes place between two times (with zones): of a series, each time that it does."""
        ...

    def changes(
        self, calendar_id: str, start: datetime, end: datetime, *, token: str | None = None
    ) -> Iterator[Changes]:
        """What has changed among the instances between two times, page by page.

        Args:
            calendar_id: Which calendar.
            start: From when on, with a zone; the same every time.
            end: Until when.
            token: Where the last time ended. Without one, or if the service has forgotten it: everything there is,
                and the first page says `reset`.
        """
        ...

    def watch(self, calendar_id: str, url: str, *, lifetime: timedelta = LIFETIME) -> Watch:
        """Asks to be told of changes. Tried once: a watch that may be there is not asked for again.

        Args:
            calendar_id: Which calendar.
            url: Who is told: a public https URL.
            lifetime: How long; the service may make it shorter.
        """
        ...

    def renew(self, watch: Watch, *, lifetime: timedelta = LIFETIME) -> Watch:
        """Goes on with a watch: the service may make it a new one, with another id.

        Args:
            watch: The watch, also one that has expired.
            lifetime: How long from now on.
        """
        ...

    def knows(self, watch: Watch) -> bool:
        """Whether a watch was made with the secret that a new one would be made with."""
        ...

    def stop(self, watch: Watch) -> None:
        """Ends a watch; one that has ended is fine."""
        ...


def mark(secret: str) -> str:
    """What tells one secret from the next, and is too short to find it by."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def stop_replaced(calendars: Calendars, watch: Watch) -> None:
    """Ends a watch that another one stands in for. If that fails, both tell the same until it ends by itself.

    Args:
        calendars: Asks the service.
        watch: The old one.
    """
    try:
        calendars.stop(watch)
    except CalendarIntegrationError as error:
        logger.warning("%s: a watch that was replaced goes on: %s", calendars.service, error.message)


def zone_of(moment: Moment) -> str:
    """The name of a time's zone; empty for a day.

    Raises:
        PivotalError: It has none.
    """
    if not isinstance(moment, datetime):
        return ""
    if isinstance(moment.tzinfo, ZoneInfo) and moment.tzinfo.key:
        return moment.tzinfo.key
    if moment.tzinfo is UTC:
        return "UTC"
    hint = 'for example datetime(2027, 1, 4, 9, tzinfo=ZoneInfo("Europe/Berlin"))'
    raise PivotalError(f"a time has no zone with a name: {moment.isoformat()}", hint=hint)


def changed(old: Draft, new: Draft) -> frozenset[str]:
    """The fields that differ; start and end go together."""
    differ = {each.name for each in fields(Draft) if _told(old, each.name) != _told(new, each.name)}
    return frozenset(differ | ({"start", "end"} if differ & {"start", "end"} else set()))


def _told(draft: Draft, name: str) -> object:
    value = getattr(draft, name)
    return (value, zone_of(value)) if isinstance(value, date) else value
