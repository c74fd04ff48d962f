"""What there is to read: topics by name or glob, their partitions, and which offsets those have."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from integrations.kafka.connection import Connection
from integrations.kafka.errors import KafkaIntegrationError, patiently, told
from integrations.kafka.moves import leaderless

_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic.

    Args:
        name: Its name.
        id: What tells it from one of the same name that was deleted; "" if the brokers do not say (before 2.8).
        partitions: The numbers of its partitions.
    """

    name: str
    id: str
    partitions: Sequence[int]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which offsets a partition has: from `first`, up to and without `end` (open transactions are behind it)."""

    first: int
    end: int


class Cluster:
    """Asks brokers about topics.

    Args:
        consumer: A `KafkaConsumer`.
        connection: How it is connected.
    """

    def __init__(self, consumer: Any, connection: Connection) -> None:  # noqa: ANN401  (kafka-python has no types)
        self._consumer, self._connection = consumer, connection
        self._wait = round(connection.timeout * 1000)

    def topics(self, wanted: Sequence[str]) -> list[Topic]:
        """The topics that have one of the names, or fit one of the globs.

        Raises:
            KafkaIntegrationError: A name, or a glob, has no topic.
        """
        there: Collection[str] = patiently(self._connection, "topics", self._consumer.topics)
        found = {topic for each in wanted for topic in self._matching(each, there)}
        cluster = self._consumer._cluster  # noqa: SLF001  (the only place where kafka-python has a topic's id)
        ids = {name: str(cluster.topic_id(name) or "") for name in found}
        return [Topic(name, ids[name], sorted(self._partitions(name))) for name in sorted(found)]

    def bounds(self, partitions: Collection[Any]) -> Mapping[Any, Bounds]:
        """Which offsets partitions have now."""
        with self._led(partitions):
            ends = self._consumer.end_offsets(partitions, timeout_ms=self._wait)
            firsts = self._consumer.beginning_offsets(partitions, timeout_ms=self._wait)
        return {partition: Bounds(firsts[partition], ends[partition]) for partition in partitions}

    def at(self, moment: datetime, partitions: Collection[Any]) -> Mapping[Any, int]:
        """The first offset that was written at a moment or later, for those partitions that have one."""
        milliseconds = round(moment.timestamp() * 1000)
        with self._led(partitions):
            found = self._consumer.offsets_for_times(dict.fromkeys(partitions, milliseconds), timeout_ms=self._wait)
        return {partition: place.offset for partition, place in found.items() if place is not None}

    @contextmanager
    def _led(self, partitions: Collection[Any]) -> Iterator[None]:
        """Says which partitions have no leader, if that is why their offsets cannot be told."""
        try:
            with told(self._connection, "list_offsets"):
                yield
        except KafkaIntegrationError as error:
            without = leaderless(self._consumer._cluster, partitions)  # noqa: SLF001  (see above)
            if not error.retryable or not without:
                raise
            raise no_leader(self._connection, without) from None

    def _matching(self, wanted: str, there: Collection[str]) -> list[str]:
        is_glob = not _GLOB.isdisjoint(wanted)
        found = [topic for topic in there if (fnmatchcase(topic, wanted) if is_glob else topic == wanted)]
        if found:
            return found
        raise no_topic(self._connection, wanted, there, is_glob=is_glob)

    def _partitions(self, topic: str) -> Collection[int]:
        partitions: Collection[int] = self._consumer.partitions_for_topic(topic)
        return partitions


def no_leader(connection: Connection, partitions: Sequence[Any]) -> KafkaIntegrationError:
    """Says that some partitions have no leader."""
    named = ", ".join(f"{each.topic}/{each.partition}" for each in partitions[:5]) + ", ..." * (len(partitions) > 5)
    return KafkaIntegrationError(
        f"Kafka at {connection.brokers}: {named} {'has' if len(partitions) == 1 else 'have'} no leader",
        service="kafka",
        operation="list_offsets",
        code="LeaderNotAvailableError",
        hint="the brokers that have such a partition are away: start one that was in sync",
        retryable=True,
    )


def no_topic(
    connection: Connection, wanted: str, there: Collection[str], *, is_glob: bool = False
) -> KafkaIntegrationError:
    """Says that a name, or a glob, has no topic, and which there are."""
    close = get_close_matches(wanted, there, 3) or sorted(there)[:10]
    return KafkaIntegrationError(
        f"Kafka at {connection.brokers}: there is no topic {'like ' * is_glob}{wanted!r}",
        service="kafka",
        operation="topics",
        code="UnknownTopicOrPartitionError",
        hint=f"it has {', '.join(close)}" if close else "it has no topics, or none that this user may see",
    )
