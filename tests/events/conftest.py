from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from events.sqlite import SqliteEventLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "events.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog(path)
    yield log
    log.close()
