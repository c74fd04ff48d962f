"""Tombstones of a topic delete rows of the table that its records are merged into."""

from __future__ import annotations

import io
import json
import random
import struct
import time
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from cli.pipelines import show_report
from errors import InvalidRowsError
from etl.destinations import open_destination
from etl.pipeline import Pipeline
from etl.preview import preview
from etl.run import run_pipeline
from etl.stream import RunReport, Tombstones
from etl.tombstones import Deletions, KeyRulesError
from sandbox.app import Sandbox
from sandbox.registry import PASSWORD, USER
from sandbox.serve import running
from tests.etl.destinations.backends import SQL, Backend, make_backend
from tests.services.topics import Topics


@pytest.fixture(params=SQL)
def database(request: pytest.FixtureRequest, project: Path) -> Backend:  # noqa: ARG001  (paths start there)
    """Each kind of database."""
    return make_backend(request.param, request)


@pytest.fixture
def backend(request: pytest.FixtureRequest, project: Path) -> Backend:  # noqa: ARG001  (paths start there)
    """One of them."""
    return make_backend("sqlite", request)


def pipeline(topics: Topics, topic: str, backend: Backend, *, key: Sequence[str] = ("id",), **parts: Any) -> Pipeline:
    source = {"type": "stream", "brokers": topics.brokers, "topics": topic, "tombstones": "delete"}
    destination = {"type": "database", "connection": backend.url, "table": "orders", "write": "merge", "key": [*key]}
    declared = {"name": "orders", "description": "d", "source": source | parts.pop("source", {})}
    return Pipeline.model_validate(declared | {"destination": destination | parts.pop("destination", {})} | parts)


LINES = {"children": {"order_lines": {"from": "items", "keys": {"id": "order_id"}}}}


def lines(backend: Backend) -> list[tuple[Any, Any]]:
    return [(row["order_id"], row["sku"]) for row in backend.rows("order_lines", order="order_id")]


def send(topics: Topics, topic: str, *records: tuple[Any, Any], **where: Any) -> None:
    """Keys and values; bytes as they are, all else as JSON."""
    with topics.producer() as producer:
        for key, value in records:
            told = [
                each if each is None or isinstance(each, bytes) else json.dumps(each).encode() for each in (key, value)
            ]
            producer.send(topic, key=told[0], value=told[1], **where)


def ids(backend: Backend) -> list[Any]:
    return [row["id"] for row in backend.rows()]


def waiting(declared: Pipeline) -> list[str]:
    return sorted(row.bad.broken[0].message for row in open_destination(declared).quarantined())


def counts(report: RunReport) -> tuple[int, ...]:
    """extracted, loaded, deduplicated, tombstones, deleted"""
    return report.extracted, report.loaded, report.deduplicated, report.tombstones, report.deleted


def test_a_tombstone_deletes_the_row_of_its_key_within_a_run_and_in_a_later_one(
    topics: Topics, backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = topics.make()
    declared = pipeline(topics, topic, backend)
    send(topics, topic, (1, {"id": 1}), (2, {"id": 2}), (3, {"id": 3}), (2, None), (9, None), (9, {"id": 9}))
    first = run_pipeline(declared)
    send(topics, topic, (3, None), (1, None), (1, {"id": 1}), (7, None))

    second = run_pipeline(declared)

    assert (counts(first), counts(second)) == ((6, 3, 1, 2, 0), (4, 1, 0, 3, 2))
    assert ids(backend) == [1, 9]
    show_report(second, as_json=False)
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in told if line[:1] in (["tombstones"], ["deleted"])] == [
        ["tombstones", "3"],
        ["deleted", "2"],
    ]


def test_any_records_in_any_runs_end_as_a_dictionary_does_with_child_tables_too(
    topics: Topics, database: Backend
) -> None:
    topic, chance, expected = topics.make(partitions=3), random.Random(4), dict[int, int]()
    for number in range(60):
        id_ = chance.randrange(8)
        value = None if chance.random() < 0.4 else {"id": id_, "n": number, "items": [{"sku": number}]}
        topics.send(topic, [value], key=json.dumps(id_).encode(), partition=id_ % 3)
        expected.pop(id_, None)
        expected |= {} if value is None else {id_: number}
    declared = pipeline(topics, topic, database, source={"max_records": 23}, transform=LINES)

    reports = [run_pipeline(declared) for _ in range(4)]

    assert [report.extracted for report in reports] == [23, 23, 14, 0]
    assert {row["id"]: row["n"] for row in database.rows()} == expected
    assert dict(lines(database)) == expected


def test_a_row_that_comes_again_has_its_own_child_rows_whatever_its_version(topics: Topics, backend: Backend) -> None:
    topic = topics.make()
    declared = pipeline(topics, topic, backend, destination={"version": "v"}, transform=LINES)
    send(topics, topic, *((id_, {"id": id_, "v": 5, "items": [{"sku": "old"}]}) for id_ in (1, 2)))
    run_pipeline(declared)
    send(topics, topic, (1, {"id": 1, "v": 9, "items": [{"sku": "void"}]}), (1, None), (2, None))
    send(topics, topic, (1, {"id": 1, "v": 3, "items": [{"sku": "new"}]}))

    assert counts(run_pipeline(declared)) == (4, 1, 1, 2, 2)
    assert lines(backend) == [(1, "new")]


# --- which row a key is of ------------------------------------------------------------------------------------


MAPPED = {"transform": {"map": {"after.id": "id", "*": "*"}}}
TEXT = {"key_format": "text"}


@pytest.mark.parametrize(
    ("key", "named", "more", "found"),
    [
        pytest.param(b"1", ["id"], {}, {"id": 1}, id="a number"),
        pytest.param(b'"a"', ["id"], {}, {"id": "a"}, id="a text of JSON"),
        pytest.param(b"12345678901234567890.5", ["id"], {}, {"id": Decimal("12345678901234567890.5")}, id="exact"),
        pytest.param(b"007", ["id"], {"source": TEXT}, {"id": "007"}, id="text"),
        pytest.param(
            b"007", ["id"], {"source": TEXT, "transform": {"convert": {"id": "bigint"}}}, {"id": 7},
            id="text, converted",
        ),
        pytest.param(b'{"id": 1, "x": 0}', ["id"], {}, {"id": 1}, id="an object"),
        pytest.param(b'{"id": 1, "shop": "a"}', ["shop", "id"], {}, {"shop": "a", "id": 1}, id="an object of two"),
        pytest.param(b'{"after": {"id": 1}}', ["id"], MAPPED, {"id": 1}, id="a field that map renames"),
        pytest.param(b'{"id": 1}', ["id"], MAPPED, {"id": 1}, id="a field by its name after map"),
        pytest.param(b"1", ["id"], MAPPED, {"id": 1}, id="one value, for a field that map renames"),
        pytest.param(b'{"to": {"id": 1}}', ["to_id"], {}, {"to_id": 1}, id="a field that is laid flat"),
        pytest.param(
            b'{"a": 1, "b": 2}', ["id"], {"transform": {"derive": {"twice": "B * 2", "id": "a * 100 + Twice"}}},
            {"id": 104}, id="derived",
        ),
        pytest.param(
            b"7", ["id"], {"transform": {"derive": {"id": "CAST(id AS SMALLINT)"}}}, {"id": 7}, id="made of itself"
        ),
        pytest.param(b"\xff", ["kafka_topic"], {}, {"kafka_topic": "t"}, id="what is known of a record"),
        pytest.param(
            b"\xff", ["of"], {"transform": {"derive": {"of": "hex(kafka_key_bytes)"}}}, {"of": "FF"},
            id="made of what is known of a record",
        ),
    ],
)  # fmt: skip
def test_the_key_of_a_record_is_the_key_of_a_row(
    topics: Topics, backend: Backend, key: bytes, named: list[str], more: dict[str, Any], found: dict[str, Any]
) -> None:
    metadata = {"metadata": ["topic", "key_bytes"]}
    source = more.get("source", {}) | metadata
    declared = pipeline(topics, "t", backend, key=named, **more | {"source": source})
    known = {"kafka_topic": pa.array(["t"]), "kafka_key_bytes": pa.array([key])}

    with closing(Deletions(declared)) as deletions:
        gone = deletions.apply(Tombstones([key], known, [2], lambda *_: pytest.fail("is bad")), np.array([0, 5]))

    assert (gone.keys.to_pylist(), gone.before.to_pylist()) == ([found], [1])


@pytest.mark.parametrize("alone", [True, False])
def test_a_key_may_be_avro(topics: Topics, backend: Backend, *, alone: bool) -> None:
    field = [{"name": "id", "type": "long"}]
    schema: Any = {"type": "long"} if alone else {"type": "record", "name": "Key", "fields": field}
    topic = topics.make()
    with running(served := Sandbox()) as web:
        number = served.registry.register(f"{topic}-key", schema)
        auth = {"type": "basic", "username": USER, "password": PASSWORD}
        source = {"key_format": "avro", "registry": {"url": f"{web.url}/registry", "auth": auth}}
        buffer = io.BytesIO(struct.pack(">bI", 0, number))
        buffer.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), 1 if alone else {"id": 1})
        send(topics, topic, (b"any", {"id": 1}), (b"any", {"id": 2}), (buffer.getvalue(), None), (b"any", None))
        declared = pipeline(topics, topic, backend, source=source)
        report = run_pipeline(declared)

    assert (report.tombstones, report.quarantined, ids(backend)) == (1, 1, [2])
    assert "wire format" in waiting(declared)[0]


def test_a_key_that_tells_no_row_is_quarantined_and_not_replayed_as_one(topics: Topics, backend: Backend) -> None:
    topic = topics.make()
    rules = {"validate": {"id": {"max": 100}}, "derive": {"part": "nullif(id % 10, 0)"}}
    declared = pipeline(topics, topic, backend, key=["id", "part"], transform=rules)
    send(topics, topic, ({"id": 1}, {"id": 1}), ([], None), (b"{", None), ({"no": 1}, None), ({"id": None}, None))
    send(topics, topic, ({"id": 500}, None), ({"id": 10}, None), ({"id": 1}, None))

    report = run_pipeline(declared)

    assert (report.extracted, report.deduplicated, report.tombstones, report.quarantined) == (8, 1, 1, 6)
    assert waiting(declared) == [
        "500 is greater than 100", "the key is not JSON (`key_format: text` takes it as it is)",
        "the record's key does not tell id", "the record's key does not tell id", "the record's key does not tell id",
        "there is no part to delete by",
    ]  # fmt: skip
    assert {row.bad.row.get("key") for row in open_destination(declared).quarantined()} >= {"{", '{"id": 500}'}
    assert run_pipeline(declared, replay=True).extracted == 0
    with pytest.raises(InvalidRowsError, match="does not tell id"):
        run_pipeline(declared.model_copy(update={"on_invalid": "fail", "name": "again"}))


def test_one_value_is_no_key_of_two_columns(topics: Topics, backend: Backend) -> None:
    topic = topics.make()
    declared = pipeline(topics, topic, backend, key=["id", "shop"])
    send(topics, topic, (1, {"id": 1, "shop": 1}), (1, None))

    assert (run_pipeline(declared).deleted, waiting(declared)) == (0, ["the record's key does not tell id"])


# --- which rules it goes through ------------------------------------------------------------------------------


def test_rules_on_other_columns_and_on_other_rows_refuse_no_deletion(topics: Topics, backend: Backend) -> None:
    topic = topics.make()
    declared = pipeline(
        topics, topic, backend,
        transform={
            "convert": {"at": "timestamptz"},
            "validate": {"id": {"unique": True, "type": "bigint"}, "n": {"required": True}},
            "expect": ["n > 0"],
            "derive": {"per": "100 / n"},
            "filter": ["n < 100"],
        },
    )  # fmt: skip
    row = {"n": 4, "at": "2024-01-01T00:00:00Z"}
    send(topics, topic, (1, {"id": 1, **row}), (2, {"id": 2, **row}), (1, None))

    report = run_pipeline(declared)

    assert (report.quarantined, report.filtered, ids(backend)) == (0, 0, [2])


def test_a_filter_is_asked_where_it_looks_at_the_key_and_at_metadata_alone(topics: Topics, backend: Backend) -> None:
    topic = topics.make()
    before = pipeline(topics, topic, backend)
    send(topics, topic, *((id_, {"id": id_}) for id_ in (1, 2, 3)))
    run_pipeline(before)
    declared = pipeline(
        topics, topic, backend,
        source={"metadata": ["headers", "partition"]},
        transform={
            "derive": {"odd": "id % 2 = 1", "kept": "odd AND KAFKA_PARTITION = 0"},
            "filter": ["kept", "coalesce(kafka_headers->>'keep', 'no') = 'no'"],
        },
    )  # fmt: skip
    send(topics, topic, (1, None), (2, None))
    send(topics, topic, (3, None), headers=[("keep", b"yes")])

    report = run_pipeline(declared)

    assert (report.tombstones, report.deleted, report.filtered, ids(backend)) == (1, 1, 2, [2, 3])


def test_a_key_that_no_record_can_tell_is_told_before_anything_is_read(topics: Topics, backend: Backend) -> None:
    topic = topics.make()
    send(topics, topic, (1, {"id": 1}), (1, None))
    declared = pipeline(topics, topic, backend, key=["kafka_offset"], source={"metadata": ["offset"]})

    with pytest.raises(KeyRulesError, match="is each record's own"):
        run_pipeline(declared)

    assert not backend.has()


# --- what else there is ---------------------------------------------------------------------------------------


def test_a_preview_shows_what_would_be_deleted(topics: Topics, backend: Backend) -> None:
    topic = topics.make()
    send(topics, topic, (1, {"id": 1}), (1, None), (b"{", None))

    rows = preview(pipeline(topics, topic, backend), 5)

    assert [(row.outcome, row.result) for row in rows] == [
        ("inserted", {"id": 1}),
        ("deleted", {"id": 1}),
        ("broken", None),
    ]


def test_rows_are_marked_where_the_destination_says_so(topics: Topics, backend: Backend) -> None:
    topic = topics.make()
    declared = pipeline(topics, topic, backend, destination={"soft_delete": "gone_at"}, transform=LINES)
    send(topics, topic, *((id_, {"id": id_, "items": [{"sku": "a"}]}) for id_ in (1, 2)))
    run_pipeline(declared)
    send(topics, topic, (1, None))

    assert run_pipeline(declared).deleted == 1

    assert ["gone_at" in row for row in backend.rows()] == [True, False]
    assert lines(backend) == [(1, "a"), (2, "a")]


def test_a_run_tells_how_old_the_oldest_record_is_that_is_still_unread(topics: Topics, backend: Backend) -> None:
    topic = topics.make(partitions=2)
    declared = pipeline(topics, topic, backend, source={"max_records": 1})
    long_ago = int(time.time() - 3600) * 1000
    for id_ in (1, 2, 3):
        send(topics, topic, (id_, {"id": id_}), partition=0, timestamp_ms=long_ago + id_ * 60_000)

    first, _, last = (run_pipeline(declared) for _ in range(3))

    behind, done = first.lag
    assert (behind.partition, behind.lag, done.lag, done.oldest) == (0, 2, 0, None)
    assert behind.oldest == pytest.approx(3600 - 2 * 60, abs=60)
    assert [(each.lag, each.oldest) for each in last.lag] == [(0, None)] * 2
