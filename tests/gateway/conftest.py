from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn

from events.log import EventLog
from events.sqlite import SqliteEventLog
from gateway.app import create_app
from gateway.serve import configured
from settings import Settings
from tests.gateway.signing import SECRETS


@dataclass(frozen=True)
class Gateway:
    """A receiver that listens, and what it stores into."""

    port: int
    log: EventLog
    http: httpx.Client


Serve = Callable[..., Gateway]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts receivers: `serve(webhook_body_limit=1000)`."""
    with ExitStack() as stack:

        def start(**changes: object) -> Gateway:
            log = SqliteEventLog(tmp_path / "events.db", busy_timeout=0.2)
            stack.callback(log.close)
            return stack.enter_context(serving(log, changes))

        yield start


@pytest.fixture
def gateway(serve: Serve) -> Gateway:
    """A receiver with two secrets for each provider."""
    return serve()


@contextmanager
def serving(log: EventLog, changes: dict[str, object]) -> Iterator[Gateway]:
    secrets = {name.removeprefix("PIVOTAL_").lower(): value for name, value in SECRETS.items()}
    settings = Settings.model_validate(secrets | {"gateway_port": 0} | changes)
    server = uvicorn.Server(configured(create_app(settings, log), settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the receiver did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            yield Gateway(port, log, http)
    finally:
        server.should_exit = True
        thread.join()
