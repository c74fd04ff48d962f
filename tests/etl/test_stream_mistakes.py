"""Mistakes in pipelines that read a stream are told before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from errors import SourceError
from etl.loader import check
from tests.etl.sources.reading import read

PIPELINE = """\
description: Orders
source:
  type: stream
  brokers: kafka1:9092, kafka2:9092
  topics: orders
{source}
destination: {{type: database, connection: "sqlite:///w.db", table: orders, write: {write}}}
{more}
"""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("format: csv", "`format: csv` without `columns`"),
        ("columns: [id]", "`columns` without `format: csv`"),
        ("format: avro", "no `registry` with `format: avro`"),
        ("registry: {url: https://registry}", "`registry` with `format: json`"),
        ("start: 2024-01-01T00:00:00", "`start` is not earliest, latest or a time with its offset"),
        ("start: yesterday", "`start` is not earliest, latest or a time with its offset"),
        ("max_records: 0", "`max_records` is less than 1"),
        ("metadata: [ofset]", "item 1 of `metadata` is not topic, partition, offset"),
        ("topic: orders", "unknown key"),
        ("auth: {username: u}", "`password` is missing in `auth`"),
        ("partitions: 3", "unknown key"),
        ("tombstones: drop", "`tombstones` is not quarantine, skip, keep or delete"),
        ("key_format: text", "`key_format` without `tombstones: delete`"),
        ("tombstones: delete\n  key_format: avro", "no `registry` with `key_format: avro`"),
        ("tombstones: delete\n  registry: {url: https://registry}", "`registry` with `format: json`"),
    ],
)
def test_a_mistake_is_told_in_its_line(project: Path, source: str, message: str) -> None:
    told = _told(project, source=f"  {source}")

    assert any(message in each for each in told), told


def test_brokers_must_be_addresses(project: Path) -> None:
    file = project / "orders.yaml"
    file.write_text(PIPELINE.format(source="", write="append", more="").replace("kafka1:9092,", "kafka://kafka1,"))

    (problem,) = check([file])

    assert (problem.line, problem.message) == (4, "`brokers` is not the addresses of brokers")


def test_addresses_of_the_environment_are_told_when_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA", "kafka:port")

    with pytest.raises(SourceError, match="no addresses of brokers"):
        read({"type": "stream", "brokers": "${KAFKA}", "topics": "t"})


def test_a_stream_replaces_nothing_and_has_no_partitions(project: Path) -> None:
    partitions = "partitions: {by: created, every: day, start: 2024-01-01}"

    assert "would lose the older rows" in _told(project, write="replace")[0]
    assert "`partitions` beside a stream" in _told(project, more=partitions)[0]


DATABASE = '{type: database, connection: "sqlite:///w.db", table: orders, write: merge, key: '


@pytest.mark.parametrize(
    ("destination", "more", "line", "message"),
    [
        (DATABASE.replace("merge, key: ", "append}"), "", 7, "`append` with `tombstones: delete`, which deletes"),
        ("{type: file, path: data/orders, write: append}", "", 7, "`tombstones: delete` needs a table"),
        ('{type: api, url: "https://shop.example.com/orders"}', "", 7, "`tombstones: delete` needs a table"),
        ("{type: stream, brokers: kafka1, topic: copy}", "", 7, "`tombstones: delete` needs a table"),
        (DATABASE + "[a, b]}", "  key_format: text", 7, "`key_format: text` is one value, but the destination"),
        (
            DATABASE + "[c]}", "  key_format: text\ntransform: {derive: {c: a || '-' || b}}", 7,
            "`key_format: text` is one value, but the destination's key is made of a and b",
        ),
        (DATABASE + "[kafka_offset]}", "  metadata: [offset]", 8, "the destination's key is made of kafka_offset"),
        (
            DATABASE + "[at]}", "  metadata: [timestamp]\ntransform: {map: {kafka_timestamp: at}}", 9,
            "the destination's key is made of kafka_timestamp, which is each record's own",
        ),
    ],
)  # fmt: skip
def test_tombstones_that_cannot_delete_are_told_where_it_stands(
    project: Path, destination: str, more: str, line: int, message: str
) -> None:
    source = f"source:\n  type: stream\n  brokers: kafka1\n  topics: t\n  tombstones: delete\n{more}".rstrip()
    file = project / "orders.yaml"
    file.write_text(f"description: d\n{source}\ndestination: {destination}\n")

    (problem,) = check([file])

    assert problem.line == line
    assert message in problem.message


def test_rows_are_marked_by_tombstones_or_by_what_a_run_does_not_bring(project: Path) -> None:
    file = project / "orders.yaml"
    marking = f"{DATABASE}[id], soft_delete: gone}}"
    source = "source:\n  type: stream\n  brokers: kafka1\n  topics: t\n"
    found = []
    for tombstones in ("skip", "delete"):
        file.write_text(f"description: d\n{source}  tombstones: {tombstones}\ndestination: {marking}\n")
        found.append([(problem.line, problem.message) for problem in check([file])])

    assert found == [[(7, "`soft_delete` without `delete_missing`")], []]


def test_columns_that_rules_name_are_looked_for_in_csv(project: Path) -> None:
    csv = "  format: csv\n  columns: [id, name]\n  metadata: [offset]"
    rules = "transform: {map: {id: order_id, kafka_offset: place, nam: n}}"

    (told,) = _told(project, source=csv, more=rules)

    assert "nam" in told


def _told(project: Path, source: str = "", write: str = "append", more: str = "") -> list[str]:
    file = project / "orders.yaml"
    file.write_text(PIPELINE.format(source=source, write=write, more=more))
    return [str(problem) for problem in check([file])]
