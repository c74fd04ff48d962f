"""From a change at the provider, while the receiver was down or is there, through Dagster's jobs to the row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import httpx
import pytest

from assets.reconciliation import reconciliation_jobs
from events.log import EventLog
from integrations.calendar import PRIMARY, Calendars
from resources import default_resources
from sandbox.graph import USER
from sandbox.serve import Running
from settings import get_settings
from tests.gateway.conftest import Gateway, serving
from tests.integrations.calendars import SECRET
from tests.reconciliation.conftest import Rows
from tests.reconciliation.test_calendars import CALL

Run = Callable[[], dg.ExecuteInProcessResult]


@pytest.fixture
def gateway(log: EventLog) -> Iterator[Gateway]:
    with serving(log, {"google_watch_secret": SECRET, "outlook_watch_secret": SECRET}) as gateway:
        yield gateway


@pytest.fixture
def run(calendars: Calendars, served: Running, gateway: Gateway, project: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the service's job as Dagster does, with everything from the environment."""
    login = served.sandbox.microsoft_login
    for name, value in {
        "EVENTS_URL": f"sqlite:///{project / 'events.db'}",
        "WAREHOUSE_URL": f"sqlite:///{project / 'warehouse.db'}",
        "GATEWAY_URL": f"http://127.0.0.1:{gateway.port}",
        "GOOGLE_CREDENTIALS": served.google_credentials,
        "GOOGLE_API_BASE": served.google_base,
        "GOOGLE_WATCH_SECRET": SECRET,
        "OUTLOOK_TENANT_ID": login.tenant_id,
        "OUTLOOK_CLIENT_ID": login.client_id,
        "OUTLOOK_CLIENT_SECRET": login.client_secret,
        "OUTLOOK_USER": USER,
        "OUTLOOK_API_BASE": served.graph_base,
        "OUTLOOK_LOGIN_BASE": served.microsoft_base,
        "OUTLOOK_WATCH_SECRET": SECRET,
    }.items():
        monkeypatch.setenv(f"PIVOTAL_{name}", value)
    get_settings.cache_clear()
    job = reconciliation_jobs[calendars.service.partition("_")[0]]
    given = {name: resource for name, resource in default_resources().items() if name != "io_manager"}
    return lambda: job.execute_in_process(resources=given, raise_on_error=False)


def wait_for(log: EventLog, kind: str) -> None:
    while kind not in log.counts():
        time.sleep(0.01)


def test_a_change_is_told_by_the_watch_that_the_job_made_and_read_by_its_next_run(
    calendars: Calendars, run: Run, log: EventLog, rows: Rows
) -> None:
    provider = calendars.service.partition("_")[0]
    call = calendars.create(PRIMARY, CALL, operation_id="call")
    assert run().success
    assert [row["title"] for row in rows("calendar_events")] == ["Call"]
    calendars.update(call, replace(call.draft, title="Call, moved"))
    wait_for(log, f"{provider}.calendar.changed")
    assert run().success
    assert [row["title"] for row in rows("calendar_events")] == ["Call, moved"]


@pytest.mark.parametrize("calendars", ["outlook"], indirect=True)
def test_graphs_word_that_a_subscription_is_gone_brings_a_new_one(
    served: Running, run: Run, log: EventLog, calendars: Calendars
) -> None:
    run()
    told = {"event": "subscriptionRemoved"}
    httpx.post(f"{served.url}/_sandbox/graph/lifecycle", json=told).raise_for_status()
    wait_for(log, "outlook.subscription.subscription_removed")
    calendars.create(PRIMARY, CALL, operation_id="call")
    result = run()
    assert result.success
    (metadata,) = [event.step_output_data.metadata for event in result.all_events if event.is_successful_output]
    assert metadata["new"].value == 1
    made = [call for call in served.sandbox.wire.calls if call.path.endswith("/subscriptions")]
    assert len(made) == 2


def test_a_receiver_that_is_down_does_not_keep_the_job_from_reading(
    calendars: Calendars, run: Run, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIVOTAL_GATEWAY_URL", "http://127.0.0.1:9")
    get_settings.cache_clear()
    calendars.create(PRIMARY, CALL, operation_id="call")
    assert run().success is (calendars.service != "outlook")  # Graph asks the receiver first
    assert [row["title"] for row in rows("calendar_events")] == ["Call"]
