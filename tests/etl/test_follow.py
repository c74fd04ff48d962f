"""A stream that is read all the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from errors import PivotalError, SourceError
from etl.follow import follow
from etl.lock import only_run_of
from etl.pipeline import Pipeline
from etl.stream import RunReport
from events.log import open_log
from settings import get_settings
from tests.etl.destinations.backends import Backend, make_backend
from tests.services.topics import Topics


@pytest.fixture
def backend(project: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    assert project
    monkeypatch.setenv("PIVOTAL_LOCK_TIMEOUT", "0.2")
    get_settings.cache_clear()
    return make_backend("sqlite", request)


def pipeline_of(topics: Topics, topic: str, backend: Backend, **more: Any) -> Pipeline:
    source = {"type": "stream", "brokers": topics.brokers, "topics": topic, **more}
    destination = {"type": "database", "connection": backend.url, "table": "orders", "write": "append"}
    return Pipeline.model_validate({"name": "orders", "description": "d", "source": source, "destination": destination})


@contextmanager
def following(pipeline: Pipeline) -> Iterator[Future[RunReport]]:
    stop = Event()
    with ThreadPoolExecutor(1) as thread:
        try:
            report = thread.submit(follow, pipeline, stop)
            yield report
        finally:
            stop.set()


def await_rows(backend: Backend, count: int) -> list[int]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        ids = [row["id"] for row in backend.rows()] if backend.has() else []
        if len(ids) >= count:
            return ids
    raise AssertionError(f"{count} rows did not come")


def test_what_comes_is_loaded_until_it_is_told_to_stop_and_the_next_one_goes_on_there(
    topics: Topics, backend: Backend
) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": 0}])
    for start in (1, 4):
        with following(pipeline_of(topics, topic, backend)) as report:
            for id_ in range(start, start + 3):
                topics.send(topic, [{"id": id_}])
                await_rows(backend, id_ + 1)

    assert await_rows(backend, 7) == list(range(7))
    assert report.result().loaded == 3
    with closing(open_log(get_settings().events_url)) as log:
        assert [each.event.data["extracted"] for each in log.read(0, 10)] == [4, 3]


def test_tombstones_delete_as_they_come(topics: Topics, backend: Backend) -> None:
    topic = topics.make()
    declared = pipeline_of(topics, topic, backend, metadata=["partition"]).model_dump()
    declared["source"]["tombstones"] = "delete"
    declared["destination"] |= {"write": "merge", "key": ["id"]}
    with following(Pipeline.model_validate(declared)) as report:
        for expected in ([1], [], [1]):
            topics.send(topic, [{"id": 1} if expected else None], key=b"1")
            deadline = time.monotonic() + 30
            while await_rows(backend, len(expected)) != expected and time.monotonic() < deadline:
                pass

    total = report.result()
    assert (total.extracted, total.loaded, total.tombstones, total.deleted) == (3, 2, 1, 1)


def test_partitions_that_are_added_meanwhile_are_read(
    topics: Topics, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etl.sources.stream._TOPICS_AGE", 0.1)
    topic = topics.make()
    topics.send(topic, [{"id": 1}])
    with following(pipeline_of(topics, topic, backend, start="latest")):
        while topics.committed("pivotal-orders", topic) is None:
            pass
        topics.grow(topic, 2)
        topics.send(topic, [{"id": 2}], partition=1)
        assert await_rows(backend, 1) == [2]


def test_what_another_try_can_mend_is_tried_again(
    topics: Topics, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = topics.make()
    topics.send(topic, [{"id": 1}])
    pipeline = pipeline_of(topics, topic, backend, timeout="1s", brokers="${KAFKA}")
    monkeypatch.setenv("KAFKA", "127.0.0.1:1")
    with following(pipeline):
        time.sleep(0.1)
        monkeypatch.setenv("KAFKA", topics.brokers)  # which is read at each try
        assert await_rows(backend, 1) == [1]


def test_what_no_other_try_mends_ends_it(topics: Topics, backend: Backend) -> None:
    with following(pipeline_of(topics, "nowhere", backend)) as report, pytest.raises(SourceError, match="no topic"):
        report.result()


def test_no_other_run_goes_on_meanwhile(topics: Topics, backend: Backend) -> None:
    topic = topics.make()
    pipeline = pipeline_of(topics, topic, backend)

    with only_run_of("orders"), pytest.raises(PivotalError, match="another run is in progress"):
        follow(pipeline, Event())


def test_only_a_stream_can_be_followed(topics: Topics, backend: Backend) -> None:
    pipeline = pipeline_of(topics, "any", backend)
    file = pipeline.model_validate({**pipeline.model_dump(), "source": {"type": "file", "path": "x.csv"}})

    with pytest.raises(PivotalError, match="is no stream"):
        follow(file, Event())
