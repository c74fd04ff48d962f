"""Streams ask for runs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from assets.pipelines import build_assets
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from resources import default_resources
from sensors.streams import TAG, build_stream_sensors
from tests.services.topics import Topics


@pytest.fixture
def pipeline(topics: Topics, project: Path) -> Pipeline:
    """Reads a topic of its own, from three records on."""
    source = {"type": "stream", "brokers": topics.brokers, "topics": topics.make(), "run_at_lag": 3}
    destination = {"type": "database", "connection": f"sqlite:///{project}/w.db", "table": "orders", "write": "append"}
    return Pipeline.model_validate({"name": "orders", "description": "d", "source": source, "destination": destination})


def test_a_run_starts_when_enough_records_wait_and_says_how_far_behind_it_was(
    topics: Topics, pipeline: Pipeline
) -> None:
    topic = pipeline.source.topics[0]  # type: ignore[union-attr]
    (sensor,) = build_stream_sensors([pipeline])
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance)
        topics.send(topic, [{"id": 1}, {"id": 2}])
        early = sensor(context)
        topics.send(topic, [{"id": 3}])
        request = sensor(context)
        result = dg.materialize(
            build_assets([pipeline]), instance=instance, resources=default_resources(), tags={TAG: "orders"}
        )
        (made,) = result.asset_materializations_for_node("orders")
        after = sensor(context)

    assert isinstance(early, dg.SkipReason)
    assert early.skip_message == "2 records wait; a run starts at 3"
    assert isinstance(request, dg.RunRequest)
    assert (made.metadata["rows_loaded"].value, made.metadata["lag"].value) == (3, 0)
    assert topic in str(made.metadata["partitions"].value)
    assert isinstance(after, dg.SkipReason)
    assert after.skip_message == "0 records wait; a run starts at 3"


def test_a_stream_that_starts_at_its_end_asks_for_the_run_that_remembers_the_end(
    topics: Topics, pipeline: Pipeline
) -> None:
    latest = pipeline.model_copy(update={"source": pipeline.source.model_copy(update={"start": "latest"})})
    topics.send(latest.source.topics[0], [{"id": 1}])  # type: ignore[union-attr]
    (sensor,) = build_stream_sensors([latest])
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance)
        first = sensor(context)
        run_pipeline(latest)
        topics.send(latest.source.topics[0], [{"id": id_} for id_ in (2, 3, 4)])  # type: ignore[union-attr]
        second = sensor(context)

    assert isinstance(first, dg.RunRequest)
    assert isinstance(second, dg.RunRequest)
    assert str(second.run_key).startswith("1/")


def test_no_run_starts_beside_another(pipeline: Pipeline) -> None:
    (sensor,) = build_stream_sensors([pipeline])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_run(dg.DagsterRun("other", status=dg.DagsterRunStatus.STARTED, tags={TAG: "orders"}))
        skipped = sensor(dg.build_sensor_context(instance))

    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "a run is under way"


def test_brokers_that_are_away_start_nothing(pipeline: Pipeline) -> None:
    away = pipeline.source.model_copy(update={"brokers": "127.0.0.1:1", "timeout": timedelta(seconds=1)})
    (sensor,) = build_stream_sensors([pipeline.model_copy(update={"source": away})])
    with dg.DagsterInstance.ephemeral() as instance:
        skipped = sensor(dg.build_sensor_context(instance))

    assert isinstance(skipped, dg.SkipReason)
    assert "cannot be told" in str(skipped.skip_message)


def test_pipelines_that_say_nothing_of_lag_have_no_sensor(pipeline: Pipeline) -> None:
    silent = pipeline.source.model_copy(update={"run_at_lag": None})

    assert build_stream_sensors([pipeline.model_copy(update={"source": silent})]) == []
