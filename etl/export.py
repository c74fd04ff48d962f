"""A table or a query as one file, which appears whole or not at all."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import cast

import pyarrow as pa

from errors import AccountingError, PivotalError
from etl.destinations.disk import disk_errors
from etl.destinations.formats import FileWriter, Format, format_of
from etl.destinations.store import Sink
from etl.destinations.types import plain
from etl.overlap import read_ahead
from etl.pipeline import DatabaseSource, FileDestination
from etl.sources.database import Database
from etl.stream import Batch, Progress, RunReport
from events.envelope import new_id

_FORMATS = {".parquet": "parquet", ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".xlsx": "excel"}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


def export(source: DatabaseSource, file: Path, progress: Progress | None = None) -> RunReport:
    """Writes what a database has into a file, in the place of one that is there.

    Args:
        source: What is read.
        file: Where it goes; its name says the format: .parquet, .csv, .ndjson, .xlsx, the lines also .gz or .zst.
        progress: Called after each batch with the counts so far.

    Returns:
        The report: every row that was read is in the file.

    Raises:
        AccountingError: The counts do not add up.
        PivotalError: The source cannot be read or holds a value that cannot be read exactly, there are no rows, or the
            file cannot be written. What was there stays.
    """
    started = time.monotonic()
    form = _format(file)
    database = Database(source, once=False)
    report = RunReport("export", new_id(), database.label, str(file))
    with closing(database.open(None)) as reading, closing(read_ahead(_exact(reading, database.label))) as batches:
        first = next(batches, None)
        if first is None:
            raise PivotalError(f"{database.label}: has no rows, so {file} was not written")
        with disk_errors(file), _published(file) as sink, _writing(form, file, sink, first.schema) as writer:
            for rows in chain([first], batches):
                writer.write(form.prepare(str(file), pa.Table.from_batches([rows.cast(first.schema)])))
                report.extracted += rows.num_rows
                if progress:
                    progress(report)
            report.inserted = writer.close()
            if not report.balanced:
                raise AccountingError(f"{file}: {report.extracted} rows were read, but {report.inserted} written")
    report.bytes_read, report.seconds = reading.bytes_read, time.monotonic() - started
    return report


def _format(file: Path) -> Format:
    name, compression = (
        (file.stem, _COMPRESSIONS.get(file.suffix)) if file.suffix in _COMPRESSIONS else (file.name, None)
    )
    kind = _FORMATS.get(Path(name).suffix.lower())
    if kind is None or (compression and kind not in {"csv", "ndjson"}):
        raise PivotalError(
            f"{file}: its name does not say a format",
            hint="name it .parquet, .csv, .ndjson or .xlsx; .csv and .ndjson may have .gz or .zst behind it",
        )
    declared = {"type": "file", "path": file.name, "format": kind, "write": "replace"}
    return format_of(FileDestination.model_validate(declared | ({"compression": compression} if compression else {})))


def _exact(batches: Iterable[Batch], label: str) -> Iterator[pa.RecordBatch]:
    """The rows; a column of nothing but NULL is text."""
    for batch in batches:
        for bad in batch.bad:
            broken = "; ".join(f"{each.column}: {each.message}" for each in bad.broken)
            where = ", ".join(f"{key} {value}" for key, value in bad.origin.items())
            raise PivotalError(
                f"{label}: a row cannot be read exactly ({where}): {broken}", hint="leave it out: --query"
            )
        rows = plain(label, batch.rows)
        if rows.num_rows:
            fields = [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in rows.schema]
            yield rows.cast(pa.schema(fields))


@contextmanager
def _writing(form: Format, file: Path, sink: Sink, schema: pa.Schema) -> Iterator[FileWriter]:
    writer = form.start(str(file), sink, schema)
    try:
        yield writer
    finally:
        writer.abandon()


@contextmanager
def _published(file: Path) -> Iterator[Sink]:
    """A file beside it to write, which takes its name in the end."""
    waiting = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with waiting.open("wb") as sink:
            yield cast(Sink, sink)
            sink.flush()
            os.fsync(sink.fileno())
        waiting.replace(file)
    finally:
        waiting.unlink(missing_ok=True)
