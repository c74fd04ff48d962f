"""Topics of Kafka as a source: each run reads every partition from where the last one stopped to where it ends now.

The offsets that count are the pipeline's state, which the destination commits together with the rows. The consumer
group gets a copy of them, for lag tools; nobody reads it here.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from errors import IntegrationError, SourceError
from etl.nested import dump, without_collector
from etl.overlap import check_wanted
from etl.pipeline import Brokers, StreamSource
from etl.sources.records import decoder_of
from etl.sources.rows import BATCH_BYTES
from etl.stream import BadRow, Batch, Broken, Origin, PartitionLag, State, Tombstones
from etl.variables import resolve
from integrations.kafka.connection import Connection, Tls
from integrations.kafka.decoding import decode_quickly
from integrations.kafka.errors import in_our_words, told
from integrations.kafka.topics import Bounds, Cluster, Topic
from settings import get_settings

logger = logging.getLogger(__name__)

PREFIX = "kafka_"
"""What the names of columns begin with that hold what is known of a record beside its value."""

_FETCH_BYTES = 8 << 20
"""What brokers send at a time, at most; a record that is larger comes alone."""

_LARGEST = 64 << 20
"""The largest answer that is taken: a record, or a compressed batch of them."""

_OVERHEAD = 300
"""About how many bytes a record takes in memory beside its key and value."""

_TOPICS_AGE = 10.0
"""Seconds for which a connection that lasts knows which topics and partitions there are."""

_LOOK = 0.05
"""Seconds that one look for records takes at most: a partition may be at its end without giving one."""

_Partition = Any  # kafka.structs.TopicPartition


class Stream:
    """Topics as a source.

    Args:
        source: What the pipeline file says.
        name: The pipeline's name.
        lasting: Whether readings share one connection, until `close`; else each has its own.
    """

    def __init__(self, source: StreamSource, name: str, *, lasting: bool = False) -> None:
        self._source = source
        self._group = source.group or f"pivotal-{name}"
        self._lasting = lasting
        self._wire: _Wire | None = None
        self.label = f"stream {', '.join(source.topics)}"

    def columns(self) -> list[str] | None:
        """CSV's columns, which the file names; only reading tells of others."""
        if self._source.format != "csv":
            return None
        return [*(self._source.columns or []), *self._source.added_columns]

    def open(self, state: State | None) -> _Reading:
        """Fixes what is read: from where the last run stopped to where each partition ends now.

        Raises:
            SourceError: The brokers cannot be reached or refuse us, a topic is not there, or records were deleted
                before they were read and the pipeline says `on_gap: fail`.
        """
        with _in_words():
            return _Reading(self._source, self._wired(), state or {}, lasting=self._lasting)

    def has_news(self, state: State) -> bool:
        """Whether a reading after `state` would find something: records, or that there is less than it has read.

        Raises:
            SourceError: See `open`.
        """
        with _in_words():
            wire = self._wired()
            topics = wire.topics()
            bounds = wire.cluster.bounds(_partitions(topics))
        return any(_is_another(state, topic) for topic in topics) or any(
            _read_up_to(state, partition) != each.end for partition, each in bounds.items()
        )

    def close(self) -> None:
        """Frees the connections, if they last."""
        if self._wire:
            self._wire.close()
            self._wire = None

    def _wired(self) -> _Wire:
        if not self._lasting:
            return _Wire(self._source, self._group)
        self._wire = self._wire or _Wire(self._source, self._group)
        return self._wire


class _Wire:
    """A consumer, connected.

    Args:
        source: What the pipeline file says.
        group: The consumer group that it shows offsets to.
    """

    def __init__(self, source: StreamSource, group: str) -> None:
        from kafka import KafkaConsumer

        self.connection = connection_of(source)
        self.decoder = decoder_of(source)
        self._wanted = [resolve(topic) for topic in source.topics]
        self._topics: Sequence[Topic] = ()
        self._asked = 0.0
        self.consumer: Any = self.connection.open(
            KafkaConsumer,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_bytes=_FETCH_BYTES,
            max_partition_fetch_bytes=_FETCH_BYTES // 4,
            receive_message_max_bytes=_LARGEST,
            metrics_enabled=False,
        )
        decode_quickly(self.consumer)
        self.cluster = Cluster(self.consumer, self.connection)

    def topics(self) -> Sequence[Topic]:
        """The topics, as they were a few seconds ago at most."""
        now = time.monotonic()
        if not self._topics or now - self._asked > _TOPICS_AGE:
            self._topics, self._asked = self.cluster.topics(self._wanted), now
        return self._topics

    def close(self) -> None:
        """Frees the connections."""
        self.decoder.close()
        self.consumer.close(autocommit=False, timeout_ms=1000)


def connection_of(declared: Brokers) -> Connection:
    """How brokers are reached, with the variables filled in.

    Raises:
        PivotalError: A `${NAME}` has no value.
    """
    auth, tls = declared.auth, declared.tls
    return Connection(
        brokers=resolve(declared.brokers),
        username=resolve(auth.username) if auth else "",
        password=resolve(auth.password) if auth else "",
        mechanism=auth.mechanism if auth else "PLAIN",
        tls=Tls(*map(_file, (tls.ca, tls.certificate, tls.key))) if tls else None,
        client_id=resolve(declared.client_id),
        timeout=declared.timeout.total_seconds(),
    )


class _Reading:
    """One reading of topics (`etl.stream.Extraction`, `etl.stream.Streaming`)."""

    def __init__(self, source: StreamSource, wire: _Wire, state: State, *, lasting: bool = False) -> None:
        self.bytes_read = 0
        self.missed = 0
        self._source, self._state = source, state
        self._decoder = wire.decoder
        self._wire, self._lasting = wire, lasting
        self._connection, self._consumer, self._cluster = wire.connection, wire.consumer, wire.cluster
        self._positions: dict[_Partition, int] = {}
        self._ends: dict[_Partition, int] = {}
        try:
            self._topics = wire.topics()
            self._fix_bounds()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Batch]:
        with _in_words():
            for records in self._gathered():
                yield self._batch(records)

    def state(self) -> State:
        """The offset of each partition that is read next; topics and partitions that are not seen now keep theirs."""
        known: Any = self._state.get("topics", {})
        topics = dict(known)
        for topic in self._topics:
            before = {} if _is_another(self._state, topic) else _offsets(self._state, topic.name)
            offsets = {str(number): self._positions[_partition(topic.name, number)] for number in topic.partitions}
            id_ = topic.id or _id_before(self._state, topic.name)
            topics[topic.name] = {"id": id_, "offsets": {**before, **offsets}}
        return {"topics": topics}

    def acknowledge(self) -> None:
        """Shows the consumer group's tools how far it was read."""
        from kafka.errors import KafkaError
        from kafka.structs import OffsetAndMetadata

        offsets = {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in self._positions.items()}
        try:
            self._consumer.commit(offsets, timeout_ms=5000)
        except KafkaError as error:
            logger.warning("the offsets are not shown to the group: %s", in_our_words(self._connection, "", error))

    def lag(self) -> Sequence[PartitionLag]:
        """See `Streaming.lag`."""
        return [
            PartitionLag(partition.topic, partition.partition, self._positions[partition], end)
            for partition, end in self._ends.items()
        ]

    def lag_now(self) -> Sequence[PartitionLag]:
        """See `Streaming.lag_now`."""
        try:
            bounds = self._cluster.bounds(list(self._ends))
            self._ends = {partition: max(end, bounds[partition].end) for partition, end in self._ends.items()}
            return self.with_ages()
        except (IntegrationError, SourceError) as error:
            logger.warning("how old the unread records are is not known: %s", error.message)
            return self.lag()

    def with_ages(self) -> list[PartitionLag]:
        """As `lag`, with the age of the oldest record that is unread; as far as that can be told in a few seconds."""
        behind = {partition for partition, end in self._ends.items() if self._positions[partition] < end}
        written: dict[_Partition, float] = {}
        self._assign(behind)
        deadline = time.monotonic() + min(5.0, self._connection.timeout)
        while behind and time.monotonic() < deadline:
            for partition, records in self._poll(500).items():
                written[partition] = records[0].timestamp / 1000
            self._moved(behind - set(written))
            behind = self._without_done(behind) - set(written)
            self._consumer.assign(list(behind))
        now = time.time()
        return [
            replace(each, oldest=max(0.0, now - written[partition]) if written.get(partition, -1) >= 0 else None)
            for partition, each in zip(self._ends, self.lag(), strict=True)
        ]

    def close(self) -> None:
        """Frees the connections, unless others use them, too."""
        if not self._lasting:
            self._wire.close()

    # --- from where, to where

    def _fix_bounds(self) -> None:
        bounds = self._cluster.bounds(_partitions(self._topics))
        first = self._first_offsets(bounds)
        for topic in self._topics:
            before = self._offsets_before(topic)
            for number in topic.partitions:
                partition = _partition(topic.name, number)
                there, known = bounds[partition], before.get(str(number))
                start = first[partition] if known is None else self._after_gap(partition, known, there)
                self._positions[partition], self._ends[partition] = start, max(start, there.end)

    def _offsets_before(self, topic: Topic) -> Mapping[str, int]:
        """Where the last run stopped; nowhere, if the topic of this name is another one by now."""
        if _is_another(self._state, topic):
            self._tell_gap(f"the topic {topic.name} was deleted and made again")
            return {}
        return _offsets(self._state, topic.name)

    def _first_offsets(self, bounds: Mapping[_Partition, Bounds]) -> Mapping[_Partition, int]:
        """Where partitions start that no run has read: a new one, once there was a run, at its beginning."""
        start = self._source.start
        if start == "earliest" or self._state.get("topics"):
            return {partition: each.first for partition, each in bounds.items()}
        ends = {partition: each.end for partition, each in bounds.items()}
        return {**ends, **self._cluster.at(start, list(bounds))} if isinstance(start, datetime) else ends

    def _after_gap(self, partition: _Partition, position: int, bounds: Bounds) -> int:
        """Where the reading goes on; records between may have been deleted unread."""
        if position > bounds.end:
            self._tell_gap(f"{_named(partition)} ends at {bounds.end}, but was read up to {position}")
            return bounds.end
        if position < bounds.first:
            self.missed += bounds.first - position
            self._tell_gap(f"{_named(partition)} begins at {bounds.first}, but was read up to {position}")
        return max(position, bounds.first)

    def _tell_gap(self, what: str) -> None:
        message = f"{what}: records were deleted before they were read"
        if self._source.on_gap == "fail":
            raise SourceError(
                message,
                hint="run more often, or let the topic keep records for longer (retention.ms); `on_gap: continue` goes "
                "on behind them and reports how many there were",
            )
        logger.warning("%s", message)

    # --- what is there

    def _gathered(self) -> Iterator[list[Any]]:
        """Records in batches of about `BATCH_BYTES`."""
        waiting: list[Any] = []
        size = 0
        for records, bytes_of in self._read():
            waiting += records
            self.bytes_read += bytes_of
            size += bytes_of + _OVERHEAD * len(records)
            if size >= BATCH_BYTES:
                yield waiting
                waiting, size = [], 0
        if waiting:
            yield waiting

    def _read(self) -> Iterator[tuple[list[Any], int]]:
        """The records up to the ends, a few at a time, in the order of each partition; and how many bytes they are."""
        reading = {partition for partition, end in self._ends.items() if self._positions[partition] < end}
        self._assign(reading)
        left, at_once = self._source.max_records, 500
        began = heard = time.monotonic()
        while reading and left != 0 and not self._is_late(began):
            check_wanted()
            found = self._poll(at_once if left is None else min(at_once, left))
            records = self._wanted(found)
            if found or self._moved(reading):
                heard = time.monotonic()
            elif time.monotonic() - heard > self._connection.timeout:
                raise self._away(reading)
            if records:
                bytes_of = _bytes_of(records)
                at_once = _fair(bytes_of // len(records))
                left = None if left is None else left - len(records)
                yield records, bytes_of
            reading = self._without_done(reading)

    def _is_late(self, began: float) -> bool:
        longest = self._source.max_seconds
        return longest is not None and time.monotonic() - began > longest.total_seconds()

    def _assign(self, partitions: Collection[_Partition]) -> None:
        self._consumer.assign(list(partitions))
        for partition in partitions:
            self._consumer.seek(partition, self._positions[partition])

    def _poll(self, at_most: int) -> Mapping[_Partition, Sequence[Any]]:
        from kafka.errors import OffsetOutOfRangeError

        try:
            with told(self._connection, "fetch"), without_collector():
                found: Mapping[_Partition, Sequence[Any]] = self._consumer.poll(round(_LOOK * 1000), at_most)
        except IntegrationError as error:
            if error.code != OffsetOutOfRangeError.__name__:
                raise
            self._skip_deleted()
            return {}
        return found

    def _skip_deleted(self) -> None:
        """Records are deleted while they are read, too."""
        assigned = self._consumer.assignment()
        for partition, there in self._cluster.bounds(assigned).items():
            after = self._after_gap(partition, self._positions[partition], there)
            if after != self._positions[partition]:
                self._positions[partition] = after
                self._consumer.seek(partition, after)

    def _wanted(self, found: Mapping[_Partition, Sequence[Any]]) -> list[Any]:
        """The records before the ends; the positions are behind them then."""
        wanted: list[Any] = []
        for partition, records in found.items():
            end = self._ends[partition]
            before = records if records[-1].offset < end else [each for each in records if each.offset < end]
            self._positions[partition] = min(end, records[-1].offset + 1)
            wanted += before
        return wanted

    def _moved(self, partitions: Collection[_Partition]) -> bool:
        """Whether a position has moved over what is no record: ends of transactions, and what was aborted in them."""
        moved = False
        for partition in partitions:
            with told(self._connection, "position"):
                position = self._consumer.position(partition, timeout_ms=round(_LOOK * 1000))
            if position is not None and position > self._positions[partition]:
                self._positions[partition] = min(position, self._ends[partition])
                moved = True
        return moved

    def _without_done(self, reading: set[_Partition]) -> set[_Partition]:
        left = {partition for partition in reading if self._positions[partition] < self._ends[partition]}
        if left != reading:
            self._consumer.assign(list(left))  # what was fetched of the others is let go of
        return left

    def _away(self, reading: Collection[_Partition]) -> SourceError:
        first = min(reading)
        return SourceError(
            f"Kafka at {self._connection.brokers}: no broker has given the records of {_named(first)} from "
            f"{self._positions[first]} on for {self._connection.timeout:g} s",
            hint="see that the brokers run, that each partition has a leader, and that no record is larger than "
            f"{_LARGEST >> 20} MB; the next run goes on there",
            retryable=True,
        )

    # --- as rows

    def _batch(self, records: Sequence[Any]) -> Batch:
        source = self._source
        gone = [place for place, record in enumerate(records) if record.value is None]
        bad: dict[int, tuple[str, str]] = {}
        if source.tombstones == "quarantine":
            bad = dict.fromkeys(gone, ("tombstones: quarantine", "a record without a value (a tombstone)"))
        skipped = set(gone) if source.tombstones == "skip" else set()
        if "key" in source.metadata:
            bad |= {
                place: why for place, why in _bad_keys(records).items() if place not in skipped and place not in bad
            }
        deleting = [place for place in gone if place not in bad] if source.tombstones == "delete" else []
        aside = {*bad, *skipped, *deleting}
        kept = [place for place in range(len(records)) if place not in aside]
        decoded = self._decoder.decode([records[place].value for place in kept])
        bad |= {kept[place]: (f"source: {self._decoder.name}", what) for place, what in decoded.bad.items()}
        good = [place for place in kept if place not in bad]
        places = [records[place][:3] for place in good]  # what is asked for later must not keep the values in memory
        return Batch(
            self._with_metadata(decoded.rows, [records[place] for place in good]),
            lambda index: _origin(places[index]),
            bad=[_bad_row(records[place], *why) for place, why in sorted(bad.items())],
            filtered=len(skipped),
            tombstones=self._tombstones(records, deleting, good) if deleting else None,
        )

    def _tombstones(self, records: Sequence[Any], places: Sequence[int], rows: Sequence[int]) -> Tombstones:
        some = [records[place] for place in places]
        keys, origins = [record.key for record in some], [record[:3] for record in some]
        return Tombstones(
            keys,
            self._known(some),
            before=[bisect_left(rows, place) for place in places],
            bad=lambda index, broken: BadRow(_shown(None, keys[index]), {}, broken, _origin(origins[index])),
        )

    def _known(self, records: Sequence[Any]) -> dict[str, pa.Array]:
        return {PREFIX + name: _COLUMNS[name](records) for name in self._source.metadata}

    def _with_metadata(self, rows: pa.RecordBatch, records: Sequence[Any]) -> pa.RecordBatch:
        if not records and not rows.num_columns:
            return rows  # there is no record that tells which columns there are
        columns = self._known(records)
        if self._source.tombstones == "keep":
            columns[PREFIX + "tombstone"] = pa.array([record.value is None for record in records], pa.bool_())
        for name, column in columns.items():
            if name in rows.schema.names:
                raise SourceError(
                    f"{self._source.format} values have a field {name}, too",
                    hint=f"leave `{name.removeprefix(PREFIX)}` out of `metadata`",
                )
            rows = rows.append_column(name, column)
        return rows


def lags(declared: StreamSource, name: str, state: State | None) -> list[PartitionLag]:
    """How far a pipeline is behind, by partition. Nothing is read but the oldest record that is unread of each.

    Args:
        declared: Its source.
        name: Its name.
        state: What its last run remembered.

    Raises:
        SourceError: See `Stream.open`.
    """
    patient = declared.model_copy(update={"on_gap": "continue"})
    with closing(Stream(patient, name).open(state)) as reading, _in_words():
        return reading.with_ages()


def _file(path: str | None) -> str:
    return str(get_settings().path(resolve(path))) if path else ""


@contextmanager
def _in_words() -> Iterator[None]:
    """Tells what the brokers say as an error of the source."""
    try:
        yield
    except IntegrationError as error:
        raise SourceError(error.message, hint=error.hint, retryable=error.retryable) from None


def _partition(topic: str, number: int) -> _Partition:
    from kafka.structs import TopicPartition

    return TopicPartition(topic, number)


def _partitions(topics: Sequence[Topic]) -> list[_Partition]:
    return [_partition(topic.name, number) for topic in topics for number in topic.partitions]


def _is_another(state: State, topic: Topic) -> bool:
    """Whether the topic that was read before had the same name only; not every answer of every broker has an id."""
    before = _id_before(state, topic.name)
    return bool(before and topic.id and before != topic.id)


def _id_before(state: State, topic: str) -> str:
    topics: Any = state.get("topics", {})
    found: str = topics.get(topic, {}).get("id", "")
    return "" if found == "None" else found  # as it was written once


def _offsets(state: State, topic: str) -> Mapping[str, int]:
    """Partition -> the offset that is read next, of those that were read before."""
    topics: Any = state.get("topics", {})
    found: Mapping[str, int] = topics.get(topic, {}).get("offsets", {})
    return found


def _read_up_to(state: State, partition: _Partition) -> int:
    return _offsets(state, partition.topic).get(str(partition.partition), 0)


def _named(partition: _Partition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _bytes_of(records: Sequence[Any]) -> int:
    values = [record.value for record in records if record.value]
    keys = [record.key for record in records if record.key]
    headers = [each for record in records for header in record.headers for each in header if each]
    return sum(map(len, values)) + sum(map(len, keys)) + sum(map(len, headers))


def _fair(size: int) -> int:
    """How many records of about that size to ask for at a time, so that they fit into a batch."""
    return min(5000, max(1, BATCH_BYTES // (size + _OVERHEAD)))


def _origin(place: tuple[str, int, int]) -> Origin:
    return dict(zip(("topic", "partition", "offset"), place, strict=True))


def _bad_row(record: Any, rule: str, what: str) -> BadRow:  # noqa: ANN401  (kafka-python has no types)
    return BadRow(_shown(record.value, record.key), {}, [Broken("", rule, what)], _origin(record[:3]))


def _shown(value: bytes | None, key: bytes | None) -> dict[str, str | None]:
    """A record that is no row, as text; without a value it has nothing but its key."""
    row = {"value": None if value is None else value.decode("utf-8", "backslashreplace")}
    if value is None and key is not None:
        row["key"] = key.decode("utf-8", "backslashreplace")
    return row


def _bad_keys(records: Sequence[Any]) -> dict[int, tuple[str, str]]:
    try:
        _keys(records)
    except pa.ArrowInvalid:
        why = "metadata: key", "the key is not UTF-8 (`key_bytes` takes any)"
        return {place: why for place, record in enumerate(records) if not _is_text(record.key)}
    return {}


def _is_text(key: bytes | None) -> bool:
    try:
        (key or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _keys(records: Sequence[Any]) -> pa.Array:
    return _key_bytes(records).cast(pa.string())


def _key_bytes(records: Sequence[Any]) -> pa.Array:
    return pa.array([record.key for record in records], pa.binary())


def _timestamps(records: Sequence[Any]) -> pa.Array:
    """When records were written; -1 is Kafka's word for nobody knows."""
    numbers = pa.array([record.timestamp for record in records], pa.int64())
    known = pc.if_else(pc.greater_equal(numbers, 0), numbers, pa.scalar(None, pa.int64()))
    return known.cast(pa.timestamp("ms", "UTC"))


def _headers(records: Sequence[Any]) -> pa.Array:
    texts = [dump(_object(record.headers)) for record in records]
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


def _object(headers: Sequence[tuple[str, bytes | None]]) -> Mapping[str, object] | None:
    """Headers as an object; one that comes several times has a list."""
    values: dict[str, list[str | None]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(None if value is None else value.decode("utf-8", "backslashreplace"))
    return {name: each if len(each) > 1 else each[0] for name, each in values.items()} or None


_COLUMNS = {
    "topic": lambda records: pa.array([record.topic for record in records], pa.string()),
    "partition": lambda records: pa.array([record.partition for record in records], pa.int64()),
    "offset": lambda records: pa.array([record.offset for record in records], pa.int64()),
    "timestamp": _timestamps,
    "key": _keys,
    "key_bytes": _key_bytes,
    "headers": _headers,
}
