"""Databases that are one file: where it stands, and how DuckDB's is opened while another process may hold it."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from errors import PivotalError
from settings import get_settings

if TYPE_CHECKING:
    import duckdb

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25

E = TypeVar("E", bound=PivotalError)


def database_file(url: str, error: type[PivotalError]) -> Path:
    """The file of an embedded database.

    Args:
        url: `sqlite:///relative/to/the/project` or `sqlite:////absolute`; parameters behind `?` do not count.
        error: What to raise.

    Raises:
        error: The URL names no file.
    """
    kind, _, file = url.partition("?")[0].partition(":///")
    if not file or file == ":memory:":
        raise error(f"{url}: names no file", hint=f"write {kind.partition(':')[0]}:///data/name.db")
    return get_settings().path(file)


def open_duckdb(
    path: Path, label: str, error: type[PivotalError], *, read_only: bool = False
) -> duckdb.DuckDBPyConnection:
    """Opens a DuckDB file, waiting up to `PIVOTAL_LOCK_TIMEOUT` for another process to close it.

    Args:
        path: The file.
        label: What it is called in the error.
        error: What to raise.
        read_only: Open it for reading only.

    Raises:
        error: The file is something else, or another process holds it for too long.
        duckdb.Error: It cannot be opened for another reason.
    """
    import duckdb

    _check_is_duckdb(path, label, error)
    deadline, pause = time.monotonic() + get_settings().lock_timeout, _FIRST_PAUSE
    while True:
        try:
            return duckdb.connect(path, read_only=read_only)
        except duckdb.Error as refused:
            if "set lock on file" not in str(refused):
                raise
            if time.monotonic() >= deadline:
                holder = re.search(r"lock.* is held in (.+?)\. See", str(refused), re.DOTALL)
                raise held(label, holder[1] if holder else "another process", error) from None
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _check_is_duckdb(path: Path, label: str, error: type[PivotalError]) -> None:
    """Lets a file pass that has DuckDB's mark (https://duckdb.org/docs/stable/internals/storage).

    DuckDB opens files of data (CSV, JSON, Parquet), too, but as a database in memory: what is written is gone with it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:  # it is not there, or may not be read: DuckDB says what is to be said
        return
    if head and head[8:12] != b"DUCK":
        sqlite = head.startswith(b"SQLite format 3")
        hint = "write sqlite:///..., which it is" if sqlite else "the file is something else: name another one"
        raise error(f"{label}: is not a DuckDB database", hint=hint)


def held(label: str, holder: str, error: type[E]) -> E:
    """The error that says who holds a file.

    Args:
        label: What the file is called.
        holder: Who.
        error: Its type.
    """
    return error(
        f"{label}: held by {holder} (waited {get_settings().lock_timeout:g} s)",
        hint="close it there, or raise PIVOTAL_LOCK_TIMEOUT",
        retryable=True,
    )
