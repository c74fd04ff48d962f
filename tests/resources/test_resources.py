from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap

from errors import DestinationError
from resources import default_resources
from resources.event_log import EventLogResource
from resources.warehouse import WarehouseResource
from settings import get_settings
from tests.projections.samples import sendgrid_event


def test_a_log_is_the_one_of_its_url_and_closed_at_the_end(tmp_path: Path) -> None:
    resource = EventLogResource(url=f"sqlite:///{tmp_path / 'events.db'}")
    with resource.open() as log:
        log.publish([sendgrid_event("open", "e1")])
    with resource.open() as log:
        assert log.head() == 1


def test_without_a_url_the_environment_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_EVENTS_URL", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    monkeypatch.setenv("PIVOTAL_WAREHOUSE_URL", f"duckdb:///{tmp_path / 'house.duckdb'}")
    get_settings.cache_clear()
    with EventLogResource().open() as log:
        assert log.head() == 0
    assert (tmp_path / "elsewhere.db").exists()
    assert "house.duckdb" in WarehouseResource().open().label


def test_a_warehouse_of_no_known_kind_is_refused() -> None:
    with pytest.raises(DestinationError, match="mongodb"):
        WarehouseResource(url="mongodb://somewhere/else").open()


def test_what_dagster_shows_of_the_resources_holds_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_WAREHOUSE_URL", "postgresql://pivotal:correct-horse@db/warehouse")
    get_settings.cache_clear()
    shown = RepositorySnap.from_def(dg.Definitions(resources=default_resources()).get_repository_def())
    assert {resource.name for resource in shown.resources or ()} >= {"event_log", "warehouse"}
    assert "correct-horse" not in repr(shown)
