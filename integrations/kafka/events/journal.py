"""The topic of an event log: one partition, so that all records have one order, which everybody sees alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from threading import Lock
from typing import Any

from errors import EventLogError
from integrations.kafka.admin import Admin
from integrations.kafka.connection import Connection
from integrations.kafka.errors import told
from integrations.kafka.last import last_value
from integrations.kafka.topics import Cluster
from integrations.kafka.transactions import Record

_REQUEST_BYTES = 64 << 20
"""What brokers are sent at a time, at most."""

_LINGER = 1000
"""Milliseconds: a batch is sent when all of its records are in it, which takes far less."""

READING: Mapping[str, Any] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "metrics_enabled": False,
    "fetch_max_bytes": _REQUEST_BYTES,
    "receive_message_max_bytes": 4 * _REQUEST_BYTES,
}
"""What kafka-python's consumers of a log are told."""

_BATCH_OVERHEAD = 128
"""Bytes of a batch without records, more or less."""


class Journal:
    """Appends records to a topic, and tells what it has. Threads may share it.

    Args:
        connection: How the brokers are reached.
        topic: The topic; it is made if it is not there.

    Raises:
        KafkaIntegrationError: The brokers cannot be reached or refuse us, or the topic forgets records.
        EventLogError: The topic has several partitions: no order for all of its records.
    """

    def __init__(self, connection: Connection, topic: str) -> None:
        from kafka import KafkaConsumer
        from kafka.structs import TopicPartition

        self.connection, self.topic = connection, topic
        self._partition: Any = TopicPartition(topic, 0)
        with Admin(connection) as admin:
            admin.make_endless(topic)
            self._largest = min(admin.largest(topic), _REQUEST_BYTES)
        self._appending, self._asking = Lock(), Lock()
        self._producer: Any = None
        self._consumer = connection.open(KafkaConsumer, **READING)
        self._cluster = Cluster(self._consumer, connection)
        try:
            self._check_partitions()
        except BaseException:
            self.close()
            raise

    def append(self, records: Sequence[Record]) -> list[int]:
        """Appends records, all or none; returns their offsets once all replicas in sync have them.

        Raises:
            KafkaIntegrationError: They may be there or not, if it is retryable; else they are not.
            EventLogError: They are too large for one batch.
        """
        size = sum(record.size for record in records) + _BATCH_OVERHEAD
        if size > self._largest:
            raise EventLogError(
                f"{len(records)} record(s) of {size:,} bytes are more than the topic {self.topic} takes at once "
                f"({self._largest:,})",
                hint="publish fewer or smaller events at once, or raise the topic's max.message.bytes",
            )
        with self._appending:
            try:
                with told(self.connection, "produce"):
                    return self._send(records)
            except BaseException:  # nothing of it may be left, to be sent with others later
                self._discard_producer()
                raise

    def end(self) -> int:
        """The offset of the record that comes next."""
        with self._asking, told(self.connection, "list_offsets"):
            wait = round(self.connection.timeout * 1000)
            ends: Mapping[Any, int] = self._consumer.end_offsets([self._partition], timeout_ms=wait)
        return ends[self._partition]

    def place(self) -> tuple[str, int, int]:
        """What tells the topic from one that was made anew; its first record's offset, and the next one's."""
        with self._asking:
            [topic] = self._cluster.topics([self.topic])
            bounds = self._cluster.bounds([self._partition])[self._partition]
        return topic.id, bounds.first, bounds.end

    def delete_before(self, offset: int) -> None:
        """Deletes the records before an offset."""
        with Admin(self.connection) as admin:
            admin.delete_before(self.topic, offset)

    def keep_snapshot(self, value: bytes) -> None:
        """Keeps what a reader must know who finds the first records deleted: the last one that was kept counts."""
        topic = self._snapshots
        with Admin(self.connection) as admin:
            admin.make_compacted(topic)
            largest = admin.largest(topic)
        with closing(_producer(self.connection, largest)) as producer, told(self.connection, "produce"):
            producer.send(topic, key=self.topic.encode(), value=value).get(self.connection.timeout + 1)

    def snapshot(self) -> bytes | None:
        """What was kept last."""
        return last_value(self.connection, self._snapshots)

    def close(self) -> None:
        """Frees the connections."""
        with self._appending:
            self._discard_producer()
        self._consumer.close(autocommit=False, timeout_ms=1000)

    @property
    def _snapshots(self) -> str:
        return f"{self.topic}.snapshot"

    def _send(self, records: Sequence[Record]) -> list[int]:
        """Sends the records as one batch: the broker takes it whole."""
        if self._producer is None:
            self._producer = _producer(self.connection, self._largest)
        sent = [
            self._producer.send(self.topic, key=each.key, value=each.value, headers=list(each.headers), partition=0)
            for each in records
        ]
        self._producer.flush(self.connection.timeout + 1)
        return [each.get(0).offset for each in sent]

    def _discard_producer(self) -> None:
        from kafka.errors import KafkaError

        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                producer.close(timeout=0)
            except KafkaError:  # records are left that nobody takes
                producer._sender.force_close()  # noqa: SLF001  (otherwise its thread goes on)

    def _check_partitions(self) -> None:
        [topic] = self._cluster.topics([self.topic])
        if len(topic.partitions) != 1:
            raise EventLogError(
                f"the topic {self.topic} has {len(topic.partitions)} partitions: its records have no order",
                hint="name another topic in PIVOTAL_EVENTS_URL; if it is not there, it is made as it must be",
            )


def _producer(connection: Connection, largest: int) -> Any:  # noqa: ANN401  (kafka-python has no types)
    from kafka import KafkaProducer

    wait = round(connection.timeout * 1000)
    return connection.open(
        KafkaProducer,
        acks="all",
        enable_idempotence=True,
        max_block_ms=wait,
        linger_ms=_LINGER,
        delivery_timeout_ms=wait + _LINGER,
        batch_size=largest,
        max_request_size=2 * _REQUEST_BYTES,
        compression_type="lz4",
        metrics_enabled=False,
    )
