"""Rows into files of text, a line a row: CSV and NDJSON. The engine makes the lines, a batch at a time.

Every value is written as `etl.destinations.text` says, so that it is read back the same.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Protocol

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from errors import DestinationError
from etl.convert import is_nested
from etl.destinations.store import Sink
from etl.destinations.text import column, is_number, select, text
from etl.quoting import literal


class Dialect(Protocol):
    """What a line is.

    Args:
        header: What the file begins with.
    """

    header: bytes

    def line(self, kinds: Sequence[str]) -> str:
        """A row as a line without its end, as SQL.

        Args:
            kinds: The columns' DuckDB types.
        """
        ...

    def check(self, rows: pa.Table, lines: pa.Array) -> None:
        """Lets lines pass that are read back as the rows that they were.

        Raises:
            DestinationError: One is not.
        """
        ...


class LinesFile:
    """A file of lines (`FileWriter`).

    Args:
        sink: Where it goes.
        dialect: What a line is.
        codec: How it is compressed: gzip, zstd. Each write is a frame (a member) of its own; readers go through all.
    """

    def __init__(self, sink: Sink, dialect: Dialect, codec: str | None) -> None:
        self._sink, self._dialect, self._codec = sink, dialect, codec
        self._rows = 0
        if dialect.header:
            self._put(dialect.header)

    def write(self, rows: pa.Table) -> None:
        """See `FileWriter.write`."""
        for lines in select(rows, self._dialect.line).column(0).chunks:
            self._dialect.check(rows, lines)
            whole = pa.ListArray.from_arrays([0, len(lines)], lines)
            self._put(pc.binary_join(whole, "\n")[0].as_py().encode() + b"\n")
            self._rows += len(lines)

    def close(self) -> int:
        """See `FileWriter.close`."""
        return self._rows

    def abandon(self) -> None:
        """See `FileWriter.abandon`."""

    def _put(self, content: bytes) -> None:
        self._sink.write(pa.compress(content, codec=self._codec, asbytes=True) if self._codec else content)


class Csv:
    """CSV with a header: RFC 4180, but lines end in a line feed. NULL is an empty cell, an empty text is `""`.

    Args:
        label: The destination, for messages.
        schema: The columns.
    """

    def __init__(self, label: str, schema: pa.Schema) -> None:
        self._label, self._schema = label, schema
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(schema.names)
        self.header = header.getvalue().encode()

    def line(self, kinds: Sequence[str]) -> str:
        """See `Dialect.line`."""
        cells = [_cell(text(column(place), kind), kind) for place, kind in enumerate(kinds)]
        return f"concat_ws(',', {', '.join(cells)})"

    def check(self, rows: pa.Table, lines: pa.Array) -> None:
        """See `Dialect.check`."""
        if rows.num_columns == 1 and rows.column(0).null_count:
            raise DestinationError(
                f"{self._label}: column {rows.schema.names[0]} has NULL and is the only one: CSV has no line for it",
                hint="add a column, or say `format: ndjson`",
            )
        if b"\0" in memoryview(lines.buffers()[2] or b"").tobytes():
            raise DestinationError(
                f"{self._label}: a text holds a NUL character, which CSV readers do not take",
                hint="replace it with a `derive` rule, or say `format: ndjson`",
            )


class Ndjson:
    """NDJSON: an object a line. Numbers have all their digits; NaN and infinities, which JSON lacks, are texts.

    Args:
        label: The destination, for messages.
        schema: The columns.
    """

    header = b""

    def __init__(self, label: str, schema: pa.Schema) -> None:
        self._label, self._names = label, schema.names

    def line(self, kinds: Sequence[str]) -> str:
        """See `Dialect.line`."""
        fields = [
            f"{literal(json.dumps(name, ensure_ascii=False) + ':')} || coalesce({_json(column(place), kind)}, 'null')"
            for place, (name, kind) in enumerate(zip(self._names, kinds, strict=True))
        ]
        return f"'{{' || concat_ws(',', {', '.join(fields)}) || '}}'"

    def check(self, rows: pa.Table, lines: pa.Array) -> None:
        """See `Dialect.check`; the engine writes NaN inside of lists and structs as it is."""
        if any(pa.types.is_nested(field.type) for field in rows.schema):
            for line in lines.filter(pc.match_substring_regex(lines, "NaN|Infinity")).to_pylist():
                try:
                    orjson.loads(line)
                except orjson.JSONDecodeError:
                    raise DestinationError(
                        f"{self._label}: a list or struct holds NaN or infinity, which JSON lacks: {line[:200]}",
                        hint="convert the column to string",
                    ) from None


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
