"""A pipeline's partitions as Dagster has them. One run does a whole backfill: the engine reads and replaces a range."""

from __future__ import annotations

import dagster as dg

from etl.partitions import Partition, partition_of_values, partition_range
from etl.pipeline import Partitions, Pipeline

_CRONS = {"hour": "0 * * * *", "day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *"}
_BEGIN = {"hour": "%Y-%m-%dT%H:%M"}


def partitions_definition(declared: Partitions | None) -> dg.PartitionsDefinition[str] | None:
    """What Dagster needs to show partitions and to backfill them; None if there are none.

    Args:
        declared: What the pipeline's file says.
    """
    if declared is None:
        return None
    if declared.every is None or declared.start is None:
        return dg.StaticPartitionsDefinition(declared.values)
    form = _BEGIN.get(declared.every, "%Y-%m-%d")
    return dg.TimeWindowPartitionsDefinition(
        start=f"{declared.start:{form}}", fmt=form, cron_schedule=_CRONS[declared.every]
    )


def mapping(declared: Partitions | None, upstream: Partitions | None) -> dg.PartitionMapping | None:
    """Which of the upstream's partitions one depends on; None where Dagster's own idea of it is right.

    Args:
        declared: The partitions of the pipeline.
        upstream: Those of the pipeline that it reads from.
    """
    by_time = [each.every is not None for each in (declared, upstream) if each]
    same = by_time == [True, True] or (declared and upstream and declared.values == upstream.values)
    return None if len(by_time) < 2 or same else dg.AllPartitionMapping()


def partition_of_run(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Partition | None:
    """What a run is about: one partition or a range of them."""
    if not pipeline.partitions:
        return None
    if not pipeline.partitions.every:
        return partition_of_values(pipeline, context.partition_keys)
    window = context.partition_time_window
    return partition_range(pipeline, *(each.replace(tzinfo=None).isoformat() for each in window))
