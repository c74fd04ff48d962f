"""`pivotal events work`: applies events as they land, and tells Dagster what became of the tables."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event as Signal
from typing import TYPE_CHECKING

import click

from cli import subscriptions
from cli.output import say

if TYPE_CHECKING:
    from events.log import EventLog
    from events.subscriptions import DurableSubscription
    from projections.apply import Applied, Change

REPORT_EVERY, LONGEST_PAUSE = 5.0, 60.0
"""Seconds between two reports to Dagster; and between two tries while it is away, at most."""

logger = logging.getLogger(__name__)

Follower = Callable[[Signal], None]
"""Works until the signal is set."""


@click.command()
@click.option("--subscriptions", "place", metavar="PACKAGE.MODULE:NAME", help="Durable subscriptions to work as well.")
@click.option("--outbox", "outbox", metavar="URL", help="A database whose outbox is relayed to the log as well.")
def work(place: str | None, outbox: str | None) -> None:
    """Apply events to the tables as they land, until Ctrl-C or SIGTERM.

    Any number of workers may run, also beside Dagster's sensor. With DAGSTER_HOME, Dagster is told what became of each
    table. Each durable subscription is worked by one of the workers at a time.
    """
    from etl.destinations.warehouse import open_warehouse
    from etl.pipeline import shown_url
    from etl.startup import hide_pandas_from_pyarrow
    from events.log import open_log
    from events.outbox import follow as relay_outbox
    from gateway.logs import log_to_stderr
    from projections.follow import follow
    from settings import get_settings

    hide_pandas_from_pyarrow()
    settings = get_settings()
    declared = subscriptions.load(place) if place else []
    warehouse = open_warehouse(settings.warehouse_url)
    home = os.environ.get("DAGSTER_HOME")
    log_to_stderr()
    logging.getLogger("alembic").setLevel(logging.WARNING)  # Dagster's, at each report
    say(
        f"Applying {shown_url(settings.events_url)} to {warehouse.label}"
        + (f", and telling Dagster ({home})" if home else "")
        + "; Ctrl-C ends it.",
        error=True,
    )
    with reporting() if home else nullcontext(_not_told) as tell:
        followers: list[Follower] = [lambda stop: follow(partial(open_log, settings.events_url), warehouse, stop, tell)]
        if declared:
            followers.append(partial(_work_subscriptions, settings.events_url, declared))
        if outbox:
            followers.append(partial(relay_outbox, outbox, partial(open_log, settings.events_url)))
        run(followers)


def _work_subscriptions(url: str, declared: Sequence[DurableSubscription], stop: Signal) -> None:
    from events.log import open_log
    from events.retry import keep_on
    from events.subscriptions import run as run_subscriptions

    def work(log: EventLog) -> Iterator[None]:
        run_subscriptions(log, declared, stop)
        yield

    keep_on(work, partial(open_log, url), stop, trouble="subscriptions cannot be worked")


def run(followers: Sequence[Follower]) -> None:
    """Runs followers, each in a thread, until the process is asked to end or one of them fails.

    Raises:
        BaseException: What the one that failed has raised; the others have ended then.
    """
    stop, ending = Signal(), SimpleQueue[object]()
    with _asked_to_end(lambda *_: ending.put(None)), ThreadPoolExecutor(len(followers)) as threads:
        try:
            running = [threads.submit(follower, stop) for follower in followers]
            for follower in running:
                follower.add_done_callback(ending.put)
            ending.get()
        finally:
            stop.set()
    for follower in running:
        follower.result()


@contextmanager
def _asked_to_end(handler: Callable[..., None]) -> Iterator[None]:
    """Has SIGINT and SIGTERM call a handler, and raise nothing: a portion in hand is ended, wherever it is."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


@contextmanager
def reporting() -> Iterator[Callable[[Applied], None]]:
    """Gives what takes news for Dagster; all are told before the block is left, if Dagster is there.

    Dagster is imported now: while that goes on, for a second, nothing else in the process gets far.
    """
    import assets.events  # noqa: F401

    reports, stop = _Reports(), Signal()
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(reports.run, stop)
        try:
            yield reports.add
        finally:
            stop.set()
    done.result()


def _not_told(_: Applied) -> None:
    """There is no Dagster."""


class _Reports:
    """Materializations without a run: of each table one for all that happened to it since the last.

    In a thread of its own, for Dagster may be slow or away: then the news wait, summed up.
    """

    def __init__(self) -> None:
        self._news: SimpleQueue[Applied] = SimpleQueue()
        self._tables: dict[str, Change] = {}
        self._dead = 0

    def add(self, applied: Applied) -> None:
        """Takes news."""
        self._news.put(applied)

    def run(self, stop: Signal) -> None:
        """Tells them, now and then; what is left at the end, too."""
        pause = REPORT_EVERY
        while not stop.wait(pause):
            pause = REPORT_EVERY if self._report() else min(2 * pause, LONGEST_PAUSE)
        self._report()

    def _report(self) -> bool:
        """Tells what is new; false if Dagster did not take it."""
        self._sum_up()
        try:
            if self._tables:
                self._tell()
        except Exception as error:  # noqa: BLE001  (whatever it is, the tables are right, and it is tried again)
            logger.warning("Dagster was not told", extra={"reason": _short(error)})
            return False
        return True

    def _sum_up(self) -> None:
        with suppress(Empty):
            while news := self._news.get_nowait():
                self._dead += len(news.dead)
                for table, change in news.tables.items():
                    self._tables[table] = self._tables[table] + change if table in self._tables else change

    def _tell(self) -> None:
        import dagster as dg

        from assets.events import materialization

        with dg.DagsterInstance.get() as instance:
            for table, change in [*self._tables.items()]:
                instance.report_runless_asset_event(materialization(table, change, self._dead))
                del self._tables[table]
        self._dead = 0


def _short(error: Exception) -> str:
    """The first line: what follows are statements and their values."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
