"""Work on several pieces at the same time, in order, and never more of them than are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


def in_order(work: Callable[[Item], Done], items: Iterable[Item], at_once: int) -> Generator[Done]:
    """What `work` makes of each item, in the items' order; the next ones are worked on meanwhile.

    Ends, also by an error, when no work is on its way any more.

    Args:
        work: Runs in a thread, with the caller's context (`events.cause`).
        items: Taken one at a time, as there is room for them.
        at_once: How many are worked on, or done and not yet taken, at most.
    """
    waiting: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(at_once, thread_name_prefix="in-order") as threads:
        try:
            for item in items:
                waiting.append(threads.submit(copy_context().run, work, item))
                if len(waiting) >= at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
