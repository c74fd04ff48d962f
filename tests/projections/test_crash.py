"""Killed anywhere, the next call ends in what one undisturbed call would have made."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from etl.destinations.warehouse import open_warehouse
from events.envelope import Event
from events.log import EventLog
from projections import PATTERNS
from projections.apply import SUBSCRIPTION, apply_range, position
from tests.projections.samples import NOON, invoice, sendgrid_event, stripe_event
from tests.projections.test_apply import poisoned, read_postgres, read_sqlite

EVENTS = 200
ROUNDS = int(os.environ.get("PIVOTAL_CRASH_RUNS", "2"))
"""How often a worker is killed."""

PROGRAM = """
import sys
from etl.destinations.warehouse import open_warehouse
from events.log import open_log
from projections.apply import apply_range
log = open_log(sys.argv[1])
apply_range(log, open_warehouse(sys.argv[2]), None, int(sys.argv[3]), run_id="killed", portion=4)
"""

WORKER = """
import sys
from functools import partial
from threading import Event
from etl.destinations.warehouse import open_warehouse
from events.log import open_log
from projections.follow import follow
follow(partial(open_log, sys.argv[1]), open_warehouse(sys.argv[2]), Event(), lambda applied: None)
"""


def landed(number: int) -> Event:
    if number % 10 == 3:
        return poisoned(f"bad_{number}")
    if number % 10 == 6:
        return stripe_event("invoice.paid", f"evt_{number}", NOON, invoice("paid", id=f"in_{number}"))
    return sendgrid_event("open", f"mail_{number}", NOON + number, email=f"{number % 50}@example.com")


def test_a_killed_process_loses_nothing_and_does_nothing_twice(log: EventLog, tmp_path: Path) -> None:
    log.publish([landed(number) for number in range(EVENTS)])
    url = f"sqlite:///{tmp_path / 'warehouse.db'}"
    warehouse = open_warehouse(url)
    for goal in (0, 100):
        arguments = [f"sqlite:///{tmp_path / 'events.db'}", url, str(EVENTS)]
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments])
        while position(log, warehouse) <= goal and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.wait()
    apply_range(log, warehouse, None, EVENTS, run_id="last")
    mails = read_sqlite(tmp_path / "warehouse.db", "email_messages")
    wanted = [number for number in range(EVENTS) if number % 10 not in {3, 6}]
    assert {row["email"]: row["event_id"] for row in mails} == {
        f"{number % 50}@example.com": f"mail_{number}" for number in wanted
    }
    assert len(read_sqlite(tmp_path / "warehouse.db", "invoices")) == EVENTS // 10
    assert [letter.recorded.sequence % 10 for letter in log.dead(SUBSCRIPTION)] == [4] * (EVENTS // 10)
    told = Counter(recorded.event.type for recorded in log.read(EVENTS, EVENTS))
    assert told == {"pivotal.invoice.paid": EVENTS // 10, "pivotal.event.dead_lettered": EVENTS // 10}


@pytest.mark.timeout(60 + 5 * ROUNDS)
def test_of_two_workers_that_are_killed_in_turn_one_goes_on_and_each_event_counts_once(
    log: EventLog, tmp_path: Path, postgres_url: str
) -> None:
    arguments = [f"sqlite:///{tmp_path / 'events.db'}", postgres_url]
    warehouse, events = open_warehouse(postgres_url), 50 * (ROUNDS + 1)
    with ExitStack() as stack:

        def start() -> subprocess.Popen[bytes]:
            worker = stack.enter_context(subprocess.Popen([sys.executable, "-c", WORKER, *arguments]))
            stack.callback(worker.kill)
            return worker

        workers = [start(), start()]
        for number in range(events):
            log.publish([landed(number)])
            if number % 50 == 49 and number + 1 < events:
                at = log.head() - random.Random(number).randrange(50)
                until(lambda: position(log, warehouse) >= at)  # noqa: B023  (called at once)
                workers.pop(0).kill()
                workers.append(start())
        last = log.read(0, 2 * events, types=PATTERNS)[-1].sequence
        until(lambda: position(log, warehouse) >= last)
    kinds = Counter(number % 10 for number in range(events))
    assert len(read_postgres(postgres_url, "invoices")) == kinds[6]
    assert len(log.dead(SUBSCRIPTION)) == kinds[3]
    told = Counter(recorded.event.type for recorded in log.read(0, 3 * events, types=["pivotal.*"]))
    assert told == {"pivotal.invoice.paid": kinds[6], "pivotal.event.dead_lettered": kinds[3]}
    newest = {f"{number % 50}@example.com": f"mail_{number}" for number in range(events) if number % 10 not in {3, 6}}
    assert {row["email"]: row["event_id"] for row in read_postgres(postgres_url, "email_messages")} == newest


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)
