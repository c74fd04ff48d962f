from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from errors import EventLogError
from etl.destinations.warehouse import Warehouse, open_warehouse
from events.log import EventLog, open_log
from projections import follow as following
from projections.apply import Applied, position
from projections.follow import follow
from tests.projections.samples import NOON, invoice, sendgrid_event, stripe_event
from tests.projections.test_apply import poisoned, read_postgres, read_sqlite
from tests.services.process import ServerProcess


class Worker:
    """A follower in a thread, and what it told."""

    def __init__(self, open_log: Callable[[], EventLog], warehouse: Warehouse) -> None:
        self._open_log, self._warehouse = open_log, warehouse
        self.told: list[Applied] = []
        self.stop = threading.Event()

    @contextmanager
    def working(self) -> Iterator[Worker]:
        with ThreadPoolExecutor(1) as thread:
            end: Future[None] = thread.submit(follow, self._open_log, self._warehouse, self.stop, self.told.append)
            try:
                yield self
            finally:
                self.stop.set()
            end.result()

    @property
    def events(self) -> int:
        return sum(one.events for one in self.told)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody waits for a test to end."""
    monkeypatch.setattr(following, "PATIENCE", 0.05)
    monkeypatch.setattr("events.retry.FIRST_PAUSE", 0.02)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'events.db'}"


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return open_warehouse(f"sqlite:///{tmp_path / 'warehouse.db'}")


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_events_become_rows_as_they_land(log: EventLog, url: str, warehouse: Warehouse, tmp_path: Path) -> None:
    with Worker(partial(open_log, url), warehouse).working() as worker:
        for number in range(3):
            log.publish([sendgrid_event("open", f"e{number}", email=f"{number}@x.de")])
            until(lambda: worker.events == number + 1)  # noqa: B023  (called before the number changes)
            assert len(read_sqlite(tmp_path / "warehouse.db", "email_messages")) == number + 1


def test_a_backlog_is_worked_off_portion_by_portion_and_each_is_told(
    log: EventLog, url: str, warehouse: Warehouse
) -> None:
    log.publish([sendgrid_event("open", f"e{number}") for number in range(2500)])
    with Worker(partial(open_log, url), warehouse).working() as worker:
        until(lambda: worker.events == 2500)
    assert [one.position for one in worker.told] == [1000, 2000, 2500]


def test_it_ends_behind_the_portion_in_hand(log: EventLog, url: str, warehouse: Warehouse) -> None:
    log.publish([sendgrid_event("open", f"e{number}") for number in range(1500)])
    stop = threading.Event()
    follow(partial(open_log, url), warehouse, stop, lambda _: stop.set())
    assert position(log, warehouse) == 1000


def test_what_no_table_takes_opens_no_transaction(log: EventLog, url: str, warehouse: Warehouse) -> None:
    log.publish([stripe_event("invoice.paid", "evt_1", NOON, invoice("paid"))])
    with Worker(partial(open_log, url), warehouse).working() as worker:
        until(lambda: log.head() == 2)  # its own announcement
        log.publish([sendgrid_event("open", "e1")])
        until(lambda: worker.events == 2)
    assert [one.position for one in worker.told] == [1, 3]


def test_of_several_workers_one_applies_each_event(log: EventLog, url: str, warehouse: Warehouse) -> None:
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(partial(open_log, url), warehouse).working()) for _ in range(3)]
        for number in range(0, 60, 3):
            log.publish([sendgrid_event("open", f"e{number + more}") for more in range(3)])
        until(lambda: position(log, warehouse) == 60)
    assert sum(worker.events for worker in workers) == 60


def test_a_dead_letter_is_a_warning_and_stops_nothing(
    log: EventLog, url: str, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    log.publish([poisoned(), sendgrid_event("open", "e1")])
    with Worker(partial(open_log, url), warehouse).working() as worker:
        until(lambda: worker.events == 2)
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert (warning.message, vars(warning)["sequence"]) == ("an event is a dead letter now", 1)


def test_a_log_that_cannot_be_opened_is_tried_again(
    log: EventLog, url: str, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    log.publish([sendgrid_event("open", "e1")])
    missing = iter([EventLogError("the disk is away", hint="mount it")] * 3)

    def unreliable() -> EventLog:
        for error in missing:
            raise error
        return open_log(url)

    with Worker(unreliable, warehouse).working() as worker:
        until(lambda: worker.events == 1)
    troubles = [vars(record) for record in caplog.records if record.levelno == logging.ERROR]
    assert [(one["message"], one["reason"], one["hint"], one["seconds"]) for one in troubles] == [
        ("events cannot be applied; trying again", "the disk is away", "mount it", seconds)
        for seconds in (0.02, 0.04, 0.08)
    ]
    assert not any(record.exc_info for record in caplog.records)


def test_a_log_that_is_replaced_is_followed_from_its_start(
    log: EventLog, url: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    log.publish([sendgrid_event("open", "e1"), sendgrid_event("open", "e2")])
    with Worker(partial(open_log, url), warehouse).working() as worker:
        until(lambda: worker.events == 2)
        log.close()
        for file in tmp_path.glob("events.db*"):
            file.unlink()
        with closing(open_log(url)) as anew:
            anew.publish([sendgrid_event("open", "e3", email="new@x.de")])
        until(lambda: worker.events == 3)
    rows = read_sqlite(tmp_path / "warehouse.db", "email_messages")
    assert {row["email"] for row in rows} == {"ann@example.com", "new@x.de"}


def test_a_database_server_that_restarts_is_waited_for(
    postgres_url: str, postgres_process: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps both the log and the warehouse."""
    with closing(open_log(postgres_url)) as log:
        log.publish([sendgrid_event("open", "e1", email="before@x.de")])
    with Worker(partial(open_log, postgres_url), open_warehouse(postgres_url)).working() as worker:
        until(lambda: worker.events == 1)
        postgres_process.kill()
        until(lambda: any(record.levelno == logging.ERROR for record in caplog.records))
        postgres_process.start()
        with closing(open_log(postgres_url)) as log:
            log.publish([sendgrid_event("open", "e2", email="after@x.de")])
        until(lambda: worker.events == 2)
    rows = read_postgres(postgres_url, "email_messages")
    assert {row["email"] for row in rows} == {"before@x.de", "after@x.de"}
