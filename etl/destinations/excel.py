"""Rows into an Excel file: one sheet with a header.

A cell is a number, a date or a boolean where Excel keeps it exactly, else text: numbers of more than 15 digits,
decimals with more than 9 digits after the point, dates before March 1900, timestamps with microseconds or a zone. A
text is a text, also if it begins with `=`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from xlsxwriter import Workbook
from xlsxwriter.exceptions import FileCreateError
from xlsxwriter.worksheet import Worksheet

from errors import DestinationError
from etl.destinations.store import Sink
from etl.destinations.text import texts

ROWS, COLUMNS, CHARACTERS = 1_048_576, 16_384, 32_767
_DIGITS, _PLACES = 15, 9  # a cell that shows no more digits after the point is read as they are
_FIRST, _LAST = date(1900, 3, 1), date(9999, 12, 31)  # 1900 was no leap year, but is one to Excel


class _Sheet(Worksheet):  # type: ignore[misc]
    """A sheet whose numbers have all their digits; the library's own have 16."""

    def _xml_number_element(self, number: object, attributes: Sequence[tuple[str, object]] = ()) -> None:
        named = "".join(f' {name}="{value}"' for name, value in attributes)
        self.fh.write(f"<c{named}><v>{number}</v></c>")


class _Archive:
    """What the library writes its archive into. It ends one that failed again when that is collected: to no effect."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._failed = sink, False

    def write(self, data: bytes) -> int:
        if not self._failed:
            self._failed = True
            self._sink.write(data)
            self._failed = False
        return len(data)

    def flush(self) -> None:
        """The sink has its own time."""


class ExcelFile:
    """An Excel file (`FileWriter`). Its rows wait in a temporary file until it is closed."""

    def __init__(self, label: str, sink: Sink, schema: pa.Schema) -> None:
        self._label = label
        if len(schema) > COLUMNS:
            raise self._refused(f"{len(schema)} columns; a sheet has at most {COLUMNS:,}")
        self._folder = tempfile.TemporaryDirectory(prefix="pivotal-excel-")
        self._book = Workbook(_Archive(sink), {"constant_memory": True, "tmpdir": self._folder.name})
        self._sheet = self._book.add_worksheet(worksheet_class=_Sheet)
        self._put = {
            "number": self._sheet.write_number,
            "boolean": self._sheet.write_boolean,
            "date": self._dated("yyyy-mm-dd"),
            "timestamp": self._dated("yyyy-mm-dd hh:mm:ss.000"),
        }
        for place, name in enumerate(schema.names):
            self._sheet.write_string(0, place, name)
        self._rows = 1

    def write(self, rows: pa.Table) -> None:
        """See `FileWriter.write`."""
        if self._rows + rows.num_rows > ROWS:
            raise self._refused(f"more than {ROWS - 1:,} rows; a sheet has no room for them")
        written = texts(rows)
        self._check_lengths(written)
        columns = [
            (place, *self._cells(column), text.to_pylist())
            for place, (column, text) in enumerate(zip(rows.columns, written.columns, strict=True))
        ]
        for index, row in enumerate(range(self._rows, self._rows + rows.num_rows)):
            for place, put, values, text in columns:
                if values[index] is not None:
                    put(row, place, values[index])
                elif text[index] is not None:
                    self._sheet.write_string(row, place, text[index])
        self._rows += rows.num_rows

    def close(self) -> int:
        """See `FileWriter.close`."""
        try:
            self._book.close()
        except FileCreateError as error:
            raise error.args[0] from None
        self._folder.cleanup()
        return self._rows - 1

    def abandon(self) -> None:
        """See `FileWriter.abandon`."""
        self._sheet._opt_close()  # noqa: SLF001  (only a written book closes its files)
        self._folder.cleanup()

    def _cells(self, column: pa.ChunkedArray) -> tuple[Callable[..., object], list[Any]]:
        """How values become cells, and those that do exactly; None for the others."""
        kind, exact = _exactly(column)
        if exact is None:
            return self._sheet.write_string, [None] * len(column)
        return self._put[kind], pc.if_else(exact, column, None).to_pylist()

    def _dated(self, shown: str) -> Callable[[int, int, datetime], object]:
        look = self._book.add_format({"num_format": shown})
        return lambda row, place, value: self._sheet.write_datetime(row, place, value, look)

    def _check_lengths(self, written: pa.Table) -> None:
        for name, column in zip(written.schema.names, written.columns, strict=True):
            if any(len(text.encode("utf-16-le")) > 2 * CHARACTERS for text in _longest(column)):
                raise self._refused(f"a text of column {name} with more than {CHARACTERS:,} characters")

    def _refused(self, what: str) -> DestinationError:
        return DestinationError(
            f"{self._label}: Excel cannot keep {what}",
            hint="say `format: csv`, ndjson or parquet, or let `filter`, `map` or the path's {column} leave less",
        )


def _exactly(column: pa.ChunkedArray) -> tuple[str, pa.ChunkedArray | None]:
    """What the cells of a column are, and which of its values Excel keeps exactly as that; None if they are text."""
    types, kind = pa.types, column.type
    if types.is_boolean(kind):
        return "boolean", pc.is_valid(column)
    if types.is_date(kind):
        return "date", _between(column, _FIRST, _LAST)
    if types.is_timestamp(kind) and kind.tz is None:
        whole = pc.equal(column, pc.floor_temporal(column, unit="millisecond"))
        return "timestamp", pc.and_(whole, _between(column.cast(pa.date32()), _FIRST, _LAST))
    return "number", _exact_numbers(column)


def _exact_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    types, kind = pa.types, column.type
    if types.is_floating(kind):
        return pc.is_finite(column)
    if types.is_integer(kind):
        return _between(column, -(10**_DIGITS), 10**_DIGITS)
    if types.is_decimal(kind) and kind.scale <= _PLACES:
        digits = Decimal(1).scaleb(_DIGITS - kind.scale)
        return _between(column.cast(pa.decimal256(76, kind.scale)), -digits, digits)
    return None


def _between(column: pa.ChunkedArray, low: Any, high: Any) -> pa.ChunkedArray:  # noqa: ANN401
    """Which values are not below `low` and not above `high`."""
    return pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))


def _longest(column: pa.ChunkedArray) -> list[str]:
    """Texts that may be too long: a character is one or two of Excel's."""
    return list(column.filter(pc.greater(pc.utf8_length(column), CHARACTERS // 2)).to_pylist())
