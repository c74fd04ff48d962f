from __future__ import annotations

import dagster as dg
import pytest

from errors import EventLogError
from events.log import EventLog
from resources.event_log import EventLogResource
from sensors import failures
from sensors.failures import run_failure_alerts


@dg.op
def break_down() -> None:
    raise RuntimeError("the warehouse burns")


@dg.job(executor_def=dg.in_process_executor)
def broken_job() -> None:
    break_down()


def fail(instance: dg.DagsterInstance) -> str:
    return broken_job.execute_in_process(instance=instance, raise_on_error=False).run_id


def tick(instance: dg.DagsterInstance, event_log: EventLogResource, cursor: str | None) -> str:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"event_log": event_log})
    run_failure_alerts(context)
    assert context.cursor
    return context.cursor


def alerted(log: EventLog) -> list[str]:
    return [recorded.event.aggregate_id for recorded in log.read(0, 100, types=["pivotal.run.failed"])]


def test_a_failed_run_is_an_alert_on_the_log(
    instance: dg.DagsterInstance, event_log: EventLogResource, log: EventLog
) -> None:
    cursor = tick(instance, event_log, None)
    run_id = fail(instance)
    tick(instance, event_log, cursor)
    (recorded,) = log.read(0, 100)
    assert recorded.event.data["run_id"] == run_id
    assert recorded.event.data["job"] == "broken_job"
    assert "the warehouse burns" in recorded.event.data["error"]
    assert recorded.event.metadata.correlation_id == run_id


def test_a_run_that_failed_before_its_first_step_is_an_alert_too(
    instance: dg.DagsterInstance, event_log: EventLogResource, log: EventLog
) -> None:
    cursor = tick(instance, event_log, None)
    instance.report_run_failed(instance.create_run_for_job(broken_job), "postgresql://me:correct-horse@host is away")
    tick(instance, event_log, cursor)
    assert log.read(0, 1)[0].event.data["error"] == "postgresql://***host is away"


def test_failures_before_the_first_tick_are_no_alerts(
    instance: dg.DagsterInstance, event_log: EventLogResource, log: EventLog
) -> None:
    fail(instance)
    cursor = tick(instance, event_log, None)
    tick(instance, event_log, cursor)
    assert alerted(log) == []


def test_each_failure_is_one_alert_however_often_a_tick_is_evaluated(
    instance: dg.DagsterInstance, event_log: EventLogResource, log: EventLog
) -> None:
    start = tick(instance, event_log, None)
    run_ids = [fail(instance), fail(instance)]
    tick(instance, event_log, start)
    end = tick(instance, event_log, start)
    tick(instance, event_log, end)
    assert alerted(log) == run_ids


def test_many_failures_are_alerted_over_several_ticks(
    instance: dg.DagsterInstance, event_log: EventLogResource, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "MOST_ALERTS", 1)
    cursor = tick(instance, event_log, None)
    run_ids = [fail(instance), fail(instance)]
    tick(instance, event_log, tick(instance, event_log, cursor))
    assert alerted(log) == run_ids


def test_an_alert_that_the_log_did_not_take_is_tried_again(
    instance: dg.DagsterInstance, event_log: EventLogResource, log: EventLog
) -> None:
    cursor = tick(instance, event_log, None)
    run_id = fail(instance)
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"event_log": EventLogResource(url="sqlite:////dev/null/e.db")}
    )
    with pytest.raises(EventLogError):
        run_failure_alerts(context)
    assert context.cursor == cursor
    tick(instance, event_log, cursor)
    assert alerted(log) == [run_id]
