"""Rows into files of text, a line a row: CSV and NDJSON. The engine makes the lines, a batch at a time.

Every value is written as `etl.destinations.text` says, so that it is read back the same.
"""

from __future__ import annotations

import csv
import io
import json

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from errors import DestinationError
from etl.convert import is_nested
from etl.destinations.store import Sink
from etl.destinations.text import column, is_number, select, text
from etl.quoting import literal


class LinesFile:
    """A file of lines (`FileWriter`).

    Args:
        sink: Where it goes.
        header: What it begins with.
        codec: How it is compressed: gzip, zstd. Each write is a frame (a member) of its own; readers go through all.
    """

    def __init__(self, sink: Sink, header: bytes, codec: str | None) -> None:
        self._sink, self._codec = sink, codec
        self._rows = 0
        if header:
            self._put(header)

    def write(self, rows: pa.Table) -> None:
        """See `FileWriter.write`; the rows are lines."""
        lines = rows.column(0).combine_chunks()
        joined = pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "\n")
        self._put(joined[0].as_py().encode() + b"\n")
        self._rows += len(lines)

    def close(self) -> int:
        """See `FileWriter.close`."""
        return self._rows

    def abandon(self) -> None:
        """See `FileWriter.abandon`."""

    def _put(self, content: bytes) -> None:
        self._sink.write(pa.compress(content, codec=self._codec, asbytes=True) if self._codec else content)


def csv_header(schema: pa.Schema) -> bytes:
    """The columns' names as a line."""
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(schema.names)
    return header.getvalue().encode()


def csv_lines(label: str, rows: pa.Table) -> pa.Table:
    """The rows as lines of CSV: RFC 4180, but for the line's end. NULL is an empty cell, an empty text is `""`.

    Raises:
        DestinationError: CSV has no line for a row.
    """
    if rows.num_columns == 1 and rows.column(0).null_count:
        raise DestinationError(
            f"{label}: column {rows.schema.names[0]} has NULL and is the only one: CSV has no line for that",
            hint="add a column, or say `format: ndjson`",
        )
    lines = select(rows, _csv_line)
    if any(
        b"\0" in (chunk.buffers()[2] or pa.py_buffer(b"")).to_pybytes()
        for chunk in lines.column(0).chunks
        if len(chunk)
    ):
        raise DestinationError(
            f"{label}: a text holds a NUL character, which CSV readers do not take",
            hint="replace it with a `derive` rule, or say `format: ndjson`",
        )
    return lines


def ndjson_lines(label: str, rows: pa.Table) -> pa.Table:
    """The rows as JSON objects. Numbers have all their digits; NaN and infinities, which JSON lacks, are texts.

    Raises:
        DestinationError: There is NaN or infinity inside of a list or struct.
    """
    lines = select(rows, lambda kinds: _json_line(rows.schema.names, kinds))
    if any(pa.types.is_nested(field.type) for field in rows.schema):
        _check_json(label, lines.column(0))
    return lines


def _check_json(label: str, lines: pa.ChunkedArray) -> None:
    """The engine writes NaN inside of lists and structs as it is."""
    for line in lines.filter(pc.match_substring_regex(lines, "NaN|Infinity")).to_pylist():
        try:
            orjson.loads(line)
        except orjson.JSONDecodeError:
            raise DestinationError(
                f"{label}: a list or struct holds NaN or infinity, which JSON lacks: {line[:200]}",
                hint="convert the column to string",
            ) from None


def _csv_line(kinds: list[str]) -> str:
    """A row as a line, as SQL, of the columns' DuckDB types."""
    cells = [_cell(text(column(place), kind), kind) for place, kind in enumerate(kinds)]
    return f"concat_ws(',', {', '.join(cells)})"


def _json_line(names: list[str], kinds: list[str]) -> str:
    """A row as an object, as SQL."""
    fields = [
        f"{literal(json.dumps(name, ensure_ascii=False) + ':')} || coalesce({_json(column(place), kind)}, 'null')"
        for place, (name, kind) in enumerate(zip(names, kinds, strict=True))
    ]
    return f"'{{' || concat_ws(',', {', '.join(fields)}) || '}}'"


def _cell(value: str, kind: str) -> str:
    """A value as a cell, as SQL; in quotes where it needs them."""
    if kind in {"VARCHAR", "JSON"} or is_nested(kind):
        quoted = f"""'"' || replace({value}, '"', '""') || '"'"""
        needed = f"""{value} = '' OR regexp_matches({value}, '[,"\\r\\n]|^\\s|\\s$')"""
        value = f"CASE WHEN {needed} THEN {quoted} ELSE {value} END"
    elif kind == "BLOB":
        value = f"CASE {value} WHEN '' THEN '\"\"' ELSE {value} END"
    return f"coalesce({value}, '')"


def _json(name: str, kind: str) -> str:
    """A value as JSON, as SQL."""
    value = text(name, kind)
    if kind in {"FLOAT", "DOUBLE"}:
        return f"CASE WHEN isfinite({name}) THEN {value} ELSE '\"' || {value} || '\"' END"
    if is_number(kind) or kind == "BOOLEAN" or is_nested(kind):
        return value
    if kind == "JSON":
        return f"replace(replace({value}, chr(10), ' '), chr(13), ' ')"  # only between values can it have them
    return f"CAST(to_json({value}) AS VARCHAR)"
