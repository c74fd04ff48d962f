"""`pivotal demo`: the main job from end to end on embedded defaults, with stand-ins for the outside services.

Nothing here is played: the pipelines run as Dagster assets in a real instance, signed webhooks go over real sockets to
the running receiver, and Dagster's daemon starts the run that the sensor asks for.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.output import say, table
from cli.processes import Children, free_port
from cli.serve import SENDGRID_TEST_KEY, STRIPE_TEST_KEY, deliver_webhooks, program, sandbox_environment
from errors import PivotalError

if TYPE_CHECKING:
    import dagster as dg

    from etl.stream import RunReport
    from resources.progress import RunProgress
    from sandbox.serve import Running
    from settings import Settings

EVENTS_TIMEOUT = 60.0
"""Seconds that the daemon, the sensor and its run may take together."""

CUSTOMERS = ("ada@example.com", "grace@example.com", "bounce@example.com")
"""Who subscribes and gets a mail in the demo; the sandbox bounces mail to `bounce@`."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the demo's table."""

    name: str
    extracted: int
    loaded: int
    filtered: int
    quarantined: int
    deduplicated: int
    seconds: float
    where: str


@click.command()
def demo() -> None:
    """Run the main job end to end on embedded defaults: no server, no account."""
    import dagster as dg

    with ExitStack() as stack:
        sandbox, settings, children = _start(stack)
        _write_sources(settings)
        # Before the daemon: two processes that create Dagster's SQLite storage at once break it.
        instance = stack.enter_context(dg.DagsterInstance.get())
        children.start("dagster-daemon", [program("dagster-daemon"), "run", "-w", "workspace.yaml"], {})
        say("Pipelines: a database, a file and an API -> the warehouse and Parquet files", bold=True)
        lines = _run_pipelines(instance)
        say("Webhooks: Stripe and SendGrid -> the receiver -> the event log -> tables", bold=True)
        lines.append(_run_webhooks(settings, sandbox, children, instance))
    _show(lines)


# --- the stage ------------------------------------------------------------------------------------------------


def _start(stack: ExitStack) -> tuple[Running, Settings, Children]:
    """The sandbox (in a thread) and the receiver (a process), and the settings that tell everyone where they are."""
    from sandbox.app import Sandbox
    from sandbox.serve import running
    from settings import get_settings

    played = Sandbox(id_seed="demo")  # the same ids every time: what a second demo sends has been seen before
    played.seed()
    sandbox = stack.enter_context(running(played))
    port = free_port()
    os.environ.update(sandbox_environment(sandbox.url, played))
    os.environ.update(_embedded(get_settings().root, port))
    get_settings.cache_clear()
    settings = get_settings()
    children = stack.enter_context(Children(_log_files(settings.path("data/demo/logs"))))
    children.wait_until_listening(children.start("receiver", [program("pivotal"), "gateway"], {}), port)
    deliver_webhooks(played, f"http://127.0.0.1:{port}")
    return sandbox, settings, children


def _embedded(root: Path, port: int) -> Mapping[str, str]:
    """The embedded defaults, whatever the environment says: a demo must not write to somebody's warehouse."""
    from settings import Settings

    return {
        "DAGSTER_HOME": str(root),
        "PIVOTAL_ROOT": str(root),
        "PIVOTAL_WAREHOUSE_URL": Settings.model_fields["warehouse_url"].default,
        "PIVOTAL_LAKE": Settings.model_fields["lake"].default,
        "PIVOTAL_EVENTS_URL": Settings.model_fields["events_url"].default,
        "PIVOTAL_GATEWAY_HOST": "127.0.0.1",
        "PIVOTAL_GATEWAY_PORT": str(port),
        "SHOP_DATABASE_URL": "sqlite:///data/demo/shop.db",
        "PAYMENTS_INBOX": "data/demo/inbox",
    }


def _log_files(folder: Path) -> Callable[[str, str], None]:
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, line: str) -> None:
        with (folder / f"{name}.log").open("a") as file:
            file.write(line + "\n")

    return write


def _write_sources(settings: Settings) -> None:
    """The shop's database and the bank's file, unless an earlier demo left them here."""
    from sandbox.seed import write_payments, write_shop

    for path, write in (
        (settings.path("data/demo/shop.db"), write_shop),
        (settings.path("data/demo/inbox/payments-2026-11.csv.gz"), write_payments),
    ):
        if not path.exists():
            write(path)


# --- pipelines ------------------------------------------------------------------------------------------------


def _run_pipelines(instance: dg.DagsterInstance) -> list[Line]:
    """Materializes every pipeline's asset in one run of the real instance, and watches it."""
    import dagster as dg

    from assets.pipelines import build_assets
    from definitions import pipelines

    names = [pipeline.name for pipeline in pipelines]
    with _board(names) as watcher:
        result = dg.materialize(
            build_assets(pipelines),
            instance=instance,
            resources={"progress": watcher},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    if failures:
        told = failures[0].user_failure_data
        raise PivotalError((told and told.description) or failures[0].error_display_string)
    return [_line(name, result.asset_materializations_for_node(name)[0].metadata) for name in names]


def _line(name: str, metadata: Mapping[str, dg.MetadataValue[Any]]) -> Line:
    def told(key: str) -> Any:  # noqa: ANN401  (a metadata value's type is its key's)
        return metadata[key].value

    counted = ("extracted", "loaded", "filtered", "quarantined", "deduplicated")
    counts = {part: told(f"rows_{part}") for part in counted}
    return Line(name, **counts, seconds=told("seconds"), where=told("destination"))


@contextmanager
def _board(names: Sequence[str]) -> Iterator[RunProgress]:
    """Shows all pipelines at once while they run; a line a batch where there is no terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from resources.progress import RunProgress

    columns = (SpinnerColumn(finished_text="*"), TextColumn("{task.description:18}"), TextColumn("{task.fields[told]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(), disable=not sys.stdout.isatty()) as progress:
        tasks = {name: progress.add_task(name, total=None, told="waiting") for name in names}

        class Board(RunProgress):
            def watch(self, log: logging.Logger) -> Callable[[RunReport], None]:  # noqa: ARG002
                return show

        def show(report: RunReport) -> None:
            told = f"{report.extracted:,} rows read, {report.quarantined:,} quarantined"
            progress.update(tasks[report.pipeline], told=told)
            if progress.disable:
                say(f"  {report.pipeline}: {told}")

        yield Board()


# --- webhooks -------------------------------------------------------------------------------------------------


def _run_webhooks(settings: Settings, sandbox: Running, children: Children, instance: dg.DagsterInstance) -> Line:
    """Lets things happen at Stripe and SendGrid, and follows their webhooks to the tables."""
    import dagster as dg

    from etl.destinations.warehouse import open_warehouse
    from events.log import open_log
    from projections import PATTERNS
    from projections.apply import position

    going_on = dg.RunsFilter(
        job_name="process_landed_events",
        statuses=[dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED],
    )
    started = time.monotonic()
    warehouse = open_warehouse(settings.warehouse_url)
    with closing(open_log(settings.events_url)) as log:
        before = log.head()
        sent = _cause_events(settings, sandbox)
        landed = log.read(before, sent, types=("stripe.*", "sendgrid.*"))
        say(f"  {sent} events sent and acknowledged; {len(landed)} are new")
        if rows := log.read(before, sent, types=PATTERNS):
            _wait("the sensor's run", children, lambda: position(log, warehouse) >= rows[-1].sequence)
            _wait("the end of the run", children, lambda: not instance.get_runs(going_on))
        dead = sum(before < letter.recorded.sequence for letter in log.dead())
    return Line(
        "webhooks",
        extracted=sent,
        loaded=len(landed) - dead,
        filtered=0,
        quarantined=dead,
        deduplicated=sent - len(landed),
        seconds=round(time.monotonic() - started, 3),
        where=warehouse.label,
    )


def _cause_events(settings: Settings, sandbox: Running) -> int:
    """New customers subscribe and get a mail; returns how many events the receiver has acknowledged for it."""
    from pydantic import SecretStr

    from integrations.sendgrid import Message, SendGrid, SendGridConfig
    from integrations.stripe import Stripe, StripeConfig

    stripe = Stripe(StripeConfig(api_key=SecretStr(STRIPE_TEST_KEY), api_base=settings.stripe_api_base))
    sendgrid = SendGrid(SendGridConfig(api_key=SecretStr(SENDGRID_TEST_KEY), api_base=settings.sendgrid_api_base))
    price = stripe.sdk.v1.prices.list({"limit": 1}).data[0].id
    for email in CUSTOMERS:
        customer = stripe.customers.create(
            {
                "email": email,
                "payment_method": "pm_card_visa",
                "invoice_settings": {"default_payment_method": "pm_card_visa"},
            },
            operation_id=f"demo/{email}",
        )
        stripe.subscriptions.create(
            {
                "customer": customer.id,
                "items": [{"price": price}],
                "metadata": {"local_subscription_id": f"local-{email}"},
            },
            operation_id=f"demo/{email}",
        )
        welcome = Message("shop@example.com", (email,), "Welcome", text="Thank you for your subscription.")
        sendgrid.mail.send(welcome, operation_id=f"demo/{email}")
    deliveries = sandbox.sandbox.webhooks.deliveries
    _wait("the webhooks", None, lambda: all(delivery.state != "pending" for delivery in deliveries))
    if any(delivery.state == "failed" for delivery in deliveries):
        raise PivotalError("the receiver refused a webhook", hint="see data/demo/logs/receiver.log")
    return sum(len(delivery.events) for delivery in deliveries)


def _wait(what: str, children: Children | None, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + EVENTS_TIMEOUT
    while not done():
        if children:
            children.check()
        if time.monotonic() > deadline:
            raise PivotalError(f"{what} took longer than {EVENTS_TIMEOUT:g} s", hint="see data/demo/logs")
        time.sleep(0.1)


# --- the end --------------------------------------------------------------------------------------------------


def _show(lines: Sequence[Line]) -> None:
    table([field.name for field in fields(Line)], [astuple(line) for line in lines])
    if not any(line.loaded for line in lines):
        say("Nothing was loaded twice: every row and every event was there already.", bold=True)
    say("Worth trying next:", bold=True)
    say("  make dev                                       open Dagster's UI: assets, runs, checks")
    say("  .venv/bin/pivotal quarantine show payments     which rows broke which rules")
    say("  .venv/bin/pivotal quarantine replay payments   send them through again, after a fix")
