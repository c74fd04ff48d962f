"""`pivotal stream NAME | lag`: streams that are read all the time, and how far behind their readers are."""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import click

from cli.output import json_option, say, say_json, table
from cli.pipelines import all_pipelines, find_pipeline, show_report

if TYPE_CHECKING:
    from etl.pipeline import Pipeline
    from etl.stream import PartitionLag, RunReport


class _Streams(click.Group):
    """`pivotal stream orders` is `pivotal stream run orders`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            return "run", self.commands["run"], args
        return super().resolve_command(ctx, args)


@click.group(cls=_Streams)
def stream() -> None:
    """Read a stream all the time (`pivotal stream NAME`), or see how far behind its reader is."""


@stream.command()
@click.argument("name")
@json_option
def run(name: str, as_json: bool) -> None:
    """Load what comes, until Ctrl-C or SIGTERM; the rows in hand are loaded before it ends.

    NAME is the pipeline. No other run of it can go on meanwhile.
    """
    from cli.work import run as until_asked_to_end
    from etl.follow import follow
    from etl.startup import hide_pandas_from_pyarrow

    hide_pandas_from_pyarrow()
    pipeline, totals = find_pipeline(name), SimpleQueue["RunReport"]()
    say(f"Reading {', '.join(getattr(pipeline.source, 'topics', ()))}; Ctrl-C ends it.", error=True)

    def tell(report: RunReport) -> None:
        behind = sum(each.lag for each in report.lag)
        say(f"{report.loaded:,} rows loaded of {report.extracted:,}, {behind:,} behind.", error=True)

    until_asked_to_end([lambda stop: totals.put(follow(pipeline, stop, None if as_json else tell))])
    show_report(totals.get(), as_json=as_json)


@stream.command()
@click.argument("name", required=False)
@json_option
def lag(name: str | None, as_json: bool) -> None:
    """Show how many records wait, by partition, and how old the oldest is.

    NAME is a pipeline; every one that reads a stream if not given.
    """
    from etl.pipeline import StreamSource

    chosen = [find_pipeline(name)] if name else all_pipelines()
    streams = [pipeline for pipeline in chosen if isinstance(pipeline.source, StreamSource)]
    if name and not streams:
        raise click.UsageError(f"{name} reads no stream")
    found = [(pipeline.name, each) for pipeline in streams for each in _lags(pipeline)]
    if as_json:
        say_json([_as_dict(pipeline, each) for pipeline, each in found])
        return
    head = ("pipeline", "topic", "partition", "committed", "end", "lag", "oldest unread")
    table(head, [(*[*_as_dict(pipeline, each).values()][:-1], _age(each)) for pipeline, each in found])


def _lags(pipeline: Pipeline) -> list[PartitionLag]:
    from etl.destinations import open_destination
    from etl.sources.stream import lags

    return lags(pipeline.source, pipeline.name, open_destination(pipeline).state())  # type: ignore[arg-type]


def _as_dict(pipeline: str, each: PartitionLag) -> dict[str, Any]:
    return {
        "pipeline": pipeline,
        "topic": each.topic,
        "partition": each.partition,
        "committed": each.committed,
        "end": each.end,
        "lag": each.lag,
        "oldest_seconds": each.oldest,
    }


def _age(each: PartitionLag) -> str:
    return "" if each.oldest is None else f"{each.oldest:,.1f} s"
