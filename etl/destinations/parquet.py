"""Rows into Parquet files, in row groups of a good size however small the batches are."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from errors import DestinationError
from etl.destinations.types import Column, fit, plain, untyped

_ROWS = 122_880
_BYTES = 32 * 1024 * 1024
UNFINISHED = ".part"


class PartWriter:
    """Writes parts that all have the same columns; a column that comes later starts the next part.

    Args:
        label: The destination, for messages.
        folder: Where the parts go. Until `publish` their names end in `.part`, so that nobody reads them.
        stem: The first part's name without its suffix.
        schema: The columns that earlier parts have; every part has all of them.
    """

    def __init__(self, label: str, folder: Path, stem: str, schema: pa.Schema) -> None:
        self._label, self._folder, self._stem = label, folder, stem
        self.schema = schema
        self._parts: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []

    def write(self, rows: pa.RecordBatch) -> None:
        """Takes rows.

        Raises:
            DestinationError: A column's type does not fit that of earlier rows, or Parquet cannot keep it.
        """
        rows = plain(self._label, rows)
        if new := [field for field in rows.schema if self._is_new(field)]:
            self._end_part()
            self.schema = pa.schema([*self.schema, *new])
        if rows.num_rows:
            self._waiting.append(self._aligned(rows))
        if (
            sum(batch.num_rows for batch in self._waiting) >= _ROWS
            or sum(batch.nbytes for batch in self._waiting) >= _BYTES
        ):
            self._flush()

    def finish(self, *, at_least_one: bool) -> int:
        """Ends the last part.

        Args:
            at_least_one: Write a file without rows if there are none, so that readers find the columns.

        Returns:
            The rows that the files have, by their own footers.
        """
        self._end_part()
        if at_least_one and not self._parts and self.schema.names:
            self._start_part().close()
        return sum(pq.read_metadata(part).num_rows for part in self._parts)

    def publish(self) -> None:
        """Gives the parts their names."""
        for part in self._parts:
            part.rename(part.with_suffix(""))

    def close(self) -> None:
        """Closes the file that is being written."""
        if self._writer:
            self._writer.close()
            self._writer = None

    def _is_new(self, field: pa.Field) -> bool:
        return field.name not in self.schema.names and not pa.types.is_null(field.type)

    def _aligned(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        known = rows.select([name for name in rows.schema.names if name in self.schema.names])
        if not known.num_columns:
            raise untyped(self._label, rows)
        columns = {field.name: Column(field.name, field.type, str(field.type)) for field in self.schema}
        fitted = fit(self._label, known, columns)
        arrays = [
            fitted[field.name] if field.name in fitted.schema.names else pa.nulls(rows.num_rows, field.type)
            for field in self.schema
        ]
        return pa.record_batch(arrays, schema=self.schema)

    def _flush(self) -> None:
        if self._waiting:
            writer = self._writer = self._writer or self._start_part()
            writer.write_table(pa.Table.from_batches(self._waiting), row_group_size=_ROWS)
            self._waiting = []

    def _end_part(self) -> None:
        self._flush()
        self.close()

    def _start_part(self) -> pq.ParquetWriter:
        number = f"-{len(self._parts) + 1}" if self._parts else ""
        part = self._folder / f"{self._stem}{number}.parquet{UNFINISHED}"
        try:
            writer = pq.ParquetWriter(part, self.schema)
        except pa.ArrowNotImplementedError as error:
            raise DestinationError(
                f"{self._label}: Parquet cannot keep a column: {error}",
                hint="convert it: `convert: {column: string}`",
            ) from None
        self._parts.append(part)
        return writer
