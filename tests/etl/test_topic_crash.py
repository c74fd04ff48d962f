"""Killed at any moment, runs that write to a topic show a reader of committed records each row once, in order."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from errors import PivotalError
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from etl.stream import RunReport
from tests.etl.destinations.reading_topics import committed
from tests.services.kafka_broker import Kafka
from tests.services.topics import Topics

RUNS = int(os.environ.get("PIVOTAL_CRASH_RUNS", "3"))
"""How often the writer is killed; `make test-crash` asks for more, and for brokers that are killed in between."""

ROWS, KEYS = 200 * RUNS, 7
PORTION = 40
"""Rows of a run: about as many as a kill leaves to the next one."""

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["tests.etl.test_topic_crash", "duckdb", "kafka.consumer.group", "etl.destinations.stream"]
)


@pytest.fixture(scope="module", autouse=True)
def _forking() -> None:
    """The server that forks is there: a writer's time has nothing of its start."""
    process = _PROCESSES.Process(target=exec, args=("",))
    process.start()
    process.join()


@pytest.mark.timeout(120 + 15 * RUNS)
def test_a_writer_killed_at_any_moment_shows_every_row_once(kafka: Kafka, topics: Topics, project: Path) -> None:
    topic, copy = topics.make(), topics.make(partitions=3)
    topics.send(topic, [{"id": number, "key": number % KEYS if number % 10 else None} for number in range(ROWS)])
    declared = _declared(topics, topic, copy)
    began = time.monotonic()
    _run(declared)
    took = time.monotonic() - began

    for number in range(1, RUNS + 1):
        writer = _PROCESSES.Process(target=write_on, args=(declared, str(project)))
        writer.start()
        time.sleep(random.uniform(0, 3 * took))  # the moment is what is tested
        if number % 10 == 0 and kafka.process:
            kafka.process.kill()
            kafka.process.start()
            time.sleep(random.uniform(0, 2))
        writer.kill()
        writer.join()
        _assert_each_once(_ids(topics, copy))
    _run({**declared, "source": {**declared["source"], "max_records": None}})

    found = committed(topics, copy)
    _assert_each_once([orjson.loads(record.value)["id"] for record in found])
    wanted = [number for number in range(ROWS) if number % 10]
    assert sorted(orjson.loads(record.value)["id"] for record in found) == wanted
    for key in range(KEYS):
        of_key = [orjson.loads(record.value)["id"] for record in found if record.key == str(key).encode()]
        assert of_key == [number for number in wanted if number % KEYS == key]


def _assert_each_once(ids: list[int]) -> None:
    """And all of them up to the last one: a portion is there as a whole."""
    assert sorted(ids) == [number for number in range(max(ids, default=-1) + 1) if number % 10]


def _ids(topics: Topics, topic: str) -> list[int]:
    return [orjson.loads(record.value)["id"] for record in committed(topics, topic)]


def _declared(topics: Topics, topic: str, copy: str) -> dict[str, Any]:
    name = copy.replace(".", "_")
    source = {"type": "stream", "brokers": topics.brokers, "topics": topic, "max_records": PORTION}
    destination = {"type": "stream", "brokers": topics.brokers, "topic": copy, "key": ["key"]}
    return {"name": name, "description": "d", "source": source, "destination": destination}


def write_on(declared: Mapping[str, Any], root: str) -> None:
    """What the process does that is killed."""
    from settings import get_settings

    os.environ["PIVOTAL_ROOT"] = root
    get_settings.cache_clear()
    while True:
        _run(declared)


def _run(declared: Mapping[str, Any]) -> RunReport:
    """A run; it is asked to run again if a commit of the one before was still under way, or the broker away."""
    while True:
        try:
            return run_pipeline(Pipeline.model_validate(declared))
        except PivotalError as error:
            if not error.retryable:
                raise
