"""A project folder of the test's own, and a web server."""

from __future__ import annotations

from pathlib import Path

import pytest

from settings import get_settings
from tests.integrations.web import web

__all__ = ["web"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that relative paths start from."""
    monkeypatch.setenv("PIVOTAL_ROOT", str(tmp_path))
    monkeypatch.setenv("PIVOTAL_LOCK_TIMEOUT", "0.2")
    get_settings.cache_clear()
    return tmp_path


def _url(kind: str, request: pytest.FixtureRequest) -> str:
    if kind in {"sqlite", "duckdb"}:
        return f"{kind}:///shop.db"
    url: str = request.getfixturevalue(f"{kind}_url")
    return url


@pytest.fixture(params=["sqlite", "duckdb", "postgres", "mariadb"])
def database(request: pytest.FixtureRequest, folder: Path) -> str:  # noqa: ARG001  (files are in the folder)
    """URL of an empty database, of each kind."""
    return _url(request.param, request)


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def shared_database(request: pytest.FixtureRequest, folder: Path) -> str:  # noqa: ARG001  (files are in the folder)
    """URL of an empty database, of each kind that lets several processes in at a time."""
    return _url(request.param, request)
