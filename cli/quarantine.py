"""`pivotal quarantine list | show | replay | drop`: rows that broke a rule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cli.output import ask, json_option, progress, say, say_json, table
from cli.pipelines import WAREHOUSE, all_pipelines, broken_lines, find_pipeline, show_report

if TYPE_CHECKING:
    from etl.destinations.beside import Beside
    from etl.destinations.warehouse import Warehouse
    from etl.stream import Destination, Quarantined

SHORT = 12
"""Characters of an id that are shown; any unique beginning names a row."""

connection_option = click.option(
    "--connection", metavar="URL", help="The database, for what `pivotal import` set aside; the warehouse if not given."
)


@click.group()
def quarantine() -> None:
    """Look after rows that broke a rule."""


@quarantine.command("list")
@connection_option
@json_option
def list_(connection: str | None, as_json: bool) -> None:
    """Count the rows that wait, by pipeline.

    Also those in the warehouse that are of no pipeline: of an import, or of a pipeline that there was.
    """
    from etl.destinations import open_destination

    counts = (
        {each.name: len(open_destination(each).quarantined()) for each in all_pipelines()} if not connection else {}
    )
    counts = _warehouse(connection).waiting() | counts
    if as_json:
        say_json([{"pipeline": name, "rows": rows} for name, rows in counts.items()])
    else:
        table(("pipeline", "rows"), list(counts.items()))


@quarantine.command()
@click.argument("name")
@click.argument("ids", nargs=-1)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many rows to show.")
@connection_option
@json_option
def show(name: str, ids: tuple[str, ...], limit: int, connection: str | None, as_json: bool) -> None:
    """Show rows, and what is wrong with them.

    Each as it was read, with where it came from and every rule that it broke, oldest first. NAME is the pipeline, or
    another that `pivotal quarantine list` shows; IDS pick rows.
    """
    destination = _destination(name, connection)
    rows = _chosen(destination.quarantined(), ids) if ids else destination.quarantined(limit)
    if as_json:
        say_json([_as_dict(row) for row in rows])
    elif rows:
        table(("id", "since", "where", "row", "why"), [_cells(row) for row in rows])
    else:
        say("The quarantine is empty.")


@quarantine.command()
@click.argument("name")
@json_option
def replay(name: str, as_json: bool) -> None:
    """Send the rows through the rules again.

    What follows the rules now is loaded and leaves the quarantine. NAME is the pipeline. (What an import set aside has
    no rules: mend the file, import it again.)
    """
    from etl.run import run_pipeline

    pipeline = find_pipeline(name)
    with progress(name, quiet=as_json) as show:
        report = run_pipeline(pipeline, progress=show, replay=True)
    show_report(report, as_json=as_json)


@quarantine.command()
@click.argument("name")
@click.argument("ids", nargs=-1)
@click.option("--older-than", "age", metavar="AGE", help="Drop rows that were last found so long ago: 30d, 12h.")
@click.option("--all", "every", is_flag=True, help="Drop every row.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connection_option
@json_option
def drop(
    *, name: str, ids: tuple[str, ...], age: str | None, every: bool, yes: bool, connection: str | None, as_json: bool
) -> None:
    """Remove rows for good.

    NAME is the pipeline, or another that `pivotal quarantine list` shows; IDS pick rows.
    """
    if [bool(ids), age is not None, every].count(True) != 1:
        raise click.UsageError("say which rows: their ids (see `pivotal quarantine show`), --older-than, or --all")
    limit = _moment(age) if age is not None else datetime.max.replace(tzinfo=UTC)
    destination = _destination(name, connection)
    waiting = destination.quarantined()
    rows = _chosen(waiting, ids) if ids else [row for row in waiting if row.at < limit]
    if rows and not yes:
        ask(f"Drop {len(rows)} of {len(waiting)} rows for good?")
    dropped = destination.drop_quarantined([row.id for row in rows])
    if as_json:
        say_json({"pipeline": name, "dropped": dropped})
    else:
        say(f"Dropped {dropped} row{'s' * (dropped != 1)}.")


def _destination(name: str, connection: str | None) -> Destination | Beside:
    """Where the rows of a name wait: with its pipeline, or in a database without one."""
    from etl.destinations import open_destination
    from etl.destinations.beside import Beside

    warehouse = _warehouse(connection)
    if connection:
        return Beside(name, warehouse)
    try:
        return open_destination(find_pipeline(name))
    except click.UsageError:
        if name not in warehouse.waiting():
            raise
        return Beside(name, warehouse)


def _warehouse(connection: str | None) -> Warehouse:
    from etl.destinations.warehouse import open_warehouse
    from etl.loader import resolve

    return open_warehouse(resolve(connection or WAREHOUSE))


def _moment(age: str) -> datetime:
    """When a row was found that is so old now."""
    from etl.destinations.quarantine import before
    from etl.pipeline import duration

    try:
        return before(duration(age))
    except ValueError as error:
        raise click.UsageError(f"--older-than: {age!r} is {error}") from None


def _chosen(rows: Sequence[Quarantined], ids: Sequence[str]) -> list[Quarantined]:
    """The rows that the ids, or unique beginnings of them, name."""
    chosen = {}
    for beginning in ids:
        found = [row for row in rows if row.id.startswith(beginning)]
        if len(found) != 1:
            what = "is not the beginning of an id" if not found else f"is the beginning of {len(found)} ids"
            raise click.UsageError(f"{beginning!r} {what}; see `pivotal quarantine show`")
        chosen[found[0].id] = found[0]
    return list(chosen.values())


def _as_dict(row: Quarantined) -> dict[str, object]:
    return {
        "id": row.id,
        "pipeline": row.pipeline,
        "run_id": row.run_id,
        "at": row.at,
        "row": dict(row.bad.row),
        "origin": dict(row.bad.origin),
        "broken": [{"column": one.column, "rule": one.rule, "message": one.message} for one in row.bad.broken],
    }


def _cells(row: Quarantined) -> tuple[object, ...]:
    where = "\n".join(f"{key} {value}" for key, value in row.bad.origin.items())
    values = "\n".join(f"{name} = {'NULL' if value is None else value}" for name, value in row.bad.row.items())
    return row.id[:SHORT], f"{row.at:%Y-%m-%d %H:%M}", where, values, broken_lines(row.bad.broken)
