"""Topics of a Kafka for a test: made, written to, changed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import orjson
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewPartitions, NewTopic
from kafka.errors import RetriableError
from kafka.structs import TopicPartition

T = TypeVar("T")


class Topics:
    """Makes topics and writes to them.

    Args:
        brokers: host:port.
    """

    def __init__(self, brokers: str) -> None:
        self.brokers = brokers
        self.admin = KafkaAdminClient(bootstrap_servers=brokers)
        self._producer = self._new_producer()

    def make(self, name: str = "", *, partitions: int = 1, **configs: str) -> str:
        """A topic that no other test has; configs are Kafka's: `cleanup_policy`."""
        topic = unique(name)
        self.make_named(topic, partitions, **configs)
        return topic

    def make_named(self, topic: str, partitions: int = 1, **configs: str) -> None:
        """The topic of a name."""
        named = {key.replace("_", "."): value for key, value in configs.items()}
        made = NewTopic(topic, partitions, 1, topic_configs=named)
        patiently(lambda: self.admin.create_topics([made]))
        self.admin.wait_for_topics([topic])

    def delete(self, topic: str) -> None:
        """Deletes a topic, and waits until it is gone."""
        self.admin.delete_topics([topic])
        with self.consumer() as consumer:
            while topic in consumer.topics():
                pass

    def grow(self, topic: str, partitions: int) -> None:
        """Gives a topic more partitions."""
        self.admin.create_partitions({topic: NewPartitions(partitions)})
        self.admin.wait_for_topics([topic])
        self._producer.close()
        self._producer = self._new_producer()  # the old one would learn of them in minutes

    def drop_records(self, topic: str, before: int) -> None:
        """Deletes the records of partition 0 before an offset, as retention does."""
        self.admin.delete_records({TopicPartition(topic, 0): before})

    def send(self, topic: str, values: Iterable[Any], **record: Any) -> None:
        """Writes values: bytes as they are, None, everything else as JSON."""
        for value in values:
            self._producer.send(topic, value=as_bytes(value), **record)
        self._producer.flush()

    def committed(self, group: str, topic: str) -> int | None:
        """What a group's tools see of partition 0."""
        with self.consumer(group_id=group) as consumer:
            return consumer.committed(TopicPartition(topic, 0))  # type: ignore[no-any-return]

    @contextmanager
    def producer(self, **options: Any) -> Iterator[Any]:
        """Another producer."""
        producer = KafkaProducer(bootstrap_servers=self.brokers, **options)
        try:
            yield producer
        finally:
            producer.close()

    def consumer(self, **options: Any) -> Any:
        """A consumer, to be closed."""
        return KafkaConsumer(bootstrap_servers=self.brokers, enable_auto_commit=False, **options)

    def _new_producer(self) -> Any:
        return KafkaProducer(bootstrap_servers=self.brokers, acks="all", max_request_size=100 << 20)

    def close(self) -> None:
        """Frees the connections."""
        self._producer.close()
        self.admin.close()


def unique(name: str = "") -> str:
    """A name that no other test has."""
    return f"{name or 'topic'}.{uuid.uuid4().hex}"


def patiently(call: Callable[[], T]) -> T:
    """Calls a broker that another test may have killed a moment ago."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return call()
        except RetriableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="session")
def topics(kafka_brokers: str) -> Iterator[Topics]:
    """Topics of the session's Kafka."""
    with closing(Topics(kafka_brokers)) as made:
        yield made


def as_bytes(value: Any) -> bytes | None:
    """A record's value."""
    return value if value is None or isinstance(value, bytes) else orjson.dumps(value)


def offsets(state: Mapping[str, Any] | None, topic: str) -> Mapping[str, int]:
    """What a stream's state says of a topic."""
    found: Mapping[str, int] = (state or {})["topics"][topic]["offsets"]
    return found
