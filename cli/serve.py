"""`pivotal gateway | sandbox | dev`: the long-running processes."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sandbox.app import Sandbox

DAGSTER_PORT = 3000
STRIPE_TEST_KEY = "sk_test_sandbox"
SENDGRID_TEST_KEY = "SG.sandbox.sandbox"
TWILIO_TEST_ACCOUNT = "AC" + "0" * 32
WATCH_TEST_SECRET = "of-the-sandbox"  # noqa: S105  (the sandbox's own)


@click.command()
@click.option("--host", help="Address to listen on (PIVOTAL_GATEWAY_HOST).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (PIVOTAL_GATEWAY_PORT).")
def gateway(host: str | None, port: int | None) -> None:
    """Serve the webhook receiver."""
    from gateway.serve import serve
    from settings import get_settings

    given = {"gateway_host": host, "gateway_port": port}
    serve(get_settings().model_copy(update={name: value for name, value in given.items() if value is not None}))


@click.command()
@click.option("--host", help="Address to listen on (PIVOTAL_SANDBOX_HOST).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (PIVOTAL_SANDBOX_PORT).")
def sandbox(host: str | None, port: int | None) -> None:
    """Serve stand-ins for Stripe, SendGrid, Twilio, Google Calendar, Outlook and S3, with some history in them."""
    from sandbox.serve import run
    from settings import get_settings

    settings = get_settings()
    host = host or settings.sandbox_host
    port = settings.sandbox_port if port is None else port
    played = _sandbox()
    url = f"http://{host}:{port}"
    for name, value in {**sandbox_environment(url, played), **store_environment(url, played)}.items():
        click.echo(f"export {name}={shlex.quote(value)}")
    run(host, port, played)


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=DAGSTER_PORT, show_default=True, help="Port of Dagster's UI."
)
def dev(port: int) -> None:
    """Serve Dagster's UI and daemon, the receiver and the sandbox together; Ctrl-C ends all of them."""
    from cli.processes import Children
    from sandbox.serve import running
    from settings import get_settings

    settings = get_settings()
    gateway_url = f"http://{settings.gateway_host}:{settings.gateway_port}"
    played = _sandbox()
    with ExitStack() as stack:
        sandbox = stack.enter_context(running(played, host=settings.sandbox_host, port=settings.sandbox_port))
        deliver_webhooks(played, gateway_url)
        children = stack.enter_context(Children(lambda name, line: click.echo(f"{name:8}| {line}")))
        environment = {
            **sandbox_environment(sandbox.url, played),
            "PIVOTAL_GATEWAY_URL": gateway_url,  # where calendars' watches are told, too
            "PIVOTAL_TWILIO_STATUS_CALLBACK": f"{gateway_url}/webhooks/twilio",
            "DAGSTER_HOME": str(settings.root),
        }
        children.start("gateway", [program("pivotal"), "gateway"], environment)
        children.start("dagster", [program("dagster"), "dev", "-w", "workspace.yaml", "-p", str(port)], environment)
        click.echo(
            f"Dagster http://127.0.0.1:{port}   receiver {gateway_url}   sandbox {sandbox.url}   (Ctrl-C ends all)"
        )
        with suppress(KeyboardInterrupt):  # the way to end it
            children.wait()


def program(name: str) -> Path:
    """A command of this installation, also where it is not on PATH."""
    return Path(sys.executable).parent / name


def sandbox_environment(url: str, played: Sandbox) -> Mapping[str, str]:
    """The variables that point the project at a sandbox.

    Args:
        url: The sandbox's address.
        played: The sandbox, for its webhook keys.
    """
    return {
        "PIVOTAL_STRIPE_API_BASE": f"{url}/stripe",
        "PIVOTAL_STRIPE_API_KEY": STRIPE_TEST_KEY,
        "PIVOTAL_STRIPE_WEBHOOK_SECRETS": played.stripe_webhook_secret,
        "PIVOTAL_SENDGRID_API_BASE": f"{url}/sendgrid",
        "PIVOTAL_SENDGRID_API_KEY": SENDGRID_TEST_KEY,
        "PIVOTAL_SENDGRID_WEBHOOK_KEYS": played.sendgrid_signer.public_key,
        "PIVOTAL_SENDGRID_INBOUND_KEYS": played.sendgrid_signer.public_key,
        "PIVOTAL_TWILIO_API_BASE": f"{url}/twilio",
        "PIVOTAL_TWILIO_ACCOUNT_SID": TWILIO_TEST_ACCOUNT,
        "PIVOTAL_TWILIO_SECRET": played.twilio_auth_token,
        "PIVOTAL_TWILIO_WEBHOOK_TOKENS": played.twilio_auth_token,
        "PIVOTAL_GOOGLE_API_BASE": f"{url}/google",
        "PIVOTAL_GOOGLE_CREDENTIALS": json.dumps(played.google_login.authorized_user(f"{url}/google/login")),
        "PIVOTAL_GOOGLE_WATCH_SECRET": WATCH_TEST_SECRET,
        "PIVOTAL_OUTLOOK_API_BASE": f"{url}/graph",
        "PIVOTAL_OUTLOOK_LOGIN_BASE": f"{url}/microsoft",
        "PIVOTAL_OUTLOOK_TENANT_ID": played.microsoft_login.tenant_id,
        "PIVOTAL_OUTLOOK_CLIENT_ID": played.microsoft_login.client_id,
        "PIVOTAL_OUTLOOK_CLIENT_SECRET": played.microsoft_login.client_secret,
        "PIVOTAL_OUTLOOK_USER": played.graph.user,
        "PIVOTAL_OUTLOOK_WATCH_SECRET": WATCH_TEST_SECRET,
    }


def store_environment(url: str, played: Sandbox) -> Mapping[str, str]:
    """The variables that point S3 at a sandbox: pipelines' files, too, so it is for who asks for the sandbox alone.

    Args:
        url: The sandbox's address.
        played: The sandbox.
    """
    if not played.s3.available:
        return {}
    return {
        "PIVOTAL_S3_ENDPOINT_URL": f"{url}/s3",
        "PIVOTAL_S3_ACCESS_KEY_ID": "sandbox",
        "PIVOTAL_S3_SECRET_ACCESS_KEY": "sandbox",
    }


def deliver_webhooks(played: Sandbox, gateway_url: str) -> None:
    """Has the sandbox send its webhooks to a receiver. Calendars tell whoever watches them, at the watch's address.

    Args:
        played: The sandbox.
        gateway_url: The receiver's address.
    """
    from sandbox.webhooks import Endpoint

    for endpoint in (
        Endpoint(service="stripe", url=f"{gateway_url}/webhooks/stripe"),
        Endpoint(service="sendgrid", url=f"{gateway_url}/webhooks/sendgrid"),
        Endpoint(service="sendgrid-inbound", url=f"{gateway_url}/webhooks/sendgrid/inbound"),
        Endpoint(service="twilio", url=f"{gateway_url}/webhooks/twilio"),
    ):
        played.webhooks.endpoints.append(endpoint)


def _sandbox() -> Sandbox:
    from sandbox.app import Sandbox

    played = Sandbox()
    played.seed()
    return played
