"""Records that appear in topics all together or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from integrations.kafka.connection import Connection
from integrations.kafka.errors import KafkaIntegrationError, told

_BATCH_BYTES = 256 << 10
"""Records of a partition that are sent together, at most: a batch must fit into what the topic takes."""

_REQUEST_BYTES = 64 << 20
"""What brokers are sent at a time, at most."""

_PATIENCE = 5.0
"""Seconds that the brokers have to hear that a transaction is given up; they find out by themselves, later."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a topic takes.

    Args:
        key: Its key: records of one key keep their order. None: any partition will do.
        value: Its value; None is a tombstone.
        headers: Names and values.
    """

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()

    @property
    def size(self) -> int:
        """At most so many bytes are a batch of this record alone."""
        from kafka.record.default_records import DefaultRecordBatchBuilder

        size: int = DefaultRecordBatchBuilder.estimate_size_in_bytes(self.key, self.value, self.headers)
        return size


class Transaction:
    """One transaction: readers with `isolation.level=read_committed` see all of it, or nothing.

    Whoever opens one ends what another of the same name has left open, and takes its right to commit.

    Args:
        connection: How the brokers are reached.
        name: The transactional id.
        seconds: How long it may take, before the brokers give it up.
        largest: How many bytes of records, at most, a topic takes together.
        compression: How records are compressed; not at all if None.

    Raises:
        KafkaIntegrationError: The brokers cannot be reached, or refuse us.
    """

    def __init__(
        self, connection: Connection, name: str, *, seconds: float, largest: int, compression: str | None = None
    ) -> None:
        from kafka import KafkaProducer

        self._connection = connection
        wait = round(connection.timeout * 1000)
        self._producer: Any = connection.open(
            KafkaProducer,
            transactional_id=name,
            transaction_timeout_ms=round(seconds * 1000),
            acks="all",
            max_block_ms=wait,
            delivery_timeout_ms=wait + 1000,  # longer than one request may take
            linger_ms=5,
            batch_size=min(_BATCH_BYTES, largest),
            max_request_size=max(_REQUEST_BYTES, largest),
            compression_type=compression,
            metrics_enabled=False,
        )
        try:
            with told(connection, "init_transactions"):
                self._producer.init_transactions()
                self._producer.begin_transaction()
        except BaseException:
            self._stop()
            raise

    def send(self, topic: str, records: Iterable[Record]) -> int:
        """Sends records, and waits until the brokers have them; returns how many.

        Raises:
            KafkaIntegrationError: They do not take one, or are away; the transaction cannot be committed any more.
        """
        with told(self._connection, "produce"):
            sent = [
                self._producer.send(topic, key=each.key, value=each.value, headers=list(each.headers))
                for each in records
            ]
            for each in sent:  # `flush` fails where a batch was too large and goes on in parts
                each.get(self._connection.timeout + 1)
        return len(sent)

    def commit(self) -> None:
        """Shows readers everything.

        Raises:
            KafkaIntegrationError: Nothing is shown; or, if it is retryable, nobody knows before the next transaction
                of this name has been opened.
        """
        with told(self._connection, "commit"):
            is_over = self._end(commit=True, patience=self._connection.timeout)
        if not is_over:
            raise KafkaIntegrationError(
                f"Kafka at {self._connection.brokers}: no broker has confirmed the commit for "
                f"{self._connection.timeout:g} s",
                service="kafka",
                operation="commit",
                hint="run again: the next run finds out whether this one was committed",
                retryable=True,
            )

    def close(self) -> None:
        """Frees the connections; what was not committed is given up."""
        from kafka.errors import KafkaError

        with suppress(KafkaError):  # it was committed, has failed, or the brokers are away and find out by themselves
            self._end(commit=False, patience=min(_PATIENCE, self._connection.timeout))
        self._stop()

    def _end(self, *, commit: bool, patience: float) -> bool:
        """Ends the transaction; False if nobody has answered. The producer's own way would wait for ever."""
        manager = self._producer._transaction_manager  # noqa: SLF001  (see above)
        result = manager.begin_commit() if commit else manager.begin_abort()
        self._producer._sender.wakeup()  # noqa: SLF001
        is_over: bool = result.wait(timeout_ms=patience * 1000)
        return is_over

    def _stop(self) -> None:
        from kafka.errors import KafkaError

        try:
            self._producer.close(timeout=1)
        except KafkaError:  # records are left that nobody takes
            self._producer._sender.force_close()  # noqa: SLF001  (otherwise its thread goes on)
