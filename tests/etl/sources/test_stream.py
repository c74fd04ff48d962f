"""Kafka's topics as a source, on a real broker."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kafka.structs import OffsetAndMetadata, TopicPartition

from errors import SourceError
from etl.destinations import open_destination
from etl.pipeline import Pipeline, StreamSource
from etl.run import run_pipeline
from etl.sources import stream
from integrations.kafka.topics import Cluster
from tests.etl.sources.reading import Read, read, source_of
from tests.services.kafka_broker import PASSWORD, USER, Kafka
from tests.services.process import ServerProcess
from tests.services.topics import Topics, offsets

pytestmark = pytest.mark.usefixtures("folder")


def declared(topics: Topics, topic: str, **more: Any) -> dict[str, Any]:
    return {"type": "stream", "brokers": topics.brokers, "topics": topic, **more}


def pipeline_of(source: Mapping[str, Any], folder: Path, **more: Any) -> Pipeline:
    destination = {"type": "database", "connection": f"sqlite:///{folder}/w.db", "table": "orders", "write": "append"}
    return Pipeline.model_validate(
        {"name": "orders", "description": "d", "source": source, "destination": {**destination, **more}}
    )


# --- what a record becomes ------------------------------------------------------------------------------------


def test_json_objects_become_typed_columns_and_numbers_stay_exact(topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, [b'{"id": 1, "amount": 0.1, "to": {"city": "x"}}', b'{"id": 12345678901234567890}'])

    found = read(declared(topics, topic))

    assert found.column("id") == [1, 12345678901234567890]
    assert found.column("amount") == [Decimal("0.1"), None]
    assert found.column("to") == [{"city": "x"}, None]


def test_what_is_known_of_a_record_becomes_columns_when_asked_for(topics: Topics) -> None:
    topic = topics.make()
    headers = [("trace", b"a"), ("tag", b"1"), ("tag", b"2")]
    topics.send(topic, [{"id": 1}], key=b"k", headers=headers, timestamp_ms=1_700_000_000_123)
    named = ["topic", "partition", "offset", "timestamp", "key", "key_bytes", "headers"]

    (row,) = read(declared(topics, topic, metadata=named)).rows

    assert row.pop("kafka_headers") == '{"trace":"a","tag":["1","2"]}'
    assert row == {
        "id": 1, "kafka_topic": topic, "kafka_partition": 0, "kafka_offset": 0, "kafka_key": "k",
        "kafka_key_bytes": b"k", "kafka_timestamp": datetime(2023, 11, 14, 22, 13, 20, 123000, UTC),
    }  # fmt: skip


def test_headers_count_as_bytes_too_and_a_batch_ends_before_they_are_many(topics: Topics) -> None:
    topic = topics.make()
    headers = [("large", b"x" * 900_000), ("empty", b"")]
    topics.send(topic, [{"id": id_} for id_ in range(12)], key=b"k", headers=headers)

    found = read(declared(topics, topic))

    assert found.bytes_read == 12 * (900_000 + len("largeempty")) + sum(len(f'{{"id":{id_}}}k') for id_ in range(12))
    assert len(found.schemas) > 1


def test_a_field_that_has_the_name_of_such_a_column_is_told(topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, [{"kafka_offset": 1}])

    with pytest.raises(SourceError, match="kafka_offset, too"):
        read(declared(topics, topic, metadata=["offset"]))


def test_bytes_are_read_as_they_are(topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, [b"\x00\xff", b""])

    assert read(declared(topics, topic, format="raw")).column("value") == [b"\x00\xff", b""]


def test_a_line_of_csv_is_a_record_whatever_quotes_it_leaves_open(topics: Topics) -> None:
    topic = topics.make()
    lines = [b"1,a", b'2,"b', b'3,"x, y"', b"4", b"5,", b'6,""', b'7,"two\nlines"', b"8,a\n9,b", "10,é".encode(), b""]
    topics.send(topic, lines)

    found = read(declared(topics, topic, format="csv", columns=["id", "name"]))

    assert [tuple(row.values()) for row in found.rows] == [
        ("1", "a"), ("3", "x, y"), ("5", None), ("6", ""), ("7", "two\nlines"), ("10", "é"),
    ]  # fmt: skip
    assert [bad.origin["offset"] for bad in found.bad] == [1, 3, 7, 9]
    assert [origin["offset"] for origin in found.origins] == [0, 2, 4, 5, 6, 8]


def test_what_cannot_be_read_is_quarantined_with_topic_partition_and_offset(topics: Topics, folder: Path) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": 1}, b"{nope", [1], b"\xff", {"id": 2}])
    pipeline = pipeline_of(declared(topics, topic), folder)

    report = run_pipeline(pipeline)

    assert (report.extracted, report.loaded, report.quarantined) == (5, 2, 3)
    waiting = [row.bad for row in open_destination(pipeline).quarantined()]
    assert sorted(str(bad.origin) for bad in waiting) == [
        str({"topic": topic, "partition": 0, "offset": offset}) for offset in (1, 2, 3)
    ]
    assert {bad.row["value"] for bad in waiting} == {"{nope", "[1]", "\\xff"}


def test_a_key_that_is_no_text_is_quarantined_where_it_should_be_one(topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": 1}], key=b"\xff")
    topics.send(topic, [{"id": 2}], key=b"b")

    found = read(declared(topics, topic, metadata=["key"]))

    assert (found.column("kafka_key"), found.broken) == (["b"], ["the key is not UTF-8 (`key_bytes` takes any)"])


def test_tombstones_are_quarantined_left_out_or_kept(topics: Topics, folder: Path) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": 1}, None, {"id": 2}], key=b"k")

    quarantined = read(declared(topics, topic))
    kept = read(declared(topics, topic, tombstones="keep", metadata=["key"]))
    skipped = run_pipeline(pipeline_of(declared(topics, topic, tombstones="skip"), folder))

    assert (quarantined.column("id"), [bad.row for bad in quarantined.bad]) == ([1, 2], [{"value": None, "key": "k"}])
    assert [tuple(row.values()) for row in kept.rows] == [(1, "k", False), (None, "k", True), (2, "k", False)]
    assert (skipped.extracted, skipped.loaded, skipped.filtered) == (3, 2, 1)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_are_read(topics: Topics, codec: str) -> None:
    topic = topics.make()
    with topics.producer(compression_type=codec, linger_ms=50) as producer:
        for number in range(100):
            producer.send(topic, value=b'{"id": %d}' % number)

    assert read(declared(topics, topic)).column("id") == list(range(100))


def test_a_record_is_as_large_as_the_bound_at_most(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = topics.make(max_message_bytes=str(20 << 20))
    topics.send(topic, [{"text": "x" * (12 << 20)}])

    assert len(read(declared(topics, topic)).rows[0]["text"]) == 12 << 20

    for name in ("_LARGEST", "_FETCH_BYTES"):
        monkeypatch.setattr(stream, name, 4 << 20)
    with pytest.raises(SourceError, match="no broker has given the records") as told:
        read(declared(topics, topic, timeout="1s"))
    assert "no record is larger than 4 MB" in str(told.value.hint)


# --- which records --------------------------------------------------------------------------------------------


def test_a_run_goes_on_where_the_last_one_committed_whatever_the_group_says(topics: Topics, folder: Path) -> None:
    topic = topics.make()
    pipeline = pipeline_of(declared(topics, topic), folder)
    topics.send(topic, [{"id": 1}, {"id": 2}])
    first = run_pipeline(pipeline)
    shown = topics.committed("pivotal-orders", topic)
    with topics.consumer(group_id="pivotal-orders") as other:
        other.commit({TopicPartition(topic, 0): OffsetAndMetadata(0, "", -1)})
    topics.send(topic, [{"id": 3}])

    second, third = run_pipeline(pipeline), run_pipeline(pipeline)

    assert shown == 2
    assert [report.loaded for report in (first, second, third)] == [2, 1, 0]
    assert [sum(each.lag for each in report.lag) for report in (first, second)] == [0, 0]
    assert offsets(second.state_after, topic) == {"0": 3}


def test_what_comes_while_a_run_reads_is_left_to_the_next_one(topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": 1}])
    with closing(source_of(declared(topics, topic)).open(None)) as reading:
        topics.send(topic, [{"id": 2}])
        rows = [row for batch in reading for row in batch.rows.to_pylist()]
        state = reading.state()

    assert (rows, read(declared(topics, topic), state).column("id")) == ([{"id": 1}], [2])


def test_a_run_reads_as_many_records_as_it_may(topics: Topics) -> None:
    topic = topics.make(partitions=3)
    topics.send(topic, [{"id": number} for number in range(100)])
    seen: list[int] = []
    state = None
    for _ in range(4):
        found = read(declared(topics, topic, max_records=30), state)
        assert len(found.rows) <= 30
        seen, state = seen + found.column("id"), found.state

    assert sorted(seen) == list(range(100))


def test_a_run_without_time_reads_nothing_and_keeps_its_place(topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": 1}])

    found = read(declared(topics, topic, max_seconds="0s"))

    assert (found.rows, offsets(found.state, topic)) == ([], {"0": 0})


def test_a_first_run_starts_at_the_beginning_the_end_or_a_time(topics: Topics) -> None:
    topic = topics.make()
    for id_, milliseconds in ((1, 1_700_000_000_000), (2, 1_700_000_100_000)):
        topics.send(topic, [{"id": id_}], timestamp_ms=milliseconds)
    moment = datetime.fromtimestamp(1_700_000_050, UTC).isoformat()

    assert read(declared(topics, topic)).column("id") == [1, 2]
    assert read(declared(topics, topic, start=moment)).column("id") == [2]
    latest = read(declared(topics, topic, start="latest"))
    topics.send(topic, [{"id": 3}])
    assert (latest.rows, read(declared(topics, topic, start="latest"), latest.state).column("id")) == ([], [3])


def test_new_partitions_and_new_topics_are_read_from_their_beginning(topics: Topics) -> None:
    topic = topics.make("shop.a")
    glob = f"{topic[:20]}*"
    state = read(declared(topics, glob, start="latest")).state
    topics.grow(topic, 2)
    topics.make_named(f"{topic[:20]}-new")
    topics.send(topic, [{"id": 1}], partition=1)
    topics.send(f"{topic[:20]}-new", [{"id": 2}])

    found = read(declared(topics, glob, start="latest"), state)

    assert sorted(found.column("id")) == [1, 2]


def test_partitions_that_brokers_do_not_tell_of_for_a_while_keep_their_place(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = topics.make(partitions=2)
    topics.send(topic, [{"id": 1}], partition=0)
    topics.send(topic, [{"id": 2}], partition=1)
    state = read(declared(topics, topic)).state
    with monkeypatch.context() as patched:
        patched.setattr(Cluster, "_partitions", lambda *_: {0})
        less = read(declared(topics, topic), state)

    assert offsets(less.state, topic) == {"0": 1, "1": 1}
    assert read(declared(topics, topic), less.state).rows == []


def test_aborted_transactions_are_not_seen_and_their_ends_are_no_gap(topics: Topics) -> None:
    topic = topics.make()
    with topics.producer(transactional_id=topic) as producer:
        producer.init_transactions()
        for number, ends in enumerate((producer.commit_transaction, producer.abort_transaction) * 2):
            producer.begin_transaction()
            producer.send(topic, value=b'{"id": %d}' % number)
            producer.flush()
            ends()

        found = read(declared(topics, topic))
        producer.begin_transaction()
        producer.send(topic, value=b'{"id": 9}')
        producer.flush()
        waiting = read(declared(topics, topic), found.state)
        producer.commit_transaction()

    assert (found.column("id"), offsets(found.state, topic)) == ([0, 2], {"0": 8})
    assert (waiting.rows, read(declared(topics, topic), waiting.state).column("id")) == ([], [9])


def test_what_compaction_leaves_out_is_no_gap(topics: Topics) -> None:
    topic = topics.make(
        cleanup_policy="compact", min_cleanable_dirty_ratio="0.01", segment_bytes="1048576", max_compaction_lag_ms="1"
    )
    large = "x" * 400_000
    for number in range(6):
        topics.send(topic, [{"id": number, "text": large}], key=b"k")
    while len(found := read(declared(topics, topic)).rows) == 6:
        pass

    assert found[-1]["id"] == 5
    assert read(declared(topics, topic, on_gap="fail"), read(declared(topics, topic)).state).rows == []


# --- records that are gone ------------------------------------------------------------------------------------


def test_records_that_were_deleted_unread_fail_the_run(topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": number} for number in range(5)])
    state = read(declared(topics, topic, max_records=1)).state
    topics.drop_records(topic, before=3)

    with pytest.raises(SourceError, match=f"{topic}/0 begins at 3, but was read up to 1: records were deleted"):
        read(declared(topics, topic), state)


def test_or_they_are_counted(topics: Topics, folder: Path) -> None:
    topic = topics.make()
    pipeline = pipeline_of(declared(topics, topic, on_gap="continue", max_records=1), folder)
    topics.send(topic, [{"id": number} for number in range(5)])
    run_pipeline(pipeline)
    topics.drop_records(topic, before=3)

    report = run_pipeline(pipeline)

    assert (report.loaded, report.missed, offsets(report.state_after, topic)) == (1, 2, {"0": 4})


def test_records_that_are_deleted_while_they_are_read_are_counted_too(topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": number} for number in range(5)])
    with closing(source_of(declared(topics, topic, on_gap="continue")).open(None)) as reading:
        topics.drop_records(topic, before=3)
        rows = [row["id"] for batch in reading for row in batch.rows.to_pylist()]

        assert (rows, getattr(reading, "missed", 0)) == ([3, 4], 3)


def test_a_topic_that_was_made_again_is_another_one(topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": 1}])
    state = read(declared(topics, topic)).state
    topics.delete(topic)
    topics.make_named(topic)
    topics.send(topic, [{"id": 2}])

    with pytest.raises(SourceError, match="was deleted and made again"):
        read(declared(topics, topic), state)
    assert read(declared(topics, topic, on_gap="continue"), state).column("id") == [2]


@pytest.mark.parametrize("now", [None, "the same"])
@pytest.mark.parametrize("before", ["None", "", "the same"])
def test_a_topic_whose_id_is_not_always_told_is_the_same_one(
    topics: Topics, monkeypatch: pytest.MonkeyPatch, before: str, now: str | None
) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": 1}])
    known = {"topics": {topic: {"id": before, "offsets": {"0": 1}}}}
    monkeypatch.setattr("kafka.cluster.ClusterMetadata.topic_id", lambda *_: now)

    found = read(declared(topics, topic), known)

    known_now = now or before.replace("None", "")
    assert (found.rows, found.state) == ([], {"topics": {topic: {"id": known_now, "offsets": {"0": 1}}}})


def test_a_topic_that_was_made_again_or_cut_off_is_news(topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": 1}])
    source = declared(topics, topic)
    state: dict[str, Any] = dict(read(source).state or {})
    beyond = {"topics": {topic: {**state["topics"][topic], "offsets": {"0": 2}}}}
    with closing(stream.Stream(StreamSource.model_validate(source), "p", lasting=True)) as reader:
        before = [reader.has_news(each) for each in (state, beyond)]
    topics.delete(topic)
    topics.make_named(topic)
    topics.send(topic, [{"id": 2}])
    with closing(stream.Stream(StreamSource.model_validate(source), "p", lasting=True)) as reader:
        after = reader.has_news(state)

    assert (before, after) == ([False, True], True)


def test_a_record_that_does_not_say_when_it_was_written_has_no_age(topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": 1}], timestamp_ms=-1)

    (lag,) = stream.lags(StreamSource.model_validate(declared(topics, topic)), "p", None)

    assert (lag.lag, lag.oldest) == (1, None)


# --- brokers --------------------------------------------------------------------------------------------------


def test_a_topic_that_is_not_there_is_told_with_those_like_it(topics: Topics) -> None:
    topic = topics.make()

    with pytest.raises(SourceError, match="there is no topic") as told:
        read(declared(topics, f"{topic}x"))
    assert topic in str(told.value.hint)


def test_brokers_that_are_away_are_told_and_worth_another_try(topics: Topics) -> None:
    with pytest.raises(SourceError, match="no broker has answered for 1 s") as told:
        read({**declared(topics, "any", timeout="1s"), "brokers": "127.0.0.1:1"})
    assert told.value.retryable


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_topic_is_read_over_sasl_and_tls(
    secure_kafka: Kafka, topics: Topics, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)  # no secret is logged, in no test; the client does so at this level
    topic = topics.make()
    topics.send(topic, [{"id": 1}])

    assert read(_secured(secure_kafka, topic, mechanism, PASSWORD)).column("id") == [1]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_a_wrong_password_is_told_without_it(secure_kafka: Kafka, mechanism: str) -> None:
    with pytest.raises(SourceError, match="the user or the password is refused") as told:
        read(_secured(secure_kafka, "any", mechanism, "a-wrong-password"))
    assert "a-wrong-password" not in str(told.value)


def test_an_authority_that_is_not_trusted_is_told_at_once(secure_kafka: Kafka) -> None:
    with pytest.raises(SourceError, match=r"TLS fails .*CERTIFICATE_VERIFY_FAILED") as told:
        read({**_secured(secure_kafka, "any", "PLAIN", PASSWORD), "tls": {}})
    assert not told.value.retryable


def test_a_file_of_certificates_that_is_not_there_is_told(secure_kafka: Kafka) -> None:
    with pytest.raises(SourceError, match="TLS's files cannot be read"):
        read({**_secured(secure_kafka, "any", "PLAIN", PASSWORD), "tls": {"ca": "nowhere.pem"}})


def test_a_run_survives_a_broker_that_is_killed_and_comes_back(topics: Topics, kafka_process: ServerProcess) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": number, "text": "x" * 200_000} for number in range(150)])
    found = Read()
    with closing(source_of(declared(topics, topic)).open(None)) as reading:
        for batch in reading:
            if not found.rows:
                kafka_process.kill()
                kafka_process.start()
            found.rows += batch.rows.to_pylist()

    assert found.column("id") == list(range(150))


def _secured(kafka: Kafka, topic: str, mechanism: str, password: str) -> dict[str, Any]:
    auth = {"mechanism": mechanism, "username": USER, "password": password}
    more = {"auth": auth, "tls": {"ca": str(kafka.ca)}, "timeout": "10s"}
    return {"type": "stream", "brokers": kafka.secure, "topics": topic, **more}
