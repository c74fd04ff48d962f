"""The last record of a topic: how a topic that is compacted remembers one thing."""

from __future__ import annotations

import time
from typing import Any

from integrations.kafka.connection import Connection
from integrations.kafka.errors import KafkaIntegrationError, patiently, told

_LOOK = 50
"""Milliseconds that one look takes at most."""


def last_value(connection: Connection, topic: str) -> bytes | None:
    """The value of the last record in partition 0 that is committed; None if there is none, or no such topic.

    Args:
        connection: How the brokers are reached.
        topic: The topic.

    Raises:
        KafkaIntegrationError: They cannot be reached, or refuse us.
    """
    from kafka import KafkaConsumer

    consumer: Any = connection.open(
        KafkaConsumer,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        metrics_enabled=False,
    )
    try:
        if topic not in patiently(connection, "topics", consumer.topics):
            return None
        with told(connection, "fetch"):
            return _last(consumer, connection, topic)
    finally:
        consumer.close(autocommit=False, timeout_ms=1000)


def _last(consumer: Any, connection: Connection, topic: str) -> bytes | None:  # noqa: ANN401  (it has no types)
    """Looks back from the end, further and further: ends of transactions and aborted records have offsets, too."""
    from kafka.structs import TopicPartition

    partition, wait = TopicPartition(topic, 0), round(connection.timeout * 1000)
    end = consumer.end_offsets([partition], timeout_ms=wait)[partition]
    first = consumer.beginning_offsets([partition], timeout_ms=wait)[partition]
    consumer.assign([partition])
    start, back, found = end, 2, None
    while found is None and start > first:
        start = max(first, end - back)
        consumer.seek(partition, start)
        found = _value_before(consumer, connection, partition, end)
        back *= 2
    return found


def _value_before(consumer: Any, connection: Connection, partition: Any, end: int) -> bytes | None:  # noqa: ANN401
    found, deadline = None, time.monotonic() + connection.timeout
    while (consumer.position(partition, timeout_ms=_LOOK) or 0) < end:
        for record in consumer.poll(_LOOK).get(partition, ()):
            found = record.value if record.offset < end else found
        if time.monotonic() > deadline:
            raise KafkaIntegrationError(
                f"Kafka at {connection.brokers}: no broker has given the records of {partition.topic} for "
                f"{connection.timeout:g} s",
                service="kafka",
                operation="fetch",
                hint="see that the brokers run, and that each partition has a leader",
                retryable=True,
            )
    return found
