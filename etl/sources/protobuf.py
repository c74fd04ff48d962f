"""Messages of Protobuf whose schemas a registry has.

All messages of a name are read by the newest schema of it, as Protobuf means it: fields that are new have their
defaults. Numbers keep their types; `google.protobuf.Timestamp` and `Duration` are text, for they count nanoseconds
(`convert` makes what is wanted of it); repeated fields and maps are JSON.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from etl.sources.registered import Head, Registered, UnreadableError, as_json, as_struct
from integrations.kafka.decoding import varint

_TYPES = {
    "double": pa.float64(), "float": pa.float32(), "int32": pa.int32(), "sint32": pa.int32(), "sfixed32": pa.int32(),
    "int64": pa.int64(), "sint64": pa.int64(), "sfixed64": pa.int64(), "uint32": pa.int64(), "fixed32": pa.int64(),
    "uint64": pa.decimal128(20, 0), "fixed64": pa.decimal128(20, 0), "bool": pa.bool_(), "string": pa.string(),
    "bytes": pa.binary(), "enum": pa.string(),
}  # fmt: skip
_AS_TEXT = {"google.protobuf.Timestamp", "google.protobuf.Duration"}
_AS_JSON = {f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue", "Any", "FieldMask", "Empty")}

_Message = Any
_Descriptor = Any
_Field = Any


class Protobuf(Registered):
    """Reads messages of Protobuf."""

    name = "protobuf"

    def _kind(self, number: int, value: bytes, start: int) -> tuple[str, int]:
        file = self.registry.protobuf(number)
        if file is None:
            raise UnreadableError(f"the registry has no schema {number}")
        try:
            indexes, begin = _indexes(value, start)
            message = list(file.message_types_by_name.values())[indexes[0]]
            for index in indexes[1:]:
                message = message.nested_types[index]
        except (IndexError, ValueError):
            raise UnreadableError(f"the schema {number} has no such message") from None
        return message.full_name, begin

    def _record(self, head: Head, value: bytes) -> _Message:
        from google.protobuf.message import DecodeError
        from google.protobuf.message_factory import GetMessageClass

        try:
            return GetMessageClass(self._descriptor(head.kind)).FromString(value[head.start :])
        except DecodeError as error:
            raise UnreadableError(f"not a message {head.kind}: {error}") from None

    def _columns(self, kind: str, records: Sequence[_Message]) -> Mapping[str, pa.Array]:
        return _fields(records, self._descriptor(kind), ())

    def _descriptor(self, kind: str) -> _Descriptor:
        file = self.registry.protobuf(self.newest[kind])
        return file.pool.FindMessageTypeByName(kind)


def _indexes(value: bytes, start: int) -> tuple[list[int], int]:
    """Which message of the schema it is: the way down from the file's messages; a single zero is the first."""
    count, start = varint(value, start)
    indexes = []
    for _ in range(count):
        index, start = varint(value, start)
        if index < 0:
            raise IndexError
        indexes.append(index)
    return indexes or [0], start


def _fields(records: Sequence[_Message], descriptor: _Descriptor, within: Sequence[str]) -> Mapping[str, pa.Array]:
    path = (*within, descriptor.full_name)
    return {field.name: _column([_value(each, field) for each in records], field, path) for field in descriptor.fields}


def _value(record: _Message, field: _Field) -> Any:  # noqa: ANN401  (a field can be anything)
    if record is None or (field.has_presence and not record.HasField(field.name)):
        return None
    return getattr(record, field.name)


def _column(values: Sequence[Any], field: _Field, within: Sequence[str]) -> pa.Array:
    """A field's values as a column of its type."""
    if field.is_repeated:
        return as_json([None if value is None else _repeated(value, field) for value in values])
    message = field.message_type
    if message is None:
        return pa.array([None if value is None else _scalar(value, field) for value in values], _TYPES[_kind(field)])
    if message.full_name in _AS_TEXT:
        return pa.array([value and value.ToJsonString() for value in values], pa.string())
    if _is_wrapper(message):
        return _column([value and value.value for value in values], message.fields[0], within)
    if message.full_name in within or message.full_name in _AS_JSON:
        return as_json([None if value is None else _plain(value) for value in values])
    return as_struct(_fields(values, message, within), values)


def _kind(field: _Field) -> str:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

    name: str = FieldDescriptorProto.Type.Name(field.type)
    return name.removeprefix("TYPE_").lower()


def _is_wrapper(message: _Descriptor) -> bool:
    return str(message.file.name) == "google/protobuf/wrappers.proto"


def _scalar(value: Any, field: _Field) -> Any:  # noqa: ANN401
    if field.enum_type is None:
        return value
    known = field.enum_type.values_by_number.get(value)
    return known.name if known else str(value)


def _repeated(values: Any, field: _Field) -> Any:  # noqa: ANN401
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        kind = field.message_type.fields_by_name["value"]
        return {str(name): _item(values[name], kind) for name in values}
    return [_item(value, field) for value in values]


def _item(value: Any, field: _Field) -> Any:  # noqa: ANN401
    """A value as JSON has it."""
    if field.message_type is not None:
        return _plain(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else _scalar(value, field)


def _plain(message: _Message) -> Any:  # noqa: ANN401
    """A message as JSON; whole numbers stay numbers, which Protobuf's own JSON makes texts."""
    descriptor = message.DESCRIPTOR
    if descriptor.full_name in _AS_TEXT:
        return message.ToJsonString()
    if _is_wrapper(descriptor):
        return _item(message.value, descriptor.fields[0])
    if descriptor.full_name in _AS_JSON:
        from google.protobuf.json_format import MessageToDict, SerializeToJsonError

        try:
            return MessageToDict(message, descriptor_pool=descriptor.file.pool)
        except SerializeToJsonError as error:  # a NaN, which JSON does not have
            raise ValueError(str(error)) from None
    return {
        field.name: _repeated(value, field) if field.is_repeated else _item(value, field)
        for field, value in message.ListFields()
    }
