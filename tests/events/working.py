"""Subscriptions at work in the test's own process, and what their handlers saw."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from events.envelope import Event, Metadata
from events.log import EventLog
from events.subscriptions import DurableSubscription, run

LEASE = 1.0


def happened(n: int, aggregate: str = "one", kind: str = "test.happened") -> Event:
    """The nth event of a test, which happened to something."""
    return Event(
        type=kind,
        aggregate_type="thing",
        aggregate_id=aggregate,
        data={"n": n},
        metadata=Metadata(source="test", dedupe_key=str(n), correlation_id="c"),
    )


@dataclass
class Handler:
    """Remembers the events that it handled; those in `failing` fail."""

    failing: set[int] = field(default_factory=set)
    seen: list[int] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        number = event.data["n"]
        self.tried.append(number)
        if number in self.failing:
            raise ValueError(f"no luck with {number}")
        self.seen.append(number)


@contextmanager
def working(log: EventLog, *subscriptions: DurableSubscription, lease: float = LEASE) -> Iterator[threading.Event]:
    """Works subscriptions while the block runs."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        work = thread.submit(run, log, subscriptions, stop, lease=lease)
        try:
            yield stop
        finally:
            stop.set()
        work.result()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Waits for something to come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def subscription(handler: Callable[[Event], object], **more: object) -> DurableSubscription:
    """A subscription that does not wait long."""
    told: dict[str, object] = {"name": "mail", "types": ["test.*"], "backoff": 0.01, "longest_backoff": 0.02}
    return DurableSubscription(handler=handler, **(told | more))  # type: ignore[arg-type]


def ordered(numbers: Sequence[int], aggregates: int) -> bool:
    """Whether numbers are in order for each aggregate, if number n happened to aggregate n % aggregates."""
    return all((of_one := [n for n in numbers if n % aggregates == one]) == sorted(of_one) for one in range(aggregates))
