"""What the commands print: tables on a terminal, plain lines when piped, JSON for programs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from etl.stream import Progress, RunReport

EVERY = 5.0
"""Seconds between two lines of progress when there is no terminal."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def say(text: str, *, error: bool = False, **style: Any) -> None:  # noqa: ANN401  (click's own: fg="red", bold=True)
    """Prints a line, styled on a terminal unless NO_COLOR is set.

    Args:
        text: The line, which may hold line breaks.
        error: Print to stderr.
        style: As for `click.style`.
    """
    stream = sys.stderr if error else sys.stdout
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    click.echo(click.style(text, **style) if coloured else text, err=error)


def say_json(value: object, *, error: bool = False) -> None:
    """Prints JSON; what JSON has no form for (a decimal, an interval) becomes text, exactly."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
    click.echo(orjson.dumps(value, default=str, option=options).decode(), err=error)


def ask(question: str) -> None:
    """Goes on only after a yes.

    Raises:
        click.UsageError: There is no terminal to ask on.
        click.Abort: The answer is no.
    """
    if not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask; add --yes")
    click.confirm(question, abort=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table; cells may have several lines, numbers stand to the right."""
    texts = [[_text(value) for value in row] for row in rows]
    right = [bool(rows) and all(isinstance(row[index], int | float) for row in rows) for index in range(len(columns))]
    if sys.stdout.isatty():
        _rich_table(columns, texts, right)
    else:
        _plain_table(columns, texts, right)


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, header_style="")
    for name, to_right in zip(columns, right, strict=True):
        made.add_column(name, justify="right" if to_right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(text) for text in row))
    Console().print(made)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    lines = [list(columns)]
    for row in rows:
        cells = [text.split("\n") for text in row]
        lines += [[cell[at] if at < len(cell) else "" for cell in cells] for at in range(max(map(len, cells)))]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        padded = (
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def _text(value: object) -> str:
    """A value as text that a terminal shows as it is: control characters become escapes."""
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value)
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


@contextmanager
def progress(name: str, *, quiet: bool = False) -> Iterator[Progress | None]:
    """Shows on stderr how far a run is: live on a terminal, else a line every few seconds.

    Args:
        name: The pipeline's name.
        quiet: Show nothing.
    """
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _live_progress(name) as show:
            yield show
    else:
        yield _progress_lines()


@contextmanager
def _live_progress(name: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{name}: starting")
        yield lambda report: bar.update(task, description=_so_far(report))


def _progress_lines() -> Progress:
    due = time.monotonic() + EVERY

    def show(report: RunReport) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + EVERY
            say(_so_far(report), error=True)

    return show


def _so_far(report: RunReport) -> str:
    return (
        f"{report.pipeline}: {report.extracted:,} rows extracted, "
        f"{report.filtered:,} filtered, {report.quarantined:,} quarantined"
    )
