"""The values of a stream's records as rows: JSON objects, lines of CSV, bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.csv

from etl.nested import Shape, parse, without_collector
from etl.pipeline import StreamSource
from etl.variables import resolve

if TYPE_CHECKING:
    from integrations.kafka.registry import SchemaRegistry

Value = bytes | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """What values are.

    Args:
        rows: Those that can be read, in their order.
        bad: Place -> what is wrong with the value there.
    """

    rows: pa.RecordBatch
    bad: Mapping[int, str] = field(default_factory=dict)


class Decoder(Protocol):
    """Reads values of one format."""

    name: str

    def decode(self, values: Sequence[Value]) -> Decoded:
        """The values as rows; without a value it is a row of NULLs."""
        ...

    def close(self) -> None:
        """Frees what it holds open."""
        ...


def decoder_of(source: StreamSource) -> Decoder:
    """Reads what a pipeline file says that values are."""
    match source.format:
        case "json":
            return Json()
        case "csv":
            return Csv(source.columns or [], source.delimiter)
        case "avro":
            from etl.sources.avro import Avro

            return Avro(registry_of(source))
        case "protobuf":
            from etl.sources.protobuf import Protobuf

            return Protobuf(registry_of(source))
    return Raw()


def registry_of(source: StreamSource) -> SchemaRegistry:
    """The registry that a pipeline file names."""
    from etl.client import BUDGET, LIMITS, credential_of
    from integrations.http import HttpClient
    from integrations.kafka.registry import SchemaRegistry, refusal

    assert source.registry  # noqa: S101  (the model asks for one)
    client = HttpClient(
        resolve(source.registry.url).rstrip("/") + "/",
        service="schema registry",
        credential=credential_of(source.registry.auth) if source.registry.auth else None,
        budget=BUDGET,
        limits=LIMITS,
        refusal=refusal,
    )
    return SchemaRegistry(client)


class Alone:
    """What needs nobody to read values."""

    def close(self) -> None:
        """Nothing is held open."""


class Json(Alone):
    """A JSON object a value, with exact numbers (see `Shape`)."""

    name = "json"

    def __init__(self) -> None:
        self._shape = Shape()

    def decode(self, values: Sequence[Value]) -> Decoded:
        """See `Decoder.decode`."""
        records, bad = [], {}
        with without_collector():
            for place, value in enumerate(values):
                try:
                    record = {} if value is None else parse(value)
                except ValueError as error:
                    bad[place] = f"not JSON: {error}"
                    continue
                if isinstance(record, dict):
                    records.append(record)
                else:
                    bad[place] = "not a JSON object"
            return Decoded(self._shape.records(records), bad)


class Raw(Alone):
    """Bytes as they are."""

    name = "raw"

    def decode(self, values: Sequence[Value]) -> Decoded:
        """See `Decoder.decode`."""
        return Decoded(pa.record_batch({"value": pa.array(values, pa.binary())}))


class Csv(Alone):
    """A line of CSV a value, as `etl.sources.delimited` reads lines: text; an empty cell is NULL, a quoted one is not.

    Lines that are plain are read together. Those with quotes or line ends are read one by one: no quote that is left
    open swallows the next record.

    Args:
        columns: The columns' names.
        delimiter: What parts the cells.
    """

    name = "csv"

    def __init__(self, columns: Sequence[str], delimiter: str) -> None:
        self._columns, self._delimiter = list(columns), delimiter
        self._schema = pa.schema([(name, pa.string()) for name in columns])

    def decode(self, values: Sequence[Value]) -> Decoded:
        """See `Decoder.decode`."""
        plain, parts, places = [], [], []
        bad: dict[int, str] = {}
        for place, value in enumerate(values):
            if value is None:
                parts.append(self._nulls())
                places.append([place])
            elif self._is_plain(value):
                plain.append(place)
            elif value.count(b'"') % 2:
                bad[place] = "not a line of CSV: a quote is left open"
            elif isinstance(row := self._read([value]), str):
                bad[place] = row
            else:
                parts.append(row)
                places.append([place])
        if plain:
            together = self._read([value for place in plain if (value := values[place]) is not None])
            if isinstance(together, str):
                raise AssertionError(together)  # each of them has as many cells as there are columns
            parts.append(together)
            places.append(plain)
        order = [place for each in places for place in each]
        rows = pa.concat_batches(parts) if parts else pa.RecordBatch.from_pylist([], schema=self._schema)
        return Decoded(rows.take(pa.array(sorted(range(len(order)), key=order.__getitem__), pa.int64())), bad)

    def _is_plain(self, value: bytes) -> bool:
        cells = value.count(self._delimiter.encode()) + 1
        return cells == len(self._columns) and value.isascii() and value.strip() != b"" and not _SPECIAL & {*value}

    def _nulls(self) -> pa.RecordBatch:
        return pa.record_batch([pa.nulls(1, pa.string()) for _ in self._columns], schema=self._schema)

    def _read(self, values: Sequence[bytes]) -> pa.RecordBatch | str:
        """The rows, one a value, or what is wrong with the only value."""
        data = b"\n".join(values)
        try:
            table = pyarrow.csv.read_csv(
                io.BytesIO(data),
                read_options=pyarrow.csv.ReadOptions(
                    column_names=self._columns, use_threads=False, block_size=len(data) + 1
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=self._delimiter, newlines_in_values=len(values) == 1, ignore_empty_lines=False
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=self._schema, strings_can_be_null=True, null_values=[""],
                    quoted_strings_can_be_null=False,
                ),
            )  # fmt: skip
        except pa.ArrowInvalid as error:
            return f"not a line of CSV: {str(error).partition(': ')[2] or error}"
        if table.num_rows != len(values):
            return f"not one line of CSV, but {table.num_rows}"
        return table.combine_chunks().to_batches()[0]


_SPECIAL = frozenset(b'"\r\n')
