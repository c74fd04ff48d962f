"""Events as Microsoft Graph keeps them: what it refuses, how it shows them, and when they are."""

from __future__ import annotations

import base64
import calendar
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import DAILY, MONTHLY, WEEKLY, YEARLY, rrule, weekday
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tzlocal.windows_tz import win_tz

from sandbox.agenda import Span, Words

Json = dict[str, Any]
Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

_DAYS = {day: number for number, day in enumerate(get_args(Day))}
_INDEX = {"first": 1, "second": 2, "third": 3, "fourth": 4, "last": -1}


class Refused(Exception):  # noqa: N818  (it is an answer, not a fault of the sandbox)
    """A request that Graph does not do.

    Args:
        code: Graph's name of the failure.
        message: As Graph words it.
        status: HTTP status.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Moment(_Model):
    dateTime: str  # noqa: N815  (Graph's names)
    timeZone: str  # noqa: N815


class _Body(_Model):
    contentType: Literal["text", "html"]  # noqa: N815
    content: str


class _Location(_Model):
    displayName: str  # noqa: N815


class _Address(_Model):
    address: str
    name: str | None = None


class _Attendee(_Model):
    emailAddress: _Address  # noqa: N815
    type: Literal["required", "optional", "resource"] = "required"


class _Pattern(_Model):
    type: Literal["daily", "weekly", "absoluteMonthly", "relativeMonthly", "absoluteYearly", "relativeYearly"]
    interval: Annotated[int, Field(ge=1)]
    daysOfWeek: list[Day] = []  # noqa: N815
    dayOfMonth: Annotated[int, Field(ge=0, le=31)] = 0  # noqa: N815
    month: Annotated[int, Field(ge=0, le=12)] = 0
    index: Literal["first", "second", "third", "fourth", "last"] = "first"
    firstDayOfWeek: Day = "sunday"  # noqa: N815


class _Range(_Model):
    type: Literal["endDate", "noEnd", "numbered"]
    startDate: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]  # noqa: N815
    endDate: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")] = "0001-01-01"  # noqa: N815
    numberOfOccurrences: Annotated[int, Field(ge=0, le=999)] = 0  # noqa: N815
    recurrenceTimeZone: str = "UTC"  # noqa: N815


class _Recurrence(_Model):
    pattern: _Pattern
    range: _Range


class Changes(_Model):
    """What can be said of an event; the sandbox acts on all of it."""

    subject: str | None = None
    start: _Moment | None = None
    end: _Moment | None = None
    isAllDay: bool = False  # noqa: N815
    body: _Body = _Body(contentType="text", content="")
    location: _Location = _Location(displayName="")
    attendees: list[_Attendee] = []
    recurrence: _Recurrence | None = None
    isOnlineMeeting: bool = False  # noqa: N815
    onlineMeetingProvider: Literal["teamsForBusiness", "unknown"] = "unknown"  # noqa: N815


class New(Changes):
    """What can be said of a new one only."""

    transactionId: str | None = None  # noqa: N815


class Subscription(_Model):
    """A new subscription."""

    changeType: str  # noqa: N815
    notificationUrl: str  # noqa: N815
    lifecycleNotificationUrl: str | None = None  # noqa: N815
    resource: str
    expirationDateTime: str  # noqa: N815
    clientState: Annotated[str, Field(max_length=128)] | None = None  # noqa: N815


class Renewal(_Model):
    """What can be changed of a subscription."""

    expirationDateTime: str  # noqa: N815


def read(model: type[_Model], raw: bytes, kind: str) -> Json:
    """What a request's body says, and nothing that it does not.

    Raises:
        Refused: Graph does not understand it.
    """
    try:
        return model.model_validate_json(raw).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
    place = ".".join(str(each) for each in first["loc"])
    if first["type"] == "json_invalid":
        raise Refused("BadRequest", "Unable to read JSON request payload.")
    if first["type"] == "extra_forbidden":
        raise Refused("RequestBodyRead", f"The property '{place}' does not exist on type 'microsoft.graph.{kind}'.")
    if first["type"] == "missing":
        raise Refused("InvalidRequest", f"The required property '{place}' is missing.")
    raise Refused("RequestBodyRead", f"Cannot convert the value of property '{place}'.")


def check(event: Json) -> None:
    """Refuses what is no event.

    Raises:
        Refused: In Graph's words.
    """
    for name in ("start", "end"):
        if event.get(name) is None:
            raise Refused("ErrorPropertyValidationFailure", f"At least one property failed validation: {name}.")
        zone(event[name]["timeZone"])
        moment(event[name])
    start, end = moment(event["start"]), moment(event["end"])
    if event.get("isAllDay"):
        whole = all(each.time() == each.min.time() for each in (start, end)) and end - start >= timedelta(days=1)
        if not whole or event["start"]["timeZone"] != event["end"]["timeZone"]:
            message = "The Event.Start property for an all-day event needs to be set to midnight, and last whole days."
            raise Refused("ErrorInvalidRequest", message)
    if end < start:
        raise Refused("ErrorCalendarEndDateIsEarlierThanStartDate", "End date is earlier than start date.")
    for attendee in event.get("attendees", []):
        if "@" not in attendee["emailAddress"]["address"]:
            raise Refused("ErrorInvalidRecipients", "At least one recipient isn't valid.")
    if event.get("recurrence"):
        _rule(event["recurrence"], start)


def zone(name: str) -> tzinfo:
    """The zone of one of Windows' names, or of IANA's."""
    try:
        return UTC if name == "UTC" else ZoneInfo(win_tz.get(name, name))
    except (ZoneInfoNotFoundError, ValueError):
        raise Refused("TimeZoneNotSupportedException", "A valid TimeZone value must be specified.") from None


def moment(told: Json) -> datetime:
    """A time in its zone."""
    try:
        return datetime.fromisoformat(told["dateTime"]).replace(tzinfo=zone(told["timeZone"]))
    except ValueError:
        raise Refused("ErrorInvalidRequest", "The DateTime value is not valid.") from None


def shown(event: Json) -> Json:
    """An event as Graph answers it: times in UTC, and the zones that they were given in."""
    names = ("start", "end")
    times = {name: _utc(event[name], all_day=event["isAllDay"]) for name in names}
    zones = {f"original{name.title()}TimeZone": event[name]["timeZone"] for name in names}
    about = {"emailAddress": {"name": "", "address": ""}}
    attendees = [
        {
            **each,
            "emailAddress": _named(each["emailAddress"]),
            "status": {"response": "none", "time": "0001-01-01T00:00:00Z"},
        }
        for each in event["attendees"]
    ]
    kept = {name: value for name, value in event.items() if not name.startswith("_")}
    return {**kept, **times, **zones, "attendees": attendees, "organizer": event.get("organizer", about)}


def _named(address: Json) -> Json:
    return {"name": address.get("name") or address["address"], "address": address["address"]}


def _utc(told: Json, *, all_day: bool) -> Json:
    """Days are the same everywhere: Graph shows them from midnight to midnight, whatever the zone."""
    at = moment(told) if all_day else moment(told).astimezone(UTC)
    return {"dateTime": f"{at:%Y-%m-%dT%H:%M:%S}.0000000", "timeZone": "UTC"}


def _span(event: Json) -> Span:
    start, end = moment(event["start"]), moment(event["end"])
    recurrence = event.get("recurrence")
    return Span(start, end, _rule(recurrence, start) if recurrence else None)


def _instance(series: Json, start: datetime) -> Json:
    span = _span(series)
    ends = start + (span.end - span.start)
    times = {
        name: {**series[name], "dateTime": f"{at:%Y-%m-%dT%H:%M:%S}"} for name, at in (("start", start), ("end", ends))
    }
    about = {"type": "occurrence", "seriesMasterId": series["id"], "recurrence": None}
    return {**series, **times, **about, "id": _instance_id(series, start)}


def _instance_id(series: Json, start: datetime) -> str:
    return opaque(f"{series['id']}.{start.astimezone(UTC):%Y%m%d%H%M}")


def opaque(text: str) -> str:
    """An id that looks like one of Exchange's."""
    return "AAMkA" + base64.urlsafe_b64encode(text.encode()).decode()


WORDS = Words(_span, _instance, _instance_id)


def _rule(recurrence: Json, start: datetime) -> rrule:
    pattern, ends = recurrence["pattern"], recurrence["range"]
    if ends["startDate"] != start.date().isoformat():
        raise Refused("ErrorPropertyValidationFailure", "The recurrence range must start when the event starts.")
    until = {"count": ends.get("numberOfOccurrences")} if ends["type"] == "numbered" else {}
    if ends["type"] == "endDate":
        last = datetime.fromisoformat(ends.get("endDate", "0001-01-01"))
        if last.date() < start.date():
            raise Refused("ErrorRecurrenceEndDateTooEarly", "The recurrence ends before it starts.")
        until = {"until": datetime.combine(last, start.time(), start.tzinfo)}
    return rrule(**_frequency(pattern), interval=pattern["interval"], dtstart=start, **until)


def _frequency(pattern: Json) -> Json:
    days = [weekday(_DAYS[day]) for day in pattern.get("daysOfWeek", [])]
    kind = pattern["type"]
    if kind == "daily":
        return {"freq": DAILY}
    if kind == "weekly":
        if not days:
            raise _incomplete("daysOfWeek")
        first = _DAYS[pattern.get("firstDayOfWeek", "sunday")]
        return {"freq": WEEKLY, "byweekday": days, "wkst": first}
    month = {} if kind.endswith("Monthly") else {"bymonth": _needed(pattern, "month")}
    about = {"freq": YEARLY if month else MONTHLY, **month}
    if kind.startswith("absolute"):
        day = _needed(pattern, "dayOfMonth")
        shortest = min(calendar.monthrange(2025, each)[1] for each in ([month["bymonth"]] if month else range(1, 13)))
        # A month that is too short has it on its last day.
        return (
            {**about, "bymonthday": day}
            if day <= shortest
            else {**about, "bymonthday": [*range(28, day + 1)], "bysetpos": -1}
        )
    if not days:
        raise _incomplete("daysOfWeek")
    return {**about, "byweekday": days, "bysetpos": _INDEX[pattern.get("index", "first")]}


def _needed(pattern: Json, name: str) -> int:
    value = pattern.get(name)
    if not value:
        raise _incomplete(name)
    return int(value)


def _incomplete(name: str) -> Refused:
    return Refused("ErrorPropertyValidationFailure", f"The recurrence pattern needs {name}.")
