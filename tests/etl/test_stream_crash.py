"""Killed at any moment, readers of a stream load every record once; brokers may be killed as well."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from etl.pipeline import Pipeline
from etl.run import run_pipeline
from tests.etl.destinations.backends import make_backend
from tests.services.kafka_broker import Kafka
from tests.services.topics import Topics

RUNS = int(os.environ.get("PIVOTAL_CRASH_RUNS", "3"))
"""How often the reader is killed; `make test-crash` asks for more, and for brokers that are killed in between."""

A_SECOND = 2000
"""Records that are produced in a second, over three partitions."""

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["tests.etl.test_stream_crash", "adbc_driver_postgresql.dbapi", "kafka", "etl.follow"]
)


@pytest.fixture(scope="module", autouse=True)
def _forking() -> None:
    """The server that forks is there: a reader's time has nothing of its start."""
    process = _PROCESSES.Process(target=exec, args=("",))
    process.start()
    process.join()


@pytest.mark.timeout(120 + 15 * RUNS)
def test_a_reader_killed_at_any_moment_loads_every_record_once(
    kafka: Kafka, topics: Topics, project: Path, request: pytest.FixtureRequest
) -> None:
    backend = make_backend("postgres", request)
    topic = topics.make(partitions=3)
    declared = _declared(topics.brokers, topic, backend.url)

    with _producing(topics, topic) as produced:
        for number in range(1, RUNS + 1):
            reader = _started(declared, project)
            time.sleep(random.uniform(0, 1))  # the moment is what is tested
            if number % 10 == 0 and kafka.process:
                kafka.process.kill()
                kafka.process.start()
                time.sleep(random.uniform(0, 1))
            reader.kill()
            reader.join()
            _assert_no_gap_and_nothing_twice(backend.rows("events") if backend.has("events") else [])

    run_pipeline(Pipeline.model_validate(declared))

    rows = backend.rows("events", order="id")
    _assert_no_gap_and_nothing_twice(rows)
    assert [row["id"] for row in rows] == list(range(len(produced)))
    assert len(rows) > 100


def _assert_no_gap_and_nothing_twice(rows: list[dict[str, Any]]) -> None:
    for partition in range(3):
        offsets = sorted(row["kafka_offset"] for row in rows if row["kafka_partition"] == partition)
        assert offsets == list(range(len(offsets)))


@contextmanager
def _producing(topics: Topics, topic: str) -> Iterator[list[Any]]:
    """Records come all the time; those that the brokers have taken are there once the block is left."""
    sent: list[Any] = []
    stop = Event()

    def produce() -> None:
        began = time.monotonic()
        while not stop.wait(0.02):
            while len(sent) < A_SECOND * (time.monotonic() - began):
                sent.append(producer.send(topic, value=b'{"id": %d}' % len(sent), partition=len(sent) % 3))

    with topics.producer(acks="all", enable_idempotence=True, linger_ms=5) as producer:
        thread = Thread(target=produce)
        thread.start()
        try:
            yield sent
        finally:
            stop.set()
            thread.join()
        producer.flush()
        for record in sent:
            record.get(timeout=30)


def _declared(brokers: str, topic: str, url: str) -> dict[str, Any]:
    source = {"type": "stream", "brokers": brokers, "topics": topic, "metadata": ["partition", "offset"]}
    destination = {"type": "database", "connection": url, "table": "events", "write": "append"}
    return {"name": "events", "description": "d", "source": source, "destination": destination}


def _started(declared: Mapping[str, Any], root: Path) -> BaseProcess:
    process = _PROCESSES.Process(target=read_on, args=(declared, str(root)))
    process.start()
    return process


def read_on(declared: Mapping[str, Any], root: str) -> None:
    """What the process does that is killed."""
    from etl.follow import follow
    from settings import get_settings

    os.environ["PIVOTAL_ROOT"] = root
    get_settings.cache_clear()
    follow(Pipeline.model_validate(declared), Event())
