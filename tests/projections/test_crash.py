"""Killed anywhere, the next call ends in what one undisturbed call would have made."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from etl.destinations.warehouse import open_warehouse
from events.envelope import Event
from events.log import EventLog
from projections.apply import SUBSCRIPTION, apply_range, position
from tests.projections.samples import NOON, invoice, sendgrid_event, stripe_event
from tests.projections.test_apply import poisoned, read_sqlite

EVENTS = 200
PROGRAM = """
import sys
from etl.destinations.warehouse import open_warehouse
from events.log import open_log
from projections.apply import apply_range
log = open_log(sys.argv[1])
apply_range(log, open_warehouse(sys.argv[2]), None, int(sys.argv[3]), run_id="killed", portion=4)
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
