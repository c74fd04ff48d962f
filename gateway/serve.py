"""Runs the gateway under uvicorn."""

from __future__ import annotations

from contextlib import closing

import uvicorn

from errors import PivotalError
from events.log import open_log
from gateway.app import create_app
from gateway.logs import log_to_stderr
from settings import Settings

CONNECTIONS = 500
"""At once, idle ones too. Each may hold a body of `webhook_body_limit`: together that bounds the memory."""

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
            uvicorn.run(
                create_app(settings, log),
                host=settings.gateway_host,
                port=settings.gateway_port,
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=GRACE,
                log_config=None,
                access_log=False,
                server_header=False,
            )
        except SystemExit:  # how uvicorn says that it could not start, after a log line that says why
            raise PivotalError(
                f"the gateway cannot listen on {settings.gateway_host}:{settings.gateway_port}",
                hint="end what listens there, or set PIVOTAL_GATEWAY_PORT",
            ) from None
