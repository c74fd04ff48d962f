"""Both calendar clients, over the sandbox or anywhere else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from pydantic import SecretStr

from events.log import EventLog
from integrations.calendar import (
    PRIMARY,
    Attendee,
    CalendarEvent,
    Calendars,
    Draft,
    GoogleCalendar,
    GoogleCalendarConfig,
    Outlook,
    OutlookConfig,
)
from integrations.http import Limits
from sandbox.graph import USER
from sandbox.serve import Running

ADDRESS, SECRET = "ada@example.com", "this_is_never_logged"
BERLIN = ZoneInfo("Europe/Berlin")
YEAR = (datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC))
NINE, TEN = datetime(2027, 3, 1, 9, tzinfo=BERLIN), datetime(2027, 3, 1, 10, tzinfo=BERLIN)
DEMO = Draft(
    title="Demo",
    start=NINE,
    end=TEN,
    description="What is new:\neverything",
    location="Room 1",
    attendees=(
        Attendee(ADDRESS, "Ada"),
        Attendee("bob@example.com", kind="optional"),
        Attendee("room-1@example.com", "Room 1", "resource"),
    ),
)


def google_calendar(at: Running | str, log: EventLog | None = None, **config: Any) -> GoogleCalendar:
    """Google's, with a user's credentials: a service account's key takes a tenth of a second to read."""
    if isinstance(at, str):
        user = {"client_id": "x", "client_secret": SECRET, "refresh_token": SECRET, "token_uri": f"{at}/token"}
        given = {"credentials": SecretStr(json.dumps({"type": "authorized_user", **user})), "api_base": at}
    else:
        login = at.sandbox.google_login.authorized_user(f"{at.url}/google/login")
        given = {"credentials": SecretStr(json.dumps(login)), "api_base": at.google_base}
    return GoogleCalendar(GoogleCalendarConfig(**{**given, "watch_secret": SecretStr(SECRET), **config}), log)


def outlook_calendar(at: Running | str, log: EventLog | None = None, **config: Any) -> Outlook:
    """Outlook's."""
    if isinstance(at, str):
        given = {
            "tenant_id": "x",
            "client_id": "x",
            "client_secret": SecretStr(SECRET),
            "api_base": at,
            "login_base": at,
        }
    else:
        login = at.sandbox.microsoft_login
        given = {"tenant_id": login.tenant_id, "client_id": login.client_id, "api_base": at.graph_base}
        given |= {"client_secret": SecretStr(login.client_secret), "login_base": at.microsoft_base}
    return Outlook(OutlookConfig(**{"user": USER, "watch_secret": SecretStr(SECRET), **given, **config}), log)


def impatient(client: Calendars, timeout: float) -> None:
    """Makes a client wait no longer than that; it has its token by then, so that it is the service that is too slow."""
    list(client.calendars())
    if isinstance(client, GoogleCalendar):
        client._wire._http.timeout = httpx.Timeout(timeout)
    elif isinstance(client, Outlook):
        client.http._limits = Limits(timeout)


def calendar_operations(client: Calendars) -> Mapping[str, Callable[[], object]]:
    """What is safe to repeat, and what of it fails as the service does; the first one makes an event."""
    event = CalendarEvent(
        id="0", calendar_id=PRIMARY, etag='"0"', draft=DEMO, series_id=None, uid="0", organizer=None, meeting_url=None,
        updated=NINE,
    )  # fmt: skip
    return {
        "events.create": lambda: client.create(PRIMARY, DEMO, operation_id="demo-1"),
        "events.update": lambda: client.update(event, replace(DEMO, title=ADDRESS)),
        "events.get": lambda: client.get(PRIMARY, "0"),
        "events.list": lambda: list(client.list(PRIMARY)),
        "events.instances": lambda: list(client.instances(PRIMARY, *YEAR)),
        "events.changes": lambda: list(client.changes(PRIMARY, *YEAR)),
        "calendars.list": lambda: list(client.calendars()),
    }


def series(*, count: int = 3, **changes: Any) -> Draft:
    """A draft that takes place every Monday."""
    return replace(DEMO, recurrence=(f"RRULE:FREQ=WEEKLY;BYDAY=MO;COUNT={count}",), **changes)


def later(draft: Draft, **by: int) -> Draft:
    """A draft that takes place later."""
    return replace(draft, start=draft.start + timedelta(**by), end=draft.end + timedelta(**by))
