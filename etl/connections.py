"""The URL of a database, as a pipeline file writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from errors import PivotalError, Problem, SourceError

if TYPE_CHECKING:
    from etl.documents import Document
    from etl.pipeline import Pipeline

HINT = (
    "write postgresql://user:password@host/database, or sqlite:///folder/file.db; "
    "in a user name or a password, @ is %40, / is %2F, : is %3A, [ is %5B, % is %25"
)


def kind_of(url: str, error: type[PivotalError]) -> str:
    """The kind of database that a URL names: `mariadb` of `mariadb+pymysql://...`.

    Args:
        url: The URL.
        error: What to raise.

    Raises:
        error: It is none. The message does not show it: it may have a password in it.
    """
    try:
        urlsplit(url)
    except ValueError:
        raise error("the connection's URL cannot be read", hint=HINT) from None
    found = re.match(r"(\w+)(\+\w+)?://", url)
    if not found:
        raise error("the connection is no URL", hint=HINT)
    return found[1].lower()


def find_problems(document: Document, pipeline: Pipeline) -> Iterator[Problem]:
    """Finds connections that no database has. What the environment says is no mistake of the file.

    Args:
        document: The file.
        pipeline: What it says.
    """
    for end, opens in (("source", _open_source), ("destination", _open_destination)):
        url = getattr(getattr(pipeline, end), "connection", None)
        if url is None or "$" in url:
            continue
        try:
            opens(url)
        except PivotalError as error:
            problem = document.problem((end, "connection"), error.message, error.hint or "")
            yield replace(problem, text="")  # which may be a password


def _open_source(url: str) -> None:
    if kind_of(url, SourceError) not in {"sqlite", "duckdb", "postgresql", "postgres"}:
        from etl.sources.sqlalchemy import open_engine

        open_engine(url)


def _open_destination(url: str) -> None:
    from etl.destinations.warehouse import open_warehouse

    open_warehouse(url)
