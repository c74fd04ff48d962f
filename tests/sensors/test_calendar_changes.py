from __future__ import annotations

import dagster as dg
import pytest

from assets.reconciliation import reconciliation_jobs
from events.cause import new_event
from events.log import EventLog
from reconciliation import configured
from resources.event_log import EventLogResource
from schedules.reconciliation import build_reconciliation_schedules
from sensors.calendar_changes import build_calendar_sensors
from settings import Settings


class Ticks:
    """Evaluates a provider's sensor as the daemon does."""

    def __init__(self, provider: str, instance: dg.DagsterInstance, event_log: EventLogResource) -> None:
        (self.sensor,) = build_calendar_sensors([provider])
        self.instance, self.event_log = instance, event_log
        self.cursor: str | None = None

    def tick(self) -> list[str | None]:
        """The keys of the runs that were asked for."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"event_log": self.event_log}
        )
        found = self.sensor(context)
        if not isinstance(found, dg.SensorResult):
            return []
        self.cursor = found.cursor
        return [request.run_key for request in found.run_requests or []]


@pytest.fixture
def ticks(instance: dg.DagsterInstance, event_log: EventLogResource) -> Ticks:
    return Ticks("google", instance, event_log)


def tell(log: EventLog, kind: str = "google.calendar.changed") -> None:
    log.publish([new_event(kind, ("calendar_watch", "c1"), {}, source=kind.partition(".")[0])])


def test_notifications_that_landed_ask_for_one_run(ticks: Ticks, log: EventLog) -> None:
    assert ticks.tick() == []
    tell(log)
    tell(log)
    assert ticks.tick() == ["google-2"]
    assert ticks.tick() == []


def test_what_lands_while_a_run_is_under_way_is_read_by_the_next(
    ticks: Ticks, log: EventLog, instance: dg.DagsterInstance
) -> None:
    run = instance.create_run_for_job(reconciliation_jobs["google"])
    tell(log)
    assert ticks.tick() == []
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, run.job_name), run.run_id)
    assert ticks.tick() == ["google-1"]


def test_what_a_reading_publishes_asks_for_no_other(ticks: Ticks, log: EventLog) -> None:
    tell(log, "google.calendar.event.updated")
    tell(log, "google.calendar.sync")
    tell(log, "outlook.calendar.changed")
    assert ticks.tick() == []


@pytest.mark.parametrize("kind", ["outlook.calendar.changed", "outlook.subscription.missed"])
def test_graphs_lifecycle_asks_for_a_run_too(
    kind: str, instance: dg.DagsterInstance, event_log: EventLogResource, log: EventLog
) -> None:
    tell(log, kind)
    assert Ticks("outlook", instance, event_log).tick() == ["outlook-1"]


def test_a_log_that_started_anew_is_looked_through_again(ticks: Ticks, log: EventLog) -> None:
    ticks.cursor = "99"
    tell(log)
    assert ticks.tick() == ["google-1"]


def test_only_providers_with_credentials_have_timers_and_those_run() -> None:
    providers = configured(Settings.model_validate({"stripe_api_key": "sk_test_x", "google_credentials": "key.json"}))
    schedules = build_reconciliation_schedules(providers)
    assert [schedule.name for schedule in schedules] == ["reconcile_stripe_schedule", "reconcile_google_schedule"]
    assert {schedule.default_status for schedule in schedules} == {dg.DefaultScheduleStatus.RUNNING}
    assert [sensor.name for sensor in build_calendar_sensors(providers)] == ["google_calendar_changes"]
