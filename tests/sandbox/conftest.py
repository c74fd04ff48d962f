from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from sandbox.app import Sandbox
from sandbox.serve import Running, running

SECRET = "whsec_of_the_tests"


@pytest.fixture(scope="module")
def _server() -> Iterator[Running]:
    with running(Sandbox(stripe_webhook_secret=SECRET)) as served:
        yield served


@pytest.fixture
def served(_server: Running) -> Running:
    """A sandbox that answers, as new."""
    _server.sandbox.reset()
    _server.sandbox.webhooks.endpoints.clear()
    return _server


@pytest.fixture(scope="module")
def stripe_http(_server: Running) -> Iterator[httpx.Client]:
    """Stripe's API without its SDK: for what the SDK would not let through."""
    headers = {"Authorization": "Bearer sk_test_of_the_tests"}
    with httpx.Client(base_url=_server.stripe_base, headers=headers) as client:
        yield client


@pytest.fixture(scope="module")
def sendgrid_http(_server: Running) -> Iterator[httpx.Client]:
    """SendGrid's API without its SDK."""
    with httpx.Client(base_url=_server.sendgrid_base, headers={"Authorization": "Bearer SG.of.tests"}) as client:
        yield client


@dataclass
class Receiver:
    """Takes webhooks as a receiver of ours would: keeps them, and answers the statuses it was told, then 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = kept.statuses.pop(0) if kept.statuses else 200
            if status == 200:
                kept.taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.url = f"http://127.0.0.1:{server.server_port}/webhooks"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield kept
        server.shutdown()
        thread.join()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits until something is so."""

    def wait(so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not so():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)

    return wait
