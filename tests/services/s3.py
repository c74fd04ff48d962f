"""S3 for tests: moto's server, in a thread of the test process."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest

from tests.services.availability import unavailable


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of an S3 server that the whole session shares."""
    if importlib.util.find_spec("moto") is None:
        unavailable("S3", "the package moto is not installed", "run the tests with `make test`")
    with running() as endpoint:
        yield endpoint


@pytest.fixture
def s3_endpoint(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an S3 server without any bucket; credentials that it accepts are in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    urlopen(Request(f"{s3_server}/moto-api/reset", method="POST")).close()  # moto's servers of a process share buckets
    return s3_server


@contextmanager
def running() -> Iterator[str]:
    """An S3 server on a free port."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from moto.server import ThreadedMotoServer

    MotoRequestHandler.disable_nagle_algorithm = True  # else a body waits 40 ms for its headers to be acknowledged

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        assert server._server is not None
        server._server.server_close()  # moto leaves the listening socket open
