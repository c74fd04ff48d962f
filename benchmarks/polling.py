"""Bare loops over a topic that only count: `python polling.py kafka_python|confluent BROKERS TOPIC RECORDS`."""

from __future__ import annotations

import sys
import uuid


def kafka_python(brokers: str, topic: str, left: int) -> None:
    """kafka-python's `poll`."""
    from kafka import KafkaConsumer
    from kafka.structs import TopicPartition

    partitions = [TopicPartition(topic, number) for number in range(3)]
    consumer = KafkaConsumer(bootstrap_servers=brokers, max_poll_records=5000)
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    while left:
        left -= sum(map(len, consumer.poll(1000).values()))
    consumer.close()


def confluent(brokers: str, topic: str, left: int) -> None:
    """confluent-kafka's `consume`."""
    from confluent_kafka import Consumer, TopicPartition  # type: ignore[import-not-found]

    consumer = Consumer({"bootstrap.servers": brokers, "group.id": uuid.uuid4().hex})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(3)])
    while left:
        left -= len(consumer.consume(5000, 1))
    consumer.close()


if __name__ == "__main__":
    {"kafka_python": kafka_python, "confluent": confluent}[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]))
