"""Parquet: row groups in a stream, with the types that the file has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from errors import SourceError
from etl.sources.disk import File, on_disk, told
from etl.sources.rows import BATCH_BYTES
from etl.stream import Batch, Origin


class Parquet:
    """Reads Parquet files (`etl.sources.file.Reader`); the columns of the first file are those of all."""

    def __init__(self) -> None:
        self.position = 0
        self._first: tuple[File, pa.Schema] | None = None

    def names(self, file: File) -> list[str]:
        """The columns of the file, whose types must be those of the first one."""
        with _opened(file) as content:
            schema = content.schema_arrow
        self._first = self._first or (file, schema)
        for field in schema:
            expected = self._first[1].field(field.name) if field.name in self._first[1].names else field
            if field.type != expected.type:
                raise SourceError(
                    f"{file.name}: column {field.name} is {field.type}, in {self._first[0].name} it is {expected.type}",
                    hint="read files of one kind in one pipeline",
                )
        return list(schema.names)

    def batches(self, file: File) -> Iterator[Batch]:
        """The rows; only one batch of them is decoded at a time."""
        names = self._first[1].names if self._first else self.names(file)
        number = 0
        with _opened(file) as content:
            rows = content.metadata.num_rows
            for batch in content.iter_batches(_rows_at_once(content.metadata)):
                yield Batch(batch.select(names), _origin(file, number))
                number += batch.num_rows
                self.position = file.version[0] * number // max(rows, 1)


@contextmanager
def _opened(file: File) -> Iterator[pq.ParquetFile]:
    with ExitStack() as stack, told(file.name):
        content = stack.enter_context(closing(file.open()))
        if not content.seekable():
            content = stack.enter_context(on_disk(file))
        yield stack.enter_context(pq.ParquetFile(content, buffer_size=1 << 20))


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
    return int(min(max(BATCH_BYTES / max(widest, 1), 1), 1 << 17))


def _origin(file: File, before: int) -> Callable[[int], Origin]:
    return lambda index: {"file": file.name, "record": before + index + 1}
