"""Killed anywhere in a reading, the next one ends in what one undisturbed reading would have made."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from events.log import EventLog
from sandbox import google
from sandbox.serve import Running
from tests.reconciliation.conftest import Rows

ROUNDS = int(os.environ.get("PIVOTAL_CRASH_RUNS", "1"))
CUSTOMERS, MEETINGS = 250, 60
PROGRAM = """
import reconciliation.reading, sys
from etl.destinations.warehouse import open_warehouse
from events.log import open_log
from integrations.calendar import GoogleCalendar, GoogleCalendarConfig
from integrations.stripe import Stripe, StripeConfig
from pydantic import SecretStr
from reconciliation.providers import reconcile
from settings import Settings
reconciliation.reading.PORTION = 5
stripe_base, google_base, folder = sys.argv[1:4]
log, warehouse = open_log(f"sqlite:///{folder}/events.db"), open_warehouse(f"sqlite:///{folder}/warehouse.db")
stripe = Stripe(StripeConfig(api_key=SecretStr("sk_test_x"), api_base=stripe_base))
google = GoogleCalendar(GoogleCalendarConfig(credentials=SecretStr(f"{folder}/key.json"), api_base=google_base))
for client in stripe, google:
    reconcile(client, Settings(), log, warehouse, run_id="run")
"""


def fill(served: Running) -> None:
    """Things happen, and nobody listens."""
    account = served.sandbox.stripe.account
    for number in range(CUSTOMERS):
        account.create_customer({"name": f"Customer {number}"})
    tomorrow = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 86_400))
    when = {
        end: {"dateTime": f"{tomorrow}T{hour}:00:00Z", "timeZone": "UTC"}
        for end, hour in (("start", "09"), ("end", "10"))
    }
    for number in range(MEETINGS):
        served.sandbox.google.add(google.USER, {"summary": f"Meeting {number}", **when})


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_killed_while_it_reads_nothing_is_lost_and_nothing_twice(
    served: Running, project: Path, log: EventLog, rows: Rows
) -> None:
    fill(served)
    (project / "key.json").write_text(served.google_credentials)
    command = [sys.executable, "-c", PROGRAM, served.stripe_base, served.google_base, str(project)]
    total = CUSTOMERS + MEETINGS
    for _ in range(ROUNDS):
        goal = random.randint(min(log.head() + 1, total), total)
        with subprocess.Popen(command, env=os.environ | {"PIVOTAL_ROOT": str(project)}) as process:
            while log.head() < goal and process.poll() is None:
                time.sleep(0.002)
            process.kill()
    subprocess.run(command, env=os.environ | {"PIVOTAL_ROOT": str(project)}, check=True)
    told = [recorded.event for recorded in log.read(0, 10_000)]
    assert Counter(event.type for event in told) == {
        "stripe.customer.created": CUSTOMERS,
        "google.calendar.event.updated": MEETINGS,
    }
    assert len({event.data.get("id") or event.data["calendar_event_id"] for event in told}) == CUSTOMERS + MEETINGS
    assert len(rows("calendar_events")) == MEETINGS
    with closing(sqlite3.connect(project / "warehouse.db")) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM _pivotal_state")}
    assert any(name.startswith("reconciliation/google/") for name in names)
