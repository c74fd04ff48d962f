"""Rows into a Parquet file."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from errors import DestinationError
from etl.destinations.store import Sink

ROW_GROUP = 122_880
"""Rows of a row group: as many as DuckDB reads at once."""

_SAMPLE = 10_000


class ParquetFile:
    """A Parquet file (`FileWriter`)."""

    def __init__(self, label: str, sink: Sink, schema: pa.Schema) -> None:
        self._label, self._sink, self._schema = label, sink, schema
        self._footers: list[pq.FileMetaData] = []
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        """See `FileWriter.write`."""
        self._opened(rows).write_table(rows, row_group_size=ROW_GROUP)

    def close(self) -> int:
        """See `FileWriter.close`; the rows are counted by the file's own footer."""
        self._opened(self._schema.empty_table()).close()
        return sum(footer.num_rows for footer in self._footers)

    def abandon(self) -> None:
        """See `FileWriter.abandon`."""
        if self._writer:
            self._writer.is_open = False  # else it writes a footer when it is collected

    def _opened(self, rows: pa.Table) -> pq.ParquetWriter:
        if self._writer is None:
            try:
                self._writer = pq.ParquetWriter(
                    self._sink, self._schema, metadata_collector=self._footers, use_dictionary=_repetitive(rows)
                )
            except pa.ArrowNotImplementedError as error:
                raise DestinationError(
                    f"{self._label}: Parquet cannot keep a column: {error}",
                    hint="convert it: `convert: {column: string}`",
                ) from None
        return self._writer


def _repetitive(rows: pa.Table) -> list[str] | bool:
    """The columns that a dictionary is worth its while for: those with the same values again and again.

    Where every row has another value, to look for them takes half of the time of writing, for a larger file.
    """
    sample = rows.slice(0, _SAMPLE)
    if sample.num_rows < _SAMPLE or any(pa.types.is_nested(field.type) for field in sample.schema):
        return True
    return [name for name in sample.schema.names if _distinct(sample[name]) < _SAMPLE / 2]


def _distinct(column: pa.ChunkedArray) -> int:
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks])
    return int(pc.count_distinct(column).as_py())
