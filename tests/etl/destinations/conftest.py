"""Each kind of destination, for the tests that hold for all of them."""

from __future__ import annotations

import pytest

from tests.etl.destinations.backends import FILES, S3, SQL, Backend, make_backend


@pytest.fixture(params=[*SQL, *FILES, S3])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each kind of destination."""
    return make_backend(request.param, request)


@pytest.fixture(params=SQL)
def database(request: pytest.FixtureRequest) -> Backend:
    """Each kind of database."""
    return make_backend(request.param, request)
