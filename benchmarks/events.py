"""How long an event takes from the log to its row, and how many a second there can be.

Receiver, daemon and worker are processes, as in production; log in SQLite (and, for the rate, in PostgreSQL), warehouse
in PostgreSQL, which tells of each row when it was committed. An event has landed when the log has taken it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir, closing, contextmanager
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles

import psycopg

from benchmarks.receiver import fill
from benchmarks.report import Finding
from cli.processes import Children, free_port
from cli.serve import program
from etl.destinations.warehouse import Warehouse, open_warehouse
from events.envelope import Event
from events.log import EventLog, open_log
from projections.apply import PORTION, SUBSCRIPTION, apply_range, position
from tests.gateway.signing import body_of, stripe_headers
from tests.projections.samples import NOON, invoice, sendgrid_event, stripe_event, subscription
from tests.services.postgres import Postgres, running

ROOT = Path(__file__).parents[1]
SECRET = "whsec_benchmark"
SENSOR_EVENTS, SENSOR_EVERY = 15, 3.7
WORKER_EVENTS, WORKER_RATE = 4000, 200
SENDERS = 16
APPLIED = 20_000
BACKLOG = 1_000_000
ROUNDS = 3


def landed_to_row() -> list[Finding]:
    """How long an event takes by the sensor's runs, and by the worker at 200 events a second."""
    with running() as server:
        tell_when_committed(server)
        with server.database() as url, _receiver(url) as place:
            sensor = median(place.by_sensor())
        with server.database() as url, _receiver(url) as place:
            worker = quantiles(place.by_worker(), n=100)
    found = f"{worker[98]:.2f} s (median {worker[49]:.2f} s)"
    return [
        Finding("Landed to row, by the sensor: median", f"{sensor:.1f} s", "<= 6 s", sensor <= 6),
        Finding(f"Landed to row, by the worker at {WORKER_RATE}/s: p99", found, "<= 1 s", worker[98] <= 1),
    ]


def handled() -> list[Finding]:
    """Events a second into PostgreSQL: from both logs, and behind a million events that were applied before."""
    sqlite, postgresql, behind = [], [], []
    with running() as server, tempfile.TemporaryDirectory(prefix="pivotal-bench-") as folder:
        fill(Path(folder) / "backlog.db", BACKLOG)
        for number in range(ROUNDS):
            sqlite.append(_rate(server, f"sqlite:///{folder}/{number}.db"))
            behind.append(_rate(server, f"sqlite:///{folder}/backlog.db", f"{number}-"))
            with server.database() as url:
                postgresql.append(_rate(server, url))
    ratio = median(this / that for this, that in zip(behind, sqlite, strict=True))
    return [
        *(
            Finding(
                f"Events into PostgreSQL, from {log}", f"{median(rates):,.0f}/s", ">= 2,000/s", median(rates) >= 2000
            )
            for log, rates in (("SQLite", sqlite), ("PostgreSQL", postgresql))
        ),
        Finding("The same behind a million events", f"{ratio:.2f} of the rate without", ">= 0.9", ratio >= 0.9),
    ]


def tell_when_committed(server: Postgres) -> None:
    """Has PostgreSQL keep the time of each commit; it is started anew."""
    with psycopg.connect(server.admin_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    assert server.process
    server.process.stop()
    server.process.start()


# --- from a webhook to the row --------------------------------------------------------------------------------------


class Place:
    """A project's folder with a running receiver.

    Args:
        children: Where more processes are started.
        port: The receiver's.
        url: The warehouse.
    """

    def __init__(self, children: Children, port: int, url: str) -> None:
        self._children, self._port, self._url = children, port, url

    def by_sensor(self) -> list[float]:
        """Seconds that each of some events took, by the daemon's sensor and its runs."""
        import dagster as dg

        with dg.DagsterInstance.get():  # two processes that make Dagster's databases at once break them
            self._children.start("daemon", [program("dagster-daemon"), "run", "-w", "workspace.yaml"], {})
            return self._seconds(SENSOR_EVENTS, 1 / SENSOR_EVERY)

    def by_worker(self) -> list[float]:
        """Seconds that each of many events took, by one worker that tells Dagster of the tables, too."""
        self._children.start("worker", [program("pivotal"), "events", "work"], {})
        return self._seconds(WORKER_EVENTS, WORKER_RATE)

    def _seconds(self, events: int, rate: float) -> list[float]:
        self._post([_webhook("warm-up")], rate)
        self._until_applied(1)
        self._post([_webhook(str(number)) for number in range(events)], rate)
        self._until_applied(events + 1)
        with psycopg.connect(self._url) as connection:
            query = "SELECT event_id, pg_xact_commit_timestamp(xmin) FROM subscriptions"
            committed: dict[str, datetime] = dict(connection.execute(query).fetchall())
        with closing(_log()) as log:
            landed = _all(log)
        return [
            (committed[key] - recorded_at).total_seconds()
            for key, recorded_at in landed.items()
            if key != "evt_warm-up"
        ]

    def _post(self, events: Sequence[Event], rate: float) -> None:
        """Sends webhooks evenly, however long the answers take."""
        bodies = [body_of(event.data) for event in events]
        started = time.monotonic()

        def send(number: int) -> None:
            time.sleep(max(0, started + number / rate - time.monotonic()))
            body = bodies[number]
            with closing(HTTPConnection("127.0.0.1", self._port)) as connection:
                connection.request("POST", "/webhooks/stripe", body, stripe_headers(body, SECRET))
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()

        with ThreadPoolExecutor(SENDERS) as threads:
            list(threads.map(send, range(len(events))))

    def _until_applied(self, events: int) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while True:
                self._children.check()
                there = connection.execute("SELECT to_regclass('subscriptions') IS NOT NULL").fetchone() == (True,)
                if there and connection.execute("SELECT count(*) FROM subscriptions").fetchone() == (events,):
                    return
                time.sleep(0.2)


@contextmanager
def _receiver(url: str) -> Iterator[Place]:
    port = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pivotal-bench-")))
        (folder / "pipelines").mkdir()
        for name in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(ROOT / name, folder)
        stack.enter_context(chdir(folder))
        environment = {
            "DAGSTER_HOME": str(folder),
            "PIVOTAL_ROOT": str(folder),
            "PIVOTAL_EVENTS_URL": f"sqlite:///{folder}/events.db",
            "PIVOTAL_WAREHOUSE_URL": url,
            "PIVOTAL_STRIPE_WEBHOOK_SECRETS": SECRET,
        }
        os.environ.update(environment)
        children = stack.enter_context(Children(lambda *_: None))
        receiver = children.start("receiver", [program("pivotal"), "gateway", "--port", str(port)], {})
        children.wait_until_listening(receiver, port)
        yield Place(children, port, url)


def _webhook(key: str) -> Event:
    about = subscription(id=f"sub_{key}", description="x" * 900)
    return stripe_event("customer.subscription.created", f"evt_{key}", NOON, about)


def _log() -> EventLog:
    return open_log(os.environ["PIVOTAL_EVENTS_URL"])


def _all(log: EventLog) -> dict[str, datetime]:
    found, after = {}, 0
    while recorded := log.read(after, PORTION, types=["stripe.*"]):
        found.update({one.event.metadata.dedupe_key: one.recorded_at for one in recorded})
        after = recorded[-1].sequence
    return found


# --- many at once ---------------------------------------------------------------------------------------------------


def _rate(server: Postgres, log_url: str, prefix: str = "") -> float:
    """Events a second; those that the log has already count as applied."""
    with closing(open_log(log_url)) as log, server.database() as url:
        warehouse = open_warehouse(url)
        _stand_at(warehouse, log.head())
        for start in range(0, APPLIED, PORTION):
            log.publish([_mixed(f"{prefix}{number}", number) for number in range(start, start + PORTION)])
        until = log.head()
        started = time.perf_counter()
        applied = apply_range(log, warehouse, None, until, run_id="benchmark")
        seconds = time.perf_counter() - started
        assert (applied.events, position(log, warehouse)) == (APPLIED, until)
        assert not applied.dead
    return applied.events / seconds


def _stand_at(warehouse: Warehouse, sequence: int) -> None:
    with warehouse.transaction() as transaction:
        transaction.save_state(SUBSCRIPTION, "benchmark", {"position": sequence})
        transaction.commit()


def _mixed(key: str, number: int) -> Event:
    """Of 2 KB: half of them of subscriptions (some announced), a quarter each of invoices (announced) and of mails."""
    if number % 4 == 1:
        about = invoice("paid", id=f"in_{number // 8}", description="x" * 900)
        return stripe_event("invoice.paid", f"evt_{key}", NOON + number, about)
    if number % 4 == 3:
        return sendgrid_event("delivered", f"mail_{key}", NOON + number, sg_message_id=f"m{number}.x")
    about = subscription(id=f"sub_{number % 2000}", description="x" * 900)
    changes = {"previous_attributes": {"status": "trialing"}} if number % 40 == 0 else {}
    return stripe_event("customer.subscription.updated", f"evt_{key}", NOON + number, about, **changes)
