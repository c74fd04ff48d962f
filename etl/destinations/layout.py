"""Partitioned paths: which rows go into which folder, as `{column}` in the path says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from errors import DestinationError
from etl.destinations.text import texts
from etl.destinations.warehouse import Scope

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

    def look(self, columns: Sequence[str]) -> None:
        """Learns from the first rows which placeholders are columns.

        Raises:
            DestinationError: One names nothing.
        """
        if self._columns is None:
            self._columns = list(self._named(columns))

    def split(self, rows: pa.Table, prepared: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """Rows by folder, each folder's in their order.

        Args:
            rows: The rows; a placeholder's column that they lack is NULL.
            prepared: The same rows as files take them.

        Raises:
            DestinationError: A value is too long for a folder's name.
        """
        if not self.partitioned:
            yield "", prepared
            return
        folders = self._folders(rows).combine_chunks().dictionary_encode()
        order = pc.array_sort_indices(folders.indices)
        prepared, start = prepared.take(order), 0
        for counted in pc.value_counts(folders.indices.take(order)).to_pylist():
            yield folders.dictionary[counted["values"]].as_py(), prepared.slice(start, counted["counts"])
            start += counted["counts"]

    def _folders(self, rows: pa.Table) -> pa.ChunkedArray:
        """Each row's folder."""
        parts = _PLACEHOLDER.split(self._pattern)  # text, placeholder, text, ...
        values = [part if place % 2 == 0 else self._value(part, rows) for place, part in enumerate(parts)]
        return pc.binary_join_element_wise(*values, pa.chunked_array([pa.repeat("", rows.num_rows)]), "")

    def _named(self, columns: Sequence[str]) -> Iterator[str]:
        """The placeholders that are columns."""
        for name in _PLACEHOLDER.findall(self._pattern):
            if name in columns:
                yield name
            elif name not in self._of_run:
                raise DestinationError(
                    f"{self.label}: the path names {{{name}}}, but the rows have no such column",
                    hint=f"they have: {', '.join(columns)}; of the run there are {{date}} and {{run_id}}",
                )

    def _value(self, name: str, rows: pa.Table) -> pa.StringArray | str:
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


class Inside:
    """Which folders have the rows of a partition, and no others: each has one value of the partition's column.

    Args:
        pattern: The part of the path that has placeholders; `{column}` stands in it with no other placeholder between
            the same slashes.
        scope: The partition.
    """

    def __init__(self, pattern: str, scope: Scope) -> None:
        segments, column = pattern.split("/"), f"{{{scope.column}}}"
        self._place = next(place for place, each in enumerate(segments) if column in each and each.count("{") == 1)
        self._before, _, self._after = segments[self._place].partition(column)
        self._scope = scope

    def __contains__(self, folder: str) -> bool:
        """Whether a folder is one of these."""
        segment = "".join(folder.split("/")[self._place : self._place + 1])
        fits = segment.startswith(self._before) and segment.endswith(self._after)
        return fits and self._has(unquote(segment[len(self._before) : len(segment) - len(self._after)]))

    def _has(self, value: str) -> bool:
        if self._scope.values:
            return value in self._scope.values
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return False
        moment = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
        low, high = self._scope.low, self._scope.high
        return isinstance(low, datetime) and isinstance(high, datetime) and low <= moment < high


def split_path(path: str) -> tuple[str, str]:
    """What of a path is the same for all rows, and the rest: `lake/orders`, `{day}/{shop}`."""
    fixed, placeholder, rest = path.rstrip("/").partition("{")
    root, _, begun = fixed.rpartition("/")
    return (root, begun + placeholder + rest) if placeholder else (fixed, "")


def _segment(value: str) -> str:
    """A value as a folder's name, in which no `/` or `..` leads elsewhere: unsafe characters are written as %2F."""
    return _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", value) or NULL
