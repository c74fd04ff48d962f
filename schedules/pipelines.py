"""One schedule per pipeline that declares one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import dagster as dg

from assets.partitions import partitions_definition
from etl.pipeline import Pipeline


def build_schedules(pipelines: Sequence[Pipeline]) -> list[dg.ScheduleDefinition]:
    """Makes a schedule (in UTC, started by whoever deploys) for each pipeline with `schedule`.

    A pipeline with partitions by time runs the latest one that is complete; with partitions by value, each of them.

    Args:
        pipelines: The pipelines.
    """
    return [_schedule(pipeline) for pipeline in pipelines if pipeline.schedule]


def _schedule(pipeline: Pipeline) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=f"{pipeline.name}_schedule",
        target=dg.AssetSelection.assets(pipeline.name),
        cron_schedule=pipeline.schedule,
        execution_fn=_requests(pipeline) if pipeline.partitions else None,
        description=f"Runs {pipeline.name}: {pipeline.description}",
    )


def _requests(
    pipeline: Pipeline,
) -> Callable[[dg.ScheduleEvaluationContext], Iterator[dg.RunRequest | dg.SkipReason]]:
    """The runs of one tick."""
    partitions = partitions_definition(pipeline.partitions)
    assert partitions  # noqa: S101  (asked for with partitions only)

    def requests(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        keys = partitions.get_partition_keys(current_time=context.scheduled_execution_time)
        if not keys:
            yield dg.SkipReason("no partition is complete yet")
        chosen = keys[-1:] if isinstance(partitions, dg.TimeWindowPartitionsDefinition) else keys
        tick = context.scheduled_execution_time.isoformat()
        yield from (dg.RunRequest(run_key=f"{tick}/{key}", partition_key=key) for key in chosen)

    return requests
