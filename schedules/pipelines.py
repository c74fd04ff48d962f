"""One schedule per pipeline that declares one."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from etl.pipeline import Pipeline


def build_schedules(pipelines: Sequence[Pipeline]) -> list[dg.ScheduleDefinition]:
    """Makes a schedule (in UTC, started by whoever deploys) for each pipeline with `schedule`.

    Args:
        pipelines: The pipelines.
    """
    return [
        dg.ScheduleDefinition(
            name=f"{pipeline.name}_schedule",
            target=dg.AssetSelection.assets(pipeline.name),
            cron_schedule=pipeline.schedule,
            description=f"Runs {pipeline.name}: {pipeline.description}",
        )
        for pipeline in pipelines
        if pipeline.schedule
    ]
