"""What every test has: the services (started when first asked for), and settings that are not the developer's own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from settings import Settings, get_settings
from tests.leaks import secrets_in_the_log

pytest_plugins = [
    "tests.services.kafka_broker",
    "tests.services.mariadb",
    "tests.services.postgres",
    "tests.services.s3",
    "tests.services.topics",
    "tests.services.kafka_cluster",  # after what it uses
]

_FOR_TESTS = ("PIVOTAL_TEST_", "PIVOTAL_REQUIRE_SERVICES")


@pytest.fixture(autouse=True)
def _default_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No `.env`, no PIVOTAL_ variables of the machine: a test sets what it needs."""
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    for name in os.environ:
        if name.startswith("PIVOTAL_") and not name.startswith(_FOR_TESTS):
            monkeypatch.delenv(name)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture(autouse=True)
def _no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """At no level, in no test; `caplog` has what it would have without that."""
    caplog.handler.setLevel(logging.WARNING)
    with secrets_in_the_log() as found:
        yield
    assert not found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that relative paths start from."""
    monkeypatch.setenv("PIVOTAL_ROOT", str(tmp_path))
    get_settings.cache_clear()
    return tmp_path
