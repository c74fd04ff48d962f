"""What readers of a topic see."""

from __future__ import annotations

from typing import Any

from kafka.structs import TopicPartition

from tests.services.topics import Topics


def committed(topics: Topics, topic: str) -> list[Any]:
    """The records that a reader of committed ones sees now, partition by partition."""
    with topics.consumer(isolation_level="read_committed", auto_offset_reset="earliest") as consumer:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
        ends = consumer.end_offsets(partitions)
        consumer.assign(partitions)
        found: dict[TopicPartition, list[Any]] = {partition: [] for partition in partitions}
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for partition, records in consumer.poll(50).items():
                found[partition] += records
        return [record for partition in partitions for record in found[partition]]
