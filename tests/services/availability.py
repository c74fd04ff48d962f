"""What a test is told when a service that it needs is not here."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def unavailable(service: str, missing: str, remedy: str) -> NoReturn:
    """Skips the test, or fails it where every service is required (`PIVOTAL_REQUIRE_SERVICES=1`, as in CI).

    Args:
        service: The service's name: `PostgreSQL`.
        missing: What exactly was looked for and not found.
        remedy: How to get it.
    """
    reason = f"{service}: {missing}; {remedy}"
    if os.environ.get("PIVOTAL_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{reason} (PIVOTAL_REQUIRE_SERVICES=1)", pytrace=False)
    pytest.skip(reason)
