"""The event log in Kafka: what it promises beyond `tests/events/test_contract.py`; what can be wrong with a topic."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import EventLogError
from events.deliveries import Lease, Progress, Transaction, deliveries_of
from events.log import open_log
from integrations.kafka.connection import Connection
from integrations.kafka.events.changes import TABLES, Drafts
from integrations.kafka.events.log import KafkaEventLog
from integrations.kafka.events.replica import CHANGE, WITH, records_of
from tests.events.samples import event
from tests.services.kafka_broker import PASSWORD, USER, Kafka
from tests.services.process import ServerProcess
from tests.services.topics import Topics

Machine = Callable[[], KafkaEventLog]
SHORT = 1.0
"""Seconds that brokers may be away."""


@pytest.fixture
def topic() -> str:
    """One that is not there yet."""
    return f"events.{uuid.uuid4().hex}"


@pytest.fixture
def machine(topic: str, kafka_brokers: str, tmp_path: Path) -> Iterator[Machine]:
    """Opens the log on another machine, which has no replica yet."""
    with ExitStack() as opened:

        def open_there() -> KafkaEventLog:
            path = tmp_path / uuid.uuid4().hex / "replica.db"
            return opened.enter_context(closing(KafkaEventLog(Connection(kafka_brokers), topic, path)))

        yield open_there


def content(log: KafkaEventLog) -> dict[str, list[Any]]:
    """All that a replica has, once it has all that is in the topic."""
    file = log.current()
    tables = ("events", *TABLES, "versions")
    return {table: sorted(file.select(f"SELECT * FROM {table}"), key=repr) for table in tables}


def values(log: KafkaEventLog) -> list[int]:
    return [one.event.data["n"] for one in log.read(0, 1000)]


# --- many machines ---------------------------------------------------------------------------------------------------


def test_of_events_that_machines_publish_at_once_the_same_ones_count_everywhere(machine: Machine) -> None:
    logs = [machine() for _ in range(3)]

    def publish(log: KafkaEventLog) -> int:
        return sum(sum(log.publish([event(str(n)), event(f"{n}+")])) for n in range(20))

    with ThreadPoolExecutor(len(logs)) as threads:
        new = sum(threads.map(publish, logs))

    assert new == 40
    assert content(logs[0]) == content(logs[1]) == content(logs[2]) == content(machine())
    assert len(logs[0].read(0, 1000)) == 40


def test_of_machines_that_take_a_lease_at_once_one_gets_it(machine: Machine) -> None:
    logs = [machine() for _ in range(4)]

    def acquire(log: KafkaEventLog) -> Lease | None:
        return deliveries_of(log).acquire("mail", "somebody", 60, start=0)

    with ThreadPoolExecutor(len(logs)) as threads:
        leases = list(threads.map(acquire, logs))

    assert [bool(lease) for lease in leases].count(True) == 1


def test_events_that_come_with_a_change_which_does_not_hold_are_not_there(machine: Machine) -> None:
    log = machine()
    log.publish([event("1")])
    [one] = log.read(0, 1)
    with closing(Drafts(log._replica.file._path)) as drafts:

        def work(transaction: Transaction) -> None:
            transaction.bury("mail", one, "timeout", 1)
            transaction.publish([event("alert")])

        first, second = drafts.work_out(work), drafts.work_out(work)
    assert first.change
    assert second.change
    both = [*records_of(first.change, first.published), *records_of(second.change, [event("another")])]
    log._journal.append(both)

    assert [one.event.metadata.dedupe_key for one in log.read(0, 10)] == ["1", "alert"]


ACTIONS = st.lists(st.sampled_from(["publish", "again", "bury", "revive", "work", "prune", "reopen"]), max_size=25)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTIONS, st.randoms(use_true_random=False))
def test_whatever_happens_a_machine_that_comes_later_has_the_same(
    kafka_brokers: str, tmp_path: Path, actions: Sequence[str], chance: random.Random
) -> None:
    topic, connection = f"events.{uuid.uuid4().hex}", Connection(kafka_brokers)
    with ExitStack() as opened:

        def open_there() -> KafkaEventLog:
            path = tmp_path / f"{uuid.uuid4().hex}.db"
            return opened.enter_context(closing(KafkaEventLog(connection, topic, path)))

        logs = [open_there(), open_there()]
        for at, action in enumerate(actions):
            log = chance.choice(logs)
            if action == "reopen":
                logs.append(open_there())
            else:
                act(log, action, at, chance)

        assert all(content(log) == content(logs[0]) for log in (*logs, open_there()))


def act(log: KafkaEventLog, action: str, at: int, chance: random.Random) -> None:
    """Does something that is random, but for the kind."""
    events = log.read(0, 1000)
    if action == "publish":
        log.publish([event(f"{at}/{n}") for n in range(chance.randint(1, 3))])
    elif action == "again" and events:
        log.publish([chance.choice(events).event, event(str(at))])
    elif action == "bury" and events:
        log.bury("mail", chance.choice(events), "timeout", at)
    elif action == "revive":
        log.revive("mail", [letter.recorded.sequence for letter in log.dead()[:2]])
    elif action == "prune":
        log.prune(chance.randint(0, log.head() + 1))
    elif action == "work" and (lease := deliveries_of(log).acquire("mail", "me", 0, start=0)):
        deliveries_of(log).commit(lease, Progress(chance.randint(lease.cursor, max(lease.cursor, log.head()))), 0)


# --- what is deleted -------------------------------------------------------------------------------------------------


def test_what_is_pruned_leaves_the_topic_and_a_new_machine_knows_what_it_led_to(
    machine: Machine,
) -> None:
    log = machine()
    log.publish([event(str(n), n=n) for n in range(10)])
    log.bury("mail", log.read(0, 1)[0], "no such mailbox", 3)
    lease = deliveries_of(log).acquire("worker", "me", 60, start=0)
    assert lease
    deliveries_of(log).commit(lease, Progress(cursor=10), 60)

    assert log.prune(8) == 7
    assert log._journal.place()[1] == 8

    another = machine()
    assert values(another) == [0, 8, 9]
    assert [letter.error for letter in another.dead()] == ["no such mailbox"]
    assert [one.cursor for one in deliveries_of(another).statuses()] == [10]
    assert another.publish([event("0"), event("5", n=5), event("9")]) == [False, True, False]
    assert content(another) == content(log)


def test_what_a_subscription_has_not_read_stays_in_the_topic(machine: Machine) -> None:
    log = machine()
    log.publish([event(str(n), n=n) for n in range(10)])
    lease = deliveries_of(log).acquire("worker", "me", 60, start=4)

    assert lease
    assert log.prune(8) == 4
    assert values(log) == values(machine()) == [4, 5, 6, 7, 8, 9]


def test_a_machine_that_was_away_while_records_were_deleted_begins_anew(
    kafka_brokers: str, topic: str, tmp_path: Path, machine: Machine
) -> None:
    def open_again() -> KafkaEventLog:
        return KafkaEventLog(Connection(kafka_brokers), topic, tmp_path / "replica.db")

    log = machine()
    log.publish([event("0", n=0)])
    with closing(open_again()) as away:
        assert values(away) == [0]
    log.publish([event(str(n), n=n) for n in range(1, 6)])
    log.prune(4)

    with closing(open_again()) as back:
        assert values(back) == [4, 5]


def test_first_records_that_somebody_else_deleted_are_told_of(machine: Machine, topics: Topics, topic: str) -> None:
    machine().publish([event(str(n)) for n in range(5)])
    topics.drop_records(topic, 3)

    with pytest.raises(EventLogError, match="were deleted by somebody else") as raised:
        machine().head()

    assert not raised.value.retryable
    assert "`pivotal events prune`" in str(raised.value.hint)


def test_a_topic_that_is_made_anew_is_another_log(machine: Machine, topics: Topics, topic: str, tmp_path: Path) -> None:
    log = machine()
    log.publish([event("1", n=1)])
    topics.delete(topic)
    with closing(KafkaEventLog(log._journal.connection, topic, tmp_path / "another.db")) as another:
        another.publish([event("2", n=2)])

        with closing(KafkaEventLog(log._journal.connection, topic, log._replica.file._path)) as again:
            assert values(again) == values(another) == [2]
            assert again.publish([event("1", n=1)]) == [True]


# --- what others write -----------------------------------------------------------------------------------------------


def test_a_record_that_is_neither_an_event_nor_a_change_is_passed_over(
    machine: Machine, topics: Topics, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = machine()
    with caplog.at_level(logging.WARNING):
        topics.send(topic, [b"hello", None, {"type": "test.happened"}], key=b"k")
        topics.send(topic, [b"hello", None, [], {"rows": []}], key=b"k", headers=[(CHANGE, b"1")])
        topics.send(topic, [b"hello"], headers=[(WITH, b"one")])
        log.publish([event(n=1)])

        assert values(log) == [1]
    assert [record.__dict__["offset"] for record in caplog.records] == list(range(8))


def test_a_change_of_a_newer_version_is_told_of(machine: Machine, topics: Topics, topic: str) -> None:
    log = machine()
    topics.send(topic, [b"{}"], headers=[(CHANGE, b"2")])

    with pytest.raises(EventLogError, match="newer version of this project") as raised:
        log.head()

    assert (raised.value.hint, raised.value.retryable) == ("install that version", False)


def test_events_stand_in_the_topic_as_json_with_their_aggregate_as_key(
    machine: Machine, topics: Topics, topic: str
) -> None:
    made = event(n=1)
    machine().publish([made])

    with closing(topics.consumer(auto_offset_reset="earliest")) as consumer:
        consumer.subscribe([topic])
        record = next(consumer)

    assert (record.key, record.headers) == (f"{made.aggregate_type}/{made.aggregate_id}".encode(), [])
    assert type(made).model_validate_json(record.value) == made


# --- trouble ---------------------------------------------------------------------------------------------------------


def test_brokers_that_are_away_for_a_while_are_told_of_and_then_all_goes_on(
    kafka_brokers: str, kafka_process: ServerProcess, topic: str, tmp_path: Path
) -> None:
    with closing(KafkaEventLog(Connection(kafka_brokers, timeout=SHORT), topic, tmp_path / "replica.db")) as log:
        log.publish([event("1")])
        kafka_process.kill()
        with pytest.raises(EventLogError, match=r"cannot be written: Kafka at .*: no broker has answered") as written:
            log.publish([event("2")])
        with pytest.raises(EventLogError, match="cannot be read") as read:
            log.head()
        kafka_process.start()
        while True:
            try:
                assert log.publish([event("1"), event("3")])[0] is False
                break
            except EventLogError as error:
                assert error.retryable  # noqa: PT017  (until the broker is up)

    assert written.value.retryable
    assert read.value.retryable


def test_more_than_a_topic_takes_at_once_is_refused(machine: Machine) -> None:
    log = machine()

    with pytest.raises(EventLogError, match=r"1 record\(s\) of 40,\d+,\d+ bytes are more than the topic") as raised:
        log.publish([event(text="x" * 40_000_000)])

    assert not raised.value.retryable
    assert log.head() == 0


@pytest.mark.parametrize(
    ("made", "message", "hint"),
    [
        ({"partitions": 3}, "has 3 partitions", "name another topic"),
        ({"cleanup_policy": "compact"}, "forgets what was written long ago", "--add-config cleanup.policy=delete"),
        ({"retention_ms": "1000"}, "forgets what was written long ago", "--add-config retention.ms=-1"),
    ],
    ids=["partitions", "compacted", "retention"],
)
def test_a_topic_that_is_not_fit_for_a_log_is_refused(
    kafka_brokers: str, topics: Topics, tmp_path: Path, made: dict[str, Any], message: str, hint: str
) -> None:
    topic = topics.make("events", **({"retention_ms": "-1"} | made))

    with pytest.raises(EventLogError, match=message) as raised:
        KafkaEventLog(Connection(kafka_brokers), topic, tmp_path / "replica.db")

    assert hint in str(raised.value.hint)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("kafka://127.0.0.1:9092", "names no brokers, or no topic"),
        ("kafka:///events", "names no brokers, or no topic"),
        ("kafka://127.0.0.1:9092/my events", "names no brokers, or no topic"),
        ("kafka://127.0.0.1:9092/a/b", "names no brokers, or no topic"),
        ("kafka://127.0.0.1:9092/events?tsl=true", "has an unknown parameter, 'tsl'"),
        ("kafka://127.0.0.1:9092/events?mechanism=SCRAM", "has an unknown mechanism, 'SCRAM'"),
        ("kafka://127.0.0.1:9092/events?timeout=soon", "has a timeout that is no number of seconds, 'soon'"),
        ("kafka://127.0.0.1:1/events?timeout=1", "cannot be opened: .* no broker has answered for 1 s"),
        ("kafka://127.0.0.1/events?timeout=1", "cannot be opened"),
        ("kafka://127.0.0.1:1/events?ca=nowhere.pem", "TLS's files cannot be read"),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_wrong_url_is_told_of(url: str, message: str) -> None:
    with pytest.raises(EventLogError, match=message) as raised:
        open_log(url)

    assert "kafka://user:password@host1" in str(raised.value.hint) or "cannot be opened" in raised.value.message


@pytest.mark.usefixtures("project")
def test_brokers_are_reached_over_tls_by_a_user_with_a_password(secure_kafka: Kafka, topic: str) -> None:
    def url(password: str) -> str:
        asked = f"mechanism=SCRAM-SHA-512&ca={quote(str(secure_kafka.ca))}"
        return f"kafka://{USER}:{quote(password, safe='')}@{secure_kafka.secure}/{topic}?{asked}"

    with closing(open_log(url(PASSWORD))) as log:
        assert log.publish([event()]) == [True]
    with pytest.raises(EventLogError, match="the user or the password is refused") as raised:
        open_log(url("p@ss/word"))

    assert "p@ss" not in str(raised.value)
