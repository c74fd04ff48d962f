"""`pivotal stream NAME | lag`."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Pivotal
from tests.services.topics import Topics

PIVOTAL = Path(sys.executable).parent / "pivotal"


@pytest.fixture
def topic(project: Path, topics: Topics) -> str:
    """A topic, and a pipeline `orders` that reads it."""
    topic = topics.make()
    (project / "pipelines" / "orders.yaml").write_text(
        f"""
description: Orders
source: {{type: stream, brokers: "{topics.brokers}", topics: {topic}}}
destination: {{type: database, connection: "sqlite:///w.db", table: orders, write: append}}
"""
    )
    return topic


def test_a_reader_that_is_asked_to_end_loads_what_it_has_and_says_how_much(
    project: Path, topics: Topics, topic: str
) -> None:
    topics.send(topic, [{"id": 1}, {"id": 2}])
    reader = subprocess.Popen(
        [PIVOTAL, "stream", "orders", "--json"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    while _rows(project / "w.db") < 2:
        assert reader.poll() is None
        time.sleep(0.02)
    reader.send_signal(signal.SIGTERM)
    out, _ = reader.communicate(timeout=30)

    assert (reader.returncode, json.loads(out)["loaded"]) == (0, 2)


def test_lag_shows_what_waits_and_for_how_long(pivotal: Pivotal, topics: Topics, topic: str) -> None:
    topics.send(topic, [{"id": 1}])
    assert pivotal("run", "orders").code == 0
    topics.send(topic, [{"id": 2}, {"id": 3}])

    (shown,) = pivotal("stream", "lag", "orders", "--json").json
    told = pivotal("stream", "lag")

    age = shown.pop("oldest_seconds")
    assert shown == {"pipeline": "orders", "topic": topic, "partition": 0, "committed": 1, "end": 3, "lag": 2}
    assert 0 <= age < 60
    assert (told.code, topic in told.out) == (0, True)


def test_lag_of_what_is_no_stream_is_wrong_usage(pivotal: Pivotal, project: Path) -> None:
    (project / "pipelines" / "plain.yaml").write_text(
        "description: d\nsource: {type: file, path: x.csv}\n"
        "destination: {type: database, connection: 'sqlite:///w.db', table: t, write: append}\n"
    )

    assert pivotal("stream", "lag", "plain").code == 2
    assert "is no stream" in pivotal("stream", "plain").err


def _rows(file: Path) -> int:
    if not file.exists():
        return 0
    with closing(sqlite3.connect(file)) as database:
        there = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'orders'").fetchone()[0]
        return int(database.execute("SELECT count(*) FROM orders").fetchone()[0]) if there else 0
