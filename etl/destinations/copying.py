"""Rows into PostgreSQL by COPY, which the server takes while the next ones are still being made."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING

import pyarrow as pa

from etl.destinations.names import Name

if TYPE_CHECKING:
    from adbc_driver_postgresql import dbapi

_LARGEST = 64 << 20
"""Bytes of one COPY: the server tells what it does not take only at the end of one."""


class Copy:
    """One COPY into a table (ADBC's bulk ingestion), in a thread of its own.

    Until it is finished or abandoned nobody else may use the connection.

    Args:
        cursor: Where it runs.
        name: The table.
        schema: The rows' schema.
    """

    def __init__(self, cursor: dbapi.Cursor, name: Name, schema: pa.Schema) -> None:
        self._name, self._schema, self._bytes = name, schema, 0
        self._rows: Queue[pa.RecordBatch | CancelledError | None] = Queue(1)
        where = {"temporary": True} if name.temporary else {"db_schema_name": name.parts[0]}
        reader = pa.RecordBatchReader.from_batches(schema, self._batches())
        thread = ThreadPoolExecutor(1, "copy")
        self._done: Future[int] = thread.submit(cursor.adbc_ingest, name.parts[-1], reader, mode="append", **where)
        thread.shutdown(wait=False)

    def fits(self, name: Name, schema: pa.Schema) -> bool:
        """Whether rows of that schema can go on in this COPY."""
        return self._name == name and self._schema == schema and self._bytes < _LARGEST

    def write(self, rows: pa.RecordBatch) -> None:
        """Takes rows.

        Raises:
            adbc_driver_manager.dbapi.Error: The COPY has failed.
        """
        self._bytes += rows.nbytes
        self._put(rows)

    def finish(self) -> None:
        """Waits until the server has taken everything.

        Raises:
            adbc_driver_manager.dbapi.Error: It has not.
        """
        self._put(None)
        self._done.result()

    def abandon(self) -> None:
        """Ends it in failure, and waits for the end."""
        with suppress(Empty):
            self._rows.get_nowait()
        self._rows.put(CancelledError())
        self._done.exception()

    def _put(self, item: pa.RecordBatch | None) -> None:
        while not self._done.done():
            with suppress(Full):
                self._rows.put(item, timeout=0.1)
                return
        self._done.result()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        while (item := self._rows.get()) is not None:
            if isinstance(item, CancelledError):
                raise item
            yield item
