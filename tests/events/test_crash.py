"""Workers of durable subscriptions as processes of their own, when they are killed or hang."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import sqlalchemy as sa

from events.deliveries import deliveries_of
from events.log import EventLog, open_log
from tests.events.working import happened, until

KILLS = int(os.environ.get("PIVOTAL_CRASH_RUNS", "2"))
AGGREGATES = 7
LOT = 60
"""Events that are published before each kill."""

WORKER = """
import logging, os, signal, threading, time
from contextlib import nullcontext
import sqlalchemy as sa
from events.inbox import once
from events.log import open_log
from events.subscriptions import DurableSubscription, run

logging.basicConfig(filename=lines + ".log", level=logging.INFO)
engine = sa.create_engine(effects)
file = open(lines, "a", buffering=1)

def handle(event):
    number = event.data["n"]
    if number == stop_at:
        # While it writes nothing: who hangs in a transaction of SQLite holds up everybody.
        with getattr(log, "_lock", nullcontext()):
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # os.kill would let this thread go on for a bit
    if number == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    with engine.begin() as connection:
        if once(connection, "mail", event):
            connection.execute(sa.text("INSERT INTO effects VALUES (:number)"), {"number": number})
    file.write(f"{os.getpid()} {number}\\n")
    if number == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

limits = {"concurrency": concurrency, "attempts": attempts}
declared = DurableSubscription(name="mail", types=["test.*"], handler=handle, **limits)
os.environ["PIVOTAL_ROOT"] = root
log = open_log(url)
run(log, [declared], threading.Event(), lease=lease)
"""

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["events.subscriptions", "events.work", "events.sqlite", "events.postgres", "sqlalchemy"]
)

Start = Callable[..., BaseProcess]


@pytest.fixture(params=["sqlite", "postgres", "kafka"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        f"sqlite:///{tmp_path}/events.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    )


@pytest.fixture
def log(url: str) -> Iterator[EventLog]:
    with closing(open_log(url)) as log:
        yield log


@pytest.fixture
def effects(url: str, tmp_path: Path) -> Iterator[sa.Engine]:
    """The handlers' own database."""
    own = url.replace("://", "+psycopg://") if url.startswith("postgres") else f"sqlite:///{tmp_path}/mine.db"
    engine = sa.create_engine(own)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE effects (number INTEGER)"))
    yield engine
    engine.dispose()


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """What was handled, by whom: one line each."""
    (tmp_path / "lines").touch()
    return tmp_path / "lines"


@pytest.fixture
def start(url: str, effects: sa.Engine, lines: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker; with a log in Kafka, as if on a machine of its own."""
    processes: list[BaseProcess] = []

    def started(
        *,
        lease: float,
        concurrency: int = 3,
        stop_at: int = -1,
        kill_at: int = -1,
        dies_at: int = -1,
        attempts: int = 5,
    ) -> BaseProcess:
        own = effects.url.render_as_string(hide_password=False)
        names = {"url": url, "effects": own, "lines": str(lines), "lease": lease}
        names["root"] = str(tmp_path / str(len(processes)))
        names |= {
            "concurrency": concurrency,
            "stop_at": stop_at,
            "kill_at": kill_at,
            "dies_at": dies_at,
            "attempts": attempts,
        }
        process = _PROCESSES.Process(target=exec, args=(WORKER, names))
        process.start()
        processes.append(process)
        return process

    yield started
    for process in processes:
        process.kill()
        process.join()


def handled(lines: Path) -> list[tuple[int, int]]:
    """Who handled what, in order."""
    found = [line.split() for line in lines.read_text().splitlines()]
    return [(int(process), int(number)) for process, number in found]


@pytest.mark.timeout(60 + 10 * KILLS)
def test_killed_workers_lose_nothing_and_with_an_inbox_no_effect_comes_twice(
    log: EventLog, start: Start, effects: sa.Engine, lines: Path
) -> None:
    deliveries, published = deliveries_of(log), 0
    spare = start(lease=0.5)
    for _ in range(KILLS):
        first, published = published, published + LOT
        worker, spare = spare, start(lease=0.5, kill_at=random.randrange(published, published + LOT))
        log.publish([happened(n, str(n % AGGREGATES)) for n in range(first, published)])
        until(lambda first=first: len({n for _, n in handled(lines)}) > first)  # type: ignore[misc]
        worker.kill()
        worker.join()
    log.publish([happened(n, str(n % AGGREGATES)) for n in range(published, published + LOT)])
    start(lease=0.5)

    until(lambda: {n for _, n in handled(lines)} == set(range(published + LOT)))
    until(lambda: (status := deliveries.statuses()[0]).lag == status.waiting == 0)
    with effects.connect() as connection:
        counts = Counter(connection.execute(sa.text("SELECT number FROM effects")).scalars())
    assert counts == dict.fromkeys(range(published + LOT), 1)
    assert log.dead() == []
    by_worker = defaultdict(list)
    for process, number in handled(lines):
        by_worker[process, number % AGGREGATES].append(number)
    assert [numbers for numbers in by_worker.values() if numbers != sorted(numbers)] == []
    firsts = list(dict.fromkeys(number for _, number in handled(lines)))
    for one in range(AGGREGATES):
        of_one = [number for number in firsts if number % AGGREGATES == one]
        assert of_one == sorted(of_one)


def test_a_worker_that_hung_is_taken_over_and_handles_nothing_more_when_it_wakes_up(
    log: EventLog, start: Start, lines: Path
) -> None:
    hangs_at = 20
    log.publish([happened(n) for n in range(40)])
    first = start(lease=2, concurrency=1, stop_at=hangs_at)
    until(lambda: len(handled(lines)) == hangs_at)
    start(lease=2, concurrency=1)
    until(lambda: handled(lines)[-1][1] == 39)

    assert first.pid is not None
    os.kill(first.pid, signal.SIGCONT)
    until(lambda: "interrupted" in Path(f"{lines}.log").read_text())
    log.publish([happened(n) for n in range(40, 60)])
    until(lambda: (0, 59) in [(0, n) for _, n in handled(lines)])
    assert [n for process, n in handled(lines) if process == first.pid] == list(range(hangs_at + 1))
    second = [n for process, n in handled(lines) if process != first.pid]
    assert second == list(range(second[0], 60))
    assert second[0] <= hangs_at


def test_an_event_that_ends_every_process_is_given_up_and_the_others_go_on(
    log: EventLog, start: Start, lines: Path
) -> None:
    log.publish([happened(n, str(n % AGGREGATES)) for n in range(20)])
    for _ in range(3):
        worker = start(lease=0.5, dies_at=10, attempts=2)
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    start(lease=0.5, dies_at=10, attempts=2)

    until(lambda: {n for _, n in handled(lines)} == {*range(20)} - {10})
    [letter] = log.dead("mail")
    assert (letter.recorded.event.data["n"], letter.attempts) == (10, 2)
    assert "the process ended each time" in letter.error
