from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest

from etl.overlap import WriteBehind, check_wanted, read_ahead, several
from events.cause import Cause, caused_by, current_cause


def test_the_next_item_is_fetched_while_the_caller_works_on_this_one() -> None:
    fetched = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for number, event in enumerate(fetched):
            event.set()
            yield number

    taken = []
    for number in read_ahead(items()):
        assert all(event.wait(10) for event in fetched[: number + 2])
        taken.append(number)

    assert taken == [0, 1, 2]


def test_what_fetching_raises_is_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("the source is gone")

    numbers = read_ahead(items())
    assert next(numbers) == 1
    with pytest.raises(LookupError, match="the source is gone"):
        next(numbers)


def test_all_items_are_fetched_by_one_thread_that_ends_with_the_reading() -> None:
    threads = set[threading.Thread]()

    def items() -> Iterator[int]:
        for number in range(100):
            threads.add(threading.current_thread())
            yield number

    with closing(read_ahead(items())) as numbers:
        assert next(numbers) == 0

    (thread,) = threads
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_calls_are_made_in_order_and_all_of_them_before_the_block_ends() -> None:
    made: list[int] = []
    with WriteBehind() as behind:
        for number in range(50):
            behind.call(made.append, number)
    assert made == list(range(50))


def test_after_a_call_that_raises_none_is_made_and_the_block_raises() -> None:
    made: list[int] = []

    def write(number: int) -> None:
        if number == 3:
            raise LookupError("the disk is full")
        made.append(number)

    def run() -> None:
        with WriteBehind() as behind:
            for number in range(50):
                behind.call(write, number)

    with pytest.raises(LookupError, match="the disk is full"):
        run()
    assert made == [0, 1, 2]


def test_an_error_of_the_caller_ends_the_block_without_the_calls_that_wait() -> None:
    made: list[int] = []
    started, may_end = threading.Event(), threading.Event()

    def write(number: int) -> None:
        started.set()
        may_end.wait(10)
        made.append(number)

    def interrupted() -> None:
        with WriteBehind() as behind:
            behind.call(write, 1)
            behind.call(write, 2)
            started.wait(10)
            threading.Timer(0.05, may_end.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert made == [1]


def test_both_know_what_caused_the_run() -> None:
    def items() -> Iterator[Cause | None]:
        yield current_cause()

    cause = Cause(correlation_id="run-1")
    written: list[Cause | None] = []
    with caused_by(cause):
        assert list(read_ahead(items())) == [cause]
        with WriteBehind() as behind:
            behind.call(lambda: written.append(current_cause()))
    assert written == [cause]


def test_several_are_under_way_and_come_in_their_order() -> None:
    together = threading.Barrier(3, timeout=20)

    def work(number: int) -> int:
        together.wait()
        return -number

    assert list(several(work, range(6), 3)) == [0, -1, -2, -3, -4, -5]


def test_what_one_of_several_raises_is_raised_in_its_turn() -> None:
    results = several(lambda number: 1 // (3 - number), range(9), 3)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_long_work_ends_when_nobody_waits_for_it_any_more() -> None:
    begun = threading.Event()

    def forever() -> None:
        for _ in several(lambda _: begun.set(), count(), 2):
            pass

    def interrupted() -> None:
        with WriteBehind() as behind:
            behind.call(forever)
            begun.wait(20)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_long_reading_ends_when_nobody_waits_for_it_any_more() -> None:
    begun = threading.Event()

    def endless() -> Iterator[int]:
        yield 1
        begun.set()
        while True:
            check_wanted()

    with closing(read_ahead(endless())) as items:
        assert next(items) == 1
        begun.wait(20)
