"""`pivotal import | export`: a file into a table, a table into a file, without a pipeline file."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from cli.output import ask, json_option, progress, say, say_json, table
from cli.pipelines import WAREHOUSE, broken_lines, report_dict, show_report

if TYPE_CHECKING:
    from etl.guess import Guess
    from etl.pipeline import FileSource, Model, Pipeline
    from etl.stream import RunReport

M = TypeVar("M", bound="Model")

connection_option = click.option(
    "--connection", default=WAREHOUSE, help="The database's URL, or ${NAME} of a variable; the warehouse if not given."
)


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--into", "into", required=True, metavar="TABLE", help="The table: orders, or analytics.orders.")
@connection_option
@click.option(
    "--write", type=click.Choice(["append", "replace"]), default="append", show_default=True,
    help="Add the rows, or put them in the place of all others.",
)  # fmt: skip
@click.option("--type", "types", multiple=True, metavar="COLUMN=TYPE", help="Another type than the guessed one.")
@click.option("--delimiter", help="CSV: a comma, in .tsv files a tab, if not given.")
@click.option("--encoding", help="CSV: utf-8, if not given.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def import_(  # noqa: PLR0913  (an option each)
    *,
    file: Path,
    into: str,
    connection: str,
    write: str,
    types: tuple[str, ...],
    delimiter: str | None,
    encoding: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Load a file into a table.

    The types are guessed from all of its values, shown, and asked about. FILE is CSV, NDJSON, JSON, Parquet or Excel.
    """
    from etl.guess import guess
    from etl.pipeline import FileSource
    from etl.run import run_pipeline

    dialect = {"delimiter": delimiter, "encoding": encoding}
    told = {name: value for name, value in dialect.items() if value is not None}
    source = _valid(FileSource, {"type": "file", "path": glob.escape(str(file.absolute())), **told})
    columns = guess(source)
    pipeline = _pipeline(source, columns, types, into, connection, write)
    if not as_json:
        _show(pipeline, columns)
    if not yes:
        ask(f"Load {file} into {into} ({write})?")
    with progress(into, quiet=as_json) as show:
        report = run_pipeline(pipeline, progress=show)
    if as_json:
        say_json(report_dict(report) | {"types": _types(pipeline)})
    else:
        show_report(report, as_json=False, quarantine=False)
        _show_rejected(report, connection)


def _pipeline(
    source: FileSource, columns: dict[str, Guess], types: tuple[str, ...], into: str, connection: str, write: str
) -> Pipeline:
    """What the import is: a pipeline that stands in no file."""
    from etl.pipeline import Pipeline

    convert = {name: column.convert for name, column in columns.items() if column.convert}
    declared = {
        "name": "import_" + re.sub(r"[^a-z0-9]+", "_", into.lower())[:50].strip("_"),
        "description": f"Import into {into}",
        "source": source,
        "transform": {"convert": convert | _given(types, columns)},
        "destination": {"type": "database", "connection": connection, "table": into, "write": write},
    }
    return _valid(Pipeline, declared)


def _valid(model: type[M], declared: Mapping[str, object]) -> M:
    from pydantic import ValidationError

    from etl.mistakes import wording

    try:
        return model.model_validate(declared)
    except ValidationError as error:
        wrong = error.errors()[0]
        message = wording(wrong).removeprefix("Value error, ")
        raise click.UsageError(
            f"{wrong['input']!r} is {message}" if wrong["loc"][-1:] != ("path",) else message
        ) from None


def _given(types: tuple[str, ...], columns: dict[str, Guess]) -> dict[str, str]:
    pairs = [text.rpartition("=") for text in types]
    for name, sign, kind in pairs:
        if not sign:
            raise click.UsageError(f"--type: {kind!r} is not COLUMN=TYPE: {kind}=integer")
        if name not in columns:
            raise click.UsageError(f"--type: there is no column {name!r}; the file has {', '.join(columns)}")
    return {name: kind for name, _, kind in pairs}


def _types(pipeline: Pipeline) -> dict[str, str]:
    return {name: conversion.type for name, conversion in pipeline.transform.convert.items()}


def _show(pipeline: Pipeline, columns: dict[str, Guess]) -> None:
    convert = _types(pipeline)
    table(
        ("column", "type", "for example"),
        [(name, convert.get(name, column.kind), ", ".join(column.samples)) for name, column in columns.items()],
    )


def _show_rejected(report: RunReport, connection: str) -> None:
    if report.quarantined:
        there = "" if connection == WAREHOUSE else " --connection URL"
        command = f"pivotal quarantine show {report.pipeline}{there}"
        say(f"{report.quarantined:,} rows were set aside; {command} shows all of them:", fg="yellow")
        rows = [
            ("\n".join(f"{key} {value}" for key, value in bad.origin.items()), broken_lines(bad.broken))
            for bad in report.rejected
        ]
        table(("where", "why"), rows)


@click.command()
@click.argument("places", metavar="[TABLE] FILE", nargs=-1, required=True)
@click.option("--query", help="One SELECT, instead of a table.")
@connection_option
@json_option
def export(places: tuple[str, ...], query: str | None, connection: str, as_json: bool) -> None:
    """Write a table into a file.

    It appears whole or not at all. FILE's name says the format: .parquet, .csv, .ndjson, .xlsx, the lines also .gz or
    .zst.
    """
    from etl.export import export as write
    from etl.pipeline import DatabaseSource

    *tables, file = places
    if len(tables) != (0 if query else 1):
        raise click.UsageError("say a TABLE and a FILE, or --query and a FILE")
    declared = {"type": "database", "connection": connection, "table": tables[0] if tables else None, "query": query}
    source = _valid(DatabaseSource, declared)
    with progress(file, quiet=as_json) as show:
        report = write(source, Path(file), show)
    if as_json:
        say_json({"file": file, "rows": report.inserted, "bytes": Path(file).stat().st_size, "seconds": report.seconds})
    else:
        say(f"{report.inserted:,} rows of {report.source} are in {file} ({report.seconds:.2f} s).")
