"""A sandbox for the clients to call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.serve import Running, running
from tests.integrations.web import web

__all__ = ["web"]


@pytest.fixture(scope="module")
def _server() -> Iterator[Running]:
    with running() as served:
        yield served


@pytest.fixture
def served(_server: Running) -> Running:
    """A sandbox that answers, as new."""
    _server.sandbox.reset()
    return _server
