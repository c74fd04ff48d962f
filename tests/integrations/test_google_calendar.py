"""What is Google's alone: its credentials, its rate limits, ids that were used up, several recurrence lines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from errors import PivotalError
from integrations.calendar import (
    PRIMARY,
    CalendarConflictError,
    CalendarIntegrationError,
    GoogleCalendar,
    GoogleCalendarConfig,
)
from integrations.calls import RetryBudget
from sandbox.discovery import Refused
from sandbox.serve import Running
from sandbox.wire import Misbehaviour
from tests.integrations.calendars import DEMO, SECRET, YEAR, google_calendar

TRIES = 3


@pytest.fixture
def google(served: Running) -> Iterator[GoogleCalendar]:
    client = google_calendar(served, retry=RetryBudget(attempts=TRIES, first_wait=0.001))
    yield client
    client.close()


def test_a_service_account_is_as_good_as_a_user_and_so_is_a_file(served: Running, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(served.google_credentials)
    for credentials in (served.google_credentials, str(tmp_path / "key.json")):
        client = google_calendar(served, credentials=SecretStr(credentials))
        assert len([*client.calendars()]) == 2
        client.close()


@pytest.mark.parametrize("credentials", ["no-such-file.json", "{", '{"type": "service_account"}', '{"installed": {}}'])
def test_credentials_of_another_kind_are_refused_at_once(served: Running, credentials: str) -> None:
    client = GoogleCalendar(GoogleCalendarConfig(credentials=SecretStr(credentials), api_base=served.google_base))
    with pytest.raises(PivotalError, match="PIVOTAL_GOOGLE_CREDENTIALS"):
        client.get(PRIMARY, "0")
    client.close()


def test_a_key_that_is_no_longer_good_is_said(served: Running) -> None:
    info = {**json.loads(served.google_credentials), "client_email": "gone@example.com"}
    client = google_calendar(served, credentials=SecretStr(json.dumps(info)))
    with pytest.raises(CalendarIntegrationError, match="account not found") as caught:
        client.get(PRIMARY, "0")
    client.close()
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (401, "no_token", False)
    assert "check the credentials" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("reason", "tries", "status"),
    [("rateLimitExceeded", TRIES, 429), ("userRateLimitExceeded", TRIES, 429), ("quotaExceeded", 1, 403)],
)
def test_a_rate_limit_that_google_says_with_403_is_waited_for(
    served: Running, google: GoogleCalendar, monkeypatch: pytest.MonkeyPatch, reason: str, tries: int, status: int
) -> None:
    def refuse(*_: object) -> None:
        raise Refused("Rate Limit Exceeded", reason, 403, domain="usageLimits")

    monkeypatch.setattr(served.sandbox.google, "_admit", refuse)
    with pytest.raises(CalendarIntegrationError) as caught:
        google.get(PRIMARY, "0")
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (status, reason, tries > 1)
    assert sum(call.service == "google" for call in served.sandbox.wire.calls) == tries


def test_an_operation_whose_event_was_deleted_makes_no_other(google: GoogleCalendar) -> None:
    made = google.create(PRIMARY, DEMO, operation_id="demo-1")
    google.delete(PRIMARY, made.id)
    with pytest.raises(CalendarConflictError, match="was deleted since"):
        google.create(PRIMARY, DEMO, operation_id="demo-1")


def test_several_recurrence_lines_are_kept(google: GoogleCalendar) -> None:
    lines = ("RRULE:FREQ=DAILY;COUNT=3", "EXDATE;TZID=Europe/Berlin:20270302T090000")
    made = google.create(PRIMARY, replace(DEMO, recurrence=lines), operation_id="demo-1")
    assert made.draft.recurrence == lines
    assert [each.draft.start.day for each in google.instances(PRIMARY, *YEAR)] == [1, 3]
    assert google.update(made, replace(made.draft, recurrence=())).draft.recurrence == ()


def test_an_online_meeting_can_be_taken_away_and_what_is_not_in_the_model_stays(
    served: Running, google: GoogleCalendar
) -> None:
    made = google.create(PRIMARY, replace(DEMO, online_meeting=True), operation_id="demo-1")
    kept = served.sandbox.google.calendars["sandbox@example.com"].entries[made.id].body
    kept["colorId"] = "7"
    offline = google.update(made, replace(made.draft, online_meeting=False, attendees=()))
    assert (offline.draft.online_meeting, offline.meeting_url, offline.draft.attendees) == (False, None, ())
    assert google.sdk.events().get(calendarId=PRIMARY, eventId=made.id).execute()["colorId"] == "7"


def test_what_the_sdk_refuses_to_send_is_told_as_that(google: GoogleCalendar) -> None:
    with pytest.raises(CalendarIntegrationError, match="get: ") as caught:
        google.get(PRIMARY, None)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.retryable) == ("not_sent", False)


@pytest.mark.parametrize("base", ["nowhere", "http://[::1"])
def test_an_address_that_is_none_is_told_at_once(served: Running, base: str) -> None:
    client = google_calendar(served, api_base=base)
    with pytest.raises(CalendarIntegrationError, match="PIVOTAL_GOOGLE_API_BASE") as caught:
        client.get(PRIMARY, "0")
    client.close()
    assert (caught.value.code, caught.value.retryable) == ("not_sent", False)


def test_an_answer_that_is_none_of_googles_is_told_as_that(served: Running, google: GoogleCalendar) -> None:
    served.sandbox.wire.misbehave(Misbehaviour(service="google", kind="html", status=404))
    with pytest.raises(CalendarIntegrationError, match="something that is not Google's"):
        google.get(PRIMARY, "0")


def test_threads_share_one_client(google: GoogleCalendar) -> None:
    def make(number: int) -> Any:
        return google.create(PRIMARY, replace(DEMO, title=str(number)), operation_id=f"demo-{number}").draft.title

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(make, range(24)), key=int) == [str(number) for number in range(24)]


def test_the_sdk_is_imported_when_it_is_needed() -> None:
    look = "print([name for name in ('googleapiclient', 'google.auth', 'events.log') if name in sys.modules])"
    code = f"import sys, integrations.calendar; {look}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_watch_needs_a_secret(served: Running) -> None:
    client = google_calendar(served, watch_secret=None)
    with pytest.raises(PivotalError, match="PIVOTAL_GOOGLE_WATCH_SECRET"):
        client.watch(PRIMARY, "https://example.com/hook")
    client.close()
    assert SECRET not in repr(client._config)
