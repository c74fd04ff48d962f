"""`pivotal list | check | preview | run`: the pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from cli.output import json_option, progress, say, say_json, table
from errors import ConfigError, Problem

if TYPE_CHECKING:
    from etl.partitions import Partition
    from etl.pipeline import Destination, Pipeline, Source
    from etl.preview import PreviewRow
    from etl.stream import Broken, RunReport, State


WAREHOUSE = "${PIVOTAL_WAREHOUSE_URL}"


def all_pipelines() -> list[Pipeline]:
    """Every pipeline.

    Raises:
        ConfigError: A file has mistakes.
    """
    from etl.loader import load_pipelines

    return load_pipelines(_folder())


def find_pipeline(name: str) -> Pipeline:
    """The pipeline of a name; mistakes in other files do not keep it from running.

    Raises:
        ConfigError: Its file has mistakes.
        click.UsageError: There is none.
    """
    from etl.loader import read_pipelines

    pipelines, problems = read_pipelines([_folder()])
    named = {pipeline.name: pipeline for pipeline in pipelines}
    if name in named:
        return named[name]
    if own := [problem for problem in problems if Path(problem.file).stem == name or problem.text == name]:
        raise ConfigError(own)
    broken = " (some files have mistakes: see `pivotal check`)" if problems else ""
    close = get_close_matches(Path(name).stem.lower(), named, 1)
    hint = f"did you mean {close[0]!r}?" if close else "see `pivotal list`"
    raise click.UsageError(f"there is no pipeline {name!r}; {hint}{broken}")


@click.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the pipelines."""
    rows = [_summary(pipeline) for pipeline in all_pipelines()]
    if as_json:
        say_json(rows)
    elif rows:
        columns = ("name", "source", "destination", "write", "schedule", "description")
        table(columns, [[row[column] for column in columns] for row in rows])
    else:
        say(f"There is no pipeline in {_folder()}. Write one: docs/pipelines.md shows how.")


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@json_option
@click.pass_context
def check(context: click.Context, paths: tuple[Path, ...], as_json: bool) -> None:
    """Find every mistake in pipeline files.

    PATHS are files and folders; the folder `pipelines` if there are none.
    """
    from etl.loader import check as find_problems

    problems = find_problems(paths or [_folder()])
    if as_json:
        say_json({"problems": [asdict(problem) for problem in problems]})
    else:
        show_problems(problems)
    context.exit(1 if problems else 0)


@click.command()
@click.argument("name")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many rows to read.")
@click.option("--full-refresh", is_flag=True, help="From the start, not from where the last run stopped.")
@json_option
def preview(name: str, limit: int, full_refresh: bool, as_json: bool) -> None:
    """Show what a run would do with its first rows.

    Which it would insert, update, filter out or set aside, and why. Nothing is written. NAME is the pipeline.
    """
    from etl.preview import preview as preview_rows

    pipeline = find_pipeline(name)
    rows = preview_rows(pipeline, limit, full_refresh=full_refresh)
    if as_json:
        say_json([_preview_dict(row) for row in rows])
    elif rows:
        table(("row", "outcome", "source", "result"), [_preview_cells(at, row) for at, row in enumerate(rows, 1)])
    else:
        again = getattr(pipeline.source, "incremental", None) and not full_refresh
        say(
            "There is nothing new to read; --full-refresh looks from the start."
            if again
            else "There is nothing to read."
        )


@click.command()
@click.argument("name")
@click.option("--full-refresh", is_flag=True, help="Forget the state and read everything again.")
@click.option("--partition", "key", help="Only this partition: 2024-01-05, or a value.")
@click.option("--from", "start", help="Only the partitions from this one on, in one run ...")
@click.option("--to", "end", help="... to this one, which is left out.")
@json_option
def run(name: str, full_refresh: bool, key: str | None, start: str | None, end: str | None, as_json: bool) -> None:
    """Run a pipeline once.

    It goes on from where its last run stopped; with partitions, it replaces or merges just these. NAME is the pipeline.
    """
    from etl.startup import hide_pandas_from_pyarrow

    hide_pandas_from_pyarrow()  # first of all: what is imported now may convert values
    from etl.run import run_pipeline

    pipeline = find_pipeline(name)
    partition = _partition(pipeline, key, start, end)
    if partition and full_refresh:
        raise click.UsageError("--full-refresh is for everything; a partition is always read whole")
    with progress(name, quiet=as_json) as show:
        report = run_pipeline(pipeline, progress=show, full_refresh=full_refresh, partition=partition)
    show_report(report, as_json=as_json)


def _partition(pipeline: Pipeline, key: str | None, start: str | None, end: str | None) -> Partition | None:
    from etl.partitions import partition_of, partition_range

    if (start is None) != (end is None) or (key and start):
        raise click.UsageError("say either --partition, or both --from and --to")
    if key is not None:
        return partition_of(pipeline, key)
    return partition_range(pipeline, start, end) if start is not None and end is not None else None


def show_report(report: RunReport, *, as_json: bool, quarantine: bool = True) -> None:
    """Prints what a run did.

    Args:
        report: The run's report.
        as_json: Print JSON.
        quarantine: Say how to look at rows that were set aside.
    """
    from rich.filesize import decimal

    if as_json:
        say_json(report_dict(report))
        return
    counts: tuple[str, ...] = (
        "extracted",
        "loaded",
        "  inserted",
        "  updated",
        "filtered",
        "quarantined",
        "deduplicated",
    )
    counts += ("tombstones", "deleted") if report.tombstones else ("deleted",) if report.deleted else ()
    name = f"{report.pipeline} {report.partition or ''}".rstrip()
    rows = [(count, getattr(report, count.strip())) for count in counts]
    table((name, "rows"), [*rows, *((f"children: {child}", count) for child, count in report.children.items())])
    speed = f"{report.seconds:.2f} s, {report.rows_per_second:,} rows/s"
    say(f"{speed}, {decimal(report.bytes_read)} read, {decimal(report.peak_memory)} of memory at most.")
    if moved := _moved(report.state_before or {}, report.state_after or {}):
        say(moved)
    say(f"The result is in {report.destination}.")
    if report.expired:
        say(f"{report.expired:,} old rows left the quarantine (`quarantine_retention`).", fg="yellow")
    if report.missed:
        say(f"Up to {report.missed:,} records had been deleted before they were read (`on_gap`).", fg="yellow")
    if report.quarantined and quarantine:
        say(f"See what was set aside, and why: pivotal quarantine show {report.pipeline}", fg="yellow")


def _moved(before: State, after: State) -> str:
    """Where a run started and where the next one does."""
    if isinstance(files := after.get("files"), Mapping):
        known = before.get("files")
        return f"files: {len(known) if isinstance(known, Mapping) else 0} -> {len(files)} known"
    if "topics" in after:
        return f"offsets: {_offsets(before)} -> {_offsets(after)}"
    return f"cursor: {before.get('cursor', 'none')} -> {after['cursor']}" if "cursor" in after else ""


def _offsets(state: State) -> str:
    topics = cast("Mapping[str, Mapping[str, Mapping[str, int]]]", state.get("topics", {}))
    shown = [f"{name}/{number} {at}" for name, each in topics.items() for number, at in each["offsets"].items()]
    return ", ".join([*shown[:6], *(["..."] if len(shown) > 6 else [])]) or "none"


def show_problems(problems: Sequence[Problem], *, error: bool = False) -> None:
    """Prints mistakes in files, and how many there are.

    Args:
        problems: The mistakes.
        error: Print to stderr.
    """
    for problem in problems:
        say(str(problem), error=error)
    files = len({problem.file for problem in problems})
    found = f"{len(problems)} mistake{'s' * (len(problems) != 1)} in {files} file{'s' * (files != 1)}"
    say(found if problems else "No mistakes.", error=error, fg="red" if problems else "green")


def _folder() -> Path:
    from settings import get_settings

    return get_settings().path("pipelines")


# --- what is shown of a pipeline ------------------------------------------------------------------------------


def _summary(pipeline: Pipeline) -> dict[str, object]:
    return {
        "name": pipeline.name,
        "description": pipeline.description,
        "group": pipeline.group,
        "owners": pipeline.owners,
        "source": f"{pipeline.source.type} {_place(pipeline.source)}",
        "destination": f"{pipeline.destination.type} {_place(pipeline.destination)}",
        "write": getattr(pipeline.destination, "method", pipeline.destination.write),
        "schedule": pipeline.schedule,
    }


def _place(end: Source | Destination) -> str:
    """Where one end of a pipeline is, without what may be a secret in an address."""
    from etl.pipeline import shown_url

    if url := getattr(end, "url", None):
        return shown_url(url)
    if topics := getattr(end, "topics", None):
        return ", ".join(topics)
    named = (getattr(end, name, None) for name in ("table", "path", "topic"))
    return next(filter(None, named), "query")


def report_dict(report: RunReport) -> dict[str, object]:
    """What a run did, for programs.

    Args:
        report: The run's report.
    """
    names = (
        "pipeline", "run_id", "source", "destination", "partition", "extracted", "loaded", "inserted", "updated",
        "filtered", "quarantined", "deduplicated", "tombstones", "deleted", "expired", "missed", "children",
        "bytes_read", "seconds", "peak_memory", "state_before", "state_after", "schema", "rows_per_second",
    )  # fmt: skip
    return {name: getattr(report, name) for name in names}


def _preview_dict(row: PreviewRow) -> dict[str, object]:
    return {
        "outcome": row.outcome,
        "source": row.source,
        "result": row.result,
        "children": row.children,
        "broken": [{"column": one.column, "rule": one.rule, "message": one.message} for one in row.broken],
    }


def _preview_cells(number: int, row: PreviewRow) -> tuple[object, ...]:
    children = [f"{child}: {count} row{'s' * (count != 1)}" for child, count in row.children.items()]
    result = broken_lines(row.broken) if row.broken else "\n".join([_lines(row.result or {}), *children])
    return number, row.outcome, _lines(row.source), result


def _lines(values: Mapping[str, object]) -> str:
    return "\n".join(f"{name} = {'NULL' if value is None else value}" for name, value in values.items())


def broken_lines(broken: Sequence[Broken]) -> str:
    """The rules that a row broke, a line each."""
    return "\n".join(f"{one.column}{': ' * bool(one.column)}{one.message} ({one.rule})" for one in broken)
