"""Runs a pipeline: source -> rules -> destination, in one pass, and proves where every row went."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import cast

import numpy as np
import pyarrow as pa

from errors import AccountingError, InvalidRowsError, PivotalError
from etl.children import ChildTables, Parted
from etl.contract import Contract
from etl.destinations import open_destination
from etl.destinations.quarantine import before
from etl.lock import only_run_of
from etl.overlap import WriteBehind, read_ahead
from etl.partitions import Partition, about
from etl.pipeline import Pipeline
from etl.replay import QuarantineSource
from etl.rules import Rules
from etl.shown import shown
from etl.sources import open_source
from etl.sources.rows import as_text
from etl.stream import (
    BadRow,
    Batch,
    Broken,
    DeletingLoad,
    Expecting,
    Extraction,
    Load,
    ParentLoad,
    Partial,
    Progress,
    RunReport,
    Source,
    State,
    Streaming,
    Transformed,
)
from etl.tombstones import Deletions, Places
from events.cause import Cause, caused_by, new_event
from events.envelope import new_id
from events.log import open_log
from settings import get_settings

SAMPLE = 5
"""Rows of each kind (loaded, rejected) that a report shows."""

logger = logging.getLogger(__name__)


def run_pipeline(
    pipeline: Pipeline,
    *,
    run_id: str | None = None,
    progress: Progress | None = None,
    full_refresh: bool = False,
    replay: bool = False,
    partition: Partition | None = None,
) -> RunReport:
    """Runs a pipeline once, from where its last run stopped, and says on the event log how it ended.

    Interrupted (Ctrl-C), it publishes nothing and says that it was canceled.

    Args:
        pipeline: The pipeline.
        run_id: Names the run; the same id again replaces what that run wrote to files. Default: a UUIDv7.
        progress: Called after each batch with the counts so far.
        full_refresh: Forget the state and read everything; an `append` destination is replaced.
        replay: Read the pipeline's quarantine instead of its source; the state stays as it is.
        partition: Read and replace (or merge) only these rows; the state stays as it is. Runs for other partitions
            may go on at the same time.

    Returns:
        The report: extracted = loaded + filtered + quarantined + deduplicated + tombstones.

    Raises:
        AccountingError: The counts do not add up; nothing was published.
        InvalidRowsError: A row broke a rule and the pipeline says `on_invalid: fail`; nothing was published.
        PivotalError: The source, the rules or the destination failed; nothing was published.
    """
    run_id = run_id or new_id()
    try:
        with only_run_of(f"{pipeline.name}@{partition.name}" if partition else pipeline.name):
            written = about(pipeline, partition) if partition else _writing(pipeline, full_refresh, replay)
            report = _run(written, run_id, progress, full_refresh, replay, partition)
    except PivotalError as error:
        announce(pipeline, partition, run_id, "failed", {"error": type(error).__name__, "message": error.message})
        raise
    except BaseException as error:
        announce(
            pipeline, partition, run_id, "canceled" if _is_cancel(error) else "failed", {"error": type(error).__name__}
        )
        raise
    announce(pipeline, partition, run_id, "completed", counts(report))
    return report


def run_step(pipeline: Pipeline, source: Source, run_id: str, state: State | None) -> RunReport:
    """A run for one who holds the pipeline's lock, source and state, and who tells the event log himself.

    Raises:
        PivotalError: As `run_pipeline`.
    """
    return _run(pipeline, run_id, None, full_refresh=False, replay=False, partition=None, held=(source, state))


def _run(
    pipeline: Pipeline,
    run_id: str,
    progress: Progress | None,
    full_refresh: bool,
    replay: bool,
    partition: Partition | None,
    held: tuple[Source, State | None] | None = None,
) -> RunReport:
    started = time.monotonic()
    destination = open_destination(pipeline, partition)
    waiting = QuarantineSource(destination.quarantined()) if replay else None
    source: Source
    if held:
        source, state = held
        if isinstance(destination, Expecting):
            destination.expect(state)
    else:
        state = None if full_refresh else destination.state()
        source = waiting or open_source(pipeline, partition)
    expired = None if pipeline.quarantine_retention is None else before(pipeline.quarantine_retention)
    part = partition.name if partition else None
    report = RunReport(pipeline.name, run_id, source.label, destination.label, part, state_before=state)
    with (
        closing(source.open(state)) as extraction,
        destination.begin(run_id, replayed=waiting.ids if waiting else (), expired=expired) as load,
    ):
        contract, children = Contract(pipeline.transform, destination), ChildTables(pipeline.transform, destination)
        _stream(pipeline, contract, children, extraction, load, report, progress)
        after = extraction.state()
        _settle(load, report)
        report.expired = load.commit(after)
        report.state_after = after or state
        _acknowledge(extraction, report, goes_on=bool(held))
    if isinstance(extraction, Partial) and extraction.stopped:
        if report.expired:  # nobody sees the report of a run that fails
            logger.warning("pipeline %s: %d old rows left the quarantine", pipeline.name, report.expired)
        raise extraction.stopped
    report.bytes_read = extraction.bytes_read
    report.seconds = time.monotonic() - started
    report.peak_memory = _peak_memory()
    return report


def _acknowledge(extraction: Extraction, report: RunReport, *, goes_on: bool) -> None:
    """Ends the reading of a stream; one that goes on at once does not wait for what is there by now."""
    if isinstance(extraction, Streaming):
        extraction.acknowledge()
        report.missed, report.lag = extraction.missed, extraction.lag() if goes_on else extraction.lag_now()


def _stream(
    pipeline: Pipeline,
    contract: Contract,
    children: ChildTables,
    extraction: Extraction,
    load: Load,
    report: RunReport,
    progress: Progress | None,
) -> None:
    """Reads, judges and writes at the same time, each batch in its turn."""
    refused: list[BadRow] = []
    with (
        closing(rules_of(pipeline)) as rules,
        closing(Deletions(pipeline)) as deletions,
        closing(read_ahead(extraction)) as batches,
        WriteBehind() as behind,
    ):
        for batch in batches:
            done = rules.apply(batch)
            parted = children.part(contract.apply(done.good))
            gone = deletions.apply(batch.tombstones, _loaded(done, parted)) if batch.tombstones else None
            bad = [*batch.bad, *done.bad, *_as_read(batch, done, parted.broken), *(gone.bad if gone else ())]
            if bad and pipeline.on_invalid == "fail":
                raise _invalid(pipeline, bad[0])
            behind.call(_write, pipeline, load, parted, partial(_as_read, batch, done), refused)
            if gone:
                behind.call(cast(DeletingLoad, load).delete, gone.keys, gone.before)  # others have no tombstones
            behind.call(load.quarantine, bad)
            _count(report, batch, parted.rows, bad, done.filtered + (gone.filtered if gone else 0))
            if progress:
                progress(report)
    report.rejected = [*report.rejected, *refused][:SAMPLE]


def _write(
    pipeline: Pipeline,
    load: Load,
    parted: Parted,
    as_read: Callable[[Mapping[int, Sequence[Broken]]], list[BadRow]],
    sample: list[BadRow],
) -> None:
    """Writes rows, and then their child rows; what the destination does not take goes to the quarantine."""
    refused = load.write(parted.rows)
    for rows in parted.children:
        cast(ParentLoad, load).write_children(rows)  # a pipeline without such a destination has no `children`
    if refused:
        bad = as_read({one.place: [one.broken] for one in refused})
        if pipeline.on_invalid == "fail":
            raise _invalid(pipeline, bad[0])
        load.quarantine(bad)
        sample += bad[: SAMPLE - len(sample)]


def _as_read(batch: Batch, done: Transformed, broken: Mapping[int, Sequence[Broken]]) -> list[BadRow]:
    """Some of the good rows as the source read them, before any rule: so a replay applies the rules to them once.

    Args:
        batch: What the source read.
        done: What the rules made of it.
        broken: Which of the good rows, and what is wrong with each.
    """
    if not broken:
        return []
    good = done.places() if done.places else ()
    places = [good[place] for place in broken]
    rows, types = as_text(batch.rows.take(pa.array(places)))
    return [
        BadRow(row, types, each, batch.origin(place))
        for row, each, place in zip(rows, broken.values(), places, strict=True)
    ]


def _loaded(done: Transformed, parted: Parted) -> Places:
    """The places in the batch of the rows that are loaded."""
    good = np.array(done.places() if done.places else (), np.int64)
    return np.delete(good, list(parted.broken))


def rules_of(pipeline: Pipeline) -> Rules:
    """The rules of a run; close them."""
    return Rules(pipeline.transform, connection=getattr(pipeline.destination, "connection", None))


def _count(report: RunReport, batch: Batch, rows: pa.RecordBatch, bad: Sequence[BadRow], filtered: int) -> None:
    report.extracted += batch.rows.num_rows + len(batch.bad) + batch.deduplicated + batch.filtered
    report.extracted += len(batch.tombstones.keys) if batch.tombstones else 0
    report.deduplicated += batch.deduplicated
    report.filtered += filtered + batch.filtered
    report.quarantined += len(bad)
    report.schema = {field.name: str(field.type) for field in rows.schema}
    report.preview = report.preview or shown(rows.slice(0, SAMPLE))
    report.rejected = [*report.rejected, *bad[: SAMPLE - len(report.rejected)]]


def _settle(load: Load, report: RunReport) -> None:
    loaded = load.loaded()
    report.inserted, report.updated = loaded.inserted, loaded.updated
    report.deduplicated += loaded.deduplicated
    report.tombstones, report.deleted, report.children = loaded.tombstones, loaded.deleted, loaded.children
    report.quarantined += loaded.refused
    if not report.balanced:
        raise AccountingError(
            f"pipeline {report.pipeline}: extracted {report.extracted} rows, but loaded {report.loaded} + filtered "
            f"{report.filtered} + quarantined {report.quarantined} + deduplicated {report.deduplicated} + tombstones "
            f"{report.tombstones}",
            hint="nothing was published; this is a bug: please report it with the pipeline file",
        )


def _writing(pipeline: Pipeline, full_refresh: bool, replay: bool) -> Pipeline:
    """A full refresh must not append what is there already; a replay must leave alone what it does not bring."""
    instead = {"replace": "append"} if replay else {"append": "replace"} if full_refresh else {}
    changes: dict[str, object] = {"delete_missing": False} if replay and pipeline.destination.type == "database" else {}
    if write := instead.get(pipeline.destination.write):
        changes["write"] = write
    destination = pipeline.destination.model_copy(update=changes)
    return pipeline.model_copy(update={"destination": destination})


def _invalid(pipeline: Pipeline, bad: BadRow) -> InvalidRowsError:
    origin = ", ".join(f"{key} {value}" for key, value in bad.origin.items())
    kept = "what was sent before stays sent" if pipeline.destination.type == "api" else "nothing was loaded"
    rules = "; ".join(f"{broken.column or 'row'}: {broken.message} ({broken.rule})" for broken in bad.broken)
    return InvalidRowsError(
        f"pipeline {pipeline.name}: a row broke a rule ({origin}): {rules}",
        hint=f"{kept}; mend the row, or say `on_invalid: quarantine` to set such rows aside",
    )


def _peak_memory() -> int:
    """The process's peak resident memory, in bytes (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _is_cancel(error: BaseException) -> bool:
    """Whether it says that somebody wants the run to end: Ctrl-C, Dagster's own; inside a query the engine says it."""
    return not isinstance(error, Exception) or str(error) == "Query interrupted"


def counts(report: RunReport) -> dict[str, object]:
    """What an event says of a run that ended well."""
    names = (
        "extracted",
        "inserted",
        "updated",
        "filtered",
        "quarantined",
        "deduplicated",
        "tombstones",
        "deleted",
        "expired",
        "missed",
        "children",
        "bytes_read",
        "seconds",
    )
    return {name: getattr(report, name) for name in names}


def announce(
    pipeline: Pipeline, partition: Partition | None, run_id: str, outcome: str, data: Mapping[str, object]
) -> None:
    """Publishes how a run ended. Its rows are settled by now: a log that is out of order must not fail it."""
    with caused_by(Cause(correlation_id=run_id)):
        event = new_event(
            f"pivotal.pipeline.{outcome}",
            ("pipeline", pipeline.name),
            {
                "source": pipeline.source.type,
                "destination": pipeline.destination.type,
                "run_id": run_id,
                "partition": partition.name if partition else None,
                **data,
            },
            source="pivotal/etl",
            dedupe_key=f"{run_id}/{outcome}/{new_id()}",
        )
    try:
        with closing(open_log(get_settings().events_url)) as log:
            log.publish([event])
    except PivotalError as error:
        logger.warning("pipeline %s: its %s event was not published: %s", pipeline.name, outcome, error.message)
