"""Events as Google's Calendar API v3 words them (https://developers.google.com/workspace/calendar/api/v3/reference)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from typing import Any

from integrations.calendar.model import Answer, Attendee, Calendar, CalendarEvent, Draft, Kind, Moment, zone_of
from integrations.calendar.zones import zone

Json = Mapping[str, Any]

_ANSWERS: dict[Answer, str] = {
    "needs_action": "needsAction",
    "accepted": "accepted",
    "tentative": "tentative",
    "declined": "declined",
}
_ANSWERED = {value: key for key, value in _ANSWERS.items()}


def body_of(draft: Draft, names: Collection[str], key: str) -> dict[str, Any]:
    """Those of a draft's fields as Google takes them; in a patch, null takes something away.

    Args:
        draft: What an event is to say.
        names: The draft's fields.
        key: The same for the same doing: Google makes one meeting for one key.
    """
    meeting = {"createRequest": {"requestId": key, "conferenceSolutionKey": {"type": "hangoutsMeet"}}}
    words: dict[str, tuple[str, object]] = {
        "title": ("summary", draft.title),
        "start": ("start", _moment(draft.start)),
        "end": ("end", _moment(draft.end)),
        "description": ("description", draft.description or None),
        "location": ("location", draft.location or None),
        "attendees": ("attendees", [_attendee(each) for each in draft.attendees]),
        "recurrence": ("recurrence", [*draft.recurrence]),
        "online_meeting": ("conferenceData", meeting if draft.online_meeting else None),
    }
    return dict(words[name] for name in words if name in names)


def event_of(told: Json, calendar_id: str) -> CalendarEvent:
    """An event that Google tells."""
    return CalendarEvent(
        id=told["id"],
        calendar_id=calendar_id,
        etag=told["etag"],
        draft=Draft(
            title=told.get("summary", ""),
            start=_moment_of(told["start"]),
            end=_moment_of(told["end"]),
            description=told.get("description", ""),
            location=told.get("location", ""),
            attendees=tuple(_attendee_of(each) for each in told.get("attendees", [])),
            recurrence=tuple(told.get("recurrence", [])),
            online_meeting="conferenceData" in told,
        ),
        series_id=told.get("recurringEventId"),
        uid=told["iCalUID"],
        organizer=told.get("organizer", {}).get("email"),
        meeting_url=told.get("hangoutLink"),
        updated=datetime.fromisoformat(told["updated"]),
    )


def calendar_of(told: Json) -> Calendar:
    """A calendar that Google tells."""
    return Calendar(
        told["id"],
        told.get("summaryOverride") or told.get("summary", ""),
        primary=told.get("primary", False),
        writable=told["accessRole"] in {"owner", "writer", "writerWithoutPrivateAccess"},
        zone=told.get("timeZone"),
    )


def _moment(moment: Moment) -> dict[str, str | None]:
    if isinstance(moment, datetime):
        return {"dateTime": moment.isoformat(), "timeZone": zone_of(moment), "date": None}
    return {"date": moment.isoformat(), "dateTime": None, "timeZone": None}


def _moment_of(told: Json) -> Moment:
    """The time in the zone that it was given in; Google shows it in the calendar's."""
    if "date" in told:
        return date.fromisoformat(told["date"])
    return datetime.fromisoformat(told["dateTime"]).astimezone(zone(told.get("timeZone", "UTC")) or UTC)


def _attendee(attendee: Attendee) -> dict[str, Any]:
    kind = {} if attendee.kind == "required" else {str(attendee.kind): True}
    name = {"displayName": attendee.name} if attendee.name else {}
    return {"email": attendee.address, "responseStatus": _ANSWERS[attendee.answer], **name, **kind}


def _attendee_of(told: Json) -> Attendee:
    kind: Kind = "resource" if told.get("resource") else "optional" if told.get("optional") else "required"
    return Attendee(
        told.get("email", ""),
        told.get("displayName", ""),
        kind,
        _ANSWERED.get(told.get("responseStatus", ""), "needs_action"),
    )
