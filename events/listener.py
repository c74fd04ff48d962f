"""Waiting for PostgreSQL's notifications: one connection, however many threads wait."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition

import psycopg


class Listener:
    """Threads that wait for a channel's notifications: one of them listens and wakes the others.

    Args:
        connect: Makes a connection that commits by itself.
        channel: The channel's name, as SQL writes it.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection], channel: str) -> None:
        self._connect, self._channel = connect, channel
        self._connection: psycopg.Connection | None = None
        self._changed = Condition()
        self._listening = False
        self.heard = 0
        """Changes whenever there may be something new; to be read before looking, and handed to `listen` after."""

    def listen(self, heard: int, seconds: float) -> None:
        """Returns when something may have come since `heard` was read, or when the time is over.

        Raises:
            psycopg.Error: The server cannot be listened to; the next call connects again.
        """
        with self._changed:
            if self._listening:
                self._changed.wait_for(lambda: self.heard != heard, seconds)
            if self._listening or self.heard != heard:
                return
            self._listening = True
        try:
            self._hear(seconds)
        finally:
            with self._changed:
                self._listening = False
                self.heard += 1
                self._changed.notify_all()

    def close(self) -> None:
        """Frees the connection, once nobody listens."""
        with self._changed:
            self._changed.wait_for(lambda: not self._listening)
            if self._connection:
                self._connection.close()

    def _hear(self, seconds: float) -> None:
        if self._connection and not self._connection.closed:
            for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                pass
            return
        # What came before this is not heard: whoever looks again, now, sees it.
        self._connection = self._connect()
        self._connection.execute(f"LISTEN {self._channel}".encode())
