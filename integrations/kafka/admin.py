"""What must be known of topics before they are written to, and topics that are made: such that forget nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from integrations.kafka.connection import Connection
from integrations.kafka.errors import KafkaIntegrationError, patiently
from integrations.kafka.topics import no_topic

_LARGEST_NOTE = 64 << 20
"""The largest record, in bytes, of a topic that `Admin.make_compacted` makes."""

_DEFAULT_LARGEST = 1_048_588
"""What Kafka's brokers take if nobody says otherwise, and nobody may ask."""

_LARGEST_BATCH = 32 << 20
"""The largest batch of records, in bytes, of a topic that `Admin.make_endless` makes."""

_COMPACTED = {
    "cleanup.policy": "compact",
    "segment.bytes": str(_LARGEST_NOTE + (1 << 20)),  # what is still written to is not compacted
    "segment.ms": "3600000",
    "max.message.bytes": str(_LARGEST_NOTE),
}
_ENDLESS = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
    "max.message.bytes": str(_LARGEST_BATCH),
}
_KEEPING = "cleanup.policy", "retention.ms", "retention.bytes"
"""What of a topic's configs must be as we would make it, lest it forget something."""


class Admin:
    """Asks about topics, and makes some.

    Args:
        connection: How the brokers are reached.

    Raises:
        KafkaIntegrationError: They cannot be reached, or refuse us.
    """

    def __init__(self, connection: Connection) -> None:
        from kafka import KafkaAdminClient

        self._connection = connection
        self._client: Any = connection.open(KafkaAdminClient)

    def check(self, topic: str) -> None:
        """Lets a topic pass that is there.

        Raises:
            KafkaIntegrationError: It is not.
        """
        there = self._topics()
        if topic not in there:
            raise no_topic(self._connection, topic, there)

    def largest(self, topic: str) -> int:
        """The size in bytes of the largest batch of records that a topic takes; Kafka's default if we may not ask."""
        return int(self._configs(topic).get("max.message.bytes", _DEFAULT_LARGEST))

    def make_compacted(self, topic: str) -> None:
        """Makes a topic of one partition that keeps the last record of each key for ever, if it is not there.

        Raises:
            KafkaIntegrationError: It is there, but forgets records; or we may not make it.
        """
        self._make(topic, _COMPACTED)

    def make_endless(self, topic: str) -> None:
        """Makes a topic of one partition that keeps all records, with the brokers' times, if it is not there.

        Raises:
            KafkaIntegrationError: It is there, but forgets records; or we may not make it.
        """
        self._make(topic, _ENDLESS)

    def delete_before(self, topic: str, offset: int) -> None:
        """Deletes the records of a topic of one partition before an offset.

        Raises:
            KafkaIntegrationError: We may not, or the brokers cannot be reached.
        """
        from kafka.structs import TopicPartition

        before = {TopicPartition(topic, 0): offset}
        patiently(self._connection, "delete_records", lambda: self._client.delete_records(before))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def _make(self, topic: str, configs: Mapping[str, str]) -> None:
        from kafka.errors import TopicAlreadyExistsError

        if topic not in self._topics():
            try:
                patiently(self._connection, "create_topics", lambda: self._create(topic, configs))
            except KafkaIntegrationError as error:
                if error.code != TopicAlreadyExistsError.__name__:
                    raise _unmade(topic, error, configs) from None
            return
        there = self._configs(topic)
        for name in _KEEPING:
            if name in configs and there.get(name, configs[name]) != configs[name]:
                raise KafkaIntegrationError(
                    f"Kafka at {self._connection.brokers}: the topic {topic} forgets what was written long ago",
                    service="kafka",
                    operation="describe_configs",
                    hint=f"kafka-configs.sh --alter --topic {topic} --add-config {name}={configs[name]}",
                )

    def _create(self, topic: str, configs: Mapping[str, str]) -> None:
        self._client._controller_id = None  # noqa: SLF001  (it would ask the one that is away again)
        self._client.create_topics({topic: {"num_partitions": 1, "configs": configs}}, wait_for_metadata=True)

    def _topics(self) -> list[str]:
        topics: list[str] = patiently(self._connection, "topics", self._client.list_topics)
        return topics

    def _configs(self, topic: str) -> dict[str, str]:
        """Those of the configs that we look at; none if we may not."""
        from kafka.admin import ConfigResource

        asked = ConfigResource("TOPIC", topic, [*_KEEPING, "max.message.bytes"])
        found = patiently(
            self._connection, "describe_configs", lambda: self._client.describe_configs([asked], config_filter="all")
        )
        return {name: each["value"] for name, each in found["topic"].get(topic, {}).items()}


def _unmade(topic: str, error: KafkaIntegrationError, configs: Mapping[str, str]) -> KafkaIntegrationError:
    given = " ".join(f"--config {name}={configs[name]}" for name in _KEEPING if name in configs)
    return KafkaIntegrationError(
        f"{error.message}; it is to make the topic {topic}",
        service="kafka",
        operation="create_topics",
        code=error.code,
        hint="give the user the right (ACL) to create it, or have it made: "
        f"kafka-topics.sh --create --topic {topic} --partitions 1 {given}",
        retryable=error.retryable,
    )
