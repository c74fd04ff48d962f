"""What PostgreSQL and SQLite share: a connection of ADBC's, inside one transaction, that streams Arrow batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import pyarrow as pa

from errors import SourceError
from etl.sources.patience import patience


class Adbc:
    """A connection in a transaction.

    Args:
        label: Who is waited for no longer than `PIVOTAL_READ_TIMEOUT`; empty if the driver cannot cancel (SQLite's).
        connect: Opens a connection of `adbc_driver_*.dbapi`, with autocommit off.
        explain: Says in words what the database refused.
    """

    def __init__(
        self, label: str, connect: Callable[[], Any], explain: Callable[[str, str | None], SourceError]
    ) -> None:
        from adbc_driver_manager import dbapi

        self._label = label
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
        with self._connected() as cursor, self._working(cursor):
            cursor.execute(sql, tuple(values) or None)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows

    def schema(self, sql: str) -> pa.Schema:
        """The columns of a SELECT; it is not run."""
        with self._connected() as cursor, self._working(cursor):
            return cursor.adbc_execute_schema(sql)

    def stream(self, sql: str, values: Sequence[object], options: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        """The rows of a SELECT, batch by batch."""
        with self.errors():
            cursor = self._open.enter_context(self._connection.cursor())
            cursor.adbc_statement.set_options(**options)
        with self._working(cursor):
            cursor.execute(sql, tuple(values) or None)
            batches = cursor.fetch_record_batch()
            batch = next(batches, None)
        while batch is not None:
            yield batch
            with self._working(cursor):
                batch = next(batches, None)

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

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        with self.errors(), self._connection.cursor() as cursor:
            yield cursor

    @contextmanager
    def _working(self, cursor: Any) -> Iterator[None]:  # noqa: ANN401  (ADBC's classes are not imported at load time)
        limit = patience(self._label, cursor.adbc_cancel) if self._label else nullcontext()
        with limit, self.errors():
            yield
