"""A durable subscription at work: in rounds, each of which reads events, has them handled, and keeps what came of it.

After a worker that died, events are handled one by one for a while, and each attempt is counted before it is made: an
event that ends the process is given up, too.

A round ends when all of its events are done, at the latest after `ROUND`: what is still in hand then goes on, what has
not begun goes back to the storage. So what is in memory is bounded, a slow event holds up none of another aggregate,
and the lease is renewed in time.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import queue
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import Event as Signal
from threading import Thread
from typing import TYPE_CHECKING

from errors import EventLogError
from events.bus import finish
from events.cause import Cause, caused_by
from events.deliveries import Deliveries, Delivery, Failure, Lease, LeaseLostError, Progress
from events.envelope import Event, new_id
from events.failure import DeadLettered, alert, last_line, told
from events.lanes import Collected, Lanes
from events.log import EventLog

if TYPE_CHECKING:
    from events.subscriptions import DurableSubscription

ROUND = 0.2
"""Seconds that a round may take."""

PORTION = 200
"""Events in a round, at most; half of them such that are tried again or have waited, if there are."""

SIZE = 4 << 20
"""Characters that the events of each half have as JSON, more or less, at most."""

IDLE = 0.2
"""Seconds between two looks at what is due, and at whether to stop, while no event comes."""

RETRY = 0.2
"""Seconds before it is tried again to keep what was done."""

CAREFUL = 2 * PORTION
"""Events that are handled one by one after a worker that died: one of those that it may have had in hand killed it."""

CURSOR = 1.0
"""Seconds after which a cursor is kept that passed only events of other types."""

_ENDED = "the process ended each time that this event was handled: out of memory, or a crash in native code?"

logger = logging.getLogger(__name__)


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own."""
    started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.SimpleQueue()

    async def main() -> None:
        over = asyncio.Event()
        started.put((asyncio.get_running_loop(), over))
        await over.wait()

    thread = Thread(target=asyncio.run, args=(main(),), name="handlers")
    thread.start()
    loop, over = started.get()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


@dataclass(frozen=True, slots=True)
class Worker:
    """Works one subscription whenever it has its lease.

    Args:
        log: Where the events are.
        deliveries: What is kept of subscriptions.
        subscription: The subscription.
        stop: Set to stop.
        loop: Where coroutines run.
        seconds: How long a lease lasts.
    """

    log: EventLog
    deliveries: Deliveries
    subscription: DurableSubscription
    stop: Signal
    loop: asyncio.AbstractEventLoop
    seconds: float

    def run_until_stopped(self) -> None:
        """Waits for the lease, works, and does so again if it is lost or the log cannot be used for a while.

        Raises:
            EventLogError: The log cannot be used, and trying again does not help.
        """
        start: int | None = None
        lease: Lease | None = None
        while not self.stop.is_set():
            try:
                start = self._start() if start is None else start
                asked = time.monotonic()
                if lease := self._acquire(start, lease):
                    _Rounds(self, lease, asked).run()
                    self.deliveries.release(lease)
            except EventLogError as error:
                if not error.retryable:
                    raise
                logger.warning(
                    "a subscription was interrupted; it will be taken up again",
                    extra={"subscription": self.subscription.name, "error": error.message},
                )
            self.stop.wait(min(1.0, self.seconds / 3))

    def handle(self, delivery: Delivery) -> None:
        """Has the handler handle an event."""
        event = delivery.recorded.event
        with caused_by(Cause.of(event)):
            outcome = self.subscription.handler(event)
            if inspect.isawaitable(outcome):
                asyncio.run_coroutine_threadsafe(finish(outcome), self.loop).result()

    def _start(self) -> int:
        start = self.subscription.start
        if isinstance(start, datetime):
            return self.log.before(start)
        return self.log.head() if start == "latest" else 0

    def _acquire(self, start: int, last: Lease | None) -> Lease | None:
        holder, mine = f"{socket.gethostname()}:{os.getpid()}", last.number if last else 0
        lease = self.deliveries.acquire(self.subscription.name, holder, self.seconds, start=start, mine=mine)
        if lease:
            logger.info("a subscription is worked", extra={"subscription": lease.subscription, "cursor": lease.cursor})
        return lease


class _Rounds:
    """The rounds of a worker while it has the lease, which it asked for at a time of the monotonic clock."""

    def __init__(self, worker: Worker, lease: Lease, asked: float) -> None:
        self._worker, self._lease, self._name = worker, lease, lease.subscription
        self._cursor = self._kept_cursor = lease.cursor
        self._kept_at = asked
        self._portion = PORTION
        self._careful = CAREFUL if lease.abandoned else 0
        self._set_aside: Sequence[Delivery] = ()

    def run(self) -> None:
        """Works until it is told to stop, and what is in hand is done."""
        with Lanes(self._worker.handle, self._worker.subscription.concurrency, self._may_begin) as lanes:
            while not self._worker.stop.is_set():
                self._wait(lanes, began=self._take(lanes))
                self._keep(lanes.collect())
            while lanes.in_hand:
                lanes.wait(ROUND)
                self._keep(lanes.collect())
            self._keep(lanes.collect(), at_last=True)

    def _may_begin(self) -> bool:
        """Whether nobody else can have the lease, and nobody wants an end."""
        return time.monotonic() < self._kept_at + self._worker.seconds and not self._worker.stop.is_set()

    def _take(self, lanes: Lanes) -> bool:
        """Begins what is due and what is new, unless all threads are busy; whether there was anything."""
        if len(lanes.in_hand) >= (1 if self._careful else self._worker.subscription.concurrency):
            return False
        portion = 1 if self._careful else self._portion
        again = self._worker.deliveries.due(self._name, max(1, portion // 2), SIZE, besides=lanes.in_hand)
        new = self._read(portion - len(again)) if portion > len(again) else []
        held = self._worker.deliveries.held(self._name, {one.aggregate for one in new}) if new else set()
        self._set_aside = [one for one in new if one.aggregate in held]
        begun = [*again, *(one for one in new if one.aggregate not in held)]
        if self._careful and begun:
            begun = self._counted(begun)
        lanes.begin(begun)
        return bool(begun)

    def _counted(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that have an attempt left, which is counted now; the others ended every process that tried."""
        attempts = self._worker.subscription.attempts
        given_up = [Failure(one, _ENDED, None) for one in deliveries if one.attempts >= attempts]
        left = [one for one in deliveries if one.attempts < attempts]
        for one in left:
            one.attempts, one.counted = one.attempts + 1, True
        self._careful = max(0, self._careful - len(deliveries))
        self._commit(Progress(self._cursor, failed=given_up, waiting=left, alerts=self._alerts(given_up)))
        return left

    def _read(self, limit: int) -> list[Delivery]:
        until = self._worker.deliveries.reach(self._cursor, PORTION, SIZE)
        recorded = self._worker.log.read(self._cursor, limit, until=until, types=self._worker.subscription.types)
        self._cursor = recorded[-1].sequence if len(recorded) == limit else until
        return [Delivery(one) for one in recorded]

    def _wait(self, lanes: Lanes, *, began: bool) -> None:
        if began or (lanes.in_hand and not self._set_aside):
            lanes.wait(ROUND)
        elif not self._set_aside:
            due = self._worker.deliveries.next_due(self._name)
            self._worker.log.wait(self._cursor, IDLE if due is None else min(IDLE, max(0.0, due)))

    def _keep(self, collected: Collected, *, at_last: bool = False) -> None:
        """Keeps what came of a round, if there is anything to keep."""
        failed = [self._failure(one.delivery, one.error) for one in collected.finished if one.error is not None]
        unkept = (*collected.given_back, *collected.in_hand, *self._set_aside)
        progress = Progress(
            self._cursor,
            handled=[one.delivery for one in collected.finished if one.error is None],
            failed=failed,
            waiting=[one for one in unkept if not one.stored],
            alerts=self._alerts(failed),
        )
        worked = len(collected.finished) + len(self._set_aside)
        self._portion = min(PORTION, 2 * max(worked, self._worker.subscription.concurrency))
        self._set_aside = ()
        if worked or progress.waiting or at_last or self._is_time():
            self._commit(progress)

    def _commit(self, progress: Progress) -> None:
        """Tries again while nobody else can have the lease: he would begin what is in hand here beside it."""
        while True:
            asked = time.monotonic()
            try:
                self._worker.deliveries.commit(self._lease, progress, self._worker.seconds)
            except EventLogError as error:
                over = asked + RETRY > self._kept_at + self._worker.seconds
                if over or not error.retryable or isinstance(error, LeaseLostError):
                    raise
                told = {"subscription": self._name, "error": error.message}
                logger.warning("what a subscription has done is not kept yet; trying again", extra=told)
                time.sleep(RETRY)
            else:
                self._kept_at, self._kept_cursor = asked, self._cursor
                return

    def _is_time(self) -> bool:
        """Whether the lease wants renewing, or the cursor has passed events of other types for a while."""
        longest = self._worker.seconds / 3
        return time.monotonic() > self._kept_at + (
            longest if self._cursor == self._kept_cursor else min(CURSOR, longest)
        )

    def _failure(self, delivery: Delivery, error: BaseException) -> Failure:
        delivery.attempts += not delivery.counted
        subscription, text = self._worker.subscription, told(error)
        wait = subscription.wait(delivery.attempts) if delivery.attempts < subscription.attempts else None
        logger.warning(
            "an event could not be handled",
            extra={
                "subscription": self._name,
                "sequence": delivery.recorded.sequence,
                "event_type": delivery.recorded.event.type,
                "attempts": delivery.attempts,
                "dead": wait is None,
                "error": last_line(text),
            },
        )
        return Failure(delivery, text, wait)

    def _alerts(self, failed: Sequence[Failure]) -> list[Event]:
        """One for each dead letter; none for an alert, which would die for the same reason, and so for ever."""
        recorded = [(one.delivery.recorded, one.error) for one in failed if one.wait is None]
        return [
            alert(self._name, one, error, burial=new_id())  # published with it: there is no second time
            for one, error in recorded
            if one.event.type != DeadLettered.event_type
        ]
