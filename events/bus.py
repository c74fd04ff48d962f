"""Publish and subscribe inside one process, on top of the durable log."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from errors import EventLogError
from events.cause import Cause, caused_by
from events.envelope import Event
from events.failure import told
from events.log import EventLog

Handler = Callable[[Event], None] | Callable[[Event], Awaitable[None]]
"""What a subscriber does with an event. What it publishes meanwhile names that event as its cause."""

logger = logging.getLogger(__name__)


class Bus:
    """Puts events on the log and hands the new ones to this process's subscribers.

    Args:
        log: Where events are kept. Other processes read them there; subscribers of another process are not called.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._subscriptions: list[Subscription] = []

    def publish(self, *events: Event) -> list[bool]:
        """Returns once the events are on disk and every subscriber has had the new ones.

        A subscriber that fails is logged and hides nothing: the events are on the log, and the others are called.

        Args:
            events: The events, in order. All are on the log before the first subscriber is called.

        Returns:
            As `EventLog.publish`.

        Raises:
            EventLogError: The events are not on disk (nobody was called), or a coroutine called this.
        """
        _refuse_to_block_a_loop()
        flags = self._log.publish(events)
        for event, new in zip(events, flags, strict=True):
            if new:
                self._deliver(event)
        return flags

    def subscribe(self, pattern: str, handler: Handler) -> Subscription:
        """Calls a handler with every new event that this bus publishes, until it is unsubscribed.

        Args:
            pattern: Types of events: `pivotal.pipeline.*`; `*` stands for any characters.
            handler: A function or a coroutine function; a coroutine has an event loop of its own.
        """
        subscription = Subscription(self, pattern, handler)
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stops a subscription; does nothing if it is stopped already."""
        with suppress(ValueError):
            self._subscriptions.remove(subscription)

    def _deliver(self, event: Event) -> None:
        with caused_by(Cause.of(event)):
            for subscription in tuple(self._subscriptions):
                if fnmatchcase(event.type, subscription.pattern):
                    _handle(subscription.handler, event)


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """A handler that is called with events of some types."""

    bus: Bus
    pattern: str
    handler: Handler

    def unsubscribe(self) -> None:
        """Stops it."""
        self.bus.unsubscribe(self)


def _handle(handler: Handler, event: Event) -> None:
    try:
        outcome = handler(event)
        if inspect.isawaitable(outcome):
            asyncio.run(finish(outcome))
    except Exception as error:  # noqa: BLE001  (whatever it is, the others are called)
        about = {"event_id": event.id, "event_type": event.type, "handler": repr(handler), "error": told(error)}
        logger.error("a subscriber failed", extra=about)  # noqa: TRY400  (its traceback, without secrets, is there)


async def finish(outcome: Awaitable[None]) -> None:
    """Awaits what a handler has returned.

    Raises:
        RuntimeError: The handler wanted to exit: that is its failure, and would end the loop that others share.
    """
    try:
        await outcome
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError("the handler wanted to exit") from error


def _refuse_to_block_a_loop() -> None:
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise EventLogError(
            "Bus.publish waits for the disk and was called by a coroutine",
            hint="await asyncio.to_thread(bus.publish, event)",
        )
