"""Records of Avro whose schemas a registry has.

A record is read by the schema that it was written with, and resolved into the newest one of its name: fields that are
new have its defaults. What Avro tells exactly (decimals, dates, times, numbers) keeps its type.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import pyarrow as pa

from etl.sources.keys import ITSELF
from etl.sources.registered import Head, Registered, UnreadableError, as_json, as_struct
from integrations.kafka.registry import Schema

_PLAIN = {
    "null": pa.null(), "boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float32(),
    "double": pa.float64(), "bytes": pa.binary(), "string": pa.string(), "fixed": pa.binary(), "enum": pa.string(),
}  # fmt: skip
_LOGICAL = {
    "date": pa.date32(), "time-millis": pa.time32("ms"), "time-micros": pa.time64("us"),
    "timestamp-millis": pa.timestamp("ms", "UTC"), "timestamp-micros": pa.timestamp("us", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"), "local-timestamp-micros": pa.timestamp("us"),
    "uuid": pa.string(),
}  # fmt: skip


class Avro(Registered):
    """Reads records of Avro."""

    name = "avro"

    def _kind(self, number: int, value: bytes, start: int) -> tuple[str, int]:  # noqa: ARG002  (Protobuf needs it)
        schema = self.schema(number)
        if schema["type"] != "record":
            raise UnreadableError(f"the schema {number} is not one of a record")
        return schema["name"], start

    def _record(self, head: Head, value: bytes) -> Any:  # noqa: ANN401  (Avro can be anything)
        from fastavro import schemaless_reader

        rest = io.BytesIO(value)
        rest.seek(head.start)
        try:
            record = schemaless_reader(rest, self.schema(head.number), self.schema(self.newest[head.kind]))
        except Exception as error:  # noqa: BLE001  (what fastavro makes of damaged bytes is not one kind of error)
            what = f"not a record of the schema {head.number}: {type(error).__name__}: {error}"[:300]
            raise UnreadableError(what) from None
        if rest.tell() != len(value):
            raise UnreadableError(f"longer than a record of the schema {head.number}")
        return record

    def _columns(self, kind: str, records: Sequence[Any]) -> Mapping[str, pa.Array]:
        return _fields(records, self.schema(self.newest[kind]))

    def schema(self, number: int) -> Schema:
        """The schema of a number.

        Raises:
            UnreadableError: There is none.
        """
        schema = self.registry.avro(number)
        if schema is None:
            raise UnreadableError(f"the registry has no schema {number}")
        return schema


class AvroKeys(Avro):
    """Avro: a record, or one value."""

    def _kind(self, number: int, value: bytes, start: int) -> tuple[str, int]:  # noqa: ARG002  (Protobuf needs it)
        schema = self.schema(number)
        return str(schema.get("name", schema["type"])), start

    def _columns(self, kind: str, records: Sequence[Any]) -> Mapping[str, pa.Array]:
        schema = self.schema(self.newest[kind])
        return _fields(records, schema) if schema["type"] == "record" else {ITSELF: _column(records, schema)}


def _fields(records: Sequence[Any], schema: Schema) -> Mapping[str, pa.Array]:
    return {
        field["name"]: _column([record and record[field["name"]] for record in records], field["type"])
        for field in schema["fields"]
    }


def _column(values: Sequence[Any], schema: Any) -> pa.Array:  # noqa: ANN401  (a schema is JSON)
    """Values as a column of the type that their schema says; lists, maps and real unions are JSON."""
    if isinstance(schema, list):
        kinds = [each for each in schema if each != "null"]
        return _column(values, kinds[0]) if len(kinds) == 1 else _json(values)
    told: Schema = schema if isinstance(schema, dict) else {"type": schema}
    if isinstance(told["type"], dict | list):
        return _column(values, told["type"])
    if told["type"] == "record":
        return as_struct(_fields(values, told), values)
    kind = _type(told)
    if kind is None:
        return _json(values)
    if told.get("logicalType") == "uuid":
        return pa.array([None if value is None else _uuid(value) for value in values], kind)
    return pa.array(values, kind)


def _uuid(value: Any) -> str:  # noqa: ANN401  (fastavro knows those of strings only)
    return str(UUID(bytes=value) if isinstance(value, bytes) else value)


def _type(schema: Schema) -> pa.DataType | None:
    """None for what only JSON holds, and for names of types that were told before."""
    logical = schema.get("logicalType")
    if logical == "decimal":
        return pa.decimal128(schema["precision"], schema.get("scale", 0)) if schema["precision"] <= 38 else None
    return _LOGICAL.get(str(logical)) or _PLAIN.get(schema["type"])


def _json(values: Sequence[Any]) -> pa.Array:
    return as_json(list(map(_without_bytes, values)))


def _without_bytes(value: Any) -> Any:  # noqa: ANN401  (JSON can be anything)
    """The value with bytes as Avro's own JSON has them: a character for each."""
    write: dict[type, Callable[[Any], Any]] = {
        bytes: lambda each: each.decode("latin-1"),
        UUID: str,
        list: lambda each: [_without_bytes(item) for item in each],
        dict: lambda each: {name: _without_bytes(item) for name, item in each.items()},
    }
    return write.get(type(value), lambda each: each)(value)
