"""What PostgreSQL and SQLite share: a connection of ADBC's, inside one transaction, that streams Arrow batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pyarrow as pa

from errors import SourceError


class Adbc:
    """A connection in a transaction.

    Args:
        connect: Opens a connection of `adbc_driver_*.dbapi`, with autocommit off.
        explain: Says in words what the database refused.
    """

    def __init__(self, connect: Callable[[], Any], explain: Callable[[str, str | None], SourceError]) -> None:
        from adbc_driver_manager import dbapi

        self._error = dbapi.Error
        self._explain = explain
        self._open = ExitStack()
        with self.errors():
            self._connection = self._open.enter_context(connect())

    def run(self, script: str) -> None:
        """Runs statements that have no result."""
        with self.errors(), self._connection.cursor() as cursor:
            cursor.executescript(script)

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a SELECT, all at once."""
        with self.errors(), self._connection.cursor() as cursor:
            cursor.execute(sql, tuple(values) or None)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows

    def schema(self, sql: str) -> pa.Schema:
        """The columns of a SELECT; it is not run."""
        with self.errors(), self._connection.cursor() as cursor:
            return cursor.adbc_execute_schema(sql)

    def stream(self, sql: str, values: Sequence[object], options: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        """The rows of a SELECT, batch by batch."""
        with self.errors():
            cursor = self._open.enter_context(self._connection.cursor())
            cursor.adbc_statement.set_options(**options)
            cursor.execute(sql, tuple(values) or None)
            yield from cursor.fetch_record_batch()

    def close(self) -> None:
        """Ends the transaction and the connection; also in the middle of a stream."""
        self._open.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns what the database refuses into a `SourceError`."""
        try:
            yield
        except (self._error, pa.ArrowException, OSError) as error:
            raise self._explain(" ".join(str(error).split()), getattr(error, "sqlstate", None)) from None
