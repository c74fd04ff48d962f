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
