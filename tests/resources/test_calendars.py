"""The calendars as Dagster resources, in a run of Dagster's, against the sandbox."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from errors import PivotalError
from events.log import open_log
from integrations.calendar import PRIMARY
from resources import default_resources
from resources.google_calendar import GoogleCalendarResource
from resources.outlook import OutlookResource
from sandbox.graph import USER
from sandbox.serve import Running
from settings import get_settings
from tests.integrations.calendars import DEMO


@dg.op
def invite_in_google(google_calendar: GoogleCalendarResource) -> str:
    with google_calendar.open() as calendar:
        return calendar.create(PRIMARY, DEMO, operation_id="demo-1").id


@dg.op
def invite_in_outlook(outlook: OutlookResource) -> str:
    with outlook.open() as calendar:
        return calendar.create(PRIMARY, DEMO, operation_id="demo-1").id


@dg.job
def inviting() -> None:
    invite_in_google()
    invite_in_outlook()


def test_ops_use_calendars_and_what_they_change_belongs_to_their_run(
    served: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login, url = served.sandbox.microsoft_login, f"sqlite:///{tmp_path / 'events.db'}"
    for name, value in {
        "EVENTS_URL": url,
        "GOOGLE_CREDENTIALS": served.google_credentials,
        "GOOGLE_API_BASE": served.google_base,
        "OUTLOOK_TENANT_ID": login.tenant_id,
        "OUTLOOK_CLIENT_ID": login.client_id,
        "OUTLOOK_CLIENT_SECRET": login.client_secret,
        "OUTLOOK_USER": USER,
        "OUTLOOK_API_BASE": served.graph_base,
        "OUTLOOK_LOGIN_BASE": served.microsoft_base,
    }.items():
        monkeypatch.setenv(f"PIVOTAL_{name}", value)
    get_settings.cache_clear()
    given = {name: default_resources()[name] for name in ("google_calendar", "outlook")}
    result = inviting.execute_in_process(resources=given)
    with closing(open_log(url)) as log:
        told = {each.event.type: each.event for each in log.read(0, 100)}
    google, outlook = (told[f"pivotal.{name}.event.created"] for name in given)
    assert google.aggregate_id == result.output_for_node("invite_in_google")
    assert outlook.aggregate_id == result.output_for_node("invite_in_outlook")
    assert {google.metadata.correlation_id, outlook.metadata.correlation_id} == {result.run_id}


def test_without_credentials_the_variable_is_named() -> None:
    with pytest.raises(PivotalError, match="PIVOTAL_GOOGLE_CREDENTIALS"), GoogleCalendarResource().open():
        pass
    with pytest.raises(PivotalError, match="PIVOTAL_OUTLOOK_CLIENT_ID"), OutlookResource(tenant_id="x").open():
        pass
