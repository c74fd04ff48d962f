"""Rows that are sent to a topic of Kafka, by a pipeline's run, on a real broker."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from errors import DestinationError, InvalidRowsError
from etl.destinations import open_destination
from etl.pipeline import Pipeline
from etl.run import run_pipeline, run_step
from etl.sources import open_source
from etl.state import change_state
from etl.stream import RunReport
from integrations.kafka.admin import Admin
from integrations.kafka.transactions import Transaction
from tests.etl.destinations.reading_topics import committed
from tests.services.kafka_broker import PASSWORD, USER, Kafka
from tests.services.process import ServerProcess, free_port
from tests.services.topics import Topics

pytestmark = pytest.mark.usefixtures("project")


def pipeline(topics: Topics, topic: str, **options: Any) -> Pipeline:
    """A pipeline of a name that no other test has: its state is in Kafka."""
    parts = {name: options.pop(name) for name in ("source", "transform", "on_invalid") if name in options}
    return Pipeline.model_validate(
        {
            "name": topic.replace(".", "_"),
            "description": "Customers, for whom it may concern",
            "source": {"type": "file", "path": "rows.ndjson"},
            "destination": {"type": "stream", "brokers": topics.brokers, "topic": topic, **options},
            **parts,
        }
    )


def given(project: Path, rows: list[Any], name: str = "rows.ndjson") -> None:
    (project / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def values(topics: Topics, topic: str) -> list[Any]:
    return [record.value and json.loads(record.value) for record in committed(topics, topic)]


def counts(report: RunReport) -> tuple[int, int, int]:
    assert report.balanced
    return report.extracted, report.inserted, report.quarantined


# --- what a row becomes ---------------------------------------------------------------------------------------


def test_each_row_is_an_object_and_those_of_a_key_keep_their_order(topics: Topics, project: Path) -> None:
    topic = topics.make(partitions=3)
    given(project, [{"id": number % 7, "step": number} for number in range(500)])

    report = run_pipeline(pipeline(topics, topic, key=["id"]))

    assert counts(report) == (500, 500, 0)
    found = committed(topics, topic)
    assert len({record.partition for record in found}) == 3
    for key in range(7):
        of_key = [record for record in found if record.key == str(key).encode()]
        assert [json.loads(record.value)["step"] for record in of_key] == list(range(key, 500, 7))
        assert len({record.partition for record in of_key}) == 1


def test_values_are_sent_exactly_and_compressed_when_asked_for(topics: Topics, project: Path) -> None:
    topic = topics.make()
    table = pa.table(
        {
            "big": pa.array([2**63 - 1], pa.int64()),
            "amount": pa.array(["12345678901234567890.10"]).cast(pa.decimal128(38, 2)),
            "at": pa.array([1_700_000_000_123_456], pa.timestamp("us", "Europe/Berlin")),
            "day": pa.array([19_000], pa.date32()),
            "none": pa.array([None], pa.string()),
        }
    )
    pq.write_table(table, project / "rows.parquet")

    run_pipeline(pipeline(topics, topic, source={"type": "file", "path": "rows.parquet"}, compression="zstd"))

    (record,) = committed(topics, topic)
    assert record.key is None
    assert record.value == (
        b'{"big":9223372036854775807,"amount":12345678901234567890.10,"at":"2023-11-14T22:13:20.123456Z",'
        b'"day":"2022-01-08","none":null}'
    )


def test_columns_become_keys_headers_and_tombstones(topics: Topics, project: Path) -> None:
    topic = topics.make()
    rows = [
        {"shop": "é", "id": 1, "tenant": "a", "n": 1, "gone": False},
        {"shop": "x", "id": 2, "tenant": None, "n": 2, "gone": None},
        {"shop": "x", "id": 3, "tenant": "c", "n": 3, "gone": True},
    ]
    given(project, rows)

    run_pipeline(pipeline(topics, topic, key=["shop", "id"], headers=["tenant", "n"], tombstone="gone"))

    found = [(json.loads(record.key), record.headers, record.value) for record in committed(topics, topic)]
    assert found == [
        ({"shop": "é", "id": 1}, [("tenant", b"a"), ("n", b"1")], '{"shop":"é","id":1}'.encode()),
        ({"shop": "x", "id": 2}, [("n", b"2")], b'{"shop":"x","id":2}'),
        ({"shop": "x", "id": 3}, [("tenant", b"c"), ("n", b"3")], None),
    ]


def test_what_one_pipeline_wrote_another_reads(topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": 1, "name": "a"}], key=b"1")
    topics.send(topic, [None], key=b"2")
    copy = topics.make()
    source = {
        "type": "stream", "brokers": topics.brokers, "topics": topic, "metadata": ["key"], "tombstones": "keep",
    }  # fmt: skip
    copying = pipeline(topics, copy, source=source, key=["kafka_key"], tombstone="kafka_tombstone")

    assert counts(run_pipeline(copying)) == (2, 2, 0)
    assert counts(run_pipeline(copying)) == (0, 0, 0)
    topics.send(topic, [{"id": 3}], key=b"3")
    assert counts(run_pipeline(copying)) == (1, 1, 0)

    found = [(record.key, record.value is None) for record in committed(topics, copy)]
    assert found == [(b"1", False), (b"2", True), (b"3", False)]


# --- what is not taken ----------------------------------------------------------------------------------------


def test_rows_that_no_record_can_be_made_of_are_quarantined_and_replayed(topics: Topics, project: Path) -> None:
    topic = topics.make(max_message_bytes="2000")
    rows: list[dict[str, str | None]] = [
        {"id": "1", "text": "x"},
        {"id": None, "text": "y"},
        {"id": "3", "text": "z" * 2000},
        {"id": "4", "text": "x" * 1500},
    ]
    given(project, rows)

    report = run_pipeline(pipeline(topics, topic, key=["id"]))

    assert counts(report) == (4, 2, 2)
    assert [row["id"] for row in values(topics, topic)] == ["1", "4"]
    assert [(bad.row["id"], bad.broken[0].rule) for bad in report.rejected] == [
        (None, "destination: key"), ("3", "destination: size"),
    ]  # fmt: skip
    assert "(max.message.bytes)" in report.rejected[1].broken[0].message

    mended = pipeline(topics, topic, key=["id"], transform={"derive": {"text": "left(text, 9)"}})
    assert counts(run_pipeline(mended, replay=True)) == (2, 1, 1)
    assert [row["id"] for row in values(topics, topic)] == ["1", "4", "3"]
    (waiting,) = open_destination(mended).quarantined()
    assert waiting.bad.row["id"] is None


def test_a_topic_that_takes_little_at_a_time_is_sent_little_at_a_time(
    topics: Topics, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topic = topics.make(max_message_bytes="2000")
    given(project, [{"id": number, "text": "x" * 500} for number in range(50)])

    assert counts(run_pipeline(pipeline(topics, topic))) == (50, 50, 0)
    assert [row["id"] for row in values(topics, topic)] == list(range(50))
    assert "splitting" not in caplog.text


def test_a_record_that_a_broker_refuses_against_its_word_fails_the_run(
    topics: Topics, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does if we may not ask what it takes."""
    topic = topics.make(max_message_bytes="2000")
    given(project, [{"id": 1}, {"id": 2, "text": "x" * 3000}])
    monkeypatch.setattr(Admin, "largest", lambda *_: 1_000_000)

    with pytest.raises(DestinationError, match="a record is larger than its topic takes"):
        run_pipeline(pipeline(topics, topic))

    assert values(topics, topic) == []


def test_numbers_that_json_has_not_are_quarantined(topics: Topics, project: Path) -> None:
    topic = topics.make()
    pq.write_table(pa.table({"ratio": [1.0, float("nan")]}), project / "rows.parquet")

    report = run_pipeline(pipeline(topics, topic, source={"type": "file", "path": "rows.parquet"}))

    assert counts(report) == (2, 1, 1)
    assert values(topics, topic) == [{"ratio": 1.0}]


def test_nothing_is_seen_of_a_run_that_fails(topics: Topics, project: Path) -> None:
    topic = topics.make()
    given(project, [{"id": 1}, {"id": None}])

    with pytest.raises(InvalidRowsError, match="nothing was loaded"):
        run_pipeline(pipeline(topics, topic, key=["id"], on_invalid="fail"))

    assert values(topics, topic) == []
    assert open_destination(pipeline(topics, topic, key=["id"])).state() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ["ids"]}, "the rows have no column ids, which `key` names"),
        ({"headers": ["trace"]}, "the rows have no column trace, which `headers` names"),
        ({"key": ["id"], "tombstone": "name"}, "the column name, which `tombstone` names, is string"),
    ],
)
def test_columns_that_cannot_be_what_they_should_are_told(
    topics: Topics, project: Path, options: dict[str, Any], message: str
) -> None:
    given(project, [{"id": 1, "name": "a"}])
    with pytest.raises(DestinationError, match=message):
        run_pipeline(pipeline(topics, topics.make(), **options))


def test_a_topic_that_is_not_there_is_told_and_not_made(topics: Topics, project: Path) -> None:
    given(project, [{"id": 1}])
    topic = topics.make("shop")

    with pytest.raises(DestinationError, match=f"there is no topic '{topic}x'") as caught:
        run_pipeline(pipeline(topics, f"{topic}x"))

    assert topic in str(caught.value.hint)
    with topics.consumer() as consumer:
        assert f"{topic}x" not in consumer.topics()


# --- state ----------------------------------------------------------------------------------------------------


def test_a_run_goes_on_where_the_last_one_committed_rows(topics: Topics, project: Path) -> None:
    topic = topics.make()
    orders = incremental(topics, topic, project)
    place(project, 1, 2)
    run_pipeline(orders)
    place(project, 3)

    report = run_pipeline(orders)

    assert counts(report) == (2, 1, 0)  # the row at the cursor's edge is read again
    assert report.deduplicated == 1
    assert [row["id"] for row in values(topics, topic)] == [1, 2, 3]
    before, after = change_state(orders, lambda state: {**state, "cursor": "0", "edge": []})
    assert (before["cursor"], after["cursor"]) == ("3", "0")
    assert open_destination(orders).state() == after


def test_the_last_state_is_found_behind_what_was_aborted(topics: Topics, project: Path) -> None:
    topic = topics.make()
    orders = incremental(topics, topic, project)
    place(project, 1)
    run_pipeline(orders)
    state = open_destination(orders).state()
    state_topic = f"_pivotal_state.{orders.name}"
    with topics.producer(transactional_id=orders.name) as producer:
        producer.init_transactions()
        for _ in range(3):
            producer.begin_transaction()
            producer.send(state_topic, b"{}", key=b"x").get(timeout=10)
            producer.abort_transaction()

    assert open_destination(orders).state() == state


def test_of_two_runs_that_began_at_the_same_place_one_commits(topics: Topics, project: Path) -> None:
    topic = topics.make()
    orders = incremental(topics, topic, project)
    rows = pa.record_batch({"id": [1]})
    ours, theirs, late = (open_destination(orders) for _ in range(3))
    assert [each.state() for each in (ours, theirs, late)] == [None] * 3

    with ours.begin("ours") as load:
        load.write(rows)
        load.loaded()
        with theirs.begin("theirs") as other:
            other.write(rows)
            other.loaded()
            other.commit({"cursor": "1"})
        with pytest.raises(DestinationError, match="another run of the same name has begun"):
            load.commit({"cursor": "1"})
    with late.begin("late") as load:
        load.write(rows)
        with pytest.raises(DestinationError, match="another run has committed since"):
            load.loaded()

    assert values(topics, topic) == [{"id": 1}]
    assert open_destination(orders).state() == {"cursor": "1"}


def test_one_who_follows_a_stream_from_a_state_that_is_not_the_last_sends_nothing(topics: Topics) -> None:
    """As after a commit of which nobody has heard whether it was made."""
    topic, copy = topics.make(), topics.make()
    topics.send(topic, [{"id": 1}])
    copying = pipeline(topics, copy, source={"type": "stream", "brokers": topics.brokers, "topics": topic})
    state = run_pipeline(copying).state_after
    topics.send(topic, [{"id": 2}])
    with pytest.raises(DestinationError, match="another run has committed since") as caught:
        run_step(copying, open_source(copying), "stale", None)
    run_step(copying, open_source(copying), "right", state)

    assert caught.value.retryable
    assert values(topics, copy) == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize("when", ["before", "after", "after, and another run comes"])
def test_rows_that_are_replayed_leave_the_quarantine_if_they_were_sent(
    topics: Topics, project: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Whoever comes next finds out, if the run dies beside the commit."""
    topic = topics.make()
    given(project, [{"id": 1}, {"id": None}, {"id": None, "n": 1}])
    run_pipeline(pipeline(topics, topic, key=["id"]))
    mended = pipeline(topics, topic, key=["id"], transform={"derive": {"id": "coalesce(id, 7 + n)"}})
    commit = Transaction.commit

    def dies(transaction: Transaction) -> None:
        if when != "before":
            commit(transaction)
        raise KeyboardInterrupt

    monkeypatch.setattr(Transaction, "commit", dies)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(mended, replay=True)
    monkeypatch.setattr(Transaction, "commit", commit)
    if when == "after, and another run comes":
        with open_destination(mended).begin("another") as load:
            load.loaded()
            load.commit({"files": {}})

    waiting = [row.bad.row["n"] for row in open_destination(mended).quarantined()]
    assert sorted(map(str, waiting)) == (["1", "None"] if when == "before" else ["None"])
    run_pipeline(mended, replay=True)
    assert [row["id"] for row in values(topics, topic)] == [1, 8]


def test_a_topic_for_the_state_that_forgets_is_refused(topics: Topics, project: Path) -> None:
    given(project, [{"id": 1}])
    declared = pipeline(topics, topics.make())
    topics.make_named(f"_pivotal_state.{declared.name}", cleanup_policy="delete")

    with pytest.raises(DestinationError, match="forgets what was written long ago") as caught:
        run_pipeline(declared)

    assert "cleanup.policy=compact" in str(caught.value.hint)


def test_rows_go_over_sasl_and_tls_and_no_password_is_shown(
    secure_kafka: Kafka, topics: Topics, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topic = topics.make()
    given(project, [{"id": 1}])
    secure = {
        "brokers": secure_kafka.secure,
        "auth": {"mechanism": "SCRAM-SHA-256", "username": USER, "password": PASSWORD},
        "tls": {"ca": str(secure_kafka.ca)},
    }

    with caplog.at_level(logging.DEBUG):
        run_pipeline(pipeline(topics, topic, **secure))

    assert values(topics, topic) == [{"id": 1}]
    assert PASSWORD not in caplog.text


# --- brokers that are away ------------------------------------------------------------------------------------


def test_brokers_that_are_away_are_told_with_a_hint(topics: Topics, project: Path) -> None:
    given(project, [{"id": 1}])
    away = pipeline(topics, "orders", brokers=f"127.0.0.1:{free_port()}", timeout="1s")

    with pytest.raises(DestinationError, match="no broker has answered for 1 s") as caught:
        run_pipeline(away)

    assert caught.value.retryable
    assert "check `brokers`" in str(caught.value.hint)


def test_a_broker_killed_in_the_middle_leaves_nothing_half_and_the_rerun_completes(
    kafka_process: ServerProcess, topics: Topics, project: Path
) -> None:
    topic = topics.make()
    orders = incremental(topics, topic, project, timeout="1s")
    place(project, *range(1, 50))
    with open_destination(orders).begin("dies") as load:
        load.write(pa.record_batch({"id": [1]}))
        load.loaded()
        kafka_process.kill()
        with pytest.raises(DestinationError) as caught:
            load.commit({"cursor": "1"})
    assert caught.value.retryable
    kafka_process.start()

    run_pipeline(incremental(topics, topic, project))

    assert [row["id"] for row in values(topics, topic)] == list(range(1, 50))


# --- helpers --------------------------------------------------------------------------------------------------


def incremental(topics: Topics, topic: str, project: Path, **options: Any) -> Pipeline:
    source = {
        "type": "database", "connection": f"sqlite:///{project}/shop.db", "table": "orders",
        "incremental": {"cursor": "id"},
    }  # fmt: skip
    return pipeline(topics, topic, source=source, **options)


def place(project: Path, *ids: int) -> None:
    """Puts orders into the shop's database."""
    with closing(sqlite3.connect(project / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER)")
        shop.executemany("INSERT INTO orders VALUES (?)", [(each,) for each in ids])
