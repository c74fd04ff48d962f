"""Streams -> runs: a bounded run starts when as many records wait as the pipeline says (`run_at_lag`).

One run of a pipeline at a time. A run that failed is asked for again after `AGAIN`, from the same place.
"""

import time
from collections.abc import Sequence
from typing import cast

import dagster as dg

from errors import PivotalError
from etl.pipeline import Pipeline, StreamSource

LOOK_EVERY, AGAIN = 30, 600
"""Seconds between two looks at a stream; and between two runs that start at the same place."""

TAG = "pivotal/stream"
"""The tag of a run that a stream has asked for: the pipeline's name."""

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def build_stream_sensors(pipelines: Sequence[Pipeline]) -> list[dg.SensorDefinition]:
    """Makes a sensor (started by whoever deploys) for each pipeline with `run_at_lag`.

    Args:
        pipelines: The pipelines.
    """
    return [_sensor(pipeline) for pipeline in pipelines if getattr(pipeline.source, "run_at_lag", None)]


def _sensor(pipeline: Pipeline) -> dg.SensorDefinition:
    return dg.SensorDefinition(
        name=f"{pipeline.name}_lag",
        target=dg.AssetSelection.assets(pipeline.name),
        minimum_interval_seconds=LOOK_EVERY,
        evaluation_fn=lambda context: _request(context, pipeline),
        description=f"Runs {pipeline.name} when its stream has enough unread records.",
    )


def _request(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> dg.RunRequest | dg.SkipReason:
    from etl.destinations import open_destination
    from etl.sources.stream import lags

    source, tags = cast(StreamSource, pipeline.source), {TAG: pipeline.name}
    if context.instance.get_runs_count(dg.RunsFilter(tags=tags, statuses=UNDER_WAY)):
        return dg.SkipReason("a run is under way")
    try:
        state = open_destination(pipeline).state()
        found = lags(source, pipeline.name, state)
    except PivotalError as error:
        return dg.SkipReason(f"how far behind it is cannot be told: {error}")
    if state is None and source.start == "latest":  # nothing waits behind an end that no run has remembered
        return dg.RunRequest(run_key=f"first/{int(time.time() // AGAIN)}", tags=tags)
    behind = sum(each.lag for each in found)
    if behind < (source.run_at_lag or 1):
        return dg.SkipReason(f"{behind} records wait; a run starts at {source.run_at_lag}")
    place = "-".join(f"{each.committed}" for each in found)
    return dg.RunRequest(run_key=f"{place}/{int(time.time() // AGAIN)}", tags=tags)
