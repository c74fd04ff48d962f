"""Messages of Protobuf, whose schemas a registry has."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, timestamp_pb2, wrappers_pb2
from google.protobuf.message_factory import GetMessageClass

from errors import SourceError
from sandbox.app import Sandbox
from sandbox.serve import Running, running
from tests.etl.sources.reading import read
from tests.etl.sources.test_stream_avro import ORDER, declared, decoded
from tests.services.topics import Topics

pytestmark = pytest.mark.usefixtures("folder")

KINDS = descriptor_pb2.FieldDescriptorProto.Type


@pytest.fixture
def served() -> Iterator[Running]:
    with running(Sandbox()) as sandbox:
        yield sandbox


def source(topics: Topics, topic: str, served: Running, **more: Any) -> dict[str, Any]:
    return {**declared(topics, topic, served, **more), "format": "protobuf"}


def file_of(*messages: tuple[str, dict[str, str]], imports: tuple[str, ...] = ()) -> Any:
    """A file: names of messages, and their fields: name -> `int64`, `string?`, `string*`, `.shop.City`."""
    file = descriptor_pb2.FileDescriptorProto(package="shop", syntax="proto3", dependency=imports)
    for name, fields in messages:
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            bare = kind.rstrip("*?")
            told = {"type": "TYPE_MESSAGE", "type_name": bare} if "." in bare else {"type": f"TYPE_{bare.upper()}"}
            label = "LABEL_REPEATED" if "*" in kind else "LABEL_OPTIONAL"
            added = message.field.add(name=field, number=number, label=label, **told)
            if "?" in kind:
                added.proto3_optional, added.oneof_index = True, len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{field}")
    return file


def written(number: int, file: Any, message: str, path: bytes = b"\0", imports: Any = (), **fields: Any) -> bytes:
    """A message in the wire format."""
    pool = descriptor_pool.DescriptorPool()
    for known in (any_pb2, timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    for each in (*imports, file):
        named = descriptor_pb2.FileDescriptorProto()
        named.CopyFrom(each)
        named.name = named.name or "own.proto"
        pool.Add(named)
    kind = GetMessageClass(pool.FindMessageTypeByName(f"shop.{message}"))
    message_bytes: bytes = kind(**fields).SerializeToString()
    return struct.pack(">bI", 0, number) + path + message_bytes


def test_values_keep_the_types_of_their_schema(topics: Topics, served: Running) -> None:
    file = file_of(
        ("City", {"name": "string"}),
        ("Order", {
            "big": "int64", "huge": "uint64", "small": "sint32", "real": "double", "ok": "bool", "raw": "bytes",
            "note": "string?", "tags": "string*", "to": ".shop.City", "stops": ".shop.City*",
            "at": ".google.protobuf.Timestamp", "maybe": ".google.protobuf.Int64Value",
        }),
        imports=("google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"),
    )  # fmt: skip
    number = served.sandbox.registry.register_protobuf("o-value", file.SerializeToString())
    full: dict[str, Any] = {
        "big": -(2**62), "huge": 2**64 - 1, "small": -1, "real": 0.5, "ok": True, "raw": b"\xff", "note": "n",
        "tags": ["a", "b"], "to": {"name": "x"}, "stops": [{"name": "y"}], "maybe": {"value": 7},
        "at": {"seconds": 1, "nanos": 5},
    }  # fmt: skip
    topic = topics.make()
    topics.send(
        topic, [written(number, file, "Order", b"\x02\x02", **full), written(number, file, "Order", b"\x02\x02")]
    )

    found = read(source(topics, topic, served))

    assert found.rows == [
        {
            **full, "huge": Decimal(2**64 - 1), "tags": '["a","b"]', "stops": '[{"name":"y"}]', "maybe": 7,
            "at": "1970-01-01T00:00:01.000000005Z",
        },
        {
            "big": 0, "huge": Decimal(0), "small": 0, "real": 0.0, "ok": False, "raw": b"", "note": None, "tags": "[]",
            "to": None, "stops": "[]", "at": None, "maybe": None,
        },
    ]  # fmt: skip


def test_older_messages_are_read_by_the_newest_schema(topics: Topics, served: Running) -> None:
    older, newer = file_of(("Order", {"id": "int64"})), file_of(("Order", {"id": "int64", "note": "string?"}))
    numbers = [served.sandbox.registry.register_protobuf("o", each.SerializeToString()) for each in (older, newer)]
    topic = topics.make()
    topics.send(topic, [written(numbers[0], older, "Order", id=1), written(numbers[1], newer, "Order", id=2, note="n")])

    assert read(source(topics, topic, served)).rows == [{"id": 1, "note": None}, {"id": 2, "note": "n"}]


def test_a_schema_may_import_another(topics: Topics, served: Running) -> None:
    city = file_of(("City", {"name": "string"}))
    city.name = "city.proto"
    order = file_of(("Order", {"to": ".shop.City"}), imports=("city.proto",))
    served.sandbox.registry.register_protobuf("city", city.SerializeToString())
    reference = {"name": "city.proto", "subject": "city", "version": 1}
    number = served.sandbox.registry.register_protobuf("o", order.SerializeToString(), [reference])
    topic = topics.make()
    topics.send(topic, [written(number, order, "Order", imports=(city,), to={"name": "x"})])

    assert read(source(topics, topic, served)).rows == [{"to": {"name": "x"}}]


def test_what_is_no_message_is_quarantined(topics: Topics, served: Running) -> None:
    file = file_of(("Order", {"id": "int64"}))
    number = served.sandbox.registry.register_protobuf("o", file.SerializeToString())
    good = written(number, file, "Order", id=1)
    topic = topics.make()
    paths = b"\x02\x08", b"\x80" * 20 + b"\0"
    strange = [written(number, file, "Order", path, id=1) for path in paths]
    topics.send(topic, [good, good[:-1], b"\0\0", good[:5], *strange])

    found = read(source(topics, topic, served))

    assert found.column("id") == [1]
    assert [bad.origin["offset"] for bad in found.bad] == [1, 2, 3, 4, 5]
    assert found.broken[1:] == [
        "not in a registry's wire format: a zero and a schema's number come first",
        f"the schema {number} has no such message",
        f"the schema {number} has no such message",
        f"the schema {number} has no such message",
    ]


def test_values_that_their_columns_cannot_hold_are_quarantined_one_by_one(served: Running) -> None:
    file = file_of(("Order", {"at": ".google.protobuf.Timestamp"}), imports=("google/protobuf/timestamp.proto",))
    number = served.sandbox.registry.register_protobuf("o-value", file.SerializeToString())

    found = decoded(
        served, "protobuf", [written(number, file, "Order", at={"seconds": seconds}) for seconds in (1, 2**60, 2)]
    )

    assert found.rows.column("at").to_pylist() == ["1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z"]
    assert list(found.bad) == [1]
    assert found.bad[1].startswith("a value does not fit the schema of shop.Order: ")


def test_any_message_of_the_schema_is_json_and_one_that_nobody_knows_is_quarantined(served: Running) -> None:
    file = file_of(
        ("Order", {"what": ".google.protobuf.Any"}),
        ("City", {"name": "string"}),
        imports=("google/protobuf/any.proto",),
    )
    number = served.sandbox.registry.register_protobuf("o-value", file.SerializeToString())
    urls = [f"type.googleapis.com/shop.{name}" for name in ("City", "Nothing")]

    found = decoded(
        served,
        "protobuf",
        [written(number, file, "Order", what={"type_url": url, "value": b"\n\x01x"}) for url in urls],
    )

    assert found.rows.column("what").to_pylist() == [f'{{"@type":"{urls[0]}","name":"x"}}']
    assert list(found.bad) == [1]


def test_a_schema_of_another_kind_is_told(topics: Topics, served: Running) -> None:
    number = served.sandbox.registry.register("o-value", ORDER)
    topic = topics.make()
    topics.send(topic, [struct.pack(">bI", 0, number) + b"\0"])

    with pytest.raises(SourceError, match="a schema of AVRO, not of PROTOBUF"):
        read(source(topics, topic, served))
