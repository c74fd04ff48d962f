"""What every event log promises, whatever keeps it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from events import sqlite
from events.log import EventLog, open_log
from tests.events.samples import event


@pytest.fixture
def reopen(path: Path) -> Callable[[], EventLog]:
    """Opens the same log once more, as another process does."""
    return lambda: open_log(f"sqlite:///{path}")


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_who_waits_hears_of_what_another_publishes(log: EventLog, reopen: Callable[[], EventLog]) -> None:
    with ThreadPoolExecutor() as threads, closing(reopen()) as another:
        waiting = threads.submit(log.wait, 0, 3600)
        another.publish([event()])

        assert waiting.result() == 1


def test_who_waits_hears_of_what_another_thread_publishes(log: EventLog) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(log.wait, 0, 3600) for _ in range(3)]
        log.publish([event()])

        assert [one.result() for one in waiting] == [1, 1, 1]


def test_who_is_behind_does_not_wait(log: EventLog) -> None:
    log.publish([event(), event()])

    assert log.wait(1, 3600) == 2


def test_waiting_ends_with_the_time(log: EventLog) -> None:
    log.publish([event()])

    assert log.wait(1, 0.05) == log.wait(7, 0) == 1


# --- times -----------------------------------------------------------------------------------------------------------


def test_the_last_sequence_before_a_moment_is_found(log: EventLog) -> None:
    for n in range(7):
        log.publish([event(str(n), n=n), event(str(n))])
    read = log.read(0, 100)

    assert [log.before(one.recorded_at) for one in read] == [one.sequence - 1 for one in read]
    assert log.before(read[0].recorded_at - timedelta(days=1)) == 0
    assert log.before(read[-1].recorded_at + timedelta(days=1)) == log.head()


def test_nothing_is_before_any_moment_in_an_empty_log(log: EventLog) -> None:
    assert log.before(datetime.now(UTC)) == 0


# --- pruning ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PRUNE_PORTION", 3)


@pytest.mark.usefixtures("small_portions")
def test_events_up_to_a_sequence_are_pruned(log: EventLog) -> None:
    log.publish([event(str(n)) for n in range(10)])

    assert (log.prune(7), log.prune(7)) == (7, 0)
    assert [one.sequence for one in log.read(0, 100)] == [8, 9, 10]
    assert log.publish([event("0"), event("9")]) == [True, False]


@pytest.mark.usefixtures("small_portions")
def test_dead_letters_are_not_pruned(log: EventLog) -> None:
    log.publish([event() for _ in range(10)])
    for one in log.read(1, 2):
        log.bury("mail", one, "no such mailbox", 1)

    assert log.prune(9) == 7
    assert [one.sequence for one in log.read(0, 100)] == [2, 3, 10]
    assert [letter.recorded.sequence for letter in log.dead()] == [2, 3]

    log.revive("mail", [2])

    assert log.prune(9) == 1


def test_the_head_does_not_go_back_when_all_is_pruned(log: EventLog) -> None:
    log.publish([event() for _ in range(3)])

    assert (log.prune(99), log.head()) == (2, 3)

    log.publish([event()])

    assert log.head() == 4


@pytest.mark.usefixtures("small_portions")
def test_events_are_published_while_others_are_pruned(log: EventLog, reopen: Callable[[], EventLog]) -> None:
    log.publish([event() for _ in range(100)])

    def publish() -> list[list[bool]]:
        with closing(reopen()) as another:
            return [another.publish([event()]) for _ in range(20)]

    with ThreadPoolExecutor() as threads:
        publishing = threads.submit(publish)
        assert log.prune(99) == 99
        assert publishing.result() == [[True]] * 20

    assert [one.sequence for one in log.read(0, 100)] == list(range(100, 121))
