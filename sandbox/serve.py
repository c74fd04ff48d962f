"""Serves the sandbox over real sockets: for as long as the process lives, or for the length of a block."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from errors import PivotalError
from sandbox.app import Sandbox, create_app
from sandbox.wire import TRANSPORT

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class Running:
    """A sandbox that answers.

    Args:
        sandbox: The sandbox.
        url: Where: `http://127.0.0.1:8001`.
    """

    sandbox: Sandbox
    url: str

    @property
    def stripe_base(self) -> str:
        """The base address for Stripe's SDK (`PIVOTAL_STRIPE_API_BASE`)."""
        return f"{self.url}/stripe"

    @property
    def sendgrid_base(self) -> str:
        """The host for SendGrid's SDK (`PIVOTAL_SENDGRID_API_BASE`)."""
        return f"{self.url}/sendgrid"

    @property
    def twilio_base(self) -> str:
        """The base address for Twilio's client (`PIVOTAL_TWILIO_API_BASE`)."""
        return f"{self.url}/twilio"

    @property
    def google_base(self) -> str:
        """Where Google's API answers (`PIVOTAL_GOOGLE_API_BASE`)."""
        return f"{self.url}/google"

    @property
    def google_credentials(self) -> str:
        """A service account's key for it (`PIVOTAL_GOOGLE_CREDENTIALS`)."""
        return json.dumps(self.sandbox.google_login.service_account(f"{self.url}/google/login"))

    @property
    def graph_base(self) -> str:
        """Where Microsoft Graph answers (`PIVOTAL_OUTLOOK_API_BASE`)."""
        return f"{self.url}/graph"

    @property
    def microsoft_base(self) -> str:
        """Where Microsoft gives tokens (`PIVOTAL_OUTLOOK_LOGIN_BASE`)."""
        return f"{self.url}/microsoft"

    @property
    def s3_base(self) -> str:
        """The endpoint for S3's SDK (`PIVOTAL_S3_ENDPOINT_URL`)."""
        return f"{self.url}/s3"


def run(host: str, port: int, sandbox: Sandbox) -> None:
    """Serves until the process is told to stop (SIGINT, SIGTERM).

    Args:
        host: Address to listen on.
        port: Port to listen on.
        sandbox: The sandbox.

    Raises:
        PivotalError: The port is taken.
    """
    try:
        uvicorn.Server(_config(host, port, sandbox)).run()
    except KeyboardInterrupt:  # how uvicorn passes SIGINT on, after a clean end
        return
    except SystemExit:  # how uvicorn says that it could not start
        raise _cannot_listen(host, port) from None


@contextmanager
def running(sandbox: Sandbox | None = None, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[Running]:
    """Serves from a thread, within this block.

    Args:
        sandbox: The sandbox; an empty new one if not given.
        host: Address to listen on.
        port: Port to listen on; 0 lets the system choose.

    Raises:
        PivotalError: The port is taken.
    """
    sandbox = sandbox or Sandbox()
    server = uvicorn.Server(_config(host, port, sandbox))
    thread = threading.Thread(target=_serve, args=(server,), name="sandbox", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise _cannot_listen(host, port)
            time.sleep(0.005)
        yield Running(sandbox, f"http://{host}:{server.servers[0].sockets[0].getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join()


def _serve(server: uvicorn.Server) -> None:
    try:
        server.run()
    except SystemExit:  # `running` sees that the thread has ended, and says so to the caller
        return


def _cannot_listen(host: str, port: int) -> PivotalError:
    return PivotalError(f"the sandbox cannot listen on {host}:{port}", hint="choose another port")


def _config(host: str, port: int, sandbox: Sandbox) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(sandbox),
        host=host,
        port=port,
        http=_Protocol,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )


class _Protocol(H11Protocol):
    """HTTP that lends the app its connection: to cut it is part of what the sandbox can play."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app = self.app

        async def lending(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "extensions": {TRANSPORT: transport}}, receive, send)

        self.app = lending
