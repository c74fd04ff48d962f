"""Records of Avro, whose schemas a registry has."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import fastavro
import pytest

from errors import SourceError
from etl.pipeline import Pipeline, StreamSource
from etl.sources.records import Decoded, decoder_of
from sandbox.app import Sandbox
from sandbox.registry import PASSWORD, USER
from sandbox.serve import Running, running
from sandbox.wire import Misbehaviour
from tests.etl.sources.reading import DESTINATION, read
from tests.services.topics import Topics

pytestmark = pytest.mark.usefixtures("folder")

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "shop.Order",
    "fields": [{"name": "id", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": None}],
}


@pytest.fixture
def served() -> Iterator[Running]:
    with running(Sandbox()) as sandbox:
        yield sandbox


def declared(topics: Topics, topic: str, served: Running, password: str = PASSWORD, **more: Any) -> dict[str, Any]:
    registry = {"url": f"{served.url}/registry", "auth": {"type": "basic", "username": USER, "password": password}}
    return {
        "type": "stream", "brokers": topics.brokers, "topics": topic, "format": "avro", "registry": registry, **more,
    }  # fmt: skip


def written(number: int, schema: dict[str, Any], record: Mapping[str, Any]) -> bytes:
    """A record in the wire format."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), record)
    return struct.pack(">bI", 0, number) + buffer.getvalue()


def of(field: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": field, "type": {"type": kind, **more}}


def decoded(served: Running, form: str, values: Sequence[bytes | None]) -> Decoded:
    """Values as the decoder of a format reads them, without a topic."""
    with closing(decoder_of(source_of(served, form))) as decoder:
        return decoder.decode(values)


def source_of(served: Running, form: str) -> StreamSource:
    registry = {"url": f"{served.url}/registry", "auth": {"type": "basic", "username": USER, "password": PASSWORD}}
    return StreamSource.model_validate(
        {"type": "stream", "brokers": "localhost:9092", "topics": "t", "format": form, "registry": registry}
    )


def test_values_keep_the_types_of_their_schema(topics: Topics, served: Running) -> None:
    schema = {
        "type": "record",
        "name": "Everything",
        "fields": [
            of("big", "long"), of("small", "int"), of("real", "double"), of("ok", "boolean"), of("raw", "bytes"),
            of("amount", "bytes", logicalType="decimal", precision=20, scale=4),
            of("day", "int", logicalType="date"), of("at", "long", logicalType="timestamp-micros"),
            of("local", "long", logicalType="local-timestamp-millis"), of("uid", "string", logicalType="uuid"),
            of("color", "enum", name="Color", symbols=["RED", "BLUE"]), of("tags", "array", items="string"),
            {"name": "to", "type": ["null", {"type": "record", "name": "To", "fields": [of("city", "string")]}]},
            {"name": "either", "type": ["null", "long", "string"]},
        ],
    }  # fmt: skip
    record = {
        "big": 2**62, "small": -1, "real": 0.5, "ok": True, "raw": b"\xff", "amount": Decimal("12345678901234.5678"),
        "day": date(2024, 2, 29), "at": datetime(2024, 1, 1, 12, 0, 0, 123456, UTC), "local": datetime(2024, 1, 1),  # noqa: DTZ001  (it has none)
        "uid": UUID(int=5), "color": "BLUE", "tags": ["a", "b"], "to": {"city": "x"}, "either": "y",
    }  # fmt: skip
    number = served.sandbox.registry.register("e-value", schema)
    topic = topics.make()
    topics.send(topic, [written(number, schema, record), written(number, schema, {**record, "to": None})])

    found = read(declared(topics, topic, served))

    expected = {**record, "uid": str(UUID(int=5)), "tags": '["a","b"]', "either": '"y"'}
    assert found.rows == [expected, {**expected, "to": None}]
    assert {found.types[name] for name in ("amount", "day", "at")} == {
        "decimal128(20, 4)", "date32[day]", "timestamp[us, tz=UTC]",
    }  # fmt: skip


def test_older_records_are_read_as_the_newest_schema_wants_them(topics: Topics, served: Running) -> None:
    newer = {**ORDER, "fields": [*ORDER["fields"], {"name": "currency", "type": "string", "default": "EUR"}]}
    first = served.sandbox.registry.register("o-value", ORDER)
    second = served.sandbox.registry.register("o-value", newer)
    topic = topics.make()
    topics.send(topic, [written(second, newer, {"id": 1, "note": "n", "currency": "USD"})])
    topics.send(topic, [written(first, ORDER, {"id": 2, "note": None})])

    assert [tuple(row.values()) for row in read(declared(topics, topic, served)).rows] == [
        (1, "n", "USD"), (2, None, "EUR"),
    ]  # fmt: skip


def test_records_of_several_kinds_keep_their_order(topics: Topics, served: Running) -> None:
    other = {"type": "record", "name": "shop.Refund", "fields": [of("id", "long"), of("why", "string")]}
    numbers = served.sandbox.registry.register("o-value", ORDER), served.sandbox.registry.register("r-value", other)
    topic = topics.make()
    for id_ in range(4):
        if id_ % 2:
            topics.send(topic, [written(numbers[1], other, {"id": id_, "why": "x"})])
        else:
            topics.send(topic, [written(numbers[0], ORDER, {"id": id_, "note": None})])

    found = read(declared(topics, topic, served, metadata=["offset"]))

    assert [(row["id"], row["kafka_offset"], row["why"]) for row in found.rows] == [
        (0, 0, None), (1, 1, "x"), (2, 2, None), (3, 3, "x"),
    ]  # fmt: skip


def test_a_schema_may_refer_to_another(topics: Topics, served: Running) -> None:
    city = {"type": "record", "name": "shop.City", "fields": [of("name", "string")]}
    order = {"type": "record", "name": "shop.Sent", "fields": [of("id", "long"), {"name": "to", "type": "shop.City"}]}
    served.sandbox.registry.register("city", city)
    reference = {"name": "shop.City", "subject": "city", "version": 1}
    number = served.sandbox.registry.register("s-value", order, [reference])
    whole = {**order, "fields": [of("id", "long"), {"name": "to", "type": city}]}
    topic = topics.make()
    topics.send(topic, [written(number, whole, {"id": 1, "to": {"name": "x"}})])

    assert read(declared(topics, topic, served)).rows == [{"id": 1, "to": '{"name":"x"}'}]


def test_what_is_no_record_is_quarantined(topics: Topics, served: Running) -> None:
    number = served.sandbox.registry.register("o-value", ORDER)
    good = written(number, ORDER, {"id": 1, "note": "n"})
    topic = topics.make()
    topics.send(
        topic, [good, good[:-1], good + b"x", b"{}", b'{"id": 1}', struct.pack(">bI", 0, 99) + good[5:], None], key=b"k"
    )

    found = read(declared(topics, topic, served, tombstones="keep"))

    assert found.column("id") == [1, None]
    assert [bad.origin["offset"] for bad in found.bad] == [1, 2, 3, 4, 5]
    assert found.broken[1:] == [
        f"longer than a record of the schema {number}",
        "not in a registry's wire format: a zero and a schema's number come first",
        "not in a registry's wire format: a zero and a schema's number come first",
        "the registry has no schema 99",
    ]


def test_values_that_their_columns_cannot_hold_are_quarantined_one_by_one(served: Running) -> None:
    told = {
        "type": "record", "name": "Odd",
        "fields": [of("small", "int"), of("amount", "bytes", logicalType="decimal", precision=3, scale=1)],
    }  # fmt: skip
    wider = {**told, "fields": [of("small", "long"), of("amount", "bytes")]}
    number = served.sandbox.registry.register("o-value", told)

    def value(small: int, amount: int) -> bytes:
        return written(number, wider, {"small": small, "amount": amount.to_bytes(8, "big", signed=True)})

    found = decoded(served, "avro", [value(1, 125), value(2**40, 1), value(2, 10**9), value(3, -1)])
    none = decoded(served, "avro", [value(2**40, 1)])

    assert found.rows.to_pylist() == [{"small": 1, "amount": Decimal("12.5")}, {"small": 3, "amount": Decimal("-0.1")}]
    assert list(found.bad) == [1, 2]
    assert all(what.startswith("a value does not fit the schema of Odd: ") for what in found.bad.values())
    assert (none.rows.num_rows, list(none.bad)) == (0, [0])


def test_a_uuid_of_sixteen_bytes_is_text(served: Running) -> None:
    key = of("key", "fixed", name="Key", size=16, logicalType="uuid")
    schema = {"type": "record", "name": "Keyed", "fields": [key]}
    number = served.sandbox.registry.register("k-value", schema)
    plain = {**schema, "fields": [of("key", "fixed", name="Key", size=16)]}

    found = decoded(served, "avro", [written(number, plain, {"key": UUID(int=5).bytes})])

    assert found.rows.to_pylist() == [{"key": str(UUID(int=5))}]


def test_a_schema_is_asked_for_once_and_again_if_the_registry_stumbles(topics: Topics, served: Running) -> None:
    number = served.sandbox.registry.register("o-value", ORDER)
    served.sandbox.wire.misbehave(Misbehaviour(service="registry", kind="error", status=503))
    topic = topics.make()
    topics.send(topic, [written(number, ORDER, {"id": id_, "note": None}) for id_ in range(50)])

    assert read(declared(topics, topic, served)).column("id") == list(range(50))
    assert [call.path for call in served.sandbox.wire.calls] == [f"/schemas/ids/{number}"] * 2


def test_a_schema_that_was_not_there_is_asked_for_again_after_a_while(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = written(1, ORDER, {"id": 1, "note": None})
    with closing(decoder_of(source_of(served, "avro"))) as decoder:
        before = decoder.decode([value, value])
        assert served.sandbox.registry.register("o-value", ORDER) == 1
        soon = decoder.decode([value])
        asked = len(served.sandbox.wire.calls)
        monkeypatch.setattr("integrations.kafka.registry.time", SimpleNamespace(monotonic=lambda: 1e12))
        later = decoder.decode([value])

    assert (list(before.bad), list(soon.bad), asked) == ([0, 1], [0], 1)
    assert later.rows.to_pylist() == [{"id": 1, "note": None}]


def test_damaged_records_do_not_fill_memory_with_numbers(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integrations.kafka.registry._MOST_UNKNOWN", 2)
    damaged = [struct.pack(">bI", 0, number) for number in (7, 8, 9, 9, 7)]

    assert len(decoded(served, "avro", damaged).bad) == 5
    assert [call.path.rpartition("/")[2] for call in served.sandbox.wire.calls] == ["7", "8", "9", "7"]


def test_a_registry_that_refuses_us_is_told(topics: Topics, served: Running) -> None:
    number = served.sandbox.registry.register("o-value", ORDER)
    topic = topics.make()
    topics.send(topic, [written(number, ORDER, {"id": 1, "note": None})])

    with pytest.raises(SourceError, match=r"schema registry.*401.*Unauthorized") as told:
        read(declared(topics, topic, served, password="a-wrong-password"))
    assert "a-wrong-password" not in str(told.value)


def test_avro_and_its_registry_belong_together(topics: Topics) -> None:
    source = {"type": "stream", "brokers": topics.brokers, "topics": "t", "format": "avro"}
    destination = {**DESTINATION, "write": "append"}

    with pytest.raises(ValueError, match="no `registry` with `format: avro`"):
        Pipeline.model_validate({"name": "p", "description": "d", "source": source, "destination": destination})
