"""How rows become the bytes of a file: the formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from etl.destinations.store import Sink
from etl.pipeline import FileDestination

_COMPRESSED = {"gzip": ".gz", "zstd": ".zst"}
SUFFIXES = r"\.(parquet|xlsx|(csv|ndjson)(\.gz|\.zst)?)"
"""What names of data files end in, as a regular expression."""


class FileWriter(Protocol):
    """One file that is being written."""

    def write(self, rows: pa.Table) -> None:
        """Takes rows.

        Raises:
            DestinationError: The format cannot keep them as they are.
        """
        ...

    def close(self) -> int:
        """Writes what is left; the sink stays open. Returns the rows that the file has."""
        ...

    def abandon(self) -> None:
        """Ends without writing anything; also after `close`."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """A format.

    Args:
        suffix: What names of its files end in.
        start: Starts a file: of the destination's label, the sink, and the columns.
        prepare: Makes of rows, many at once, what files take: of the label and the rows, as many.
    """

    suffix: str
    start: Callable[[str, Sink, pa.Schema], FileWriter]
    prepare: Callable[[str, pa.Table], pa.Table] = lambda _, rows: rows


def format_of(declared: FileDestination) -> Format:
    """The format that a pipeline's file says."""
    match declared.format:
        case "parquet":
            from etl.destinations.parquet import ParquetFile

            return Format(".parquet", ParquetFile)
        case "excel":
            from etl.destinations.excel import ExcelFile

            return Format(".xlsx", ExcelFile)
    from etl.destinations.lines import LinesFile, csv_header, csv_lines, ndjson_lines

    codec = declared.compression
    suffix = f".{declared.format}{_COMPRESSED.get(codec or '', '')}"
    if declared.format == "csv":
        return Format(suffix, lambda _, sink, schema: LinesFile(sink, csv_header(schema), codec), csv_lines)
    return Format(suffix, lambda _, sink, _schema: LinesFile(sink, b"", codec), ndjson_lines)
