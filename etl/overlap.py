"""Work that goes on beside the caller's: reading ahead, writing behind.

It pays because Arrow, DuckDB and the drivers let go of Python's lock while they work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from threading import Event
from types import TracebackType
from typing import Self, TypeVar, cast

from integrations.parallel import in_order

T = TypeVar("T")
R = TypeVar("R")

_END = object()
_gone: ContextVar[Event] = ContextVar("gone")
"""Set as soon as nobody waits for the work of this thread any more."""


def read_ahead(items: Iterable[T]) -> Generator[T]:
    """The items; the next one is fetched, in one thread for all of them, while the caller works on this one.

    Closing it waits for the item that is being fetched (see `check_wanted`); what fetching raises is raised here.
    """
    iterator, context, gone = iter(items), copy_context(), Event()
    context.run(_gone.set, gone)
    fetch = partial(context.run, next, iterator, _END)
    with ThreadPoolExecutor(1, "read-ahead") as thread:
        try:
            coming = thread.submit(fetch)
            while (item := coming.result()) is not _END:
                coming = thread.submit(fetch)
                yield cast(T, item)
        finally:
            gone.set()


def check_wanted() -> None:
    """To be called now and then by work that takes long: ends it if nobody waits for it any more.

    Raises:
        CancelledError: The run has failed elsewhere, or was interrupted.
    """
    if (gone := _gone.get(None)) and gone.is_set():
        raise CancelledError


def several(work: Callable[[T], R], items: Iterable[T], at_a_time: int) -> Generator[R]:
    """What `work` makes of each item, in their order; so many are under way at a time.

    What one of them raises is raised in its turn; those behind it that have begun are waited for.

    Raises:
        CancelledError: See `check_wanted`.
    """
    return in_order(work, _while_wanted(items), at_a_time)


def _while_wanted(items: Iterable[T]) -> Iterator[T]:
    for item in items:
        check_wanted()
        yield item


class WriteBehind:
    """Calls that are made one after the other, in one thread, while the caller goes on.

    What one of them raises is raised by a later `call`, or at the end of the block; after it none is made.
    """

    def __init__(self) -> None:
        self._failed = False
        self._thread = ThreadPoolExecutor(1, "write-behind")
        self._context, self._gone = copy_context(), Event()
        self._context.run(_gone.set, self._gone)
        self._waiting: deque[Future[None]] = deque()

    def call(self, work: Callable[..., None], *arguments: object) -> None:
        """Makes a call, soon; waits while six are not done yet, so that what they hold stays bounded."""
        while len(self._waiting) > 5:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._context.run, self._unless_failed, work, *arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while self._waiting and error is None:
                self._waiting.popleft().result()
        finally:
            self._gone.set()
            self._thread.shutdown(cancel_futures=True)

    def _unless_failed(self, work: Callable[..., None], *arguments: object) -> None:
        if not self._failed:
            self._failed = True
            work(*arguments)
            self._failed = False
