"""The event log is pruned each night, if `PIVOTAL_EVENTS_KEEP` says how long events are kept."""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg
from pydantic import Field

from errors import PivotalError
from resources.event_log import EventLogResource
from resources.warehouse import WarehouseResource


class Retention(dg.Config):
    """Which events are deleted."""

    days: int = Field(ge=1, description="Only events that are older.")


@dg.op
def prune_event_log(
    context: dg.OpExecutionContext, config: Retention, event_log: EventLogResource, warehouse: WarehouseResource
) -> None:
    """Deletes old events that everybody has read."""
    from projections.retention import prune

    try:
        with event_log.open() as log:
            pruned = prune(log, warehouse.open(), timedelta(days=config.days))
    except PivotalError as error:
        raise dg.Failure(str(error)) from None
    context.log.info(f"{pruned.events} events deleted, up to {pruned.until}: {pruned.stopped}")  # noqa: G004


@dg.job(executor_def=dg.in_process_executor)
def prune_events() -> None:
    """Deletes old events from the log, once everybody has read them."""
    prune_event_log()


def retention_schedules(days: int | None) -> Sequence[dg.ScheduleDefinition]:
    """The schedule that prunes the log, if events are not kept for ever.

    Args:
        days: How long they are kept.
    """
    if days is None:
        return []
    schedule = dg.ScheduleDefinition(
        job=prune_events,
        cron_schedule="17 3 * * *",
        run_config={"ops": {"prune_event_log": {"config": {"days": days}}}},
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Deletes events that are older than {days} days and that everybody has read.",
    )
    return [schedule]
