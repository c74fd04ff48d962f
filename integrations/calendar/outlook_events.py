"""Events as Microsoft Graph v1.0 words them (https://learn.microsoft.com/graph/api/resources/event)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, time
from typing import Any

from integrations.calendar.model import (
    Answer,
    Attendee,
    Calendar,
    CalendarEvent,
    Draft,
    Kind,
    Moment,
    NotExpressibleError,
    zone_of,
)
from integrations.calendar.recurrence import SERVICE, pattern_of, rule_of
from integrations.calendar.zones import windows_zone, zone

Json = Mapping[str, Any]

_KINDS: dict[str, Kind] = {"required": "required", "optional": "optional", "resource": "resource"}
_ANSWERED: dict[str, Answer] = {
    "accepted": "accepted",
    "organizer": "accepted",
    "tentativelyAccepted": "tentative",
    "declined": "declined",
}


def body_of(draft: Draft, names: Collection[str], before: Draft | None = None) -> dict[str, Any]:
    """Those of a draft's fields as Graph takes them.

    Args:
        draft: What an event is to say.
        names: The draft's fields.
        before: What it says now; None if it is new.

    Raises:
        NotExpressibleError: Graph has no words for it.
    """
    if "attendees" in names:
        _check_answers(draft, before)
    if "online_meeting" in names and before is not None and before.online_meeting:
        hint = "delete the event, and make another one"
        raise NotExpressibleError(SERVICE, "that an event is no longer an online meeting", hint=hint)
    meeting = {"isOnlineMeeting": draft.online_meeting, "onlineMeetingProvider": "teamsForBusiness"}
    words: dict[str, Any] = {
        "title": lambda: {"subject": draft.title},
        "start": lambda: {"start": _moment(draft.start), "isAllDay": draft.all_day},
        "end": lambda: {"end": _moment(draft.end)},
        "description": lambda: {"body": {"contentType": "text", "content": draft.description}},
        "location": lambda: {"location": {"displayName": draft.location}},
        "attendees": lambda: {"attendees": [_attendee(each) for each in draft.attendees]},
        "recurrence": lambda: {"recurrence": pattern_of(draft)},
        "online_meeting": lambda: meeting,
    }
    body: dict[str, Any] = {}
    for name, word in words.items():
        body |= word() if name in names else {}
    return body


def event_of(told: Json, calendar_id: str) -> CalendarEvent:
    """An event that Graph tells, with times in UTC and text without HTML, as it was asked to."""
    start = _moment_of(told, "start", "originalStartTimeZone")
    end = _moment_of(told, "end", "originalEndTimeZone")
    ends_in = zone((told.get("recurrence") or {}).get("range", {}).get("recurrenceTimeZone", "UTC"))
    return CalendarEvent(
        id=told["id"],
        calendar_id=calendar_id,
        etag=told["@odata.etag"],
        draft=Draft(
            title=told["subject"] or "",
            start=start,
            end=end,
            description=told["body"]["content"].replace("\r\n", "\n").rstrip("\n"),
            location=(told.get("location") or {}).get("displayName", ""),
            attendees=tuple(_attendee_of(each) for each in told["attendees"]),
            recurrence=rule_of(told.get("recurrence"), start, ends_in or UTC),
            online_meeting=told["isOnlineMeeting"],
        ),
        series_id=told.get("seriesMasterId"),
        uid=told["iCalUId"],
        organizer=(told.get("organizer") or {}).get("emailAddress", {}).get("address"),
        meeting_url=(told.get("onlineMeeting") or {}).get("joinUrl"),
        updated=datetime.fromisoformat(told["lastModifiedDateTime"]),
    )


def calendar_of(told: Json) -> Calendar:
    """A calendar that Graph tells."""
    return Calendar(told["id"], told["name"], told["isDefaultCalendar"], told["canEdit"], None)


def _moment(moment: Moment) -> dict[str, str]:
    if not isinstance(moment, datetime):
        return {"dateTime": datetime.combine(moment, time()).isoformat(), "timeZone": "UTC"}
    name = zone_of(moment)
    if (windows := windows_zone(name)) is None:
        raise NotExpressibleError(SERVICE, f"the time zone {name}", hint="choose one that Windows knows, too")
    return {"dateTime": moment.replace(tzinfo=None).isoformat(), "timeZone": windows}


def _moment_of(told: Json, name: str, original: str) -> Moment:
    """The time in the zone that it was given in; in UTC if nobody but one Exchange knows that zone."""
    moment = datetime.fromisoformat(told[name]["dateTime"]).replace(tzinfo=UTC)
    local = moment.astimezone(zone(told.get(original) or "UTC") or UTC)
    if told["isAllDay"]:  # midnight, in UTC or where it was made
        return moment.date() if moment.time() == time() else local.date()
    return local


def _attendee(attendee: Attendee) -> dict[str, Any]:
    name = {"name": attendee.name} if attendee.name else {}
    return {"emailAddress": {"address": attendee.address, **name}, "type": attendee.kind}


def _attendee_of(told: Json) -> Attendee:
    address, answer = told["emailAddress"], (told.get("status") or {}).get("response", "none")
    name = address.get("name", "")
    return Attendee(
        address["address"],
        "" if name == address["address"] else name,  # Exchange puts the address where there is no name
        _KINDS[told["type"]],
        _ANSWERED.get(answer, "needs_action"),
    )


def _check_answers(draft: Draft, before: Draft | None) -> None:
    known = {each.address: each.answer for each in before.attendees} if before else {}
    for attendee in draft.attendees:
        if attendee.answer not in {"needs_action", known.get(attendee.address)}:
            raise NotExpressibleError(SERVICE, "an attendee's answer: it is the attendee's own", hint="leave it out")
