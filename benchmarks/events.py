"""How long an event takes from the log to its row, and how many a second there can be: `python -m benchmarks.events`.

Receiver, daemon and worker are processes, as in production; log in SQLite (and, for the rate, in PostgreSQL), warehouse
in PostgreSQL, which tells of each row when it was committed. An event has landed when the log has taken it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, chdir, closing, contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles

import httpx
import psycopg

from benchmarks.receiver import fill
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
APPLIED = 20_000
BACKLOG = 1_000_000
ROUNDS = 3


def measure() -> dict[str, float]:
    """Seconds, and events a second."""
    with running() as server:
        _tell_when_committed(server)
        with server.database() as url, _receiver(url) as place:
            sensor = place.by_sensor()
        with server.database() as url, _receiver(url) as place:
            worker = place.by_worker()
        return {
            "sensor_median": median(sensor),
            "sensor_max": max(sensor),
            "worker_median": median(worker),
            "worker_p99": quantiles(worker, n=100)[98],
            "worker_max": max(worker),
            **_rates(server),
        }


def _tell_when_committed(server: Postgres) -> None:
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
        asyncio.run(self._post([_webhook("warm-up")], rate))
        self._until_applied(1)
        asyncio.run(self._post([_webhook(str(number)) for number in range(events)], rate))
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

    async def _post(self, events: Sequence[Event], rate: float) -> None:
        """Sends webhooks evenly, however long the answers take."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}") as client:
            started = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for number, event in enumerate(events):
                    await asyncio.sleep(started + number / rate - time.monotonic())
                    group.create_task(_post(client, event))

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


async def _post(client: httpx.AsyncClient, event: Event) -> None:
    body = body_of(event.data)
    (await client.post("/webhooks/stripe", content=body, headers=stripe_headers(body, SECRET))).raise_for_status()


def _log() -> EventLog:
    return open_log(os.environ["PIVOTAL_EVENTS_URL"])


def _all(log: EventLog) -> dict[str, datetime]:
    found, after = {}, 0
    while recorded := log.read(after, PORTION, types=["stripe.*"]):
        found.update({one.event.metadata.dedupe_key: one.recorded_at for one in recorded})
        after = recorded[-1].sequence
    return found


# --- many at once ---------------------------------------------------------------------------------------------------


def _rates(server: Postgres) -> dict[str, float]:
    """Events a second into PostgreSQL: from both logs, and behind a million events that were applied before."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pivotal-bench-")))
        fill(folder / "backlog.db", BACKLOG)
        rates: dict[str, list[float]] = {"sqlite": [], "postgresql": [], "backlog": []}
        for number in range(ROUNDS):
            rates["sqlite"].append(_rate(server, f"sqlite:///{folder}/{number}.db"))
            with server.database() as url:
                rates["postgresql"].append(_rate(server, url))
            rates["backlog"].append(_rate(server, f"sqlite:///{folder}/backlog.db", f"{number}-"))
    return {f"rate_{name}": median(found) for name, found in rates.items()}


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


if __name__ == "__main__":
    print(json.dumps({name: round(value, 3) for name, value in measure().items()}, indent=2))
