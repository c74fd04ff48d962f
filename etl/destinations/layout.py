"""Partitioned paths: which rows go into which folder, as `{column}` in the path says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from errors import DestinationError
from etl.destinations.text import texts

NULL = "__HIVE_DEFAULT_PARTITION__"
"""The folder of rows without a value, as Hive, Spark and DuckDB call it."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_UNSAFE = re.compile(r"""[\x00-\x1f\x7f"#%'*/:=?\\{}\[\]^<>|]|^[._]""")
_LONGEST = 255


class Layout:
    """The folders of one run.

    Args:
        label: The destination, for messages.
        pattern: The part of the path that has placeholders, and what follows it; empty if nothing does.
        of_run: What placeholders mean that name no column of the rows: `date`, `run_id`.
    """

    def __init__(self, label: str, pattern: str, of_run: Mapping[str, str]) -> None:
        self.label, self._pattern, self._of_run = label, pattern, of_run
        self._columns: list[str] | None = None

    @cached_property
    def partitioned(self) -> bool:
        """Whether there is more than one folder."""
        return bool(self._pattern)

    def split(self, rows: pa.RecordBatch, kept: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Rows by folder.

        Args:
            rows: The rows, whose columns placeholders name. The first batch tells which are columns.
            kept: The same rows as files keep them.

        Raises:
            DestinationError: A placeholder names nothing, or a value is too long for a folder's name.
        """
        if not self.partitioned:
            yield "", kept
            return
        folders = self._folders(rows).dictionary_encode()
        kept = kept.take(pc.array_sort_indices(folders.indices))
        start = 0
        for count in pc.value_counts(folders.indices.take(pc.array_sort_indices(folders.indices))):
            length = count["counts"].as_py()
            yield folders.dictionary[count["values"].as_py()].as_py(), kept.slice(start, length)
            start += length

    def _folders(self, rows: pa.RecordBatch) -> pa.StringArray:
        """Each row's folder."""
        if self._columns is None:
            self._columns = list(self._named(rows.schema.names))
        parts = _PLACEHOLDER.split(self._pattern)  # text, placeholder, text, ...
        values = [part if place % 2 == 0 else self._value(part, rows) for place, part in enumerate(parts)]
        return pc.binary_join_element_wise(*values, pa.array([""] * rows.num_rows, pa.string()), "")

    def _named(self, columns: list[str]) -> Iterator[str]:
        """The placeholders that are columns."""
        for name in _PLACEHOLDER.findall(self._pattern):
            if name in columns:
                yield name
            elif name not in self._of_run:
                raise DestinationError(
                    f"{self.label}: the path names {{{name}}}, but the rows have no such column",
                    hint=f"they have: {', '.join(columns)}; of the run there are {{date}} and {{run_id}}",
                )

    def _value(self, name: str, rows: pa.RecordBatch) -> pa.StringArray | str:
        if name not in (self._columns or ()):
            return _segment(self._of_run[name])
        if name not in rows.schema.names:
            return NULL
        values = texts(rows.select([name]))[name].combine_chunks().dictionary_encode()
        segments = [self._checked(name, _segment(value)) for value in values.dictionary.to_pylist()]
        return pc.fill_null(pa.array(segments, pa.string()).take(values.indices), NULL)

    def _checked(self, name: str, segment: str) -> str:
        if len(segment.encode()) > _LONGEST:
            raise DestinationError(
                f"{self.label}: a value of {name} is too long for a folder's name: {segment[:60]}...",
                hint=f"a name has at most {_LONGEST} bytes; derive a shorter column, and name that in the path",
            )
        return segment


def split_path(path: str) -> tuple[str, str]:
    """What of a path is the same for all rows, and the rest: `lake/orders`, `{day}/{shop}`."""
    fixed, placeholder, rest = path.rstrip("/").partition("{")
    root, _, begun = fixed.rpartition("/")
    return (root, begun + placeholder + rest) if placeholder else (fixed, "")


def _segment(value: str) -> str:
    """A value as a folder's name, in which no `/` or `..` leads elsewhere: unsafe characters are written as %2F."""
    return _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", value) or NULL
