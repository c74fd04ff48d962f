from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from errors import EventLogError, PivotalError
from events.log import EventLog
from events.retry import keep_on
from events.sqlite import SqliteEventLog
from events.subscriptions import run
from tests.events.working import Handler, happened, subscription, until


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.retry.FIRST_PAUSE", 0.01)


def test_subscriptions_are_worked_as_soon_as_a_log_that_was_away_can_be_opened(
    path: Path, log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    handler, stop, away = Handler(), threading.Event(), iter([True, True, False])

    def open_log() -> EventLog:
        if next(away):
            raise EventLogError("the server is starting", retryable=True)
        return SqliteEventLog(path)

    def work(opened: EventLog) -> Iterator[None]:
        run(opened, [subscription(handler)], stop)
        yield

    log.publish([happened(0)])
    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(keep_on, work, open_log, stop, trouble="no subscription")
        until(lambda: handler.seen or working.done())
        stop.set()
    working.result()

    assert handler.seen == [0]
    assert caplog.text.count("no subscription; trying again") == 2


def test_what_ends_it_for_good_is_raised(path: Path) -> None:
    stop = threading.Event()

    def work(_: EventLog) -> Iterator[None]:
        stop.set()
        yield
        raise PivotalError("two subscriptions have one name")

    with pytest.raises(PivotalError, match="one name"):
        keep_on(work, lambda: SqliteEventLog(path), stop, trouble="no subscription")
