"""Landed events -> runs that apply them to tables.

One run at a time, each for the range that follows the last one that succeeded. After a failed run the same range is
asked for again, as its next attempt, once a wait is over that doubles with each. Dagster starts a run key once, so a
tick that is evaluated twice starts nothing twice. The cursor is the key of the last request.

A run starts where the tables stand. Beside a worker (`pivotal events work`) it finds little or nothing left to do.
"""

import time
from dataclasses import dataclass, replace
from typing import Self

import dagster as dg

from assets.events import process_landed_events
from events.log import EventLog
from projections import PATTERNS
from resources.event_log import EventLogResource

MOST_EVENTS = 20_000
"""Sequences in a range: a backlog shows how it shrinks, and a failure repeats little."""

LONGEST_WAIT = 300
"""Seconds between two attempts, at most."""

TAG = "pivotal/events"
"""The tag of a run that holds its request's key."""


@dataclass(frozen=True, slots=True)
class Request:
    """A run that was asked for.

    Args:
        after: Every event up to this sequence had been applied.
        until: The last sequence to apply.
        attempt: From 1; 0 for the range before the first.
    """

    after: int = 0
    until: int = 0
    attempt: int = 0

    @classmethod
    def of(cls, key: str | None) -> Self:
        """The request with this key; the one before the first if there is none."""
        return cls(*map(int, key.split("-"))) if key else cls()

    @property
    def key(self) -> str:
        """Its run key, and the sensor's cursor."""
        return f"{self.after}-{self.until}-{self.attempt}"

    def wait(self, ended: float) -> float:
        """Seconds until the next attempt is due.

        Args:
            ended: When this one ended, in seconds since 1970.
        """
        return ended + min(2.0**self.attempt, LONGEST_WAIT) - time.time()


@dg.sensor(
    job_name=process_landed_events.name,
    minimum_interval_seconds=1,  # at each turn of the daemon, every 5 s; asked for 5, it passes over every second one
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a run as soon as events have landed; never more than one at a time.",
)
def landed_events_sensor(
    context: dg.SensorEvaluationContext, event_log: EventLogResource
) -> dg.SensorResult | dg.SkipReason:
    """Asks for a run if events have landed that no run has applied.

    Raises:
        EventLogError: The log cannot be read; the next tick tries again.
    """
    last = Request.of(context.cursor)
    with event_log.open() as log:
        if not last.attempt:
            return _next(context, log, last.until)
        runs = context.instance.get_run_records(dg.RunsFilter(tags={TAG: last.key}), limit=1)
        if not runs:  # Dagster was stopped between the tick and the run
            return _ask(context, log, last)
        status = runs[0].dagster_run.status
        if status is dg.DagsterRunStatus.SUCCESS:
            return _next(context, log, last.until)
        lag = _lag(log, last.after)
        if not runs[0].dagster_run.is_finished:
            return dg.SkipReason(f"a run is at work on events {_range(last)}; {lag}")
        if (wait := last.wait(runs[0].end_time or 0)) > 0:
            return dg.SkipReason(
                f"attempt {last.attempt} at events {_range(last)} failed; the next is due in {wait:.0f} s; {lag}"
            )
        return _ask(context, log, replace(last, attempt=last.attempt + 1))


def _next(context: dg.SensorEvaluationContext, log: EventLog, done: int) -> dg.SensorResult:
    head = log.head()
    done = done if done <= head else 0  # another log took the place of the one that the cursor was made for
    waiting = log.read(done, 1, until=head, types=PATTERNS)
    if not waiting:
        return dg.SensorResult(skip_reason=f"every event up to {head} is in the tables", cursor=Request(head, head).key)
    first = waiting[0].sequence
    return _ask(context, log, Request(first - 1, min(head, first - 1 + MOST_EVENTS), attempt=1))


def _ask(context: dg.SensorEvaluationContext, log: EventLog, request: Request) -> dg.SensorResult:
    context.log.info(f"asks for a run over events {_range(request)}; {_lag(log, request.after)}")  # noqa: G004
    run = dg.RunRequest(
        run_key=request.key,
        run_config={"ops": {"apply_landed_events": {"config": {"until": request.until}}}},
        tags={TAG: request.key},
    )
    return dg.SensorResult(run_requests=[run], cursor=request.key)


def _lag(log: EventLog, after: int) -> str:
    """How many events wait behind a sequence, those that a run is at work on too, and for how long.

    Events of other types among them are counted as well, rather than to read millions of events.
    """
    oldest = log.read(after, 1, types=PATTERNS)
    if not oldest:
        return "no event waits"
    seconds = max(0, time.time() - oldest[0].recorded_at.timestamp())
    return f"up to {log.head() - oldest[0].sequence + 1} events wait, the oldest for {seconds:.0f} s"


def _range(request: Request) -> str:
    return f"{request.after + 1} to {request.until}"
