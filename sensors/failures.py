"""Failed runs -> alert events on the log.

Not one of Dagster's run-status sensors: theirs moves its cursor on when it raises, so an alert could be lost. This one
moves it only behind what the log has taken, and the log takes each run's alert once.
"""

from datetime import UTC, datetime

import dagster as dg
from dagster._core.event_api import EventLogRecord

from events.cause import Cause, caused_by, new_event
from events.envelope import Event
from events.failure import without_secrets
from resources.event_log import EventLogResource

MOST_ALERTS = 100
"""Alerts in one tick."""


@dg.sensor(
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Publishes pivotal.run.failed on the event log for each failed run.",
)
def run_failure_alerts(context: dg.SensorEvaluationContext, event_log: EventLogResource) -> dg.SkipReason:
    """Publishes an alert for each run that failed since the last tick; the first tick starts from now.

    Raises:
        EventLogError: The log did not take them; the next tick tries again.
    """
    if context.cursor is None:
        now = context.instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1)
        context.update_cursor(now.cursor)
        return dg.SkipReason("watching from now on")
    found = context.instance.fetch_run_status_changes(
        dg.DagsterEventType.RUN_FAILURE, limit=MOST_ALERTS, cursor=context.cursor, ascending=True
    )
    if not found.records:
        return dg.SkipReason("no run failed")
    with event_log.open() as log:
        log.publish([_alert(record) for record in found.records])
    context.update_cursor(found.cursor)
    return dg.SkipReason(f"alerted of {len(found.records)} failed runs")


def _alert(record: EventLogRecord) -> Event:
    entry = record.event_log_entry
    with caused_by(Cause(correlation_id=entry.run_id)):
        return new_event(
            "pivotal.run.failed",
            ("run", entry.run_id),
            {"run_id": entry.run_id, "job": entry.job_name, "error": _error(entry.get_dagster_event())},
            source="pivotal/dagster",
            dedupe_key=entry.run_id,
            timestamp=datetime.fromtimestamp(entry.timestamp, UTC),
        )


def _error(failure: dg.DagsterEvent) -> str:
    """What the first step that failed raised; else (the run did not start, or was lost) what Dagster says."""
    step = failure.job_failure_data.first_step_failure_event if failure.event_specific_data else None
    error = step.step_failure_data.error if step else None
    return without_secrets((error.cause or error).message.strip() if error else failure.message or "")
