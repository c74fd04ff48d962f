"""Calendars to try things on, the same every time, and the same at Google and at Microsoft."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.google import USER, GoogleService
from sandbox.graph import DEFAULT, GraphService

_FIRST_DAY = datetime(2026, 11, 2)  # noqa: DTZ001  (a Monday, on the clocks of Berlin)
_ZONE = ("Europe/Berlin", "W. Europe Standard Time")


@dataclass(frozen=True, slots=True)
class _Event:
    title: str
    start: datetime
    end: datetime
    weekly: bool = False
    all_day: bool = False


def seed_calendars(google: GoogleService, graph: GraphService, customers: int) -> None:
    """Gives both users a weekly series, a fair of three days, and a demo for each tenth customer.

    Args:
        google: Google, with empty calendars.
        graph: Microsoft Graph, with empty calendars.
        customers: How many customers there are.
    """
    for event in _events(customers):
        google.add(USER, _for_google(event))
        graph.add(DEFAULT, _for_graph(event))


def _events(customers: int) -> Iterator[_Event]:
    dice = random.Random("calendars")  # noqa: S311
    start = _FIRST_DAY + timedelta(hours=9, minutes=30)
    yield _Event("Team meeting", start, start + timedelta(minutes=30), weekly=True)
    fair = _FIRST_DAY + timedelta(days=15)
    yield _Event("Fair", fair, fair + timedelta(days=3), all_day=True)
    for number in range(0, customers, 10):
        day = _FIRST_DAY + timedelta(weeks=dice.randrange(8), days=dice.randrange(5))
        start = day + timedelta(hours=dice.randrange(10, 17))
        yield _Event(f"Demo for customer {number}", start, start + timedelta(hours=1))


def _for_google(event: _Event) -> dict[str, object]:
    def told(moment: datetime) -> dict[str, str]:
        if event.all_day:
            return {"date": f"{moment:%Y-%m-%d}"}
        return {"dateTime": f"{moment:%Y-%m-%dT%H:%M:%S}", "timeZone": _ZONE[0]}

    rule = {"recurrence": ["RRULE:FREQ=WEEKLY;BYDAY=MO"]} if event.weekly else {}
    return {"summary": event.title, "start": told(event.start), "end": told(event.end), **rule}


def _for_graph(event: _Event) -> dict[str, object]:
    def told(moment: datetime) -> dict[str, str]:
        return {"dateTime": f"{moment:%Y-%m-%dT%H:%M:%S}", "timeZone": "UTC" if event.all_day else _ZONE[1]}

    pattern = {"type": "weekly", "interval": 1, "daysOfWeek": ["monday"]}
    ends = {"type": "noEnd", "startDate": f"{event.start:%Y-%m-%d}"}
    times = {"start": told(event.start), "end": told(event.end), "isAllDay": event.all_day}
    return {
        "subject": event.title,
        **times,
        "recurrence": {"pattern": pattern, "range": ends} if event.weekly else None,
    }
