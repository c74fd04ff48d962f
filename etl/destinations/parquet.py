"""Rows into a Parquet file."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from errors import DestinationError
from etl.destinations.store import Sink

ROW_GROUP = 122_880
"""Rows of a row group: as many as DuckDB reads at once."""


class ParquetFile:
    """A Parquet file (`FileWriter`)."""

    def __init__(self, label: str, sink: Sink, schema: pa.Schema) -> None:
        self._footers: list[pq.FileMetaData] = []
        try:
            self._writer = pq.ParquetWriter(sink, schema, metadata_collector=self._footers)
        except pa.ArrowNotImplementedError as error:
            raise DestinationError(
                f"{label}: Parquet cannot keep a column: {error}",
                hint="convert it: `convert: {column: string}`",
            ) from None

    def write(self, rows: pa.Table) -> None:
        """See `FileWriter.write`."""
        self._writer.write_table(rows, row_group_size=ROW_GROUP)

    def close(self) -> int:
        """See `FileWriter.close`; the rows are counted by the file's own footer."""
        self._writer.close()
        return sum(footer.num_rows for footer in self._footers)

    def abandon(self) -> None:
        """See `FileWriter.abandon`."""
        self._writer.is_open = False  # else it writes a footer when it is collected
