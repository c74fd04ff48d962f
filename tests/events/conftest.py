from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.sqlite import SqliteEventLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "events.db"


@pytest.fixture
def kafka_url(kafka_brokers: str, project: Path) -> str:
    """A log in a topic that is not there yet; the project's folder has the replica."""
    return f"kafka://{kafka_brokers}/{project.name}.{uuid.uuid4().hex}"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog(path)
    yield log
    log.close()
