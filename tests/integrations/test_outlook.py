"""What is Outlook's alone: what it has no words for, its recurrences, its zones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from pydantic import SecretStr

from integrations.calendar import (
    PRIMARY,
    Attendee,
    CalendarConflictError,
    CalendarIntegrationError,
    Draft,
    NotExpressibleError,
    Outlook,
)
from sandbox.graph_events import shown
from sandbox.serve import Running
from tests.integrations.calendars import BERLIN, DEMO, NINE, TEN, YEAR, outlook_calendar


@pytest.fixture
def outlook(served: Running) -> Iterator[Outlook]:
    client = outlook_calendar(served)
    yield client
    client.close()


def rule(text: str, start: datetime = NINE) -> Draft:
    """A draft that takes place by a rule."""
    return replace(DEMO, start=start, end=start + timedelta(hours=1), recurrence=(f"RRULE:{text}",))


# what Outlook cannot express, as the error names it
NOT_SAID: list[tuple[dict[str, Any], str]] = [
    ({"recurrence": ("RRULE:FREQ=HOURLY",)}, "FREQ=HOURLY"),
    ({"recurrence": ("RRULE:COUNT=3",)}, "FREQ="),
    ({"recurrence": ("RRULE:FREQ=DAILY", "EXDATE:20270301T080000Z")}, "['RRULE', 'EXDATE']"),
    ({"recurrence": ("RDATE;VALUE=DATE:20270301",)}, "['RDATE']"),
    ({"recurrence": ("RRULE:FREQ=DAILY;BYHOUR=9",)}, "BYHOUR"),
    ({"recurrence": ("RRULE:FREQ=DAILY;BYDAY=MO",)}, "BYDAY with FREQ=DAILY"),
    ({"recurrence": ("RRULE:FREQ=WEEKLY;BYDAY=1MO",)}, "BYDAY=1MO"),
    ({"recurrence": ("RRULE:FREQ=MONTHLY;BYDAY=5MO",)}, "BYDAY=5MO"),
    ({"recurrence": ("RRULE:FREQ=MONTHLY;BYDAY=MO",)}, "BYDAY=MO"),
    ({"recurrence": ("RRULE:FREQ=MONTHLY;BYMONTHDAY=1,15",)}, "BYMONTHDAY=1,15"),
    ({"recurrence": ("RRULE:FREQ=MONTHLY;BYMONTHDAY=31",)}, "the 31. only of the months that have one"),
    ({"recurrence": ("RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",)}, "the 29. only of the months that have one"),
    ({"recurrence": ("RRULE:FREQ=YEARLY;BYDAY=20MO",)}, "n-th weekday of a year"),
    ({"recurrence": ("RRULE:FREQ=DAILY;INTERVAL=x",)}, "INTERVAL=X"),
    ({"recurrence": ("RRULE:FREQ=DAILY;UNTIL=tomorrow",)}, "UNTIL=TOMORROW"),
    ({"start": NINE.replace(tzinfo=ZoneInfo("Antarctica/Troll"))}, "the time zone Antarctica/Troll"),
    ({"attendees": (Attendee("ada@example.com", answer="accepted"),)}, "an attendee's answer"),
]


@pytest.mark.parametrize(("said", "named"), NOT_SAID)
def test_what_outlook_cannot_express_is_named_and_nothing_is_sent(
    served: Running, outlook: Outlook, said: dict[str, Any], named: str
) -> None:
    with pytest.raises(NotExpressibleError) as caught:
        outlook.create(PRIMARY, replace(DEMO, **said), operation_id="demo-1")
    assert named in caught.value.message
    assert caught.value.hint
    assert served.sandbox.wire.calls == []


def test_an_online_meeting_stays_one(outlook: Outlook) -> None:
    made = outlook.create(PRIMARY, replace(DEMO, online_meeting=True), operation_id="demo-1")
    with pytest.raises(NotExpressibleError, match="no longer an online meeting"):
        outlook.update(made, replace(made.draft, online_meeting=False))
    assert outlook.update(made, replace(made.draft, title="Still")).draft.online_meeting


# a rule -> how it comes back, and the days that it takes place on in 2027 (the first ones)
RULES: list[tuple[str, str, list[str]]] = [
    ("FREQ=DAILY;COUNT=3", "FREQ=DAILY;COUNT=3", ["03-01", "03-02", "03-03"]),
    ("FREQ=DAILY;INTERVAL=10;UNTIL=20270331T220000Z", "FREQ=DAILY;INTERVAL=10;UNTIL=20270331T070000Z",
     ["03-01", "03-11", "03-21", "03-31"]),
    ("FREQ=WEEKLY;COUNT=2", "FREQ=WEEKLY;BYDAY=MO;COUNT=2", ["03-01", "03-08"]),
    ("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,WE;WKST=MO;COUNT=4", "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,WE;WKST=MO;COUNT=4",
     ["03-01", "03-03", "03-15", "03-17"]),
    ("FREQ=MONTHLY;COUNT=2", "FREQ=MONTHLY;BYMONTHDAY=1;COUNT=2", ["03-01", "04-01"]),
    ("FREQ=MONTHLY;BYMONTHDAY=-1;COUNT=3", "FREQ=MONTHLY;BYMONTHDAY=-1;COUNT=3", ["03-31", "04-30", "05-31"]),
    ("FREQ=MONTHLY;BYDAY=1MO;COUNT=3", "FREQ=MONTHLY;BYDAY=1MO;COUNT=3", ["03-01", "04-05", "05-03"]),
    ("FREQ=MONTHLY;BYDAY=-1FR;COUNT=2", "FREQ=MONTHLY;BYDAY=-1FR;COUNT=2", ["03-26", "04-30"]),
    ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;COUNT=2", "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;COUNT=2",
     ["03-31", "04-30"]),
    ("FREQ=YEARLY;COUNT=2", "FREQ=YEARLY;BYMONTH=3;BYMONTHDAY=1;COUNT=2", ["03-01"]),
    ("FREQ=YEARLY;BYMONTH=11;BYDAY=4TH;COUNT=1", "FREQ=YEARLY;BYMONTH=11;BYDAY=4TH;COUNT=1", ["11-25"]),
    ("FREQ=DAILY;UNTIL=20270303T070000Z", "FREQ=DAILY;UNTIL=20270302T080000Z", ["03-01", "03-02"]),
    ("FREQ=DAILY;UNTIL=20270302", "FREQ=DAILY;UNTIL=20270302T080000Z", ["03-01", "03-02"]),
    ("FREQ=WEEKLY", "FREQ=WEEKLY;BYDAY=MO", ["03-01", "03-08", "03-15"]),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "kept", "days"), RULES, ids=[asked for asked, _, _ in RULES])
def test_a_rule_means_the_same_in_outlook(outlook: Outlook, asked: str, kept: str, days: list[str]) -> None:
    made = outlook.create(PRIMARY, rule(asked), operation_id=asked)
    assert made.draft.recurrence == (f"RRULE:{kept}",)
    starts = [each.draft.start for each in outlook.instances(PRIMARY, *YEAR)]
    assert [f"{start:%m-%d}" for start in starts][: len(days)] == days
    assert outlook.update(made, replace(made.draft, title="New")).draft.recurrence == made.draft.recurrence


def test_days_recur_too(outlook: Outlook) -> None:
    fair = Draft(
        title="Fair", start=date(2027, 5, 1), end=date(2027, 5, 3), recurrence=("RRULE:FREQ=YEARLY;UNTIL=20290601",)
    )
    made = outlook.create(PRIMARY, fair, operation_id="fair")
    assert made.draft.recurrence == ("RRULE:FREQ=YEARLY;BYMONTH=5;BYMONTHDAY=1;UNTIL=20290601",)
    end = datetime(2040, 1, 1, tzinfo=UTC)
    assert [each.draft.start.year for each in outlook.instances(PRIMARY, YEAR[0], end)] == [2027, 2028, 2029]


def test_days_are_the_same_if_exchange_tells_them_by_the_zone_they_were_made_in(
    outlook: Outlook, monkeypatch: pytest.MonkeyPatch
) -> None:
    fair = Draft(title="Fair", start=date(2027, 5, 1), end=date(2027, 5, 3))
    made = outlook.create(PRIMARY, fair, operation_id="fair")
    zones = dict.fromkeys(("originalStartTimeZone", "originalEndTimeZone"), "W. Europe Standard Time")
    times = {"start": {"dateTime": "2027-04-30T22:00:00.0000000"}, "end": {"dateTime": "2027-05-02T22:00:00.0000000"}}
    monkeypatch.setattr("sandbox.graph.shown", lambda event: {**shown(event), **zones, **times})
    assert outlook.get(PRIMARY, made.id).draft == fair


@pytest.mark.parametrize(
    ("day", "rule"), [(31, "BYMONTHDAY=-1"), (30, "BYMONTHDAY=28,29,30;BYSETPOS=-1"), (28, "BYMONTHDAY=28")]
)
def test_a_day_that_short_months_lack_is_read_as_what_outlook_makes_of_it(
    served: Running, outlook: Outlook, day: int, rule: str
) -> None:
    pattern = {"type": "absoluteMonthly", "interval": 1, "dayOfMonth": day}
    ends = {"type": "noEnd", "startDate": f"2027-01-{day}"}
    made = by_hand(
        served, start=datetime(2027, 1, day, 9, tzinfo=BERLIN), recurrence={"pattern": pattern, "range": ends}
    )
    assert outlook.get(PRIMARY, made).draft.recurrence == (f"RRULE:FREQ=MONTHLY;{rule}",)


def test_a_zone_that_only_this_exchange_knows_is_read_as_utc(outlook: Outlook, monkeypatch: pytest.MonkeyPatch) -> None:
    made = outlook.create(PRIMARY, DEMO, operation_id="demo-1")
    strange = {"originalStartTimeZone": "tzone://Microsoft/Custom"}
    monkeypatch.setattr("sandbox.graph.shown", lambda event: {**shown(event), **strange})
    start = outlook.get(PRIMARY, made.id).draft.start
    assert isinstance(start, datetime)
    assert (start, start.tzinfo) == (NINE, UTC)


def test_an_operation_id_that_was_used_for_another_event_is_a_conflict(outlook: Outlook) -> None:
    outlook.create(PRIMARY, DEMO, operation_id="demo-1")
    with pytest.raises(CalendarConflictError, match="give each its own"):
        outlook.create(PRIMARY, replace(DEMO, title="Another"), operation_id="demo-1")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"client_secret": SecretStr("wrong")}, "check the client's id and secret"),
        ({"tenant_id": "elsewhere"}, "check the client's id and secret"),
        ({"user": "nobody@example.com"}, "ErrorInvalidUser"),
    ],
)
def test_what_is_configured_wrong_is_said(served: Running, wrong: dict[str, Any], said: str) -> None:
    client = outlook_calendar(served, **wrong)
    with pytest.raises(CalendarIntegrationError) as caught:
        client.get(PRIMARY, "AAMkA")
    client.close()
    assert said in f"{caught.value} {caught.value.code}"
    assert "nobody@" not in str(caught.value)
    assert not caught.value.retryable


def by_hand(served: Running, start: datetime, **more: Any) -> str:
    """Makes an event as somebody else would; gives its id."""
    login = served.sandbox.microsoft_login
    form = {"client_id": login.client_id, "client_secret": login.client_secret, "grant_type": "client_credentials"}
    url = f"{served.microsoft_base}/{login.tenant_id}/oauth2/v2.0/token"
    token = httpx.post(url, data={**form, "scope": "x/.default"}).json()["access_token"]
    times = {
        name: {"dateTime": f"{at:%Y-%m-%dT%H:%M:%S}", "timeZone": "Europe/Berlin"}
        for name, at in (("start", start), ("end", start + (TEN - NINE)))
    }
    answer = httpx.post(
        f"{served.graph_base}/v1.0/users/sandbox@example.com/calendar/events",
        json={"subject": "By hand", **times, **more},
        headers={"Authorization": f"Bearer {token}"},
    )
    return str(answer.raise_for_status().json()["id"])
