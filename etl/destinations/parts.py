"""Rows into files: folder by folder, part after part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from etl.destinations.formats import FileWriter, Format
from etl.destinations.layout import Layout
from etl.destinations.parquet import ROW_GROUP
from etl.destinations.store import Change, Sink
from etl.destinations.types import Column, fit, plain, untyped

_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Part:
    sink: Sink
    writer: FileWriter


class Parts:
    """Writes parts that all have the same columns; a column that comes later starts the next part.

    Rows wait until there are enough of them. With more folders than files may be open, a folder's part
    ends early, and it gets several.

    Args:
        label: The destination, for messages.
        change: Where the parts go.
        stem: The first part's name in a folder, without its suffix.
        form: The format.
        layout: The folders.
        schema: The columns that earlier parts have; every part has all of them.
        size: Bytes at which a part ends; None if it does not.
    """

    def __init__(
        self,
        label: str,
        change: Change,
        stem: str,
        form: Format,
        layout: Layout,
        schema: pa.Schema,
        size: int | None,
    ) -> None:
        self._label, self._change, self._stem, self._format, self._layout = label, change, stem, form, layout
        self._size = size
        self.schema = schema
        self._rows = 0
        self._parts: dict[str, int] = {}
        self._open: dict[str, _Part] = {}
        self._waiting: list[pa.RecordBatch] = []

    def write(self, rows: pa.RecordBatch) -> None:
        """Takes rows.

        Raises:
            DestinationError: A column's type does not fit that of earlier rows, or the format cannot keep it.
        """
        rows = plain(self._label, rows)
        if new := self._new(rows.schema):
            self._end_all()
            self.schema = pa.schema([*self.schema, *new])
        if rows.num_rows:
            self._layout.look(rows.schema.names)
            self._waiting.append(self._aligned(rows))
        if self._enough():
            self._flush()

    def finish(self, *, at_least_one: bool) -> int:
        """Ends the last parts.

        Args:
            at_least_one: Write a file without rows if there are none, so that readers find the columns.

        Returns:
            The rows that the files have.
        """
        self._end_all()
        if at_least_one and not self._parts and self.schema.names and not self._layout.partitioned:
            self._end("", self._start(""))
        return self._rows

    @property
    def folders(self) -> list[str]:
        """The folders that rows went into."""
        return list(self._parts)

    def close(self) -> None:
        """Lets go of the files that are being written."""
        for part in self._open.values():
            part.writer.abandon()
        self._open = {}

    def _new(self, schema: pa.Schema) -> list[pa.Field]:
        """Columns that no part has yet; one of nothing but NULL waits until it has a type."""
        known = set(self.schema.names)
        return [field for field in schema if field.name not in known and not pa.types.is_null(field.type)]

    def _aligned(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        columns = {field.name: Column(field.name, field.type, str(field.type)) for field in self.schema}
        known = rows.select([name for name in rows.schema.names if name in columns])
        if not known.num_columns:
            raise untyped(self._label, rows)
        fitted = fit(self._label, known, columns)
        arrays = dict(zip(fitted.schema.names, fitted.columns, strict=True))
        missing = {field.name: pa.nulls(rows.num_rows, field.type) for field in self.schema if field.name not in arrays}
        whole = arrays | missing
        return pa.record_batch([whole[name] for name in columns], schema=self.schema)

    def _enough(self) -> bool:
        if sum(batch.nbytes for batch in self._waiting) >= _BYTES:
            return True
        return not self._layout.partitioned and sum(batch.num_rows for batch in self._waiting) >= ROW_GROUP

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows, self._waiting = pa.Table.from_batches(self._waiting), []
        for folder, some in self._layout.split(rows, self._format.prepare(self._label, rows)):
            for piece in self._pieces(some):
                part = self._open.pop(folder, None) or self._start(folder)
                self._open[folder] = part  # the last one used is the last one to be closed
                part.writer.write(piece)
                if self._size and part.sink.tell() >= self._size:
                    self._end(folder, self._open.pop(folder))

    def _pieces(self, rows: pa.Table) -> Iterator[pa.Table]:
        """The rows in pieces that are not larger than a part."""
        pieces = -(-rows.nbytes // self._size) if self._size else 1
        step = max(rows.num_rows // max(pieces, 1), 1)
        return (rows.slice(start, step) for start in range(0, rows.num_rows, step))

    def _start(self, folder: str) -> _Part:
        if len(self._open) >= self._change.most_open:
            oldest = next(iter(self._open))
            self._end(oldest, self._open.pop(oldest))
        number = self._parts[folder] = self._parts.get(folder, 0) + 1
        name = f"{self._stem}{'' if number == 1 else f'-{number}'}{self._format.suffix}"
        sink = self._change.create(f"{folder}/{name}" if folder else name)
        return _Part(sink, self._format.start(self._label, sink, self.schema))

    def _end(self, folder: str, part: _Part) -> None:
        self._open[folder] = part  # until it has ended, it is there to be abandoned
        self._rows += part.writer.close()
        part.sink.close()
        del self._open[folder]

    def _end_all(self) -> None:
        self._flush()
        for folder, part in list(self._open.items()):
            self._end(folder, part)
