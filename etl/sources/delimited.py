"""CSV: every value is text (`convert` gives types), an empty cell is NULL, a quoted empty cell is an empty text.

A line with too few or too many cells goes to the quarantine, with its record number: records count from 1 after the
header, empty lines do not count, and a quoted line break does not end a record.
"""

from __future__ import annotations

import csv
import io
import logging
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.csv

from errors import SourceError
from etl.pipeline import FileSource
from etl.sources.disk import File, Stream, told
from etl.stream import BadRow, Batch, Broken, Origin

_LOG = logging.getLogger(__name__)
_BLOCK = 2 << 20
_LONGEST_PAUSE = 30
"""Seconds after which a block is read although none of those before it has been asked for."""

_AHEAD = 32
"""Blocks that Arrow reads ahead if nobody keeps it from that."""

_BAD_AT_ONCE = 5_000
_LONGEST_HEADER = 1 << 20


class Delimited:
    """Reads CSV files (`etl.sources.file.Reader`).

    Args:
        source: The dialect.
    """

    def __init__(self, source: FileSource) -> None:
        self.position = 0
        self._source = source

    def names(self, file: File) -> list[str]:
        """The header, which must name every column once."""
        names, _ = self._header(file)
        return names

    def batches(self, file: File) -> Iterator[Batch]:
        """The rows, block by block."""
        names, has_rows = self._header(file)
        if not has_rows:
            _LOG.warning("%s has a header, but no rows", file.name)
            return
        bad = _Bad(file, len(names), first=self._source.skip + (1 if self._source.columns else 2))
        with closing(Stream(file, self._source.encoding)) as stream, told(file.name):
            good = 0
            for rows in self._rows(stream, names, bad, self._delimiter(file)):
                self.position = stream.position
                yield from bad.taken(rows.slice(0, 0))
                yield Batch(rows, bad.origin(good))
                good += rows.num_rows
            yield from bad.taken(_no_rows(names))

    def _delimiter(self, file: File) -> str:
        return self._source.delimiter or ("\t" if ".tsv" in PurePosixPath(file.name.lower()).suffixes else ",")

    def _header(self, file: File) -> tuple[list[str], bool]:
        """The header, and whether anything follows."""
        with closing(Stream(file, self._source.encoding)) as stream, told(file.name):
            text = io.TextIOWrapper(io.BufferedReader(_Buffer(stream)), "utf-8", newline="")
            lines = iter(lambda: text.readline(_LONGEST_HEADER), "")
            for _ in range(self._source.skip):
                next(lines, None)
            names = self._source.columns or self._named(file, lines)
            return names, any(line.strip("\r\n") for line in lines)

    def _named(self, file: File, lines: Iterator[str]) -> list[str]:
        cells = csv.reader(
            lines,
            delimiter=self._delimiter(file),
            quotechar=self._source.quote,
            quoting=csv.QUOTE_MINIMAL if self._source.quote else csv.QUOTE_NONE,
            escapechar=self._source.escape,
        )
        try:
            names = next((found for found in cells if found), None)
        except csv.Error as error:
            raise SourceError(f"{file.name}: the header cannot be read: {error}") from None
        if names is None:
            raise SourceError(f"{file.name}: is empty, without so much as a header")
        check_header(file.name, names)
        return names

    def _rows(self, stream: Stream, names: list[str], bad: _Bad, delimiter: str) -> Iterator[pa.RecordBatch]:
        with closing(_Paced(stream)) as paced:
            reader = self._reader(paced, names, bad, delimiter)
            for rows in reader:
                paced.go_on()
                yield rows

    def _reader(self, paced: _Paced, names: list[str], bad: _Bad, delimiter: str) -> pa.csv.CSVStreamingReader:
        source, text = self._source, dict.fromkeys(names, pa.string())
        reader = pa.csv.open_csv(
            paced,
            read_options=pa.csv.ReadOptions(
                block_size=_BLOCK,
                use_threads=False,  # else records are not numbered
                skip_rows=source.skip,
                column_names=source.columns,
            ),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter,
                quote_char=source.quote or False,
                escape_char=source.escape or False,
                newlines_in_values=source.quote is not None or source.escape is not None,
                invalid_row_handler=bad.add,
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=text,
                strings_can_be_null=True,
                null_values=["", *source.nulls],
                quoted_strings_can_be_null=False,
            ),
        )
        if reader.schema != pa.schema(list(text.items())):
            raise SourceError(f"the header is read in two ways: {names} and {reader.schema.names}")
        return reader


def check_header(file: str, names: list[str]) -> None:
    """Makes sure that a header names every column, once.

    Raises:
        SourceError: It does not, or is none.
    """
    shown = ", ".join(names)[:200]
    if not any(character.isalpha() for name in names for character in name):
        raise SourceError(f"{file}: has no header; its first line is: {shown}", hint="put the columns' names there")
    for place, name in enumerate(names, 1):
        if not name.strip():
            raise SourceError(f"{file}: column {place} has no name in the header: {shown}")
        if names.count(name) > 1:
            raise SourceError(f"{file}: the header has {name!r} twice: {shown}", hint="give one another name")


class _Bad:
    """The records that do not have the header's number of cells, and what they mean for the numbers of the others.

    Args:
        file: What is read.
        width: How many cells a record should have.
        first: Arrow's number of the first record: it counts the lines before it, too.
    """

    def __init__(self, file: File, width: int, first: int) -> None:
        self._file = file
        self._width = width
        self._first = first
        self._waiting: list[tuple[int, str, int]] = []
        self._good_before: list[int] = []

    def add(self, row: pa.csv.InvalidRow) -> str:
        record = row.number - self._first + 1
        self._good_before.append(record - 1 - len(self._good_before))
        self._waiting.append((record, row.text, row.actual_columns))
        return "skip"

    def taken(self, none: pa.RecordBatch) -> Iterator[Batch]:
        """Batches of nothing but the bad records that have come up; few at a time, since they are Python objects."""
        for start in range(0, len(self._waiting), _BAD_AT_ONCE):
            rows = [self._row(*waiting) for waiting in self._waiting[start : start + _BAD_AT_ONCE]]
            yield Batch(none, self.origin(0), bad=rows)
        self._waiting = []

    def origin(self, good: int) -> Callable[[int], Origin]:
        """Numbers good rows, of which `good` came before: bad records before them count, too."""
        return lambda index: self._at(good + index + 1 + bisect_left(self._good_before, good + index + 1))

    def _at(self, record: int) -> Origin:
        return {"file": self._file.name, "record": record}

    def _row(self, record: int, text: str, cells: int) -> BadRow:
        message = f"the record has {cells} cell{'s' * (cells != 1)}, for {self._width} columns"
        return BadRow({"line": text}, {}, [Broken("", "source: csv", message)], self._at(record))


def _no_rows(names: list[str]) -> pa.RecordBatch:
    return pa.record_batch([pa.nulls(0, pa.string()) for _ in names], names=names)


class _Paced:
    """A `Stream` that Arrow, which would read `_AHEAD`, reads two ahead: each block gives it one batch.

    Once closed, it has no more: Arrow's thread waits for no turn that nobody gives, and nobody waits for the thread.
    """

    closed = False

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._turns = threading.Semaphore(3)
        self._over = False

    def read(self, size: int = -1) -> bytes:
        self._turns.acquire(timeout=_LONGEST_PAUSE)
        return b"" if self._over else self._stream.read(size)

    def go_on(self) -> None:
        self._turns.release()

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._over = True
        self._turns.release(_AHEAD)


class _Buffer(io.RawIOBase):
    """A `Stream` as the io module wants it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)
