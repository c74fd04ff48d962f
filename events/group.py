"""Group commit for coroutines: what arrives while a commit is under way shares the next one.

To put a commit on the disk costs milliseconds, whether it holds one event or hundreds. Under load, a line in the
process's log a request would cost more than all else that is done for it: there is one a commit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from itertools import islice

from errors import EventLogError
from events.envelope import Event
from events.log import EventLog

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Request:
    events: Sequence[Event]
    answer: asyncio.Future[list[bool]]

    def settle(self, outcome: list[bool] | Exception) -> None:
        if self.answer.done():  # whoever waited was cancelled
            return
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


class GroupCommit:
    """Publishes for the coroutines of one event loop, without blocking it; one commit at a time.

    Args:
        log: Where the events go.
        limit: Events that may wait, those of the commit under way too; more than that is held in memory only where a
            single call brings more.
        committed: Is told the seconds that each commit took.
    """

    def __init__(self, log: EventLog, *, limit: int, committed: Callable[[float], None]) -> None:
        self._log = log
        self._committed = committed
        self._limit = limit
        self._held = 0
        self._waiting: list[_Request] = []
        self._committing: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many events are not on disk yet."""
        return self._held

    async def publish(self, events: Sequence[Event]) -> list[bool]:
        """As `EventLog.publish`: returns once these events are on disk.

        Args:
            events: The events; they are in the same commit.

        Raises:
            EventLogError: They are not on disk; or too many wait already.
        """
        if self._held >= self._limit:
            raise EventLogError(
                f"{self._held} events wait for the event log; {self._limit} may",
                hint="the log's disk or database is slow, or held by another process: look after it",
                retryable=True,
            )
        self._held += len(events)
        request = _Request(events, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._committing is None:
            # In a context of its own: a commit belongs to no single request.
            self._committing = asyncio.create_task(self._commit_waiting(), context=Context())
        return await request.answer

    async def _commit_waiting(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            await self._commit(group)
            self._held -= sum(len(request.events) for request in group)
        self._committing = None

    async def _commit(self, group: Sequence[_Request]) -> None:
        events = [event for request in group for event in request.events]
        started = time.perf_counter()
        try:
            flags = await asyncio.to_thread(self._log.publish, events)
        except Exception as error:  # noqa: BLE001  (whatever it is, everyone who waits must hear of it)
            if len(group) > 1 and isinstance(error, EventLogError) and not error.retryable:
                for request in group:  # what one of them brings cannot be written: that is nothing to the others
                    await self._commit([request])
                return
            for request in group:
                request.settle(error)
        else:
            answers = iter(flags)
            for request in group:
                request.settle(list(islice(answers, len(request.events))))
            seconds = time.perf_counter() - started
            self._committed(seconds)
            told = {"requests": len(group), "events": len(events), "new": sum(flags), "seconds": round(seconds, 4)}
            logger.info("events stored", extra=told)
