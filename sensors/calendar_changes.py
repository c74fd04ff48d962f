"""Notifications of calendars -> runs that read what has changed: they only say *that* something has.

One run of a provider at a time: what lands meanwhile is read by the next one. What a failed run leaves, the timer
reads.
"""

from collections.abc import Sequence

import dagster as dg

from assets.reconciliation import reconciliation_jobs
from resources.event_log import EventLogResource
from sensors.streams import UNDER_WAY

NOTIFICATIONS = {
    "google": ["google.calendar.changed"],
    "outlook": ["outlook.calendar.changed", "outlook.subscription.*"],
}


def build_calendar_sensors(providers: Sequence[str]) -> list[dg.SensorDefinition]:
    """Makes a sensor, which starts by itself, for each provider of calendars.

    Args:
        providers: Those with credentials.
    """
    return [_sensor(provider) for provider in providers if provider in NOTIFICATIONS]


def _sensor(provider: str) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{provider}_calendar_changes",
        job=reconciliation_jobs[provider],
        minimum_interval_seconds=1,  # as the sensor of landed events
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Reads {provider}'s calendars as soon as it has told of a change.",
    )
    def changes(context: dg.SensorEvaluationContext, event_log: EventLogResource) -> dg.SensorResult | dg.SkipReason:
        after = int(context.cursor or 0)
        with event_log.open() as log:
            head = log.head()
            told = log.read(after if after <= head else 0, 1, until=head, types=NOTIFICATIONS[provider])
        if not told:
            return dg.SensorResult(skip_reason=f"{provider} has told of no change", cursor=str(head))
        under_way = dg.RunsFilter(job_name=reconciliation_jobs[provider].name, statuses=UNDER_WAY)
        if context.instance.get_runs_count(under_way):
            return dg.SkipReason("a run is under way; what has been told meanwhile is read after it")
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"{provider}-{head}")], cursor=str(head))

    return changes
