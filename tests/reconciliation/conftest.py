"""A log and a warehouse of the test's own, and a sandbox to read from."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from etl.destinations.warehouse import Warehouse, open_warehouse
from events.log import EventLog, open_log
from integrations.calendar import Calendars
from projections.apply import apply_range
from sandbox.serve import Running, running
from tests.integrations.calendars import google_calendar, outlook_calendar

MAKERS: dict[str, Callable[..., Any]] = {"google": google_calendar, "outlook": outlook_calendar}
Rows = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def _server() -> Iterator[Running]:
    with running() as served:
        yield served


@pytest.fixture
def served(_server: Running) -> Running:
    """A sandbox that answers, as new."""
    _server.sandbox.reset()
    _server.sandbox.webhooks.endpoints.clear()
    return _server


@pytest.fixture
def log(project: Path) -> Iterator[EventLog]:
    with closing(open_log(f"sqlite:///{project / 'events.db'}")) as log:
        yield log


@pytest.fixture
def warehouse(project: Path) -> Warehouse:
    return open_warehouse(f"sqlite:///{project / 'warehouse.db'}")


@pytest.fixture
def rows(project: Path, log: EventLog, warehouse: Warehouse) -> Rows:
    """A table, once all that has landed is applied."""

    def held(table: str) -> list[dict[str, Any]]:
        assert not apply_range(log, warehouse, None, log.head(), run_id="run").dead
        with closing(sqlite3.connect(project / "warehouse.db")) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]

    return held


@pytest.fixture(params=list(MAKERS))
def calendars(request: pytest.FixtureRequest, served: Running) -> Iterator[Calendars]:
    """Google's, and Outlook's."""
    with ExitStack() as opened:
        client = MAKERS[request.param](served)
        opened.callback(client.close)
        yield client
