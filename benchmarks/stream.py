"""How fast a topic of Kafka is read, and how soon a record is a row.

A real broker, PostgreSQL, JSON records of 200 bytes in three partitions. Beside the run with full rules stand a bare
loop of kafka-python's `poll` that only counts, and, with a Python that has the peers, one of confluent-kafka's. Each is
a process of its own. How soon: the row's commit, as PostgreSQL tells it, after the record was handed to the producer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

import psycopg

from benchmarks.events import tell_when_committed
from benchmarks.measure import Measured, measure
from benchmarks.report import Finding
from tests.services.kafka_broker import _jars, _java
from tests.services.kafka_broker import running as running_kafka
from tests.services.postgres import running as running_postgres
from tests.services.topics import Topics

HERE = Path(__file__).parent
RECORDS = 1_000_000
A_SECOND, SECONDS = 1000, 20
PIPELINE = """\
description: Orders from a topic
source:
  type: stream
  brokers: ${BENCH_BROKERS}
  topics: ${BENCH_TOPIC}
  metadata: [key, partition, offset, timestamp]
transform:
  map: {id: order_id, amt: amount, "*": "*"}
  convert: {order_id: bigint, amount: "decimal(12,2)", created: timestamptz}
  validate:
    order_id: {required: true}
    amount: {min: 0}
    status: {in: [paid, open, void]}
    email: {pattern: "[^@ ]+@[^@ ]+"}
  derive: {amount_usd: "amount * 1.1"}
  filter: ["status <> 'void'"]
destination: {type: database, connection: "${BENCH_TARGET_URL}", table: orders, write: append}
"""


def findings(peers: Path | None, records: int = RECORDS) -> list[Finding]:
    """The run beside the bare loops, and how soon a record is a row.

    Args:
        peers: A Python that has confluent-kafka; without it, its loop is left out.
        records: How many records are read.
    """
    with (
        running_kafka(_java(), _jars()) as kafka,
        running_postgres() as server,
        tempfile.TemporaryDirectory(prefix="pivotal-bench-") as folder,
    ):
        tell_when_committed(server)
        topics = Topics(kafka.brokers)
        (Path(folder) / "pipelines").mkdir()
        (Path(folder) / "pipelines" / "orders.yaml").write_text(PIPELINE)
        with server.database() as url:
            environment = _environment(kafka.brokers, _filled(topics, records), url, Path(folder))
            run = _run(environment, records)
            loops = {loop: _loop(loop, python, environment, records) for loop, python in _loops(peers).items()}
        with server.database() as url:
            environment = _environment(kafka.brokers, topics.make(partitions=3), url, Path(folder))
            soon = _how_soon(topics, environment)
        topics.close()
    return [*_speed(run, records, loops), _soon(soon)]


def _speed(run: Measured, records: int, loops: Mapping[str, float]) -> list[Finding]:
    rate, own = records / run.seconds, loops["kafka_python"]
    beside = "".join(f", {loop} {theirs:,.0f}/s" for loop, theirs in loops.items())
    title = f"Topic -> PostgreSQL, {records:,} records, beside a loop that counts"
    return [
        Finding(title, f"{rate:,.0f}/s{beside}: {rate / own:.2f}", ">= 0.8 of kafka_python", rate / own >= 0.8),
        Finding("Its peak memory", f"{run.peak / 1e6:.0f} MB", "<= 400 MB", run.peak <= 400e6),
    ]


def _soon(seconds: Sequence[float]) -> Finding:
    p99 = quantiles(seconds, n=100)[98]
    found = f"{p99:.2f} s (median {median(seconds):.2f}, all {max(seconds):.2f})"
    return Finding(f"Record to row, `pivotal stream` at {A_SECOND:,}/s: p99", found, "<= 1 s", p99 <= 1)


def _loops(peers: Path | None) -> dict[str, str | Path]:
    return {"kafka_python": sys.executable} | ({"confluent": peers} if peers else {})


def _loop(loop: str, python: str | Path, environment: dict[str, str], records: int) -> float:
    arguments = [environment["BENCH_BROKERS"], environment["BENCH_TOPIC"], str(records)]
    return records / measure([python, HERE / "polling.py", loop, *arguments], environment).seconds


def _run(environment: dict[str, str], records: int) -> Measured:
    run = measure([Path(sys.executable).with_name("pivotal"), "run", "orders"], environment)
    with psycopg.connect(environment["BENCH_TARGET_URL"]) as target:
        rows = target.execute("SELECT count(*) FROM orders").fetchone()
    assert rows == (records - records // 3,), rows  # a third is void, and filtered
    return run


def _how_soon(topics: Topics, environment: dict[str, str]) -> list[float]:
    """Seconds from the producer to the commit, for each record."""
    sent: dict[int, float] = {}
    with _reader(environment), topics.producer(linger_ms=5) as producer:
        _await_rows(environment["BENCH_TARGET_URL"], 1, lambda: producer.send(environment["BENCH_TOPIC"], record(0)))
        began = time.time()
        for number in range(1, A_SECOND * SECONDS):
            time.sleep(max(0.0, began + number / A_SECOND - time.time()))
            sent[3 * number] = time.time()
            producer.send(environment["BENCH_TOPIC"], record(3 * number), partition=number % 3)
        producer.flush()
        _await_rows(environment["BENCH_TARGET_URL"], len(sent) + 1)
    with psycopg.connect(environment["BENCH_TARGET_URL"]) as target:
        rows = target.execute(
            "SELECT order_id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM orders"
        ).fetchall()
    return [committed - sent[number] for number, committed in rows if number in sent]


def _await_rows(url: str, count: int, nudge: object = None) -> None:
    if callable(nudge):
        nudge()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with psycopg.connect(url) as target:
            if target.execute("SELECT to_regclass('orders')").fetchone() == (None,):
                continue
            if (target.execute("SELECT count(*) FROM orders").fetchone() or (0,))[0] >= count:
                return
        time.sleep(0.05)
    sys.exit("the rows do not come")


@contextmanager
def _reader(environment: dict[str, str]) -> Iterator[None]:
    command = [str(Path(sys.executable).with_name("pivotal")), "stream", "orders"]
    environment = {**os.environ, **environment}
    reader = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        reader.terminate()
        reader.wait()


def _filled(topics: Topics, records: int) -> str:
    """A topic with records, written by several producers at a time."""
    topic = topics.make(partitions=3)

    def fill(partition: int) -> None:
        with topics.producer(linger_ms=50, batch_size=1 << 18) as producer:
            for number in range(partition, records, 3):
                producer.send(topic, record(number), key=b"%d" % number, partition=partition)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(fill, range(3)))
    return topic


def record(number: int) -> bytes:
    """An order of about 200 bytes; every third is void."""
    return json.dumps(
        {
            "id": number, "amt": f"{number % 1000}.{number % 100:02}", "status": ("paid", "open", "void")[number % 3],
            "email": f"customer{number % 9973}@example.com", "created": "2024-01-31T12:00:00Z", "note": "x" * 72,
        }
    ).encode()  # fmt: skip


def _environment(brokers: str, topic: str, url: str, folder: Path) -> dict[str, str]:
    return {
        "PIVOTAL_ROOT": str(folder),
        "BENCH_BROKERS": brokers,
        "BENCH_TOPIC": topic,
        "BENCH_TARGET_URL": url,
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
