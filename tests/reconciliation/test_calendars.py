"""What happened in a calendar while nobody listened is in the table after a reading."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from errors import EventLogError
from etl.destinations.warehouse import Warehouse, open_warehouse
from events.log import EventLog, open_log
from integrations.calendar import PRIMARY, Attendee, Calendars, Draft
from reconciliation import calendars as module
from reconciliation.calendars import reconcile_calendar
from reconciliation.reading import Reconciled
from sandbox.app import Forgotten
from sandbox.serve import Running
from settings import get_settings
from tests.reconciliation.conftest import Rows

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(days=7)
CALL = Draft(
    title="Call",
    start=NOON,
    end=NOON + timedelta(hours=1),
    description="Behind closed doors",
    attendees=(Attendee("ada@example.com"), Attendee("bob@example.com")),
)
WEEKLY = replace(CALL, recurrence=("RRULE:FREQ=WEEKLY;COUNT=3",))


@pytest.fixture
def read(calendars: Calendars, log: EventLog, warehouse: Warehouse) -> Any:
    return lambda: reconcile_calendar(calendars, PRIMARY, log, warehouse, run_id="run")


def told(rows: Rows) -> dict[str, str]:
    return {row["title"]: row["status"] for row in rows("calendar_events")}


def forget(served: Running, calendars: Calendars) -> None:
    service = {"google_calendar": "google", "outlook": "graph"}[calendars.service]
    served.sandbox.forget(Forgotten.model_validate({"service": service}))


def test_a_meeting_is_a_row_without_what_is_said_in_it_and_who_is_invited(
    calendars: Calendars, read: Any, rows: Rows, log: EventLog
) -> None:
    made = calendars.create(PRIMARY, CALL, operation_id="call")
    assert read().new == 1
    (row,) = rows("calendar_events")
    assert row["calendar_event_id"] == made.id
    assert (row["service"], row["status"], row["attendees"]) == (module.SERVICES[calendars.service], "confirmed", 2)
    assert datetime.fromisoformat(row["starts_at"]) == NOON
    kept = str([recorded.event.data for recorded in log.read(0, 100)]) + str(row)
    assert "closed doors" not in kept
    assert "ada@example.com" not in kept


def test_a_change_and_a_deletion_that_nobody_told_of_are_found(calendars: Calendars, read: Any, rows: Rows) -> None:
    call = calendars.create(PRIMARY, CALL, operation_id="call")
    lunch = calendars.create(PRIMARY, replace(CALL, title="Lunch"), operation_id="lunch")
    read()
    calendars.update(call, replace(call.draft, title="Call, moved"))
    calendars.delete(PRIMARY, lunch.id)
    assert read().new == 2
    assert told(rows) == {"Call, moved": "confirmed", "Lunch": "deleted"}


def test_reading_again_finds_nothing_new(calendars: Calendars, read: Any) -> None:
    calendars.create(PRIMARY, CALL, operation_id="call")
    assert read().new == 1
    assert read().new == 0


def test_days_are_read_as_days(calendars: Calendars, read: Any, rows: Rows) -> None:
    day = NOON.date()
    calendars.create(PRIMARY, Draft(title="Fair", start=day, end=day + timedelta(days=2)), operation_id="fair")
    read()
    (row,) = rows("calendar_events")
    assert (row["all_day"], row["zone"], datetime.fromisoformat(row["starts_at"]).date()) == (1, None, day)


def test_a_forgotten_token_is_no_gap_deletions_are_found_too(
    served: Running, calendars: Calendars, read: Any, rows: Rows
) -> None:
    stays = calendars.create(PRIMARY, CALL, operation_id="call")
    gone = calendars.create(PRIMARY, replace(CALL, title="Lunch"), operation_id="lunch")
    read()
    forget(served, calendars)
    calendars.delete(PRIMARY, gone.id)
    again = read()
    assert (again.read, again.new) == (2, 1)
    assert told(rows) == {"Call": "confirmed", "Lunch": "deleted"}
    calendars.update(stays, replace(stays.draft, title="Call, still"))
    read()
    assert told(rows) == {"Call, still": "confirmed", "Lunch": "deleted"}


def test_a_full_reading_leaves_the_past_alone(
    served: Running, calendars: Calendars, read: Any, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    calendars.create(PRIMARY, CALL, operation_id="call")
    read()
    forget(served, calendars)
    monkeypatch.setattr(module, "_in_time", lambda *_: _later())
    read()
    assert told(rows) == {"Call": "confirmed"}


def _later() -> dict[str, object]:
    start, end = NOON + timedelta(days=100), NOON + timedelta(days=200)
    return {"start": start.isoformat(), "end": end.isoformat(), "token": None}


def test_of_a_series_the_instances_that_are_gone_are_found(calendars: Calendars, read: Any, rows: Rows) -> None:
    calendars.create(PRIMARY, WEEKLY, operation_id="weekly")
    assert read().new == 3
    second = sorted(calendars.instances(PRIMARY, NOON, NOON + timedelta(days=30)), key=lambda each: each.draft.start)[1]
    calendars.delete(PRIMARY, second.id)
    read()
    held = {row["calendar_event_id"]: row["status"] for row in rows("calendar_events")}
    assert [id_ for id_, status in held.items() if status == "deleted"] == [second.id]
    calendars.delete(PRIMARY, str(second.series_id))
    read()
    assert {row["status"] for row in rows("calendar_events")} == {"deleted"}


def test_a_token_is_kept_only_once_everything_is_published(
    calendars: Calendars, log: EventLog, read: Any, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        calendars.create(PRIMARY, replace(CALL, title=f"Call {number}"), operation_id=f"call-{number}")
    monkeypatch.setattr("reconciliation.reading.PORTION", 1)
    whole, taken = type(log).publish, []

    def refusing(self: EventLog, events: Any) -> list[bool]:
        taken.append(events)
        if len(taken) == 2:
            raise EventLogError("the disk is full", retryable=True)
        return whole(self, events)

    monkeypatch.setattr(type(log), "publish", refusing)
    with pytest.raises(EventLogError):
        read()
    assert read() == Reconciled(module.SERVICES[calendars.service], read=3, new=2)
    assert len(rows("calendar_events")) == 3


def test_a_log_that_started_anew_is_filled_again(calendars: Calendars, warehouse: Warehouse, read: Any) -> None:
    calendars.create(PRIMARY, CALL, operation_id="call")
    read()
    anew = open_log(f"sqlite:///{get_settings().root / 'anew.db'}")
    assert reconcile_calendar(calendars, PRIMARY, anew, warehouse, run_id="run").new == 1
    anew.close()


@pytest.mark.parametrize("calendars", ["outlook"], indirect=True)
@pytest.mark.parametrize("kind", ["duckdb", "postgres", "mariadb"])
def test_every_warehouse_tells_what_it_knows_of_what_is_gone(
    kind: str, calendars: Calendars, log: EventLog, project: Path, request: pytest.FixtureRequest
) -> None:
    url = f"duckdb:///{project / 'w.duckdb'}" if kind == "duckdb" else str(request.getfixturevalue(f"{kind}_url"))
    warehouse = open_warehouse(url)
    made = calendars.create(PRIMARY, CALL, operation_id="call")
    reconcile_calendar(calendars, PRIMARY, log, warehouse, run_id="run")
    before = log.read(0, 10)[-1].event.data
    calendars.delete(PRIMARY, made.id)
    reconcile_calendar(calendars, PRIMARY, log, warehouse, run_id="run")
    after = log.read(log.head() - 1, 1)[0].event
    assert after.type.endswith(".calendar.event.deleted")
    assert after.data | {"read_at": None} == before | {"read_at": None}
