"""A project folder to be in, and the command to type in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.main import answer
from settings import get_settings


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Pivotal = Callable[..., Answer]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: an empty project."""
    (tmp_path / "pipelines").mkdir()
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    return tmp_path


@pytest.fixture
def pivotal(capfd: pytest.CaptureFixture[str]) -> Pivotal:
    """Types `pivotal ...`."""

    def typed(*arguments: str) -> Answer:
        capfd.readouterr()
        code = answer(arguments)
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return typed
