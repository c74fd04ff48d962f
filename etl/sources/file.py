"""Files: one after the other, sorted by path, each read in a stream; all are looked into before the first row."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from errors import SourceError
from etl.pipeline import FileSource, file_format
from etl.sources.archive import is_archive, members
from etl.sources.disk import File, find
from etl.stream import Batch, State

_LOG = logging.getLogger(__name__)


class Reader(Protocol):
    """Reads files of one format.

    Args:
        position: How many bytes of the file that is being read have been read.
    """

    position: int

    def names(self, file: File) -> list[str] | None:
        """The names of the columns; None if only reading tells.

        Raises:
            SourceError: The file is not what it should be.
        """
        ...

    def batches(self, file: File) -> Iterator[Batch]:
        """The rows.

        Raises:
            SourceError: The file is not what it should be.
        """
        ...


class Files:
    """Files of one kind as a source.

    Args:
        source: What the pipeline file says.
    """

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self.label = f"file {source.path}"

    def columns(self) -> list[str] | None:
        """The columns' names by the first file, if there is one."""
        try:
            files = self._find()
        except SourceError:
            return None
        files = _opened(self._source, files[:1])
        return _reader(self._source, files[0]).names(files[0]) if files else None

    def open(self, state: State | None) -> _Reading:
        """Finds the files and looks into each.

        Raises:
            SourceError: There is no file, one cannot be read, or they do not have the same columns.
        """
        files = self._find()
        if not files and not self._source.incremental:
            raise SourceError(
                f"{self._source.path}: no file has such a name",
                hint="check `path`; a relative one starts from the project's root (PIVOTAL_ROOT)",
            )
        return _Reading(self._source, files, state if self._source.incremental else None)

    def _find(self) -> Sequence[File]:
        from etl.variables import resolve

        path = resolve(self._source.path)
        if path.startswith("s3://"):
            from etl.sources.store import find_objects

            return find_objects(path)
        return find(path)


class _Reading:
    """One reading of files (`etl.stream.Extraction`)."""

    def __init__(self, source: FileSource, files: Sequence[File], state: State | None) -> None:
        self.bytes_read = 0
        self._source = source
        self._found = files
        before = (state or {}).get("files")
        new = [file for file in files if _is_new(file, before if isinstance(before, dict) else {})]
        self._files = _opened(source, new)
        self._readers: dict[str, Reader] = {}
        _check_same_columns([(file, self._reader(file).names(file)) for file in self._files])

    def __iter__(self) -> Iterator[Batch]:
        done = 0
        for file in self._files:
            reader = self._reader(file)
            for batch in reader.batches(file):
                self.bytes_read = done + reader.position
                yield batch
            file.check_unchanged()
            done += file.version[0]
            self.bytes_read = done

    def state(self) -> State | None:
        """The files that are there, with the versions in which they were read."""
        if not self._source.incremental:
            return None
        return {"files": {file.name: list(file.version) for file in self._found}}

    def close(self) -> None:
        """Nothing is held open beyond a batch's turn: each file closes with its iterator."""

    def _reader(self, file: File) -> Reader:
        """One reader a format, so that what it learns of the columns holds for the next file."""
        kind = _format(self._source, file)
        if kind not in self._readers:
            self._readers[kind] = _reader(self._source, file)
        return self._readers[kind]


def _opened(source: FileSource, files: Sequence[File]) -> list[File]:
    """The files, with the members of archives in place of the archives."""
    opened: list[File] = []
    for file in files:
        opened += members(file, source.members) if is_archive(file) else [file]
    return opened


def _is_new(file: File, before: Mapping[str, object]) -> bool:
    known = before.get(file.name)
    if known == list(file.version):
        return False
    if known is not None:
        _LOG.warning(
            "%s has changed since it was read (it had %s, now %s): it is read again",
            file.name,
            known,
            list(file.version),
        )
    return True


def _check_same_columns(files: Sequence[tuple[File, list[str] | None]]) -> None:
    known = [(file, names) for file, names in files if names is not None]
    for file, names in known[1:]:
        first, expected = known[0]
        missing = [name for name in expected or [] if name not in (names or [])]
        extra = [name for name in names or [] if name not in (expected or [])]
        if missing or extra:
            raise SourceError(
                f"{file.name}: has other columns than {first.name}: "
                + "; ".join(
                    f"{what} {', '.join(columns)}"
                    for what, columns in (("lacks", missing), ("has also", extra))
                    if columns
                ),
                hint="read files of one kind in one pipeline",
            )


def _format(source: FileSource, file: File) -> str:
    kind = source.format or file_format(file.name)
    if kind is None:
        raise SourceError(
            f"{file.name}: its name does not tell its format",
            hint="say `format: csv`, fixed, ndjson, json, parquet or excel",
        )
    return kind


def _reader(source: FileSource, file: File) -> Reader:
    match _format(source, file):
        case "csv":
            from etl.sources.delimited import Delimited

            return Delimited(source)
        case "parquet":
            from etl.sources.parquet import Parquet

            return Parquet()
        case "fixed":
            from etl.sources.fixed import Fixed

            return Fixed(source)
        case "excel":
            from etl.sources.excel import Excel

            return Excel(source)
        case "ndjson":
            from etl.sources.json_lines import JsonLines

            return JsonLines()
    from etl.sources.json_document import JsonDocument

    return JsonDocument(source.records)
