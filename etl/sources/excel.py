"""Excel (.xlsx): one sheet of a workbook; a column has the type that all of its cells have.

Whole numbers are integers, other numbers doubles (Excel's own); dates are timestamps, times of the day are times. A
column with cells of different kinds is text: numbers and truth values as one would type them, dates in ISO 8601. A row
with an error in it (#DIV/0!, #N/A) goes to the quarantine; empty rows are left out. Of merged cells, the first has the
value.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from errors import SourceError
from etl.pipeline import FileSource
from etl.sources.delimited import check_header
from etl.sources.disk import File, on_disk
from etl.sources.rows import BATCH_BYTES, taken, without_refused
from etl.stream import Batch, Origin

_LOG = logging.getLogger(__name__)
_LARGEST = 512 << 20  # the library holds a sheet in memory, in about twice the bytes of its XML
_ERRORS = {
    "Div0": "#DIV/0!",
    "GettingData": "#GETTING_DATA",
    "NA": "#N/A",
    "Name": "#NAME?",
    "Null": "#NULL!",
    "Num": "#NUM!",
    "Ref": "#REF!",
    "Value": "#VALUE!",
}
_DAY_ZERO = {False: datetime(1899, 12, 31), True: datetime(1904, 1, 1)}  # noqa: DTZ001  (Excel knows no zones)

logging.getLogger("fastexcel").setLevel(logging.ERROR)  # it warns of columns without a value


class Excel:
    """Reads a sheet of workbooks (`etl.sources.file.Reader`).

    Args:
        source: Which sheet, and where its header is.
    """

    def __init__(self, source: FileSource) -> None:
        self.position = 0
        self._sheet = source.sheet
        self._header_row = source.header_row

    def names(self, file: File) -> list[str]:
        """The header."""
        with _opened(file) as (workbook, _):
            return list(self._header(file, workbook).values())

    def batches(self, file: File) -> Iterator[Batch]:
        """The rows, after the whole sheet has told the types."""
        with _opened(file) as (workbook, day_zero):
            header = self._header(file, workbook)
            sheet = self._load(workbook, skip_rows=self._header_row, schema_sample_rows=None)
            cells, errors = sheet.to_arrow_with_errors()
        self.position = file.version[0]
        rows = _named(file, cells, header, day_zero)
        if not rows.num_rows:
            _LOG.warning("%s has a header, but no rows", file.name)
        where = {"file": file.name, "sheet": sheet.name}
        yield from _batches(rows, _refused(errors, header), where, self._header_row + 1)

    def _load(self, workbook: Any, **options: Any) -> Any:  # noqa: ANN401  (the library's)
        return workbook.load_sheet(self._sheet or 0, header_row=None, **options)

    def _header(self, file: File, workbook: Any) -> dict[int, str]:  # noqa: ANN401  (the library's)
        """Place -> name, of the columns that have one."""
        if self._sheet and self._sheet not in workbook.sheet_names:
            raise SourceError(
                f"{file.name}: has no sheet {self._sheet!r}", hint=f"its sheets are {', '.join(workbook.sheet_names)}"
            )
        cells = self._cells_of_header(workbook)
        named = {place: name for place, name in enumerate(cells) if name and name.strip()}
        if not named:
            raise SourceError(
                f"{file.name}: row {self._header_row} is empty: no header",
                hint="say where it is: `header_row: 3`; and which sheet, if it is not the first: `sheet: Orders`",
            )
        check_header(file.name, list(named.values()))
        return named

    def _cells_of_header(self, workbook: Any) -> list[str | None]:  # noqa: ANN401  (the library's)
        import fastexcel

        try:
            row = self._load(workbook, skip_rows=self._header_row - 1, n_rows=1, dtypes="string").to_arrow()
        except fastexcel.InvalidParametersError:  # the sheet ends before
            return []
        return [column[0].as_py() for column in row.columns] if row.num_rows else []


@contextmanager
def _opened(file: File) -> Iterator[tuple[Any, datetime]]:
    """The workbook, and the day from which it counts days."""
    import fastexcel

    try:
        with on_disk(file) as path:
            day_zero = _looked_into(file.name, path)
            yield fastexcel.read_excel(path), day_zero
    except zipfile.BadZipFile:
        raise SourceError(
            f"{file.name}: is no .xlsx file",
            hint="an old .xls, protected with a password, or cut off? save it as .xlsx, without a password",
        ) from None
    except fastexcel.FastExcelError as error:
        raise SourceError(f"{file.name}: cannot be read: {str(error).splitlines()[0]}") from None


def _looked_into(name: str, path: Path) -> datetime:
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        sheets = [size for part, size in sizes.items() if part.startswith("xl/worksheets/")]
        needed = max(sheets, default=0) + sizes.get("xl/sharedStrings.xml", 0)
        if needed > _LARGEST:
            raise SourceError(
                f"{name}: a sheet of {needed >> 20} MB is too large; {_LARGEST >> 20} MB of XML is the most",
                hint="save the sheet as CSV",
            )
        about = archive.read("xl/workbook.xml") if "xl/workbook.xml" in sizes else b""
    return _DAY_ZERO[bool(re.search(rb'\bdate1904="(1|true)"', about))]


def _named(file: File, cells: pa.RecordBatch, header: Mapping[int, str], day_zero: datetime) -> pa.RecordBatch:
    for place, column in enumerate(cells.columns):
        if place not in header and column.null_count < len(column):
            raise SourceError(
                f"{file.name}: column {place + 1} has values, but no name in the header: {', '.join(header.values())}"
            )
    columns = [_typed(cells.column(place), day_zero) for place in header]
    return pa.record_batch(columns, names=list(header.values()))


def _typed(column: pa.Array, day_zero: datetime) -> pa.Array:
    """The column in the type that holds exactly what its cells show."""
    if column.null_count == len(column):
        return pa.nulls(len(column))
    if pa.types.is_floating(column.type):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            return column
    if pa.types.is_timestamp(column.type):
        ends = pc.min_max(column).as_py()
        if day_zero <= ends["min"] and ends["max"] < day_zero + timedelta(days=1):
            return column.cast(pa.time32("ms"))
        return column.cast(pa.timestamp("us"))
    return column


def _refused(errors: Any, header: Mapping[int, str]) -> dict[int, dict[str, str]]:  # noqa: ANN401  (the library's)
    """Row index -> column -> what its cell shows, where that is no value."""
    refused: dict[int, dict[str, str]] = {}
    for error in errors.errors if errors else ():
        row, place = error.offset_position
        if place in header:
            refused.setdefault(row, {})[header[place]] = _shown(error.detail)
    return refused


def _shown(detail: str) -> str:
    """The cell by what the library says: Expected float but got 'Error(Div0)'."""
    if error := re.search(r"Error\((\w+)\)", detail):
        return _ERRORS.get(error[1], error[1])
    return re.sub(r".*\bvalue: ([^ ,}]+).*|.*? but got '(.*)'", r"\1\2", detail)


def _batches(
    rows: pa.RecordBatch, refused: Mapping[int, Mapping[str, str]], where: Mapping[str, str], first: int
) -> Iterator[Batch]:
    step = max(1, BATCH_BYTES * rows.num_rows // max(rows.nbytes, 1))
    kinds = {column.name: _kind(column.type) for column in rows.schema}
    for start in range(0, rows.num_rows, step):
        part = rows.slice(start, step)
        here = {row - start: cells for row, cells in refused.items() if start <= row < start + step}
        batch = without_refused(Batch(part, _origin(where, first + start)), here, kinds, part.schema.names)
        yield taken(batch, _any_value(batch.rows.columns))


def _origin(where: Mapping[str, str], first: int) -> Callable[[int], Origin]:
    return lambda index: {**where, "row": first + index}


def _kind(type_: pa.DataType) -> str:
    return "a value" if pa.types.is_null(type_) else str(type_)


def _any_value(columns: Sequence[pa.Array]) -> pa.BooleanArray:
    return reduce(pc.or_, [column.is_valid() for column in columns])
