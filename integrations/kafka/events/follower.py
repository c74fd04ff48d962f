"""Brings what a topic tells into the replica as it comes, and lets others wait for it."""

from __future__ import annotations

from contextlib import closing
from threading import Condition, Event, Thread
from typing import Any

from errors import EventLogError, PivotalError
from integrations.kafka.decoding import decode_quickly
from integrations.kafka.errors import told
from integrations.kafka.events.journal import READING, Journal
from integrations.kafka.events.replica import Replica

_PORTION = 2000
"""Records that are applied in one transaction, at most."""

_LOOK = 100
"""Milliseconds after which it is looked whether to end."""

_PAUSE = 0.2
"""Seconds before it is tried again after trouble."""


class Follower:
    """A thread that follows a topic.

    Args:
        journal: The topic.
        replica: What it is brought into.
    """

    def __init__(self, journal: Journal, replica: Replica) -> None:
        self._journal, self._replica = journal, replica
        self._changed, self._stop = Condition(), Event()
        self._trouble: PivotalError | None = None
        self.position = -1
        """The offset of the record that comes next; -1 as long as that is not known."""
        self._thread = Thread(target=self._run, name="event log", daemon=True)
        self._thread.start()

    def reach(self, position: int) -> None:
        """Waits until the replica has all records before an offset.

        Raises:
            PivotalError: The brokers give no records for as long as they may be away, or something is wrong with them.
        """
        seconds = self._journal.connection.timeout
        self.wait(position, seconds)
        if self.position < position:
            raise self._trouble or EventLogError(
                f"no broker has given the records of the topic {self._journal.topic} for {seconds:g} s", retryable=True
            )

    def wait(self, position: int, seconds: float) -> None:
        """Waits until the replica has all records before an offset, no longer than some seconds."""

        def is_over() -> bool:
            hopeless = self._trouble is not None and not self._trouble.retryable
            return self.position >= position or hopeless or self._stop.is_set()

        with self._changed:
            self._changed.wait_for(is_over, seconds)

    def close(self) -> None:
        """Ends the thread; who waits is woken."""
        self._stop.set()
        self._tell(self.position)
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except PivotalError as error:
                self._tell(self.position, error)
                self._stop.wait(_PAUSE)

    def _follow(self) -> None:
        from kafka import KafkaConsumer
        from kafka.structs import TopicPartition

        position = self._replica.attach(self._journal.place(), self._journal.snapshot)
        self._tell(position)
        partition = TopicPartition(self._journal.topic, 0)
        consumer: Any = self._journal.connection.open(KafkaConsumer, max_poll_records=_PORTION, **READING)
        with closing(_Closing(consumer)), told(self._journal.connection, "fetch"):
            decode_quickly(consumer)
            consumer.assign([partition])
            consumer.seek(partition, position)
            while not self._stop.is_set():
                if records := consumer.poll(_LOOK).get(partition):
                    position = self._replica.apply(records, position)
                    self._tell(position)

    def _tell(self, position: int, trouble: PivotalError | None = None) -> None:
        with self._changed:
            self.position, self._trouble = position, trouble
            self._changed.notify_all()


class _Closing:
    """A consumer that is closed at once."""

    def __init__(self, consumer: Any) -> None:  # noqa: ANN401  (kafka-python has no types)
        self._consumer = consumer

    def close(self) -> None:
        self._consumer.close(autocommit=False, timeout_ms=1000)
