"""Three brokers of Kafka's for tests: leaders and coordinators are moved among them, and two of them may be killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from kafka.admin import NewTopic
from kafka.structs import TopicPartition

from tests.services.kafka_broker import Kafka, running
from tests.services.topics import Topics, patiently, unique

NODES = 3
PREFERRED = 0
"""Kafka's number of an election that makes the first of a partition's brokers its leader."""

_COORDINATORS = 4
"""How many partitions the topics of groups and of transactions have (see `kafka_broker`)."""


class Cluster:
    """Brokers 1, 2 and 3, each with a copy of everything; 1 is the controller, too, and stays.

    Args:
        nodes: The brokers, in the order of their numbers.
    """

    def __init__(self, nodes: Sequence[Kafka]) -> None:
        self._nodes = nodes
        self.brokers, self.secure = (
            ",".join(part) for part in zip(*((n.brokers, n.secure) for n in nodes), strict=True)
        )
        self.ca = nodes[0].ca
        self.topics = Topics(self.brokers)

    def make(self, *leaders: int, alone: bool = False) -> str:
        """A topic with a partition for each of these leaders, which have it alone or share it with the others."""
        topic = unique()
        replicas = {number: [leader] if alone else _first(leader) for number, leader in enumerate(leaders)}
        configs = {"min.insync.replicas": "1"} if alone else {}
        made = NewTopic(topic, replica_assignments=replicas, topic_configs=configs)
        patiently(lambda: self.topics.admin.create_topics([made]))
        self.topics.admin.wait_for_topics([topic])
        return topic

    def leader(self, topic: str, partition: int = 0) -> int:
        """Which broker leads a partition; -1 if none does."""
        return int(self._partition(topic, partition)["leader_id"])

    def move(self, topic: str, partition: int, leader: int) -> None:
        """Lets another broker lead a partition; the one before goes on in its second row."""
        admin, place = self.topics.admin, TopicPartition(topic, partition)
        patiently(lambda: admin.alter_partition_reassignments({place: _first(leader)}))
        _until(lambda: self._partition(topic, partition)["replica_nodes"] == _first(leader))
        patiently(lambda: admin.elect_leaders(PREFERRED, {topic: [partition]}))
        _until(lambda: self.leader(topic, partition) == leader)

    def kill(self, node: int) -> None:
        """Kills a broker with -9."""
        process = self._nodes[node - 1].process
        assert process
        process.kill()

    def mend(self) -> None:
        """Lets the brokers that were killed run again, and waits until each has everything."""
        for node in self._nodes:
            assert node.process
            node.process.start()
        _until(self._is_whole)

    def _is_whole(self) -> bool:
        partitions = [each for topic in patiently(self.topics.admin.describe_topics) for each in topic["partitions"]]
        return all(len(each["isr_nodes"]) == len(each["replica_nodes"]) for each in partitions)

    def _partition(self, topic: str, partition: int) -> dict[str, Any]:
        (described,) = patiently(lambda: self.topics.admin.describe_topics([topic]))
        (found,) = (each for each in described["partitions"] if each["partition_index"] == partition)
        return found  # type: ignore[no-any-return]

    def close(self) -> None:
        """Frees the connections."""
        self.topics.close()


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    """A cluster for the tests of one file: it takes some seconds to start."""
    with running(NODES) as nodes, closing(Cluster(nodes)) as cluster:
        yield cluster


@pytest.fixture
def cluster(running_cluster: Cluster) -> Cluster:
    """The cluster, whole."""
    running_cluster.mend()
    return running_cluster


def group_coordinator(group: str) -> tuple[str, int]:
    """The partition whose leader looks after a consumer group."""
    return "__consumer_offsets", _coordinator(group)


def transaction_coordinator(name: str) -> tuple[str, int]:
    """The partition whose leader looks after the transactions of an id."""
    return "__transaction_state", _coordinator(name)


def _coordinator(name: str) -> int:
    """Kafka's way to part names among partitions: Java's hash, without its sign."""
    hashed = 0
    for character in name:
        hashed = (31 * hashed + ord(character)) % 2**32
    return min(hashed, 2**32 - hashed) % _COORDINATORS


def _first(leader: int) -> list[int]:
    """All brokers, one of them before the others."""
    return [leader, *(node for node in range(1, NODES + 1) if node != leader)]


def _until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the cluster does not come to rest"
        time.sleep(0.05)
