from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from events.log import EventLog, open_log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    log = open_log(f"sqlite:///{tmp_path / 'events.db'}")
    yield log
    log.close()
