"""Rows that wait on disk until it is their turn."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pyarrow as pa

from etl.destinations.disk import disk_errors

_IN_MEMORY = 32 * 1024 * 1024


class Spool:
    """Batches in a file without a name, which is gone with the process; few of them stay in memory.

    Args:
        folder: Where the file is.

    Attributes:
        schemas: The rows' schemas, each once, in order.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._writer: Any = None
        self._schema: pa.Schema | None = None
        self.schemas: list[pa.Schema] = []

    def write(self, rows: pa.RecordBatch) -> None:
        """Takes rows; their columns may differ from those of the rows before.

        Raises:
            DestinationError: The disk is full.
        """
        with disk_errors(self._folder):
            if rows.schema != self._schema:
                self._start(rows.schema)
            self._writer.write_batch(rows)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The rows, in order. No `write` after it."""
        if self._file is None:
            return
        with disk_errors(self._folder):
            self._writer.close()
            end = self._file.tell()
            self._file.seek(0)
            while self._file.tell() < end:
                yield from pa.ipc.open_stream(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    def _start(self, schema: pa.Schema) -> None:
        """Begins a stream; a file holds one after the other, each with its own schema."""
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self._folder))  # noqa: SIM115  (see exit)
        else:
            self._writer.close()
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(self._file, schema, options=options)
        self._schema = schema
        if schema not in self.schemas:
            self.schemas.append(schema)
