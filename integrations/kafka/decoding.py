"""Records out of what brokers send, at half of kafka-python's cost: a topic is read as fast as they come out of it.

Its consumer makes an object with twelve fields of each record, through some thirty calls. Here a record is what a
source needs of it, and the bytes of a batch (https://kafka.apache.org/documentation/#recordbatch) are walked through
once. What is about batches stays kafka-python's: checksums, compression, transactions, where the next fetch begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class Record(NamedTuple):
    """A record of a topic.

    Args:
        topic: The topic.
        partition: The partition's number.
        offset: The record's own.
        timestamp: When it was written, in milliseconds since 1970; -1 if nobody knows.
        key: Its key.
        value: Its value; None is a tombstone.
        headers: Its headers, in their order.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def decode_quickly(consumer: Any) -> None:  # noqa: ANN401  (kafka-python has no types)
    """Lets a `KafkaConsumer` give `Record`s."""
    from kafka.consumer.fetcher import Fetcher
    from kafka.errors import CorruptRecordError
    from kafka.protocol.consumer import IsolationLevel

    class PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
        """Differs in what it makes of a record, and in nothing else."""

        next_fetch_offset: int
        bytes_read: int

        def _unpack_records(self, partition: Any, batches: Any, *_: object) -> Iterator[Record]:  # noqa: ANN401
            while (batch := batches.next_batch()) is not None:
                if self.check_crcs and not batch.validate_crc():
                    raise CorruptRecordError(f"{partition.topic}/{partition.partition} at {batch.base_offset}")
                try:
                    for record in () if self._is_left_out(batch) else _records(partition, batch):
                        self.records_read += 1
                        self.next_fetch_offset = record.offset + 1
                        yield record
                except (IndexError, ValueError) as error:
                    raise CorruptRecordError(f"{partition.topic}/{partition.partition}: {error}") from None
                if batch.magic >= 2:  # compaction may have left out a batch's last records
                    self.next_fetch_offset = batch.next_offset
            self.bytes_read = max(1, self.bytes_read)  # whose turn it is depends on whether there was something
            self.drain()

        def _is_left_out(self, batch: Any) -> bool:  # noqa: ANN401
            """Whether a batch is of an aborted transaction, or the end of one."""
            if batch.magic < 2:
                return False
            self.leader_epoch = batch.leader_epoch
            if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
                self._consume_aborted_transactions_up_to(batch.last_offset)
                if batch.records_count and self._contains_abort_marker(batch):  # compaction may have emptied it
                    self.aborted_producer_ids.discard(batch.producer_id)
                elif self._is_batch_aborted(batch):
                    return True
            return bool(batch.is_control_batch)

    consumer._fetcher.PartitionRecords = PartitionRecords  # noqa: SLF001  (there is no other way in)


def _records(partition: Any, batch: Any) -> Iterator[Record]:  # noqa: ANN401
    if batch.magic < 2:
        for each in batch:
            at = -1 if each.timestamp is None else each.timestamp
            yield Record(partition.topic, partition.partition, each.offset, at, each.key, each.value, each.headers)
        return
    iter(batch)  # which uncompresses it
    buffer, at = bytes(batch._buffer), batch._pos  # noqa: SLF001  (the bytes have no other name)
    topic, number, base = partition.topic, partition.partition, batch.base_offset
    first = batch.first_timestamp
    appended = batch.max_timestamp if batch.timestamp_type else None
    for _ in range(batch.records_count):
        length, at = varint(buffer, at)
        end = at + length
        since, at = varint(buffer, at + 1)  # after the attributes, which mean nothing yet
        offset, at = varint(buffer, at)
        size, at = varint(buffer, at)
        key = None if size < 0 else buffer[at : at + size]
        at += max(size, 0)
        size, at = varint(buffer, at)
        value = None if size < 0 else buffer[at : at + size]
        at += max(size, 0)
        count, at = varint(buffer, at)
        headers: list[tuple[str, bytes | None]] = []
        if count:
            headers, at = _headers(buffer, at, count)
        if at != end:
            raise ValueError(f"a record of {length} bytes ends elsewhere")
        yield Record(topic, number, base + offset, first + since if appended is None else appended, key, value, headers)
    if at != len(buffer):
        raise ValueError("bytes are left over")


def _headers(buffer: bytes, at: int, count: int) -> tuple[list[tuple[str, bytes | None]], int]:
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        size, at = varint(buffer, at)
        name = buffer[at : at + size].decode()
        at += size
        size, at = varint(buffer, at)
        headers.append((name, None if size < 0 else buffer[at : at + size]))
        at += max(size, 0)
    return headers, at


def varint(buffer: bytes, at: int) -> tuple[int, int]:
    """A zigzag varint, and where the next one begins.

    Raises:
        IndexError: The bytes end within it.
        ValueError: It has more than 64 bits.
    """
    byte = buffer[at]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at + 1
    result, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = buffer[at]
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (result >> 1) ^ -(result & 1), at + 1
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
