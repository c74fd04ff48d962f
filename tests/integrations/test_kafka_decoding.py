"""Records are decoded as kafka-python decodes them."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.structs import TopicPartition

from integrations.kafka.decoding import decode_quickly

PARTITION = TopicPartition("orders", 3)

sizes = st.one_of(st.none(), st.binary(max_size=200))
headers = st.lists(st.tuples(st.text(max_size=10), sizes), max_size=3)
records = st.lists(st.tuples(st.integers(0, 2**40), sizes, sizes, headers), min_size=1, max_size=20)


def batch_of(told: list[tuple[Any, ...]], compression: int = 0) -> bytes:
    builder = MemoryRecordsBuilder(magic=2, compression_type=compression, batch_size=1 << 20)
    for timestamp, key, value, each in told:
        builder.append(timestamp, key, value, each)
    builder.close()
    return bytes(builder.buffer())


def quick() -> Any:
    consumer = SimpleNamespace(_fetcher=SimpleNamespace())
    decode_quickly(consumer)
    return consumer._fetcher.PartitionRecords


def decoded(kind: Any, batches: bytes, start: int, *, check: bool = True) -> tuple[list[tuple[Any, ...]], int]:
    """The records from an offset on, and where the next fetch begins."""
    reader = kind(start, PARTITION, MemoryRecords(batches), check_crcs=check)
    told = [(each.offset, each.timestamp, each.key, each.value, each.headers) for each in reader.take()]
    if reader:
        reader.take()  # raises what came after them
    return told, reader.next_fetch_offset


@settings(max_examples=50)
@given(records, st.sampled_from([0, 1, 2, 3, 4]), st.integers(0, 25))
def test_what_is_decoded_is_what_kafka_python_decodes(
    told: list[tuple[Any, ...]], compression: int, start: int
) -> None:
    batches = batch_of(told, compression) * 2

    assert decoded(quick(), batches, start) == decoded(Fetcher.PartitionRecords, batches, start)


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("magic", [0, 1])
def test_records_of_the_old_formats_are_decoded_too(magic: int, compression: int) -> None:
    builder = MemoryRecordsBuilder(magic=magic, compression_type=compression, batch_size=1 << 20)
    for value in (b"a", None, b"c"):
        builder.append(1000, b"k", value, [])
    builder.close()
    at = 1000 if magic else -1

    found, after = decoded(quick(), bytes(builder.buffer()), 1)

    assert found == [(1, at, b"k", None, []), (2, at, b"k", b"c", [])]
    assert after == 3


@settings(max_examples=50)
@given(records, st.data())
def test_damaged_records_are_told_whatever_is_wrong(told: list[tuple[Any, ...]], data: st.DataObject) -> None:
    batch = bytearray(batch_of(told))
    place = data.draw(st.integers(61, len(batch) - 1))  # after the header
    batch[place] ^= data.draw(st.integers(1, 255))

    with pytest.raises(CorruptRecordError):
        decoded(quick(), bytes(batch), 0)
    try:
        decoded(quick(), bytes(batch), 0, check=False)
    except CorruptRecordError:
        return  # a changed value is none that shows


def test_an_end_of_a_transaction_that_compaction_has_emptied_is_passed_over() -> None:
    control, producer = 0x30, 7
    empty = struct.pack(">qiibIhiqqqhii", 0, 49, 0, 2, 0, control, 2, 0, 0, producer, 0, -1, 0)
    batch = bytearray(batch_of([(1, b"k", b"v", [])]))
    struct.pack_into(">q", batch, 0, 3)  # its offset, which the checksum leaves out
    reader = quick()(
        0,
        PARTITION,
        MemoryRecords(empty + bytes(batch)),
        check_crcs=False,
        isolation_level=IsolationLevel.READ_COMMITTED,
    )

    assert [each.offset for each in reader.take()] == [3]
    assert reader.next_fetch_offset == 4


def test_records_are_of_their_partition() -> None:
    (record,) = quick()(0, PARTITION, MemoryRecords(batch_of([(1, b"k", b"v", [])]))).take()

    assert (record.topic, record.partition, record.key, record.value) == ("orders", 3, b"k", b"v")
