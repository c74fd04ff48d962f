"""Values whose schema a registry has, in Confluent's wire format: a zero, the schema's number in four bytes, a record.

All records of a kind are read as the newest schema of it wants them that was met.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from etl.nested import dump
from etl.sources.records import Decoded, Value
from integrations.kafka.registry import SchemaRegistry

_HEAD = struct.Struct(">bI")

_UNFIT = ValueError, TypeError, OverflowError, RecursionError
"""What Python, Arrow and JSON say of a value that its column's type does not have."""


class UnreadableError(Exception):
    """Why a value is no record."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a value says before its record.

    Args:
        number: The schema's.
        kind: The record's full name.
        start: Where the record begins.
    """

    number: int
    kind: str
    start: int


class Registered(ABC):
    """Reads values that name a schema (`etl.sources.records.Decoder`).

    Args:
        registry: Who has the schemas.
    """

    name: str

    def __init__(self, registry: SchemaRegistry) -> None:
        self.registry = registry
        self.newest: dict[str, int] = {}

    @abstractmethod
    def _kind(self, number: int, value: bytes, start: int) -> tuple[str, int]:
        """The record's full name, and where it begins."""

    @abstractmethod
    def _record(self, head: Head, value: bytes) -> Any:  # noqa: ANN401  (each format has its own)
        """The record, as the newest schema wants it."""

    @abstractmethod
    def _columns(self, kind: str, records: Sequence[Any]) -> Mapping[str, pa.Array]:
        """Records of a kind as columns; None is a row of NULLs."""

    def decode(self, values: Sequence[Value]) -> Decoded:
        """See `Decoder.decode`."""
        bad: dict[int, str] = {}
        heads: dict[int, Head] = {}
        for place, value in enumerate(values):
            try:
                if value is not None:
                    heads[place] = self._head(value)
            except UnreadableError as error:
                bad[place] = str(error)
        records: dict[str, dict[int, Any]] = {}
        for place, value in enumerate(values):
            if place in bad:
                continue
            head = heads.get(place)
            kind = head.kind if head else next(iter(self.newest), "")
            try:
                record = self._record(head, value) if head and value is not None else None
            except UnreadableError as error:
                bad[place] = str(error)
                continue
            records.setdefault(kind, {})[place] = record
        batches = [self._fitting(kind, each, bad) for kind, each in records.items()]
        return Decoded(_together(batches, [place for each in records.values() for place in each]), bad)

    def close(self) -> None:
        """Frees the registry's connections."""
        self.registry.close()

    def _head(self, value: bytes) -> Head:
        magic, number = _HEAD.unpack_from(value) if len(value) >= _HEAD.size else (None, 0)
        if magic != 0:
            raise UnreadableError("not in a registry's wire format: a zero and a schema's number come first")
        kind, start = self._kind(number, value, _HEAD.size)
        self.newest[kind] = max(number, self.newest.get(kind, 0))
        return Head(number, kind, start)

    def _fitting(self, kind: str, records: dict[int, Any], bad: dict[int, str]) -> pa.RecordBatch:
        """The rows of a kind. Records with a value that no column can hold are told one by one, and leave `records`."""
        try:
            return self._rows(kind, list(records.values()))
        except _UNFIT:
            for place, record in list(records.items()):
                try:
                    self._rows(kind, [record])
                except _UNFIT as error:
                    bad[place] = f"a value does not fit the schema of {kind}: {error}"[:300]
                    del records[place]
            return self._rows(kind, list(records.values()))

    def _rows(self, kind: str, records: Sequence[Any]) -> pa.RecordBatch:
        columns = self._columns(kind, records) if kind else {}
        return pa.record_batch(list(columns.values()), names=list(columns)) if columns else _no_columns(len(records))


def _together(batches: Sequence[pa.RecordBatch], order: Sequence[int]) -> pa.RecordBatch:
    """The rows of each kind, in the order of the values."""
    some = [batch for batch in batches if batch.num_rows] or batches[:1]
    if len(some) < 2:
        return some[0] if some else _no_columns(0)
    table = pa.concat_tables(map(pa.Table.from_batches, ([batch] for batch in some)), promote_options="default")
    rows = table.combine_chunks().to_batches()[0]
    return rows.take(pa.array(sorted(range(len(order)), key=order.__getitem__), pa.int64()))


def as_struct(columns: Mapping[str, pa.Array], values: Sequence[Any]) -> pa.Array:
    """A nested record's columns as one; NULL where the record is None."""
    if not columns:
        return as_json([None if value is None else {} for value in values])
    missing = pa.array([value is None for value in values], pa.bool_())
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns), mask=missing)


def as_json(values: Sequence[Any]) -> pa.Array:
    """Values that only JSON holds."""
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(list(map(dump, values)), pa.string()))


def _no_columns(rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(pa.array([{} for _ in range(rows)], pa.struct([])))
