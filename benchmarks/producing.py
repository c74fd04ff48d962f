"""Fills a topic of three partitions: `python producing.py kafka_python|confluent BROKERS TOPIC RECORDS COMPRESSION`.

confluent-kafka writes several times as many records a second.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

LINGER, BATCH = 50, 1 << 18
"""Milliseconds for which a batch is held open, and its bytes."""


def record(number: int) -> bytes:
    """An order of about 200 bytes; every third is void."""
    return json.dumps(
        {
            "id": number, "amt": f"{number % 1000}.{number % 100:02}", "status": ("paid", "open", "void")[number % 3],
            "email": f"customer{number % 9973}@example.com", "created": "2024-01-31T12:00:00Z", "note": "x" * 72,
        }
    ).encode()  # fmt: skip


def kafka_python(brokers: str, topic: str, records: int, compression: str) -> None:
    """By kafka-python."""
    from kafka import KafkaProducer

    producer = KafkaProducer(
        bootstrap_servers=brokers,
        compression_type=None if compression == "none" else compression,
        linger_ms=LINGER,
        batch_size=BATCH,
    )
    _write(producer.send, topic, records)
    producer.close()


def confluent(brokers: str, topic: str, records: int, compression: str) -> None:
    """By confluent-kafka."""
    from confluent_kafka import Producer  # type: ignore[import-not-found]

    options = {"compression.type": compression, "linger.ms": LINGER, "batch.size": BATCH}
    producer = Producer({"bootstrap.servers": brokers, "queue.buffering.max.messages": 500_000, **options})

    def produce(*what: Any, **record: Any) -> None:
        while True:
            try:
                return producer.produce(*what, **record)  # type: ignore[no-any-return]
            except BufferError:  # as many as there is room for wait to be sent
                producer.poll(0.1)

    _write(produce, topic, records)
    if left := producer.flush(120):
        sys.exit(f"{left} records are not written")


def _write(write: Callable[..., object], topic: str, records: int) -> None:
    for number in range(records):
        write(topic, record(number), key=b"%d" % number, partition=number % 3)


if __name__ == "__main__":
    write_by = {"kafka_python": kafka_python, "confluent": confluent}[sys.argv[1]]
    write_by(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
