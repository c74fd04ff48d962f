"""What was read of Google's and Outlook's calendars -> `calendar_events`.

Calendars only tell *that* something has changed; `reconciliation.calendars` reads what, and puts each event that is
new, different or gone on the log, as the columns below. The table has what a business asks of meetings: whose calendar,
when, how long, called what, by whom, with how many. Descriptions, places, links and the addresses of those who are
invited are not read into the log or the table: who needs them asks the service (`Calendars.get`).

The order is the service's own: when it last changed the event. Where two versions claim one moment (services round
times), the one that was read later is newer. A service does not say when something was deleted, so a deletion is of the
version that was known, and whatever the service changes later, a restored event, is newer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AliasPath, BeforeValidator, Field

from events.envelope import Event
from projections.tables import Id, Integer, Row, Text, tie

CONFIRMED, DELETED = "confirmed", "deleted"

_STATUSES = {"calendar.event.updated": CONFIRMED, "calendar.event.deleted": DELETED}

PATTERNS = [f"{service}.{what}" for service in ("google", "outlook") for what in _STATUSES]
"""The types of the events that become rows."""


def project(event: Event) -> Sequence[Row]:
    """The row that an event tells of; none for notifications, which name no event's content.

    Raises:
        ProjectionError: The event is not what its type promises.
    """
    service, _, what = event.type.partition(".")
    if what not in _STATUSES:
        return []
    return [CalendarEvent.of(event, service=service, status=_STATUSES[what])]


def _moment(value: object) -> object:
    """JSON has no times; what is no text is left to pydantic, which refuses what is no datetime."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("not a time with its zone, as in ISO 8601")
    return moment


Moment = Annotated[datetime, BeforeValidator(_moment)]


def _told(name: str) -> AliasPath:
    return AliasPath("data", name)


class CalendarEvent(Row):
    """What takes place, in all calendars that are read; of a series, each time. What is gone stays, as `deleted`."""

    table = "calendar_events"
    key = ("service", "calendar_id", "calendar_event_id")
    sources = ("google", "outlook")

    service: Id = Field(description="google or outlook.")
    calendar_id: Id = Field(
        validation_alias=_told("calendar_id"),
        description="Which calendar, as the settings name it: primary, or its id.",
    )
    calendar_event_id: Id = Field(
        validation_alias=_told("calendar_event_id"), description="The service's id of it, unique within the calendar."
    )
    status: Id = Field(description="confirmed; deleted once it is gone, or has left the time that is read.")
    title: Text = Field(validation_alias=_told("title"), description="What its organizer calls it.")
    starts_at: Moment = Field(
        validation_alias=_told("starts_at"), description="When it starts; whole days: midnight in UTC of the first."
    )
    ends_at: Moment = Field(
        validation_alias=_told("ends_at"), description="When it ends; whole days: midnight in UTC after the last."
    )
    all_day: bool = Field(validation_alias=_told("all_day"), description="Whether it lasts whole days.")
    zone: Text | None = Field(
        validation_alias=_told("zone"), description="The time zone that it was made in; none for whole days."
    )
    series_id: Text | None = Field(
        validation_alias=_told("series_id"), description="The series that it is an instance of."
    )
    organizer: Annotated[Text, AfterValidator(str.lower)] | None = Field(
        validation_alias=_told("organizer"), description="The organizer's address, lower case."
    )
    attendees: Integer = Field(validation_alias=_told("attendees"), description="How many are invited, rooms included.")
    accepted: Integer = Field(validation_alias=_told("accepted"), description="How many of them have accepted.")
    online: bool = Field(validation_alias=_told("online"), description="Whether people can meet online.")
    etag: Text = Field(validation_alias=_told("etag"), description="The service's version of it.")
    updated_at: Moment = Field(validation_alias=_told("updated_at"), description="When the service last changed it.")
    read_at: Moment = Field(validation_alias=_told("read_at"), description="When it was found so.")

    @property
    def version(self) -> str:
        """By the service's last change, then by when it was read."""
        return f"{_microseconds(self.updated_at)}{_microseconds(self.read_at)}{tie(self.event_id)}"


def _microseconds(moment: datetime) -> str:
    """Since 1970; Exchange dates what it does not know to the year 1."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return f"{max(0, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds):018d}"
