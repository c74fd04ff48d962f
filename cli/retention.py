"""`pivotal events prune | stats`: how long the log goes back, and how far everybody is who reads it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from cli.log import event_log
from cli.output import json_option, say, say_json, table

if TYPE_CHECKING:
    from projections.retention import Reader

_COLUMNS = ("who reads", "read up to", "lag", "oldest that is not handled")


class _Age(click.ParamType[timedelta]):
    """`90s`, `10m`, `2h`, `30d`."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        from etl.pipeline import duration

        try:
            return duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.option("--older-than", type=_Age(), required=True, help="Only events that are older: 30d, 12h.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@json_option
def prune(older_than: timedelta, dry_run: bool, as_json: bool) -> None:
    """Delete old events from the log.

    What stays: what the tables or a durable subscription have not read, what is not done, dead letters, and the last
    event. An event that is gone is new if it comes again: keep events for longer than any sender repeats itself.
    """
    from etl.destinations.warehouse import open_warehouse
    from projections import retention
    from settings import get_settings

    with event_log() as log:
        pruned = retention.prune(log, open_warehouse(get_settings().warehouse_url), older_than, dry_run=dry_run)
    if as_json:
        say_json({**asdict(pruned), "dry_run": dry_run})
    else:
        say(f"{pruned.events} event{'s' * (pruned.events != 1)} {'would be' if dry_run else 'were'} deleted.")
        say(f"Looked at all up to {pruned.until}: {pruned.stopped}.")


@click.command()
@json_option
def stats(as_json: bool) -> None:
    """Count events by type and dead letters by subscription, and show how far everybody is who reads.

    `projections` are the tables of landed events. The lag counts sequences in the log.
    """
    from etl.destinations.warehouse import open_warehouse
    from projections.retention import readers
    from settings import get_settings

    with event_log() as log:
        counts, head = dict(log.counts()), log.head()
        buried = dict(log.dead_counts())
        reading = readers(log, open_warehouse(get_settings().warehouse_url))
    if as_json:
        told = {"events": sum(counts.values()), "head": head, "types": counts, "dead": buried}
        say_json({**told, "readers": [asdict(one) for one in reading]})
        return
    table(("type", "events"), [*counts.items(), ("all", sum(counts.values()))])
    say("")
    table(_COLUMNS, [(one.name, str(one.position), one.lag, _oldest(one)) for one in reading])
    for subscription, letters in buried.items():
        say(f"{letters} dead letter{'s' * (letters != 1)} of {subscription}: see `pivotal events dead`", fg="red")


def _oldest(reader: Reader) -> str:
    if reader.oldest is None:
        return "-"
    age = timedelta(seconds=int((datetime.now(UTC) - reader.oldest).total_seconds()))
    return f"{reader.oldest:%Y-%m-%d %H:%M:%S} UTC, {age} ago"
