"""Text with columns of a fixed width: every value is text without the blanks around it, nothing but blanks is NULL.

A line that ends before its last column does goes to the quarantine; a column without an end takes the rest of the line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from etl.pipeline import FileSource
from etl.sources.disk import File, Stream, told
from etl.sources.lines import lines
from etl.stream import BadRow, Batch, Broken, Origin

_HINT = "is it text with line ends?"


class Fixed:
    """Reads files with columns of a fixed width (`etl.sources.file.Reader`).

    Args:
        source: Where the columns are.
    """

    def __init__(self, source: FileSource) -> None:
        self.position = 0
        self._fields = source.fields
        self._encoding = source.encoding
        self._skip = source.skip
        self._width = max(last or first for first, last in source.fields.values())

    def names(self, file: File) -> list[str]:
        """The declared ones, if the file can be read at all."""
        with closing(Stream(file, self._encoding)) as stream, told(file.name):
            stream.read(1)
        return list(self._fields)

    def batches(self, file: File) -> Iterator[Batch]:
        """The rows; blank lines are no records."""
        before = -self._skip
        with closing(Stream(file, self._encoding)) as stream, told(file.name):
            for found in lines(file, stream, _HINT):
                self.position = stream.position
                records = found[max(-before, 0) :]
                before += len(found)
                yield self._batch(file, records, before - len(records))

    def _batch(self, file: File, records: list[bytes], before: int) -> Batch:
        text = pc.utf8_rtrim(pa.array(records, pa.binary()).cast(pa.string()), "\r")
        whole = pc.greater_equal(pc.utf8_length(text), self._width)
        origin = partial(_origin, file.name, before)
        bad = [self._bad(text[place].as_py(), origin(place)) for place in _places(pc.invert(whole))]
        rows = text.filter(whole)
        columns = [_values(rows, first, last) for first, last in self._fields.values()]
        places = _places(whole) if bad else range(len(text))
        return Batch(pa.record_batch(columns, names=list(self._fields)), lambda index: origin(places[index]), bad=bad)

    def _bad(self, line: str, origin: Origin) -> BadRow:
        message = f"the line has {len(line)} characters, its columns need {self._width}"
        return BadRow({"line": line}, {}, [Broken("", "source: fixed", message)], origin)


def _values(rows: pa.StringArray, first: int, last: int | None) -> pa.StringArray:
    trimmed = pc.utf8_trim(pc.utf8_slice_codeunits(rows, first - 1, last), " ")
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def _places(mask: pa.BooleanArray) -> list[int]:
    places: list[int] = pc.indices_nonzero(mask).to_pylist()
    return places


def _origin(file: str, before: int, place: int) -> Origin:
    return {"file": file, "record": before + place + 1}
