"""Events handled by several threads at once: those of one aggregate one after the other, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Condition
from types import TracebackType
from typing import NamedTuple, Self

from events.deliveries import Delivery


class Finished(NamedTuple):
    """An event that was handled, or failed with an error."""

    delivery: Delivery
    error: BaseException | None


class Collected(NamedTuple):
    """What has become of events: finished, in hand, or not begun (and given back)."""

    finished: Sequence[Finished]
    in_hand: Sequence[Delivery]
    given_back: Sequence[Delivery]


@dataclass(slots=True, eq=False)
class _Lane:
    """Events of one aggregate."""

    aggregate: str
    waiting: deque[Delivery] = field(default_factory=deque)
    in_hand: Delivery | None = None
    old: bool = False
    """It was there already when others began."""


class Lanes:
    """Threads that handle events.

    Args:
        handle: Handles one event, or raises.
        threads: How many.
        may_begin: Whether another event may be begun now.
    """

    def __init__(self, handle: Callable[[Delivery], None], threads: int, may_begin: Callable[[], bool]) -> None:
        self._handle, self._may_begin = handle, may_begin
        self._threads = ThreadPoolExecutor(threads, "handler")
        self._changed = Condition()
        self._lanes: set[_Lane] = set()
        self._finished: list[Finished] = []
        self._open = 0
        self._news = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Waits for the events in hand: whoever handles their aggregates next must not do so beside them."""
        with self._changed:
            for lane in self._lanes:
                lane.waiting.clear()
        self._threads.shutdown()

    @property
    def in_hand(self) -> Collection[str]:
        """The aggregates that had an event in hand when it was last collected."""
        return [lane.aggregate for lane in self._lanes]

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        """Takes events of aggregates that have none in hand; returns at once."""
        lanes: dict[str, _Lane] = {}
        for delivery in deliveries:
            lanes.setdefault(delivery.aggregate, _Lane(delivery.aggregate)).waiting.append(delivery)
        with self._changed:
            self._lanes.update(lanes.values())
            self._open = len(lanes)
        for lane in lanes.values():
            self._threads.submit(self._drain, lane)

    def wait(self, seconds: float) -> None:
        """Returns when all that was begun last has ended, when something older has, or when the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._news, seconds)

    def collect(self) -> Collected:
        """What has become of the events since it was last asked; those that have not begun are given back."""
        with self._changed:
            finished, self._finished = self._finished, []
            given_back = [delivery for lane in self._lanes for delivery in lane.waiting]
            for lane in self._lanes:
                lane.waiting.clear()
                lane.old = True
            self._lanes = {lane for lane in self._lanes if lane.in_hand}
            self._news, self._open = False, 0
            return Collected(finished, [lane.in_hand for lane in self._lanes if lane.in_hand], given_back)

    def _drain(self, lane: _Lane) -> None:
        delivery = self._step(lane, None)
        while delivery is not None:
            delivery = self._step(lane, Finished(delivery, self._error_of(delivery)))

    def _error_of(self, delivery: Delivery) -> BaseException | None:
        try:
            self._handle(delivery)
        except BaseException as error:  # noqa: BLE001  (a handler may even exit: that is its failure, not ours)
            return error
        return None

    def _step(self, lane: _Lane, finished: Finished | None) -> Delivery | None:
        """Notes what was done; gives what is next, if anything is."""
        with self._changed:
            lane.in_hand = None
            if finished:
                self._finished.append(finished)
            if lane.waiting and not (finished and finished.error) and self._may_begin():
                lane.in_hand = lane.waiting.popleft()
            elif lane in self._lanes:  # else it was collected before it began
                self._open -= not lane.old
                if lane.old or not self._open:
                    self._news = True
                    self._changed.notify()
            return lane.in_hand
