from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.serve import Running, running


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    """A sandbox that answers."""
    with running() as sandbox:
        yield sandbox
