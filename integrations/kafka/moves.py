"""Leaders and coordinators move from broker to broker: kafka-python is helped to find them again.

What 3.0.12 does by itself: a producer whose coordinator's broker is gone forgets what it was about to ask for, and
waits for the answer. A consumer asks one that leads a partition no more for its offsets, again and again, until its
time is up; of a partition that nobody leads it raises a `KeyError`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

LOOK_AGAIN = 0.02
"""Seconds between two looks at who leads, or coordinates, by now."""

_NOBODY = None, -1


def client_class() -> Any:  # noqa: ANN401  (kafka-python has no types)
    """kafka-python's connections to all brokers, whose producer finds the coordinator again."""
    from kafka.errors import KafkaConnectionError
    from kafka.net.compat import KafkaNetClient

    class Client(KafkaNetClient):  # type: ignore[misc]
        def await_ready(self, node_id: object, timeout_ms: float = 30_000) -> bool:
            """Whether a broker can be asked. An exception would lose what it is to be asked for."""
            try:
                super().await_ready(node_id, timeout_ms)
            except KafkaConnectionError:
                time.sleep(LOOK_AGAIN)  # others name the dead one for some seconds
                return False
            return True

    return Client


def find_leaders_again(consumer: Any) -> None:  # noqa: ANN401
    """Lets a `KafkaConsumer` look who leads by now, before it asks for offsets once more."""
    from kafka.errors import StaleMetadata

    fetcher, cluster = consumer._fetcher, consumer._cluster  # noqa: SLF001  (there is no other way in)
    ask = fetcher._send_list_offsets_requests  # noqa: SLF001

    async def ask_leaders(wanted: Mapping[Any, int]) -> Any:  # noqa: ANN401
        known = not leaderless(cluster, wanted)
        found, again = await ask(wanted)
        if again or not known:
            raise StaleMetadata
        return found, again

    fetcher._send_list_offsets_requests = ask_leaders  # noqa: SLF001


def leaderless(cluster: Any, partitions: Collection[Any]) -> list[Any]:  # noqa: ANN401
    """Those of the partitions that no broker leads, as far as a client's `ClusterMetadata` tells."""
    return sorted(each for each in partitions if cluster.leader_for_partition(each) in _NOBODY)
