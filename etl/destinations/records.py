"""Rows as records of a topic: a JSON object with a key and headers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from errors import DestinationError
from etl.destinations.objects import check_columns, json_object, json_values, not_numbers
from etl.nested import dump
from etl.pipeline import StreamDestination
from etl.stream import Broken, Refused
from integrations.kafka.transactions import Record

_SLICE = 1000
"""Rows that are JSON at a time: as Python's objects they take some ten times their bytes."""


class Recorder:
    """Makes records of rows.

    Args:
        declared: What the pipeline file says.
        largest: The largest record, in bytes, that the topic takes.
    """

    def __init__(self, declared: StreamDestination, largest: int) -> None:
        self._declared, self._largest = declared, largest
        self._beside = {*declared.headers, declared.tombstone}
        self._schema = pa.schema([(name, pa.binary()) for name in ("key", "value", *declared.headers)])

    def records(self, rows: pa.RecordBatch, refused: list[Refused]) -> Iterator[pa.RecordBatch]:
        """Records, some at a time, as `restored` takes them; rows that no record can be made of are added to `refused`.

        Raises:
            DestinationError: The rows lack a column that the pipeline names, or one has a type that JSON cannot say.
        """
        self._check(rows)
        for start in range(0, rows.num_rows, _SLICE):
            yield self._some(rows.slice(start, _SLICE), start, refused)

    def restored(self, records: pa.RecordBatch) -> Iterator[Record]:
        """What `records` made, as the topic takes it."""
        names = self._declared.headers
        columns = [column.to_pylist() for column in records.columns]
        for key, value, *headers in zip(*columns, strict=True):
            told = [(name, each) for name, each in zip(names, headers, strict=True) if each is not None]
            yield Record(key, value, told)

    def _check(self, rows: pa.RecordBatch) -> None:
        declared = self._declared
        named = {**dict.fromkeys(declared.headers, "headers"), **dict.fromkeys(declared.key, "key")}
        if declared.tombstone:
            named[declared.tombstone] = "tombstone"
        check_columns(rows, named)
        if declared.tombstone and rows.num_rows and not pa.types.is_boolean(rows[declared.tombstone].type):
            raise DestinationError(
                f"the column {declared.tombstone}, which `tombstone` names, is {rows[declared.tombstone].type}",
                hint=f'derive a boolean: `derive: {{gone: "{declared.tombstone} IS NOT NULL"}}` and `tombstone: gone`',
            )

    def _some(self, rows: pa.RecordBatch, start: int, refused: list[Refused]) -> pa.RecordBatch:
        broken = {
            place: Broken(name, "destination: json", "JSON has no NaN and no infinity")
            for place, name in not_numbers(rows)
        }
        values = json_values(rows)
        keys, headers = self._keys(values, rows.num_rows), [_texts(values[name]) for name in self._declared.headers]
        made = zip(keys, self._objects(values, rows.num_rows), *headers, strict=True)
        kept = []
        for place, (key, value, *headed) in enumerate(made):
            wrong = broken.get(place) or self._wrong(key, value, headed)
            if wrong:
                refused.append(Refused(start + place, wrong))
            else:
                kept.append((key, value, *headed))
        columns = zip(*kept, strict=True) if kept else [()] * len(self._schema)
        arrays = [pa.array(column, pa.binary()) for column in columns]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _keys(self, values: dict[str, list[object]], count: int) -> Sequence[bytes | None]:
        """One column's value as text, or several as an object; None where one has no value."""
        names = self._declared.key
        if len(names) < 2:
            return _texts(values[names[0]]) if names else [None] * count
        rows = zip(*(values[name] for name in names), strict=True)
        return [None if None in row else json_object(dict(zip(names, row, strict=True))) for row in rows]

    def _objects(self, values: dict[str, list[object]], count: int) -> Iterator[bytes | None]:
        told = {name: column for name, column in values.items() if name not in self._beside}
        gone = values[self._declared.tombstone] if self._declared.tombstone else [None] * count
        for place, is_gone in enumerate(gone):
            yield None if is_gone else json_object({name: column[place] for name, column in told.items()})

    def _wrong(self, key: bytes | None, value: bytes | None, headers: Sequence[bytes | None]) -> Broken | None:
        declared = self._declared
        if declared.key and key is None:
            return Broken(declared.key[0], "destination: key", f"no value for the key ({', '.join(declared.key)})")
        told = [(name, each) for name, each in zip(declared.headers, headers, strict=True) if each is not None]
        if (size := Record(key, value, told).size) > self._largest:
            message = f"a record of {size} bytes; the topic takes {self._largest} (max.message.bytes)"
            return Broken("", "destination: size", message)
        return None


def _texts(values: Sequence[object]) -> list[bytes | None]:
    """Values as text: a text is as it is, everything else as JSON says it."""
    return [
        each.encode() if isinstance(each, str) else None if each is None else (dump(each) or "").encode()
        for each in values
    ]
