"""A stream that is read all the time: bounded runs, one after the other, over one connection.

Each run commits its rows with its offsets, so that killed anywhere the next one goes on where the last one committed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from threading import Event

from errors import PivotalError
from etl.destinations import open_destination
from etl.lock import only_run_of
from etl.pipeline import Pipeline, StreamSource
from etl.run import announce, counts, run_step
from etl.stream import RunReport
from events.envelope import new_id

LONGEST_RUN = timedelta(seconds=5)
"""How long a run reads at most: so long a stop may take, and so much is read again after a crash."""

LOOK_EVERY = 0.1
"""Seconds between two looks at a stream that has nothing new."""

LONGEST_PAUSE = 30.0
"""Seconds between two tries, at most, while brokers or destination are away."""

_SUMMED = (
    "extracted",
    "inserted",
    "updated",
    "filtered",
    "quarantined",
    "deduplicated",
    "tombstones",
    "deleted",
    "missed",
    "bytes_read",
    "seconds",
)

logger = logging.getLogger(__name__)


def follow(pipeline: Pipeline, stop: Event, tell: Callable[[RunReport], None] | None = None) -> RunReport:
    """Loads what comes, until it is told to stop; the run that goes on then is ended.

    What another try can mend (brokers or the destination that are away) is tried again. No other run of the pipeline
    can go on meanwhile.

    Args:
        pipeline: The pipeline; its source is a stream.
        stop: Set it to end.
        tell: Called with the report of each run.

    Returns:
        The sum of the reports.

    Raises:
        PivotalError: A run failed in a way that no other try can mend, or the source is no stream.
    """
    declared = pipeline.source
    if not isinstance(declared, StreamSource):
        raise PivotalError(f"pipeline {pipeline.name}: its source is no stream", hint="use `pivotal run`")
    total = RunReport(pipeline.name, new_id(), f"stream {', '.join(declared.topics)}", pipeline.destination.type)
    try:
        with only_run_of(pipeline.name):
            _follow(_bounded(pipeline, declared), stop, total, tell)
    except PivotalError as error:
        announce(pipeline, None, total.run_id, "failed", {"error": type(error).__name__, "message": error.message})
        raise
    announce(pipeline, None, total.run_id, "completed", counts(total))
    return total


def _bounded(pipeline: Pipeline, source: StreamSource) -> Pipeline:
    longest = min(source.max_seconds or LONGEST_RUN, LONGEST_RUN)
    return pipeline.model_copy(update={"source": source.model_copy(update={"max_seconds": longest})})


def _follow(pipeline: Pipeline, stop: Event, total: RunReport, tell: Callable[[RunReport], None] | None) -> None:
    from etl.sources.stream import Stream

    pause, state = LOOK_EVERY, None
    with closing(Stream(pipeline.source, pipeline.name, lasting=True)) as stream:  # type: ignore[arg-type]
        while not stop.is_set():
            try:
                state = state or open_destination(pipeline).state()
                if state is not None and not stream.has_news(state):
                    stop.wait(LOOK_EVERY)
                    continue
                report = run_step(pipeline, stream, new_id(), state)
            except PivotalError as error:
                if not error.retryable:
                    raise
                logger.warning("pipeline %s: %s; it is tried again in %g s", pipeline.name, error.message, pause)
                stream.close()
                state, pause = None, _after(stop, pause)
                continue
            pause, state = LOOK_EVERY, report.state_after
            _add(total, report)
            if tell:
                tell(report)


def _after(stop: Event, pause: float) -> float:
    """Waits; returns how long to wait the next time."""
    stop.wait(pause)
    return min(2 * pause, LONGEST_PAUSE)


def _add(total: RunReport, report: RunReport) -> None:
    for name in _SUMMED:
        setattr(total, name, getattr(total, name) + getattr(report, name))
    total.source, total.destination = report.source, report.destination
    total.state_before, total.state_after = total.state_before or report.state_before, report.state_after
    total.peak_memory, total.lag = report.peak_memory, report.lag
