"""Runs the gateway under uvicorn."""

from __future__ import annotations

from contextlib import closing

import uvicorn
from starlette.types import ASGIApp

from errors import PivotalError
from events.log import open_log
from gateway.app import create_app
from gateway.logs import log_to_stderr
from gateway.protocol import LimitedProtocol
from settings import Settings

GRACE = 15
"""Seconds that requests have to end after SIGTERM: a commit may wait that long for other processes."""


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM; requests that have arrived by then are answered.

    Args:
        settings: Where to listen, and all that the app needs. Port 0: any free one; the log tells which.

    Raises:
        EventLogError: The event log cannot be opened.
        PivotalError: The port is taken, or not ours to take.
    """
    log_to_stderr()
    with closing(open_log(settings.events_url)) as log:
        try:
            uvicorn.Server(configured(create_app(settings, log), settings)).run()
        except KeyboardInterrupt:
            pass  # uvicorn hands SIGINT on once it has ended
        except SystemExit:  # how uvicorn says that it could not start, after a log line that says why
            raise PivotalError(
                f"the gateway cannot listen on {settings.gateway_host}:{settings.gateway_port}",
                hint="end what listens there, or set PIVOTAL_GATEWAY_PORT",
            ) from None


def configured(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How the gateway runs uvicorn.

    Args:
        app: The app.
        settings: Where to listen, and the limits.
    """

    class Protocol(LimitedProtocol):
        """uvicorn makes a connection's protocol itself: what it is to know stands in its class."""

    Protocol.settings = settings
    return uvicorn.Config(
        app,
        host=settings.gateway_host,
        port=settings.gateway_port,
        http=Protocol,
        ws="none",
        timeout_graceful_shutdown=GRACE,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing asks who sent it; `gateway_url` says how the outside calls us
    )
