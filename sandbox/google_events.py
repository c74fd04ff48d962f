"""Events as Google keeps them: what it refuses, how it shows them, and when they are."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import rruleset, rrulestr

from sandbox.agenda import Span, Words, midnight
from sandbox.discovery import Refused

Json = dict[str, Any]

KNOWN = frozenset(
    {"id", "summary", "description", "location", "start", "end", "attendees", "recurrence", "conferenceData"}
)


def check(event: Json) -> None:
    """Refuses what is no event.

    Raises:
        Refused: In Google's words.
    """
    for name in ("start", "end"):
        if not event.get(name):
            raise Refused(f"Missing {name} time.", "required")
        _check_moment(event[name], name, recurs=bool(event.get("recurrence")))
    if ("date" in event["start"]) != ("date" in event["end"]):
        raise Refused("Start and end times must either both be date or both be dateTime.")
    for attendee in event.get("attendees", []):
        if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", attendee.get("email") or ""):
            raise Refused("Invalid attendee email.")
    span = _span_of(event)
    if span.end < span.start or (span.end == span.start and "date" in event["start"]):
        raise Refused("The specified time range is empty.", "timeRangeEmpty", domain="calendar", location="timeMax")


def shown(event: Json, zone: str) -> Json:
    """An event as Google answers it: without what is empty, times in the calendar's zone."""
    kept = {name: value for name, value in event.items() if value not in (None, [], "")}
    for name in ("start", "end"):
        if "dateTime" in kept[name]:
            local = _local(kept[name]).astimezone(ZoneInfo(zone))
            kept[name] = {"dateTime": local.isoformat(), "timeZone": kept[name].get("timeZone", zone)}
    kept["attendees"] = [{"responseStatus": "needsAction", **each} for each in kept.get("attendees", [])]
    return kept if kept["attendees"] else {name: kept[name] for name in kept if name != "attendees"}


def patched(event: Json, changes: Json) -> Json:
    """An event with the changes of a patch: objects are merged, null takes away."""
    merged = dict(event)
    for name, value in changes.items():
        whole = {**event.get(name, {}), **value} if isinstance(value, dict) else value
        merged[name] = without_nulls(whole)
    return {name: value for name, value in merged.items() if value is not None}


def without_nulls(value: Any) -> Any:  # noqa: ANN401  (JSON)
    """An object without what is null."""
    return {name: each for name, each in value.items() if each is not None} if isinstance(value, dict) else value


def meeting(event: Json, code: str) -> Json:
    """The event with the meeting that it asks for."""
    asked = (event.get("conferenceData") or {}).get("createRequest")
    if asked is None:
        return event
    if not asked.get("requestId"):
        raise Refused("Invalid conference create request.", "required")
    link = f"https://meet.google.com/{code[:3]}-{code[3:7]}-{code[7:10]}".lower()
    data = {
        "createRequest": {**asked, "status": {"statusCode": "success"}},
        "conferenceId": link.rpartition("/")[2],
        "conferenceSolution": {"key": {"type": "hangoutsMeet"}, "name": "Google Meet"},
        "entryPoints": [{"entryPointType": "video", "uri": link}],
    }
    return {**event, "conferenceData": data, "hangoutLink": link}


def _instance(series: Json, start: datetime) -> Json:
    span, whole = _span_of(series), {name: value for name, value in series.items() if name != "recurrence"}
    end = start + (span.end - span.start)
    told = [_told(series["start"], start), _told(series["end"], end)]
    about = {"recurringEventId": series["id"], "originalStartTime": told[0], "start": told[0], "end": told[1]}
    return {**whole, "id": _instance_id(series, start), **about}


def _instance_id(series: Json, start: datetime) -> str:
    if start.tzinfo is None:
        return f"{series['id']}_{start:%Y%m%d}"
    return f"{series['id']}_{start.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _told(like: Json, moment: datetime) -> Json:
    if "date" in like:
        return {"date": moment.date().isoformat()}
    return {**like, "dateTime": moment.isoformat()}


def _span_of(event: Json) -> Span:
    if "date" in event["start"]:
        start, end = midnight(event["start"]["date"]), midnight(event["end"]["date"])
    else:
        start, end = _local(event["start"]), _local(event["end"])
    rule = None
    if event.get("recurrence"):
        try:
            rule = rrulestr("\n".join(event["recurrence"]), dtstart=start, forceset=True)
        except (ValueError, KeyError, TypeError):
            raise Refused("Invalid recurrence rule.") from None
    assert rule is None or isinstance(rule, rruleset)  # noqa: S101  (forceset)
    return Span(start, end, rule)


WORDS = Words(_span_of, _instance, _instance_id)


def _local(told: Json) -> datetime:
    """The time in the zone that it was given in."""
    moment = datetime.fromisoformat(told["dateTime"])
    if "timeZone" not in told:
        return moment
    zone = ZoneInfo(told["timeZone"])
    return moment.replace(tzinfo=zone) if moment.tzinfo is None else moment.astimezone(zone)


def _check_moment(told: Json, name: str, *, recurs: bool) -> None:
    if ("date" in told) == ("dateTime" in told):
        raise Refused(f"Missing {name} time.", "required")
    try:
        ZoneInfo(told.get("timeZone", "UTC"))
    except (ZoneInfoNotFoundError, ValueError):
        raise Refused(f"Invalid time zone definition for {name} time.") from None
    if "dateTime" not in told or "timeZone" in told:
        return
    if recurs or datetime.fromisoformat(told["dateTime"]).tzinfo is None:
        raise Refused(f"Missing time zone definition for {name} time.", "required")


def expires(now: int, body: Json) -> int:
    """When a channel ends, in milliseconds since 1970: as asked, or in a week.

    Raises:
        Refused: That was before now.
    """
    ttl = (body.get("params") or {}).get("ttl")
    usual = (now + int(timedelta(days=7).total_seconds() if ttl is None else ttl)) * 1000
    until = int(body.get("expiration") or usual)
    if until <= now * 1000:
        raise Refused("Invalid Channel expiration time.", "invalid")
    return until
