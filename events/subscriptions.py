"""Durable subscriptions: every event of some types reaches a handler, across restarts and on whichever process works.

Several processes may `run` the same subscriptions: each is worked by the one that has its lease, and taken over by
another when that one dies or hangs.
"""

from __future__ import annotations

import inspect
import random
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from threading import Event as Signal
from typing import Literal

from errors import PivotalError
from events.bus import Handler
from events.deliveries import deliveries_of
from events.log import PROJECTIONS, EventLog

LEASE = 15.0
"""Seconds after which another process takes over from one that gave no sign of life."""

Start = Literal["earliest", "latest"] | datetime

_NAME = r"[a-z0-9][a-z0-9_.-]{0,99}"
_PATTERN = r"[a-z0-9_*]+(\.[a-z0-9_*]+)*"
_PATTERN_HINT = "types are lower case and dotted: stripe.invoice.paid; `*` stands for any characters: stripe.*"


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableSubscription:
    """A handler that is called with every event of some types, at least once, in order for each aggregate.

    An event that fails is tried again later; meanwhile later events of its aggregate wait, and those of others go on.
    After the last attempt it is a dead letter, and its aggregate goes on.

    Args:
        name: What its cursor, its attempts and its dead letters are kept under: lower-case letters, digits, `_.-`.
        types: Patterns of the types: `stripe.invoice.*`; `*` stands for any characters.
        handler: A function, or a coroutine function, of the event. What it publishes names that event as its cause.
        start: Where it begins when it runs for the first time: "earliest" (the oldest event that is there), "latest"
            (what comes from now on), or a time: events that were recorded from then on.
        attempts: How often an event is tried before it is a dead letter.
        backoff: Seconds; the longest wait after the first failure. It doubles with every further one; the wait is
            anything up to it (full jitter).
        longest_backoff: Seconds, at most, between two attempts.
        concurrency: Events that are handled at once, each of another aggregate.

    Raises:
        PivotalError: It cannot work as it is declared.
    """

    name: str
    types: Sequence[str]
    handler: Handler
    start: Start = "earliest"
    attempts: int = 5
    backoff: float = 1.0
    longest_backoff: float = 300.0
    concurrency: int = 1

    def __post_init__(self) -> None:
        self._check_name()
        self._check_types()
        self._check_handler()
        self._check_start()
        if self.attempts < 1 or self.concurrency < 1:
            raise self._wrong("attempts and concurrency are 1 or more")
        if self.backoff < 0 or self.longest_backoff < self.backoff:
            raise self._wrong("backoff is 0 or more, and longest_backoff no less than that")

    def wait(self, attempts: int) -> float:
        """Seconds until the next attempt, at random.

        Args:
            attempts: How often the event has failed.
        """
        # An exponent that grows for ever would overflow; 2**60 s is beyond any cap.
        ceiling = min(self.longest_backoff, self.backoff * 2.0 ** min(attempts - 1, 60))
        return random.uniform(0, ceiling)  # noqa: S311  (not for secrets)

    def _check_name(self) -> None:
        if not re.fullmatch(_NAME, self.name):
            raise self._wrong("the name may have lower-case letters, digits, '_', '.' and '-', 100 at most")
        if self.name == PROJECTIONS:
            raise self._wrong("the tables of landed events keep their dead letters under this name; choose another")

    def _check_types(self) -> None:
        if isinstance(self.types, str) or not self.types:
            raise self._wrong("types is a list with at least one pattern", _PATTERN_HINT)
        for pattern in self.types:
            if not re.fullmatch(_PATTERN, pattern):
                raise self._wrong(f"no event can have a type like {pattern!r}", _PATTERN_HINT)

    def _check_handler(self) -> None:
        hint = "def handle(event: Event) -> None, or async def"
        if not callable(self.handler):
            raise self._wrong(f"the handler is no function but {type(self.handler).__name__}", hint)
        try:
            inspect.signature(self.handler).bind(None)
        except TypeError:
            raise self._wrong("the handler does not take one argument, the event", hint) from None
        except ValueError:
            return  # something built in, which does not tell what it takes

    def _check_start(self) -> None:
        hint = 'start is "earliest", "latest", or a datetime with a time zone'
        if isinstance(self.start, datetime):
            if self.start.tzinfo is None:
                raise self._wrong(f"start {self.start} has no time zone", hint)
        elif self.start not in {"earliest", "latest"}:
            raise self._wrong(f"unknown start {self.start!r}", hint)

    def _wrong(self, what: str, hint: str | None = None) -> PivotalError:
        return PivotalError(f"subscription {self.name!r}: {what}", hint=hint)


def run(log: EventLog, subscriptions: Sequence[DurableSubscription], stop: Signal, *, lease: float = LEASE) -> None:
    """Works subscriptions until it is told to stop; those that another process works wait until that one ends.

    Args:
        log: Where the events are, and what is kept of the subscriptions.
        subscriptions: What to work; each has threads of its own.
        stop: Set it to stop: events in hand are handled to their end, no other is begun. Set, too, when this fails.
        lease: Seconds after which another process takes over from one that gave no sign of life.

    Raises:
        PivotalError: Two have one name, or there is none.
        EventLogError: The log cannot be used, and trying again does not help.
    """
    check_together(subscriptions)
    from events.work import Worker, event_loop

    deliveries = deliveries_of(log)
    with event_loop() as loop, ThreadPoolExecutor(len(subscriptions), "subscription") as threads:
        working = [
            threads.submit(Worker(log, deliveries, one, stop, loop, lease).run_until_stopped) for one in subscriptions
        ]
        wait(working, return_when=FIRST_EXCEPTION)
        stop.set()
    for one in working:
        one.result()


def check_together(subscriptions: Sequence[DurableSubscription]) -> None:
    """Refuses what cannot be worked together.

    Raises:
        PivotalError: Two have one name, or there is none.
    """
    if not subscriptions:
        raise PivotalError("there is no subscription to work", hint="declare one: DurableSubscription(name=..., ...)")
    twice = [name for name, count in Counter(one.name for one in subscriptions).items() if count > 1]
    if twice:
        raise PivotalError(
            f"two subscriptions have the name {twice[0]!r}", hint="each keeps its cursor under a name of its own"
        )
