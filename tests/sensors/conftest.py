from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from events.log import EventLog
from resources.event_log import EventLogResource


@pytest.fixture
def event_log(tmp_path: Path) -> EventLogResource:
    return EventLogResource(url=f"sqlite:///{tmp_path / 'events.db'}")


@pytest.fixture
def log(event_log: EventLogResource) -> Iterator[EventLog]:
    with event_log.open() as log:
        yield log


@pytest.fixture(scope="session")
def new_dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dagster takes a second and more to make its databases; tests copy them."""
    home = tmp_path_factory.mktemp("dagster")
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        instance.get_run_records(limit=1)
    return home


@pytest.fixture
def instance(new_dagster_home: Path, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    home = shutil.copytree(new_dagster_home, tmp_path / "dagster")
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        yield instance
