"""How fast a topic of Kafka is read, and how soon a record is a row.

A real broker, PostgreSQL, JSON records of 200 bytes in three partitions. Beside the run with full rules stands a bare
loop of kafka-python's `poll` that only counts; they take turns, and the best of their runs counts. With a Python that
has the peers, there are a loop of confluent-kafka's, too, and dlt and Quix Streams, which load fewer records, without
rules. Each is a process of its own. How soon: the row's commit, as PostgreSQL tells it, after the record was handed to
the producer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median, quantiles

import psycopg

from benchmarks.events import tell_when_committed
from benchmarks.measure import Measured, measure
from benchmarks.producing import record
from benchmarks.report import Finding
from tests.services.kafka_broker import running as running_kafka
from tests.services.postgres import Postgres
from tests.services.postgres import running as running_postgres
from tests.services.topics import Topics

HERE = Path(__file__).parent
RECORDS, OF_PEERS, BACKLOG = 1_000_000, 200_000, 10_000_000
ROUNDS = 3
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


def findings(peers: Path | None, records: int = RECORDS, of_peers: int = OF_PEERS) -> list[Finding]:
    """The run beside the bare loops and the peers, and how soon a record is a row.

    Args:
        peers: A Python that has the peers; without it, they are left out.
        records: How many records are read.
        of_peers: How many the peers read.
    """
    with _place(peers) as place:
        topic = place.filled(records)
        rounds = [(place.run(topic, records), place.loop("kafka_python", topic, records)) for _ in range(ROUNDS)]
        run, own = (min(runs, key=lambda run: run.seconds) for runs in zip(*rounds, strict=True))
        rates = {"kafka_python": records / own.seconds}
        if peers:
            rates["confluent"] = records / place.loop("confluent", topic, records).seconds
            topic = place.filled(of_peers)
            rates |= {peer: of_peers / place.peer(peer, topic, of_peers).seconds for peer in ("dlt", "quix")}
        soon = place.how_soon()
    peak = max(run.peak for run, _ in rounds)
    return [*_speed(records / run.seconds, peak, records, rates), _soon(soon)]


def backlog(peers: Path | None, records: int = BACKLOG) -> list[Finding]:
    """What a run over many records that have waited takes of memory.

    Args:
        peers: A Python that has confluent-kafka; without it, writing them takes several times as long.
        records: How many there are, compressed by lz4.
    """
    with _place(peers) as place:
        run = place.run(place.filled(records, "lz4"), records)
    found = f"{run.peak / 1e6:.0f} MB ({records / run.seconds:,.0f}/s)"
    return [Finding(f"Peak memory over a backlog of {records:,} records", found, "<= 400 MB", run.peak <= 400e6)]


def _speed(rate: float, peak: int, records: int, rates: Mapping[str, float]) -> list[Finding]:
    ratio = rate / rates["kafka_python"]
    beside = "".join(f", {name} {theirs:,.0f}/s" for name, theirs in rates.items())
    title = f"Topic -> PostgreSQL, {records:,} records, beside loops that count, and peers"
    return [
        Finding(title, f"{rate:,.0f}/s{beside}: {ratio:.2f}", ">= 0.8 of kafka_python", ratio >= 0.8),
        Finding("Its peak memory", f"{peak / 1e6:.0f} MB", "<= 400 MB", peak <= 400e6),
    ]


def _soon(seconds: Sequence[float]) -> Finding:
    p99 = quantiles(seconds, n=100)[98]
    found = f"{p99:.2f} s (median {median(seconds):.2f}, all {max(seconds):.2f})"
    return Finding(f"Record to row, `pivotal stream` at {A_SECOND:,}/s: p99", found, "<= 1 s", p99 <= 1)


class Place:
    """A broker, a server and a project's folder.

    Args:
        topics: Of the broker.
        server: PostgreSQL.
        folder: The project's.
        peers: A Python that has the peers.
    """

    def __init__(self, topics: Topics, server: Postgres, folder: Path, peers: Path | None) -> None:
        self._topics, self._server, self._folder, self._peers = topics, server, folder, peers

    def filled(self, records: int, compression: str = "none") -> str:
        """A topic with records."""
        topic = self._topics.make(partitions=3)
        library, python = ("confluent", self._peers) if self._peers else ("kafka_python", Path(sys.executable))
        measure([python, HERE / "producing.py", library, self._topics.brokers, topic, str(records), compression], {})
        return topic

    def loop(self, library: str, topic: str, records: int) -> Measured:
        """A loop that counts."""
        python = sys.executable if library == "kafka_python" else self._python()
        return measure([python, HERE / "polling.py", library, self._topics.brokers, topic, str(records)], {})

    def run(self, topic: str, records: int) -> Measured:
        """The engine, with full rules, into an empty database."""
        with self._environment(topic) as environment:
            run = measure([Path(sys.executable).with_name("pivotal"), "run", "orders"], environment)
            _check(environment, "orders", records - records // 3)  # a third is void, and filtered
        return run

    def peer(self, peer: str, topic: str, records: int) -> Measured:
        """A peer, without rules, into an empty database."""
        with self._environment(topic) as environment:
            more = {"BENCH_RECORDS": str(records), "BENCH_FOLDER": str(self._folder / peer)}
            run = measure([self._python(), HERE / "peers.py", peer, "topic_to_postgresql"], environment | more)
            _check(environment, {"dlt": "bench.orders", "quix": "orders"}[peer], records)
        return run

    def how_soon(self) -> list[float]:
        """Seconds from the producer to the commit, for each of many records."""
        with self._environment(self._topics.make(partitions=3)) as environment:
            return _how_soon(self._topics, environment)

    def _python(self) -> Path:
        assert self._peers
        return self._peers

    @contextmanager
    def _environment(self, topic: str) -> Iterator[dict[str, str]]:
        """What a process is told, with a database of its own."""
        with self._server.database() as url:
            yield {
                "PIVOTAL_ROOT": str(self._folder),
                "BENCH_BROKERS": self._topics.brokers,
                "BENCH_TOPIC": topic,
                "BENCH_TARGET_URL": url,
                "PYTHONPATH": str(HERE.parent),
                "RUNTIME__DLTHUB_TELEMETRY": "false",
                "DLT_PROJECT_DIR": str(self._folder),
            }


@contextmanager
def _place(peers: Path | None) -> Iterator[Place]:
    with (
        running_kafka() as (kafka,),
        running_postgres() as server,
        tempfile.TemporaryDirectory(prefix="pivotal-bench-") as folder,
        closing(Topics(kafka.brokers)) as topics,
    ):
        tell_when_committed(server)
        (Path(folder) / "pipelines").mkdir()
        (Path(folder) / "pipelines" / "orders.yaml").write_text(PIPELINE)
        yield Place(topics, server, Path(folder), peers)


def _check(environment: Mapping[str, str], table: str, expected: int) -> None:
    with psycopg.connect(environment["BENCH_TARGET_URL"]) as target:
        rows = target.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert rows == (expected,), rows


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
